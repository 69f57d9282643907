"""TensorBoard's event files, written by its own package: scalars by tag, and a clear word where there are none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from tunemark.errors import BadData
from tunemark_importers import tensorboard_events

_STARTED_S = 1738403600.0


def _events(path: Path, tags: dict[str, list[float]]) -> bytes:
    """An event file with those scalars, ten steps and four seconds apart."""
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(event_pb2.Event(wall_time=_STARTED_S, file_version="brain.Event:2").SerializeToString())
        for at in range(max(map(len, tags.values()))):
            for tag, values in tags.items():
                value = summary_pb2.Summary.Value(tag=tag, simple_value=values[at])
                event = event_pb2.Event(
                    wall_time=_STARTED_S + 4 * at, step=10 * (at + 1), summary=summary_pb2.Summary(value=[value])
                )
                writer.write(event.SerializeToString())
        writer.flush()
    return path.read_bytes()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    tags = {"train/loss": [2.5, 2.25, 2.0], "train/tokens_per_sec_per_gpu": [2048.0, 2050.5, 2049.25]}
    return _events(tmp_path / "events", tags)


def test_scalars_of_a_step_are_one_step(content: bytes) -> None:
    assert tensorboard_events.is_document(content)
    (claim,) = tensorboard_events.document("x", "events.out.tfevents.1", content)
    assert (claim.tool, claim.scope, claim.rate_name) == ("tensorboard", "device", "train/tokens_per_sec_per_gpu")
    assert [(s.number, s.tokens_per_s, s.loss) for s in claim.steps] == [
        (10, 2048.0, 2.5),
        (20, 2050.5, 2.25),
        (30, 2049.25, 2.0),
    ]
    assert [s.stamp_s for s in claim.steps] == [_STARTED_S, _STARTED_S + 4, _STARTED_S + 8]


def test_what_was_written_before_a_damage_is_read(content: bytes) -> None:
    (claim,) = tensorboard_events.document("x", "events.out.tfevents.1", content[:-20])
    assert [s.number for s in claim.steps][:2] == [10, 20]


def test_a_file_without_a_figure_says_what_it_has(tmp_path: Path) -> None:
    content = _events(tmp_path / "events", {"eval/accuracy": [0.5, 0.75]})
    with pytest.raises(BadData, match="TensorBoard event file") as caught:
        tensorboard_events.document("x", "events.out.tfevents.1", content)
    assert caught.value.why == "its scalars are eval/accuracy"
    with pytest.raises(BadData, match="TensorBoard event file"):
        tensorboard_events.document("x", "events.out.tfevents.1", content[:40])


def test_a_damaged_file_never_crashes_and_never_invents_a_number(content: bytes) -> None:
    dice = random.Random(7)
    written = {2048.0, 2050.5, 2049.25}
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        try:
            claims = tensorboard_events.document("x", "events", bytes(damaged))
        except BadData:
            continue
        # Each record has a check sum.
        assert {s.tokens_per_s for claim in claims for s in claim.steps} <= {*written, None}


def test_other_files_are_not_events() -> None:
    assert not tensorboard_events.is_document(b"\x1f\x8b")
    assert not tensorboard_events.is_document(b"step 1 | loss 2.0\n")
