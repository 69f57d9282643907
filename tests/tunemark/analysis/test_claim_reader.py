"""Somebody else's bytes become lines and claims, whatever they are, in bounded memory, and nothing is invented."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunemark.analysis.claim_reader import decode_lines, read_claims
from tunemark.errors import BadData
from tunemark.plugin import Importer
from tunemark.plugin.claims import Claim, LoggedStep, LoggedSteps, LogLine


class RateReader:
    """Understands `rate N` alone."""

    def __init__(self) -> None:
        self.steps = LoggedSteps()

    def read(self, line: LogLine) -> bool:
        word, _, number = line.text.partition(" ")
        if word != "rate" or not number.strip().isdigit():
            return False
        self.steps.add(LoggedStep(line.number, tokens_per_s=float(number), arrived_s=line.arrived_s))
        return True

    def claims(self) -> list[Claim]:
        return [Claim(id="", source="", tool="rates", steps=self.steps)] if len(self.steps) else []


def is_document(head: str) -> bool:
    return head.startswith("{")


def document(id: str, source: str, text: str) -> list[Claim]:
    return [Claim(id=id, source=source, tool="document", tokens_per_s=float(len(text)))]


_LOG = Importer(name="rates", meaning="made up", log=f"{__name__}:RateReader")
_DOCUMENT = Importer(
    name="document", meaning="made up", document=f"{__name__}:document", is_document=f"{__name__}:is_document"
)


def _chunks(content: bytes, size: int) -> list[tuple[bytes, float | None]]:
    return [(content[i : i + size], None) for i in range(0, len(content), size)]


@given(content=st.binary(max_size=200), size=st.integers(1, 20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(content: bytes, size: int) -> None:
    whole = [line for line in decode_lines([(content, None)]) if line.text]
    assert [line for line in decode_lines(_chunks(content, size)) if line.text] == whole


def test_escapes_and_overwritten_progress_leave_plain_text_with_its_line_number() -> None:
    content = "\x1b]0;title\x07\x1b[1;31mone\x1b[0m\r\n 10%\r 20%\r\nthrée\x00".encode()
    assert [(line.number, line.text) for line in decode_lines([(content, None)]) if line.text] == [
        (1, "one"),
        (2, " 10%"),
        (2, " 20%"),
        (3, "thrée"),
    ]


def test_bytes_of_another_encoding_cost_their_characters_alone() -> None:
    assert [line.text for line in decode_lines([(b"caf\xe9 1\nrate 2\n", None)])] == ["caf\ufffd 1", "rate 2"]


def test_what_was_not_understood_is_counted_and_shown() -> None:
    found = read_claims([(b"rate 1\n\nhello\nrate 3\nrate x\n", None)], "a.log", "/logs/a.log", [_DOCUMENT, _LOG])
    assert (found.lines, found.understood, found.unknown) == (4, 2, (3, "hello"))
    assert found.summary() == "read 2 of 4 lines of /logs/a.log; 2 not understood, first at line 3: 'hello'"
    (claim,) = found.claims
    assert (claim.id, claim.source) == ("a.log", "/logs/a.log")
    assert [(s.line, s.tokens_per_s) for s in claim.steps] == [(1, 1.0), (4, 3.0)]


def test_lines_of_a_pipe_are_stamped_with_their_arrival() -> None:
    found = read_claims([(b"rate 1\nra", 5.0), (b"te 2\n", 7.5)], "-", "standard input", [_LOG])
    assert [s.arrived_s for s in found.claims[0].steps] == [5.0, 7.5]


def test_a_document_is_recognised_by_its_content() -> None:
    found = read_claims([(b"\xef\xbb\xbf{12}", None)], "x.txt", "x.txt", [_LOG, _DOCUMENT])
    assert (found.importer, found.claims[0].tokens_per_s) == ("document", 4.0)


@pytest.mark.parametrize("content", [b"\x7fELF" + bytes(range(32)) * 40, b"\x1f\x8b\x08\x00" + b"\x00\x01\x02" * 99])
def test_a_binary_file_is_refused(content: bytes) -> None:
    with pytest.raises(BadData, match="is no text"):
        read_claims([(content, None)], "a", "a", [_LOG])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_log_is_read_as_what_is_in_it(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"rate 1\n" * 1000)
    for size in (7, len(packed)):
        (claim,) = read_claims(_chunks(packed, size), "a.gz", "a.gz", [_LOG]).claims
        assert len(claim.steps) == 1000
    # The last bytes of a log that is still being written, or was cut off, are missing: what can be read is.
    cut = pack(b"".join(b"rate %d\n" % (n * 7919 % 10007) for n in range(200_000)))
    found = read_claims(_chunks(cut[: len(cut) // 2], 1 << 16), "a.gz", "a.gz", [_LOG])
    assert 1000 < found.understood < 199_000


def is_binary_document(head: bytes) -> bool:
    return head.startswith(b"\x00\x01")


def binary_document(id: str, source: str, content: bytes) -> list[Claim]:
    return [Claim(id=id, source=source, tool="bytes", tokens_per_s=float(len(content)))]


def test_an_importer_of_a_binary_format_gets_its_bytes() -> None:
    binary = Importer(
        name="bytes", meaning="made up", document=f"{__name__}:binary_document", is_binary=True,
        is_document=f"{__name__}:is_binary_document",
    )  # fmt: skip
    found = read_claims(_chunks(b"\x00\x01" * 50, 9), "a", "a", [_LOG, binary, _DOCUMENT])
    assert (found.importer, found.claims[0].tokens_per_s) == ("bytes", 100.0)


class LossReader(RateReader):
    """Recognizes the same lines as `RateReader`, and finds no figure in them."""

    def read(self, line: LogLine) -> bool:
        if not line.text.startswith("rate"):
            return False
        self.steps.add(LoggedStep(line.number, loss=1.0))
        return True


def test_a_reader_without_a_figure_does_not_keep_the_lines_from_others() -> None:
    vague = Importer(name="vague", meaning="made up", log=f"{__name__}:LossReader", priority=5)
    found = read_claims([(b"rate 1\nrate 2\n", None)], "a", "a", [vague, _LOG])
    assert (found.importer, found.understood) == ("rates", 2)
    # Alone it is kept: its losses say what the log lacks.
    assert read_claims([(b"rate 1\n", None)], "a", "a", [vague]).importer == "vague"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out-of-memory"),
        ("[rank3]:[E1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)", "communication"),
        ("slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***", "killed"),
        ("RuntimeError: it did not work", "error"),
        ("error 0.01, timeout 30 s, memory 12 GB", None),
    ],
)
def test_failures_that_a_log_tells_of_are_kept(text: str, kind: str | None) -> None:
    (claim,) = read_claims([(b"rate 1\n" + text.encode() + b"\n", None)], "a", "a", [_LOG]).claims
    assert [(event.line, event.kind) for event in claim.events] == ([(2, kind)] if kind else [])


def test_a_log_of_many_lines_of_one_kind_is_read_to_its_end() -> None:
    # Readers that rejected a kind of line are asked less often; one that begins late still reads all.
    found = read_claims([(b"noise 12\n" * 500 + b"rate 3\n" * 500, None)], "a", "a", [_LOG, _DOCUMENT])
    assert (found.lines, found.understood) == (1000, 500)


def test_nothing_at_all_is_no_claim() -> None:
    found = read_claims([], "a", "a", [_LOG])
    assert (found.claims, found.summary()) == ((), "a is empty")


def test_utf16_with_its_mark_is_text() -> None:
    assert len(read_claims([("rate 7\n".encode("utf-16"), None)], "a", "a", [_LOG]).claims) == 1


def test_a_very_long_log_is_thinned_and_a_printed_nan_is_no_unknown() -> None:
    steps = LoggedSteps()
    for number in range(500_001):
        steps.add(LoggedStep(number + 1, number=number, loss=math.nan if number % 2 else None, mfu=-math.nan))
    rows = list(steps)
    assert len(rows) <= 200_000
    assert (steps.seen, rows[0].number, rows[-1].number) == (500_001, 0.0, 500_000.0)
    assert rows[1].number == steps.stride
    assert rows[0].loss is None
    assert math.isnan(rows[0].mfu or 0)


def test_importers_are_asked_by_their_priority() -> None:
    last = Importer(name="any", meaning="made up", log=f"{__name__}:RateReader", priority=-1)
    first = Importer(name="strange", meaning="made up", log=f"{__name__}:RateReader", priority=1)
    for importers, name in (([last, _LOG], "rates"), ([_LOG, last, first], "strange")):
        assert read_claims([(b"rate 1\n", None)], "a", "a", importers).importer == name
