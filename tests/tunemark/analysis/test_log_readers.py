"""Of a very long log a part is read: stretches of whole lines, and every line that is not like those before."""

from __future__ import annotations

from tunemark.analysis.log_readers import LogReading
from tunemark.plugin.claims import Claim, LogLine
from tunemark_importers.plugin import tunemark_importers


def _read(lines: list[str], read_whole: int) -> tuple[Claim, int, int]:
    reading = LogReading([importer for importer in tunemark_importers() if importer.log], read_whole=read_whole)
    for number, text in enumerate(lines, 1):
        reading.read(LogLine(number, text))
    ((_, claim),), understood, _ = reading.claims()
    return claim, understood, reading.lines


def _lines(count: int) -> list[str]:
    return [f"completed step: {n}, seconds: 2.0, Tokens/s/device: 4{n % 1000:03d}.5, loss: 2.5" for n in range(count)]


def test_a_long_log_is_read_in_stretches_and_says_so() -> None:
    claim, understood, lines = _read(_lines(9000), read_whole=1000)
    assert understood == lines == 9000
    # The first stretch of 4,096 lines has the number 0 and is read, the next two are passed over.
    numbers = [step.number for step in claim.steps]
    assert numbers == [float(n) for n in range(4095)]
    assert any("one stretch in 16 is read" in note for note in claim.notes)


def test_a_shorter_log_is_read_whole() -> None:
    claim, _, _ = _read(_lines(5000), read_whole=5000)
    assert (len(claim.steps), claim.notes) == (5000, ())


def test_what_is_not_like_the_lines_before_is_always_read() -> None:
    lines = _lines(9000)
    lines[6000] = "completed step: 6000, seconds: 2.0, Tokens/s/device: nan, loss: nan"
    lines[7000] = "torch.OutOfMemoryError: CUDA out of memory."
    claim, _, _ = _read(lines, read_whole=1000)
    assert [event.line for event in claim.events] == [7001]
    assert 6000.0 in [step.number for step in claim.steps]


def test_a_reader_of_any_lines_is_spared_what_another_reads_and_counts_it() -> None:
    # So many lines that the general reader is no longer offered them; its own reading must not appear beside the other.
    claim, understood, _ = _read(_lines(3000), read_whole=5000)
    assert (claim.tool, len(claim.steps), understood) == ("maxtext", 3000, 3000)
