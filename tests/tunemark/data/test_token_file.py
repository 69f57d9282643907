"""Token files: what is in them, what is trained on, and when they are made anew."""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tunemark.data import PreparedData, prepare_data, read_token_file
from tunemark.errors import BadData, BadExperiment, BadStore
from tunemark.plugin import Architecture, Dataset, Example, ExamplePiece, Model, TokenizerSpec
from tunemark_worker.contract import HEADER_BYTES, SCHEMA, token_file_offsets

_MODEL = Model(
    name="small",
    architecture=Architecture(
        model_type="mistral",
        vocab_size=32000,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
    ),
    tokenizer=TokenizerSpec(name="mistral-v1", loader="tunemark_mistral.tokenizer:load_v1"),
    runtime="nowhere:Nothing",
)


@dataclass
class _Made:
    """A dataset of given examples; `opened` counts how often they were read."""

    rows: list[Example]
    name: str = "made"
    opened: int = 0

    def __call__(self, options: Mapping[str, str], vocab_size: int) -> "_Made":
        return self

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.rows).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        return {"rows": len(self.rows)}

    def examples(self) -> Iterator[Example]:
        self.opened += 1
        yield from self.rows


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> _Made:
    source = _Made([])
    load = prepare_data.__globals__["load_object"]
    stub = lambda name: source if name == "made:source" else load(name)  # noqa: E731  # shorter than a function
    monkeypatch.setitem(prepare_data.__globals__, "load_object", stub)
    return source


_TEXT = Dataset(name="made", loader="made:source", options={"a": "anything"})
_IDS = replace(_TEXT, needs_tokenizer=False)


def _texts(*pieces: tuple[str, str]) -> Example:
    return Example(pieces=tuple(ExamplePiece(role=role, text=text) for role, text in pieces))  # type: ignore[arg-type]  # a literal


def _prepared(tmp_path: Path, dataset: Dataset = _TEXT, train_on: str = "all") -> PreparedData:
    return prepare_data(dataset, {}, _MODEL, train_on, cache=tmp_path)


def _documents(prepared: PreparedData) -> list[tuple[list[int], list[int]]]:
    """(ids, trained) of each document."""
    ids, trained, offsets = read_token_file(Path(prepared.token_file.path))
    edges = offsets.tolist()
    return [(ids[a:b].tolist(), trained[a:b].tolist()) for a, b in itertools.pairwise(edges)]


def test_layout_reads_back(tmp_path: Path, made: _Made) -> None:
    import sentencepiece

    from tunemark_mistral.tokenizer import load_v1

    rng = random.Random(5)
    words = ["if", " ", "\n    ", "é", "😀", "𐍈", "x = 1", "日本"]
    rows = [["".join(rng.choices(words, k=rng.randrange(9))) for _ in range(2)] for _ in range(50)]
    made.rows = [_texts(("prompt", a), ("response", b)) for a, b in rows]
    prepared = _prepared(tmp_path)
    file = prepared.token_file
    content = Path(file.path).read_bytes()
    assert Path(file.path).is_absolute()
    assert hashlib.sha256(content).hexdigest() == file.sha256
    assert len(content) == token_file_offsets(file.documents, file.tokens).end
    header = json.loads(content[:HEADER_BYTES])
    assert header == {
        "schema": SCHEMA,
        "dataset": "made",
        "tokenizer": "mistral-v1",
        "train_on": "all",
        "documents": 50,
        "tokens": file.tokens,
        "pad_id": 2,
    }
    reference = sentencepiece.SentencePieceProcessor(model_file=str(load_v1().path))
    expected = [[1, *reference.encode(a + b), 2] for a, b in rows]
    assert _documents(prepared) == [(ids, [1] * len(ids)) for ids in expected]
    assert prepared.facts["origin"] == {"rows": 50}
    assert prepared.facts["tokens"] == file.tokens
    # Nothing predicts a document's first token.
    assert prepared.facts["trained_tokens"] == file.tokens - 50


def test_what_is_trained_does_not_change_the_ids(tmp_path: Path, made: _Made) -> None:
    # Without a blank between the pieces a token may cross them: it belongs where its last character is.
    made.rows = [_texts(("prompt", "Ask: 𐍈re"), ("response", "turn 𐍈")), _texts(("response", "alone"))]
    everything = _documents(_prepared(tmp_path))
    response = _documents(_prepared(tmp_path, train_on="response"))
    assert [ids for ids, _ in everything] == [ids for ids, _ in response]

    from tunemark_mistral.tokenizer import load_v1

    ((ids, ends),) = load_v1().encode_with_ends(["Ask: 𐍈return 𐍈"])
    boundary = len("Ask: 𐍈re")
    assert response[0] == ([1, *ids, 2], [0, *(int(end > boundary) for end in ends), 1])
    # Four bytes of the last character, the blank before it, and eos.
    assert response[0][1][-6:] == [1] * 6
    assert response[1][1] == [0] + [1] * (len(response[1][0]) - 1)


def test_bytes_of_a_response_are_trained_and_of_a_prompt_are_not(tmp_path: Path, made: _Made) -> None:
    made.rows = [_texts(("prompt", "a𐍈"), ("response", "𐍈"))]
    ((ids, trained),) = _documents(_prepared(tmp_path, train_on="response"))
    assert len(ids) == 1 + 1 + 4 + 4 + 1
    assert trained == [0] + [0] * 5 + [1] * 4 + [1]


def test_pieces_take_turns(tmp_path: Path, made: _Made) -> None:
    made.rows = [_texts(("prompt", "1\n"), ("response", "2\n"), ("prompt", ""), ("prompt", "3\n"), ("response", "4"))]
    ((ids, trained),) = _documents(_prepared(tmp_path, train_on="response"))
    assert len(ids) == 1 + 8 + 1
    assert trained == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1]


def test_ids_are_taken_as_they_are(tmp_path: Path, made: _Made) -> None:
    made.rows = [
        Example(pieces=(ExamplePiece(role="prompt", ids=(5, 6)), ExamplePiece(role="response", ids=(7,)))),
        Example(pieces=(ExamplePiece(ids=(8, 31999)),)),
    ]
    assert _documents(_prepared(tmp_path, _IDS)) == [([5, 6, 7], [1, 1, 1]), ([8, 31999], [1, 1])]
    response = _prepared(tmp_path, _IDS, "response")
    assert _documents(response) == [([5, 6, 7], [0, 0, 1]), ([8, 31999], [1, 1])]
    assert response.facts["tokenizer"] is None
    # The id 7, and of the document that is all response all but the first.
    assert response.facts["trained_tokens"] == 2


def test_the_same_is_made_once_and_found_again(tmp_path: Path, made: _Made) -> None:
    made.rows = [_texts(("response", "one"))]
    first = _prepared(tmp_path)
    again = _prepared(tmp_path)
    assert (first.cached, again.cached, made.opened) == (False, True, 1)
    assert (again.token_file, again.facts) == (first.token_file, first.facts)
    made.rows = [_texts(("response", "two"))]
    assert not _prepared(tmp_path).cached
    assert not prepare_data(_TEXT, {"a": "1"}, _MODEL, "all", cache=tmp_path).cached


def test_the_file_grows_while_examples_are_read(tmp_path: Path, made: _Made) -> None:
    sizes: list[int] = []

    class Rows(list[Example]):
        """Two batches and a half, and how much is on disk when each is begun."""

        def __iter__(self) -> Iterator[Example]:
            for n in range(5000):
                if n % 2048 == 1:
                    sizes.append(sum(path.stat().st_size for path in (tmp_path / "tokens").glob(".tmp-*")))
                yield _texts(("response", "word " * 20))

    made.rows = Rows()
    prepared = _prepared(tmp_path)
    assert prepared.token_file.documents == 5000
    # 22 ids of 4 bytes in each of 2048 documents, less what is still buffered.
    assert len(sizes) == 3
    assert sizes[1] - sizes[0] > 100_000
    assert sizes[2] - sizes[1] > 100_000
    assert sizes[2] < Path(prepared.token_file.path).stat().st_size


def test_making_it_twice_gives_the_same_bytes(tmp_path: Path, made: _Made) -> None:
    made.rows = [_texts(("prompt", "one"), ("response", " two"))] * 5
    first = _prepared(tmp_path / "a", train_on="response")
    second = _prepared(tmp_path / "b", train_on="response")
    assert first.token_file.sha256 == second.token_file.sha256
    assert Path(first.token_file.path).name == Path(second.token_file.path).name


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "index"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, made: _Made, damage: str) -> None:
    made.rows = [_texts(("response", "whole"))]
    first = _prepared(tmp_path)
    path = Path(first.token_file.path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[HEADER_BYTES] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "remove":
        path.unlink()
    else:
        (index,) = path.parent.glob("key-*.json")
        index.write_text('{"sha256":')
    again = _prepared(tmp_path)
    assert not again.cached
    assert again.token_file == first.token_file
    assert hashlib.sha256(path.read_bytes()).hexdigest() == first.token_file.sha256
    assert _prepared(tmp_path).cached
    assert not list(path.parent.glob(".tmp-*"))


def test_the_cache_follows_the_environment(tmp_path: Path, made: _Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.rows = [_texts(("response", "here"))]
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, folder in (("", "home/.cache/tunemark"), ("XDG_CACHE_HOME", "xdg/tunemark"), ("TUNEMARK_CACHE", "own")):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("TUNEMARK_CACHE", raising=False)
        if name:
            monkeypatch.setenv(name, str(tmp_path / folder.partition("/")[0]))
        path = Path(prepare_data(_TEXT, {}, _MODEL, "all").token_file.path)
        assert path.parent == tmp_path / folder / "tokens"


def test_a_cache_that_cannot_be_written(tmp_path: Path, made: _Made) -> None:
    made.rows = [_texts(("response", "here"))]
    (tmp_path / "file").write_text("")
    with pytest.raises(BadStore, match="cannot write the token cache"):
        _prepared(tmp_path / "file")


def test_bad_examples_are_refused(tmp_path: Path, made: _Made) -> None:
    def refused(rows: list[Example], says: str, dataset: Dataset = _TEXT, train_on: str = "all") -> None:
        made.rows = rows
        with pytest.raises(BadData, match=says):
            _prepared(tmp_path, dataset, train_on)

    refused([], "has no documents")
    refused([Example(pieces=())], "has no documents", _IDS)
    refused([Example(pieces=(ExamplePiece(ids=(32000,)),))], "outside the vocabulary", _IDS)
    refused([Example(pieces=(ExamplePiece(ids=(-1,)),))], "outside the vocabulary", _IDS)
    refused([Example(pieces=(ExamplePiece(ids=(2**40,)),))], "not a 32-bit number", _IDS)
    refused([Example(pieces=(ExamplePiece(role="prompt", ids=(1,)),))], "no token of the dataset", _IDS, "response")
    refused([_texts(("response", "text"))], "sets needs_tokenizer=False", _IDS)
    refused([_texts(("response", "fine")), _texts(("response", "\ud800"))], "example 2 is not valid Unicode")
    refused([Example(pieces=(ExamplePiece(text="a"), ExamplePiece(ids=(1,))))], "mixes text and ids")
    assert not list(tmp_path.rglob("*.tokens"))


def test_a_model_with_too_small_a_vocabulary(tmp_path: Path, made: _Made) -> None:
    made.rows = [_texts(("response", "text"))]
    model = replace(_MODEL, architecture=replace(_MODEL.architecture, vocab_size=100))
    with pytest.raises(BadData, match="outside the vocabulary"):
        prepare_data(_TEXT, {}, model, "all", cache=tmp_path)


def test_unknown_words_are_refused(tmp_path: Path, made: _Made) -> None:
    with pytest.raises(BadExperiment, match="no train_on 'respones'"):
        _prepared(tmp_path, train_on="respones")
    with pytest.raises(BadExperiment, match="has no option 'b'"):
        prepare_data(_TEXT, {"b": "1"}, _MODEL, "all", cache=tmp_path)


def test_what_is_no_token_file(tmp_path: Path, made: _Made) -> None:
    made.rows = [_texts(("response", "text"))]
    content = Path(_prepared(tmp_path).token_file.path).read_bytes()
    for wrong in (b"", b"garbage", content[:-8], content.replace(b'"schema": 1', b'"schema": 0')):
        path = tmp_path / "wrong"
        path.write_bytes(wrong)
        with pytest.raises(BadData, match="not a token file"):
            read_token_file(path)
    with pytest.raises(BadData, match="not a token file"):
        read_token_file(tmp_path / "nowhere")
