"""What a run will make of its data, against counts by hand and against the rows that the worker forms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tunemark.data import DataSummary, RowSettings, prepare_data, summarize_data
from tunemark.plugin import Architecture, Dataset, Example, ExamplePiece, Model
from tunemark_worker.row_packing import make_batch_rows, training_lengths

_MODEL = Model(
    name="small",
    tokenizer=None,
    architecture=Architecture(
        model_type="small", vocab_size=100, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    ),
    runtime="nowhere:Nothing",
)  # fmt: skip


class _Ids:
    """Documents of `prompt` and `response` ids."""

    def __init__(self, lengths: Sequence[tuple[int, int]]) -> None:
        self._lengths = lengths

    def fingerprint(self) -> str:
        return str(self._lengths)

    def facts(self) -> dict[str, object]:
        return {}

    def examples(self) -> list[Example]:
        return [
            Example(pieces=(ExamplePiece(role="prompt", ids=(1,) * p), ExamplePiece(ids=(2,) * r)))
            for p, r in self._lengths
        ]


_lengths: list[tuple[int, int]] = []


def load(options: object, vocab_size: int) -> _Ids:
    return _Ids(list(_lengths))


def _summarize(
    folder: Path, lengths: Sequence[tuple[int, int]], train_on: str = "all", **settings: object
) -> DataSummary:
    _lengths[:] = lengths
    dataset = Dataset(name="ids", loader=f"{__name__}:load", needs_tokenizer=False)
    prepared = prepare_data(dataset, {}, _MODEL, train_on, cache=folder)
    given = {"sequence": 8, "batching": "pack", "micro_batch": 1, "global_batch": 2, "seed": 0, **settings}
    return summarize_data(prepared, RowSettings(**given))  # type: ignore[arg-type]


def test_counts_by_hand(tmp_path: Path) -> None:
    # Lengths 4, 10, 12 and 3 at a sequence of 8: 2 and 4 tokens are cut; rows of 8, 8 and 7 tokens when packed.
    found = _summarize(tmp_path, [(2, 2), (4, 6), (9, 3), (1, 2)], epochs=3)
    assert (found.documents, found.tokens, found.tokens_by_role) == (4, 29, {"prompt": 16, "response": 13})
    assert (found.truncated_documents, found.cut_tokens, found.cut_fraction) == (2, 6, 6 / 29)
    # Each document's first token is predicted by nothing.
    assert found.trained_tokens == 3 + 7 + 7 + 2
    assert (found.rows, found.slots, found.padding_fraction) == (3, 24, 1 / 24)
    # Each micro-batch has one row: all of them are 8 wide, as with `pad`.
    assert found.padding_by_batching == {"pad": 1 - 23 / 32, "bucket": 1 - 23 / 32, "pack": 1 / 24}
    assert (found.steps_per_epoch, found.steps, found.unused_rows) == (1.5, 4, 1)
    assert [tuple(bar) for bar in found.histogram] == [(2, 3, 1), (4, 7, 1), (8, 15, 2)]
    assert found.length_quantiles == {"5 %": 3, "50 %": 4, "95 %": 10}


def test_answers_beyond_the_sequence_leave_a_document_untrained(tmp_path: Path) -> None:
    found = _summarize(tmp_path, [(2, 2), (4, 6), (9, 3), (1, 2)], "response")
    # Of the second, 4 of 6 answers are within 8 tokens; of the third, none.
    assert found.trained_tokens == 2 + 4 + 0 + 2
    assert found.untrained_documents == 1
    assert (found.steps, found.unused_rows) == (None, None)


@pytest.mark.parametrize("batching", ["pad", "pack", "bucket"])
@pytest.mark.parametrize("held", [0, 7])
def test_rows_are_those_of_the_worker(tmp_path: Path, batching: str, held: int) -> None:
    draw = random.Random(3)
    lengths = [(draw.randrange(0, 9), draw.randrange(1, 30)) for _ in range(200)]
    found = _summarize(tmp_path, lengths, batching=batching, epochs=4, sequence=16, global_batch=3, held=held, seed=5)
    prepared = training_lengths([p + r for p, r in lengths], held)
    rows = [row for _, row in make_batch_rows(prepared, 16, batching, 5, 4, 3)]
    assert found.steps is not None
    assert found.unused_rows is not None
    assert found.steps * 3 + found.unused_rows == len(rows)
    content = sum(part.length for epoch, row in make_batch_rows(prepared, 16, batching, 5, 1, 3) for part in row)
    assert found.padding_fraction == pytest.approx(1 - content / found.slots)
    assert found.held_out_documents == held
    # Everything within the sequence is trained on, but for first tokens.
    assert found.trained_tokens == content - sum(length > 0 for length in prepared)


def test_grouped_rows_are_as_wide_as_the_longest_of_their_micro_batch(tmp_path: Path) -> None:
    # Sorted: 3, 4, 10, 12, so that micro-batches of two are 8 and 16 wide, at every seed.
    for seed in range(3):
        settings = {"batching": "bucket", "sequence": 64, "micro_batch": 2, "global_batch": 2, "seed": seed}
        found = _summarize(tmp_path, [(2, 2), (4, 6), (9, 3), (1, 2)], **settings)
        assert (found.rows, found.slots, found.mean_width, found.widest) == (4, 2 * 8 + 2 * 16, 12, 16)
        assert found.padding_fraction == found.padding_by_batching["bucket"] == 19 / 48
    # Their longest row is cut at the sequence.
    found = _summarize(tmp_path, [(2, 2), (4, 6), (9, 3), (1, 2)], **{**settings, "sequence": 11})
    assert (found.slots, found.widest) == (2 * 8 + 2 * 11, 11)


def test_a_document_longer_than_what_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunemark.data.data_summary._CHUNK_TOKENS", 5)
    found = _summarize(tmp_path, [(2, 2), (1, 40), (0, 1), (3, 3)], "response", sequence=64)
    assert found.trained_tokens == 2 + 40 + 0 + 3
    assert found.untrained_documents == 1


def test_bars_are_few_and_hold_all_documents(tmp_path: Path) -> None:
    found = _summarize(tmp_path, [(0, 1 << n) for n in range(14)])
    assert len(found.histogram) == 10
    assert found.histogram[-1].last is None
    assert sum(bar.documents for bar in found.histogram) == 14
