"""The dataset `text`: plain text of any size from a file or a folder, read as a stream of documents."""

from __future__ import annotations

import codecs
import functools
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from tunemark.errors import BadData, BadExperiment
from tunemark.plugin.descriptors import Example, ExamplePiece
from tunemark_datasets.files import (
    combine_hashes,
    hash_path,
    list_visible_files,
    make_missing_file_error,
    read_template,
)

NAME = "text"
# Default for `longest`, in characters: about 500 tokens of English, which fills a sequence of the default length.
DEFAULT_LONGEST = 2000
OPTIONS = {
    "path": "a text file, also compressed as .gz, or a folder of them",
    "suffix": "suffix of the files in a folder (.txt and .md, also with .gz)",
    "encoding": "encoding of the files (utf-8)",
    "document": "what makes a document: file (the default), paragraph (separated by blank lines) or line",
    "longest": f"characters after which a document is split ({DEFAULT_LONGEST}); 0 never splits",
    "template": "a file with {text}, the place of each document; the text before {text} is the prompt",
    "response_after": "a text in every document, after which the response begins; %3A is a colon, %2C a comma, %0A "
    "a newline",
}
_SUFFIXES = (".txt", ".md")
_CHUNK = 1 << 16
# Part of the fingerprint: change it whenever the same files would give different examples.
_FORMAT_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class TextFiles:
    """Files, ordered by path. before, after: text around every document. marker: the option `response_after`."""

    paths: Sequence[Path]
    encoding: str
    document: str
    longest: int
    before: str
    after: str
    marker: str

    def fingerprint(self) -> str:
        settings = [_FORMAT_VERSION, self.encoding, self.document, self.longest, self.before, self.after, self.marker]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update("".join(self._hashes).encode())
        return digest.hexdigest()

    @functools.cached_property
    def _hashes(self) -> list[str]:
        return [hash_path(path) for path in self.paths]

    def facts(self) -> Mapping[str, Any]:
        hashes = self._hashes
        return {
            "files": len(self.paths),
            "bytes": sum(path.stat().st_size for path in self.paths),
            "sha256": combine_hashes(hashes),
            "first_file": str(self.paths[0].absolute()),
            "document": self.document,
            "longest_characters": self.longest or None,
            "template": f"{self.before}{{text}}{self.after}" if self.before or self.after else None,
            "response_after": self.marker or None,
        }

    def examples(self) -> Iterator[Example]:
        is_empty = True
        for path in self.paths:
            for number, text in enumerate(self._documents(path), 1):
                is_empty = False
                yield Example(pieces=tuple(self._make_pieces(text, path, number)))
        if is_empty:
            raise BadData(what=f"{NAME}: there is no text", why=f"its {len(self.paths)} files hold only blanks")

    def _make_pieces(self, text: str, path: Path, number: int) -> Iterator[ExamplePiece]:
        if self.before:
            yield ExamplePiece(role="prompt", text=self.before)
        at = 0
        if self.marker:
            found = text.find(self.marker)
            if found < 0:
                raise BadData(
                    what=f"{NAME}: document {number} of {str(path)!r} does not contain {self.marker!r}",
                    why="response_after must be in every document",
                    next="remove that document, or leave out response_after",
                )
            at = found + len(self.marker)
            yield ExamplePiece(role="prompt", text=text[:at])
        yield ExamplePiece(role="response", text=text[at:] + self.after)

    def _documents(self, path: Path) -> Iterator[str]:
        """Documents of at most `longest` characters, split after a paragraph, a line or a word where possible."""
        pending = ""
        for part, is_end in self._read_parts(path):
            pending += part
            at = 0
            while self.longest and len(pending) - at > self.longest:
                end = _find_split(pending, at, self.longest)
                if not pending[at:end].isspace():
                    yield pending[at:end]
                at = end
            pending = pending[at:]
            if is_end:
                if pending and not pending.isspace():
                    yield pending
                pending = ""

    def _read_parts(self, path: Path) -> Iterator[tuple[str, bool]]:
        """(text, whether a document ends with it), at most a chunk at a time."""
        try:
            with _open_text(path, self.encoding) as file:
                if self.document == "file":
                    while part := file.read(_CHUNK):
                        yield part, False
                    yield "", True
                    return
                was_whole = True
                while part := file.readline(_CHUNK):
                    is_whole = part.endswith("\n")
                    if self.document == "line":
                        yield part.removesuffix("\n"), is_whole
                    elif was_whole and is_whole and part.isspace():
                        yield "", True
                    else:
                        yield part, False
                    was_whole = is_whole
                yield "", True
        except UnicodeError as error:
            raise BadData(
                what=f"{NAME}: {str(path)!r} is not text in {self.encoding}",
                why=str(error),
                next=f"give its encoding: {NAME}:path=FILE:encoding=latin-1",
            ) from error
        except (OSError, EOFError) as error:
            raise BadData(what=f"{NAME}: {str(path)!r} cannot be read", why=str(error)) from error


def load(options: Mapping[str, str], vocab_size: int) -> TextFiles:
    """Find the files and check the options; whether a file is text shows when it is read."""
    encoding, document = options.get("encoding", "utf-8"), options.get("document", "file")
    marker = unquote(options.get("response_after", ""))
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # LookupError for codecs that do not encode text
    except LookupError as error:
        raise BadExperiment(
            what=f"{NAME}: there is no encoding {encoding!r}", why=str(error), next="utf-8, latin-1, cp1252, utf-16"
        ) from error
    if document not in ("file", "paragraph", "line"):
        raise BadExperiment(what=f"{NAME}: document cannot be {document!r}", next="use file, paragraph or line")
    if "longest" in options and (not options["longest"].isdecimal() or options["longest"] == "1"):
        raise BadExperiment(
            what=f"{NAME}: longest cannot be {options['longest']!r}", next="give 2 or more characters, or 0"
        )
    if marker and int(options.get("longest", "0")):
        raise BadExperiment(
            what=f"{NAME}: longest and response_after exclude each other",
            why="the second part of a split document would lack the text before the response",
            next="leave out one of them",
        )
    if "path" not in options:
        raise BadExperiment(what=f"{NAME} needs a path", next=f"--dataset {NAME}:path=FILE, or a folder")
    before, after = _read_template(options["template"]) if "template" in options else ("", "")
    return TextFiles(
        paths=_find_files(Path(options["path"]).expanduser(), options.get("suffix")),
        encoding=encoding,
        document=document,
        longest=int(options.get("longest", 0 if marker else DEFAULT_LONGEST)),
        before=before,
        after=after,
        marker=marker,
    )


def _read_template(name: str) -> tuple[str, str]:
    text = read_template(NAME, name, next="give a text file that contains {text}").removesuffix("\n")
    before, place, after = text.partition("{text}")
    if not place:
        raise BadExperiment(what=f"{NAME}: the template {name!r} does not contain {{text}}", next="add {text} to it")
    return before, after


def _find_files(path: Path, suffix: str | None) -> list[Path]:
    suffixes = _SUFFIXES if suffix is None else (suffix,)
    if path.is_dir():
        shown = list_visible_files(path)
        paths = [p for p in shown if p.name.removesuffix(".gz").endswith(suffixes)]
        if not paths:
            raise BadData(
                what=f"{NAME}: there is no file to read in {str(path)!r}",
                why=f"none of its {len(shown)} files ends in {' or '.join(suffixes)}",
                next=f"name their suffix: {NAME}:path=FOLDER:suffix=.rst",
            )
    elif path.is_file():
        paths = [path]
    else:
        raise make_missing_file_error(NAME, path)
    for each in paths:
        try:
            with each.open("rb"):
                pass
        except OSError as error:
            raise BadData(what=f"{NAME}: {str(each)!r} cannot be read", why=str(error)) from error
    return paths


def _open_text(path: Path, encoding: str) -> IO[str]:
    """Open for reading, with newlines as \\n and without a byte order mark."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    return io.TextIOWrapper(opened(path, "rb"), encoding="utf-8-sig" if encoding == "utf-8" else encoding)


def _find_split(text: str, begin: int, longest: int) -> int:
    """Where to split: after a paragraph, line or word in the second half of the `longest` characters."""
    for words in ("\n\n", "\n", " "):
        found = text.rfind(words, begin + longest // 2, begin + longest)
        if found >= 0:
            return found + len(words)
    return begin + longest
