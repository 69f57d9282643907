"""Text of files: opened by their first bytes (gzip, bzip2, xz, zstd, lz4), in the encoding that is given or marked."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tunemark.errors import BadData, BadExperiment

ENCODING_HELP = "encoding of text files (utf-8; utf-16 where a byte order mark says so)"
# What a compressed file begins with. RFC 1952, bzip2's and xz's formats, RFC 8878, and the frame format of LZ4.
_MAGIC: Mapping[bytes, str] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
# Suffixes of compressed files.
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4")
# Encodings that are suggested for a file that is not UTF-8: those with two bytes a character, and that of one byte.
_TWO_BYTES = ("gb18030", "shift_jis", "cp949", "big5")
_ONE_BYTE = "cp1252"
_SAMPLE_BYTES = 1 << 20


def read_encoding(name: str, options: Mapping[str, str]) -> str:
    """The value of the option `encoding`; `BadExperiment` if Python has no such encoding of text."""
    encoding = options.get("encoding", "utf-8")
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # LookupError for codecs that do not encode text
    except LookupError as error:
        raise BadExperiment(
            what=f"{name}: there is no encoding {encoding!r}",
            why=str(error),
            next="utf-8, latin-1, cp1252, utf-16, gb18030, shift_jis",
        ) from error
    return encoding


def open_binary(path: Path) -> IO[bytes]:
    """The uncompressed bytes of a file, whatever its suffix says."""
    with path.open("rb") as file:
        head = file.read(6)
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None:
        return path.open("rb")
    if kind in ("zstd", "lz4"):
        import pyarrow  # only for the formats that the standard library lacks

        stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), kind)
        return io.BufferedReader(stream)
    openers: Mapping[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    opened: IO[bytes] = openers[kind](path, "rb")
    return opened


def open_text(path: Path, encoding: str, newline: str | None = "") -> IO[str]:
    """Open for reading without a byte order mark. newline: as of `open`."""
    binary = open_binary(path)
    if codecs.lookup(encoding).name == "utf-8":
        buffered = io.BufferedReader(binary)  # type: ignore[type-var]  # has readinto, as every stream here
        mark = buffered.peek(2)[:2]
        encoding = "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        binary = buffered
    return io.TextIOWrapper(binary, encoding=encoding, newline=newline)


@contextlib.contextmanager
def report_unreadable(name: str, path: Path, encoding: str) -> Iterator[None]:
    """Turn errors of reading a file's text into a `BadData` with the file, and where it can be found the line."""
    try:
        yield
    except UnicodeError as error:
        line = _find_undecodable_line(path, encoding)
        raise BadData(
            what=f"{name}: cannot use {str(path)!r}: it is not text in {encoding.upper()}",
            why=f"{f'line {line}: ' if line else ''}{error}",
            next=_suggest_encoding(name, path),
        ) from error
    # All but the first: a compressed file that was cut or damaged, in zstd and lz4 pyarrow's ValueError.
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise BadData(
            what=f"{name}: cannot use {str(path)!r}: it cannot be read to its end",
            why=f"{type(error).__name__}: {error}",
            next="download or compress it again",
        ) from error


def _find_undecodable_line(path: Path, encoding: str) -> int | None:
    """Number of the first line that cannot be decoded; None where lines do not end in one byte."""
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        return None
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return number
    return None


def _suggest_encoding(name: str, path: Path) -> str:
    with open_binary(path) as file:
        sample = file.read(_SAMPLE_BYTES)
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    # Characters of two bytes stand in runs, those of Western languages alone between letters.
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    order = (_ONE_BYTE, *_TWO_BYTES) if sum(runs) < 2 * len(runs) else (*_TWO_BYTES, _ONE_BYTE)
    found = [each for each in order if _decodes(sample, each)]
    if not found:
        return "convert it to UTF-8, or give another file with path=FILE"
    also = f" (its bytes are also valid in {', '.join(found[1:])}: you know which)" if found[1:] else ""
    return f"say its encoding, {name}:path=FILE:encoding={found[0]}{also}; or convert it: iconv -f {found[0]} -t utf-8"


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        sample.decode(encoding)
    except UnicodeError:
        return False
    return True
