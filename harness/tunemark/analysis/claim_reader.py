"""Read claims from a file or pipe of another tool, by whichever importer recognizes its content.

No line raises an error: lines that are not understood are counted and shown. Memory is bounded for any length.
"""

from __future__ import annotations

import bz2
import codecs
import itertools
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tunemark.analysis.log_readers import LogReading
from tunemark.analysis.notebook_text import may_be_notebook, notebook_text
from tunemark.errors import BadData
from tunemark.plugin.catalog import load_object
from tunemark.plugin.claims import Claim, LogLine
from tunemark.plugin.descriptors import Importer

HEAD_BYTES = 1 << 16
# A document is parsed in memory as a whole: a hundred megabytes of JSON can take a gigabyte.
DOCUMENT_BYTES = 1 << 26
# No log has longer lines; they are split, so that memory is bounded for a file without line ends.
_LINE_CHARACTERS = 1 << 20
# Packed bytes are unpacked in pieces of so many: a file made to be small when packed may be 20,000 times as large.
_PACKED_BYTES = 1 << 11
PAUSE = 0
# With more than this share of control characters (except tabs) in its head, a file is not text.
_MAX_CONTROL_SHARE = 0.05

# ECMA-48: control sequences (CSI), operating system commands (OSC), and other two-character escapes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_LINE_END = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# What `_strip_controls` removes, and what ends a line other than a line feed.
_UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedSource:
    """The claims read from one source. lines: the non-blank ones; 0 for a document, which is parsed whole or refused.
    unknown: number and text of the first line that was not understood."""

    source: str
    claims: tuple[Claim, ...]
    importer: str | None
    lines: int
    understood: int
    unknown: tuple[int, str] | None

    def summary(self) -> str:
        """One sentence on how much of the source was read."""
        if not self.lines:
            return f"read {self.source} as {self.importer}" if self.importer else f"{self.source} is empty"
        text = f"read {self.understood:,} of {self.lines:,} lines of {self.source}"
        if self.unknown:
            number, line = self.unknown
            text += f"; {self.lines - self.understood:,} not understood, first at line {number}: {line[:80]!r}"
        return text


TimedChunk = tuple[bytes, float | None]
"""Bytes, and their arrival on a monotonic clock (None if they were already there)."""


class _Decompressor(Protocol):
    """What zlib, bz2 and lzma have in common."""

    def decompress(self, data: bytes, /) -> bytes: ...


# By the bytes that a compressed file begins with: gzip (RFC 1952), bzip2, xz.
_DECOMPRESSORS: Mapping[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lzma.LZMADecompressor,
}


def read_claims(
    chunks: Iterable[TimedChunk],
    id: str,
    source: str,
    importers: Sequence[Importer],
    columns: Mapping[str, str] | None = None,
) -> ParsedSource:
    """Read one source to its end.

    id: for claims whose content has no id. importers: asked by their priority. columns: what the user says of a table's
    headers; then only importers that take it are asked. Raises `BadData` if the content is
    binary, or a document that is broken or too long.
    """
    importers = sorted(importers, key=lambda importer: -importer.priority)
    stream = _decompress(iter(chunks))
    head: list[TimedChunk] = []
    for chunk in stream:
        head.append(chunk)
        # A live stream is a log: waiting for more of it would delay its lines' arrival stamps.
        if chunk[1] is not None or sum(len(data) for data, _ in head) >= HEAD_BYTES:
            break
    opening = b"".join(data for data, _ in head)[:HEAD_BYTES]
    content_chunks = itertools.chain(head, stream)
    for importer in importers:
        if importer.is_binary and importer.document and load_object(str(importer.is_document))(opening):
            found = tuple(load_object(importer.document)(id, source, bytes(_read_whole(content_chunks, source))))
            return ParsedSource(
                source=source, claims=found, importer=importer.name, lines=0, understood=0, unknown=None
            )
    if may_be_notebook(opening):
        printed = notebook_text(bytes(_read_whole(content_chunks, source)), source)
        opening, content_chunks = printed[:HEAD_BYTES], itertools.chain([(printed, None)])
    encoding = next((name for bom, name in _BOMS if opening.startswith(bom)), "utf-8")
    text = opening.decode(encoding, "replace").lstrip("\ufeff")
    if text and len(_CONTROLS.findall(_ESCAPES.sub("", text).replace("\r", ""))) > _MAX_CONTROL_SHARE * len(text):
        raise BadData(
            what=f"{source} is no text",
            why=f"its first {len(opening):,} bytes are full of control characters",
            next="give the log or the table itself; gzip, bzip2 and xz are unpacked here",
        )
    for importer in importers:
        if importer.is_binary or not importer.document or not importer.is_document:
            continue
        if columns and not importer.takes_columns:
            continue
        if load_object(importer.is_document)(text):
            content = _read_whole(content_chunks, source).decode(encoding, "replace").lstrip("\ufeff")
            further = (columns,) if importer.takes_columns else ()
            found = tuple(load_object(importer.document)(id, source, content, *further))
            return ParsedSource(
                source=source, claims=found, importer=importer.name, lines=0, understood=0, unknown=None
            )
    return _read_log(content_chunks, id, source, encoding, [i for i in importers if i.log])


def _read_log(
    chunks: Iterable[TimedChunk], id: str, source: str, encoding: str, importers: Sequence[Importer]
) -> ParsedSource:
    reading = LogReading(importers)
    for line in decode_lines(chunks, encoding):
        if line.text.strip():
            reading.read(line)
    return _parsed_log(reading, id, source)


def follow_claims(
    chunks: Iterable[TimedChunk], id: str, source: str, importers: Sequence[Importer]
) -> Iterator[ParsedSource]:
    """Read a log that grows: what is in it so far, at each empty chunk."""
    ordered = sorted((i for i in importers if i.log), key=lambda importer: -importer.priority)
    reading = LogReading(ordered)
    for line in decode_lines(chunks):
        if line.number == PAUSE:
            yield _parsed_log(reading, id, source)
        elif line.text.strip():
            reading.read(line)
    yield _parsed_log(reading, id, source)


def _parsed_log(reading: LogReading, id: str, source: str) -> ParsedSource:
    claims, understood, unknown = reading.claims()
    several = len(claims) > 1
    named = tuple(
        replace(claim, id=claim.id or (f"{id}#{number}" if several else id), source=claim.source or source)
        for number, (_, claim) in enumerate(claims, 1)
    )
    names = sorted({name for name, _ in claims})
    return ParsedSource(
        source=source, claims=named, importer=", ".join(names) or None, lines=reading.lines, understood=understood,
        unknown=unknown,
    )  # fmt: skip


def decode_lines(chunks: Iterable[TimedChunk], encoding: str = "utf-8") -> Iterator[LogLine]:
    """The lines of a stream, stamped with the arrival of the chunk that ended them. Undecodable bytes become U+FFFD;
    escape sequences and control characters are removed; a carriage return ends a line as a line feed does. An empty
    chunk makes an empty line whose number is PAUSE."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    rest = ""
    number = 1
    is_clean = True
    for data, arrived_s in chunks:
        if not data:
            yield LogLine(PAUSE, "", arrived_s)
            continue
        text = decoder.decode(data)
        # Most pieces have nothing to remove, which one look at the whole shows.
        is_piece_clean = _UNCLEAN.search(text) is None
        is_clean = is_clean and is_piece_clean
        *complete, last = _split_lines(text)
        is_rest_clean = is_piece_clean if complete else is_clean
        if complete:
            complete[0] = rest + complete[0]
            rest = last
        else:
            rest += last
        # If CR and LF are in two chunks, the LF makes an extra blank line, which is ignored.
        if rest.endswith("\r") or len(rest) > _LINE_CHARACTERS:
            complete.append(rest)
            rest = ""
        for piece in complete:
            yield LogLine(number, piece.rstrip("\n") if is_clean else _strip_controls(piece), arrived_s)
            number += piece.endswith("\n")
        is_clean = is_rest_clean
    rest += decoder.decode(b"", final=True)
    if rest:
        yield LogLine(number, _strip_controls(rest), None)


def _split_lines(text: str) -> list[str]:
    """The lines with their ends, and what follows the last end."""
    if "\r" in text:
        return _LINE_END.split(text)
    *complete, last = text.split("\n")
    return [*(line + "\n" for line in complete), last]


def _strip_controls(text: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", text)).rstrip("\n").lstrip("\ufeff")


def _decompress(chunks: Iterator[TimedChunk]) -> Iterator[TimedChunk]:
    """The chunks, unpacked if the file is compressed as a whole. A damaged or truncated rest is left out."""
    first = next(chunks, None)
    if first is None:
        return
    make = next((make for magic, make in _DECOMPRESSORS.items() if first[0].startswith(magic)), None)
    if make is None:
        yield first
        yield from chunks
        return
    unpack, is_started = make(), False
    pieces = (
        (data[at : at + _PACKED_BYTES], arrived_s)
        for data, arrived_s in itertools.chain([first], chunks)
        for at in range(0, len(data), _PACKED_BYTES)
    )
    for data, arrived_s in pieces:
        try:
            unpacked = unpack.decompress(data)
        except (zlib.error, OSError, EOFError, lzma.LZMAError):
            if not is_started:
                # It only begins like a compressed file: what it is instead is for the reader to say.
                yield data, arrived_s
            return
        is_started = is_started or bool(unpacked)
        if unpacked:
            yield unpacked, arrived_s


def _read_whole(chunks: Iterable[TimedChunk], source: str) -> bytearray:
    content = bytearray()
    for data, _ in chunks:
        content += data
        if len(content) > DOCUMENT_BYTES:
            raise BadData(
                what=f"{source} is longer than {DOCUMENT_BYTES >> 20} MiB",
                why="a document of this kind is held in memory as a whole",
                next="split it, or give the program's log instead, which may have any length",
            )
    return content
