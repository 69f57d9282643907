"""The dataset `text`: plain text of any size from files, or from a column of a table, as a stream of documents."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tunemark.errors import BadData, BadExperiment
from tunemark.plugin.descriptors import Example, ExamplePiece
from tunemark_datasets.files import (
    LFS_POINTER,
    check_no_pointer,
    combine_hashes,
    hash_path,
    list_visible_files,
    make_missing_file_error,
    read_template,
)
from tunemark_datasets.row_errors import BadRow
from tunemark_datasets.row_forms import TEXT_COLUMNS, check_no_preference, format_left_out
from tunemark_datasets.table_files import find_format_of_name
from tunemark_datasets.table_rows import OPTIONS as ROW_OPTIONS
from tunemark_datasets.table_rows import (
    FileRows,
    HubRows,
    LeftOutText,
    SkippedRows,
    check_columns,
    open_rows,
    read_text,
)
from tunemark_datasets.text_files import COMPRESSED_SUFFIXES, open_text, read_encoding, report_unreadable

NAME = "text"
# Default for `longest`, in characters: about 500 tokens of English, which fills a sequence of the default length.
DEFAULT_LONGEST = 2000
OPTIONS = {
    **{name: words for name, words in ROW_OPTIONS.items() if name != "entry"},
    "path": "a text file, also compressed, or a folder of them; or a table (parquet, arrow, json, jsonl, csv, tsv)",
    "suffix": "suffix of the files in a folder (.txt and .md, also compressed)",
    "column": "of a table: the column of the texts (text, content); none reads such a file itself as text",
    "document": "what makes a document: file (the default), paragraph (separated by blank lines) or line; of a table, "
    "a row",
    "longest": f"characters after which a document is split ({DEFAULT_LONGEST}); 0 never splits",
    "template": "a file with {text}, the place of each document; the text before {text} is the prompt",
    "response_after": "a text in every document, after which the response begins; %3A is a colon, %2C a comma, %0A "
    "a newline",
}
_SUFFIXES = (".txt", ".md")
# Names, without their suffixes, of texts that describe the tables beside them.
_DESCRIPTIONS = frozenset(("readme", "license", "licence", "notice", "changelog", "citation"))
_CHUNK = 1 << 16
# Part of the fingerprint: change it whenever the same files would give different examples.
_FORMAT_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """What documents are made of texts. before, after: text around every document. marker: the option
    `response_after`. longest: characters after which a text is split; 0 never."""

    longest: int
    before: str
    after: str
    marker: str

    def identity(self) -> list[object]:
        return [_FORMAT_VERSION, self.longest, self.before, self.after, self.marker]

    def facts(self) -> Mapping[str, Any]:
        return {
            "longest_characters": self.longest or None,
            "template": f"{self.before}{{text}}{self.after}" if self.before or self.after else None,
            "response_after": self.marker or None,
        }

    def make_example(self, text: str, where: str) -> Example:
        return Example(pieces=tuple(self._make_pieces(text, where)), where=where)

    def split(self, parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
        """Documents of at most `longest` characters, split after a paragraph, a line or a word where possible. parts:
        (text, whether a document ends with it)."""
        pending = ""
        for part, is_end in parts:
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

    def _make_pieces(self, text: str, where: str) -> Iterator[ExamplePiece]:
        if self.before:
            yield ExamplePiece(role="prompt", text=self.before)
        at = 0
        if self.marker:
            found = text.find(self.marker)
            if found < 0:
                raise BadData(
                    what=f"{NAME}: {where} does not contain {self.marker!r}",
                    why="response_after must be in every document",
                    next="remove that document, or leave out response_after",
                )
            at = found + len(self.marker)
            yield ExamplePiece(role="prompt", text=text[:at])
        yield ExamplePiece(role="response", text=text[at:] + self.after)


@dataclass(frozen=True, kw_only=True)
class TextFiles:
    """Files of text, ordered by path. unread: the others of their folder."""

    paths: Sequence[Path]
    unread: Sequence[Path]
    encoding: str
    document: str
    shape: TextShape

    def fingerprint(self) -> str:
        settings = [*self.shape.identity(), self.encoding, self.document]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update("".join(self._hashes).encode())
        return digest.hexdigest()

    @functools.cached_property
    def _hashes(self) -> list[str]:
        return [hash_path(path) for path in self.paths]

    def facts(self) -> Mapping[str, Any]:
        return {
            "files": len(self.paths),
            "bytes": sum(path.stat().st_size for path in self.paths),
            "sha256": combine_hashes(self._hashes),
            "first_file": str(self.paths[0].absolute()),
            **({"unread_files": [path.name for path in self.unread]} if self.unread else {}),
            "document": self.document,
            **self.shape.facts(),
        }

    def examples(self) -> Iterator[Example]:
        is_empty = True
        for path in self.paths:
            for number, text in enumerate(self.shape.split(self._read_parts(path)), 1):
                is_empty = False
                yield self.shape.make_example(text, f"document {number} of {str(path)!r}")
        if is_empty:
            raise BadData(what=f"{NAME}: there is no text", why=f"its {len(self.paths)} files hold only blanks")

    def _read_parts(self, path: Path) -> Iterator[tuple[str, bool]]:
        """(text, whether a document ends with it), at most a chunk at a time."""
        with report_unreadable(NAME, path, self.encoding), open_text(path, self.encoding, None) as file:
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


class TextRows:
    """The texts in a column of a table, each a document."""

    def __init__(self, rows: FileRows | HubRows, column: str, shape: TextShape, skipped: SkippedRows) -> None:
        self._rows, self._column, self._shape = rows, column, shape
        self._skipped, self._left_out = skipped, LeftOutText((column,))

    def fingerprint(self) -> str:
        identity = [*self._shape.identity(), self._rows.fingerprint(), self._column]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        found = {**self._rows.facts(), "column": self._column, **self._shape.facts(), **self._skipped.facts()}
        return {**found, "left_out": self._left_out.facts()}

    def remarks(self) -> list[str]:
        found = self._left_out.facts()
        return [f"{NAME} uses no other columns; left out are {format_left_out(found)}"] if found else []

    def examples(self) -> Iterator[Example]:
        is_empty = True
        for row in self._rows:
            try:
                text = read_text(NAME, row, self._column)
            except BadRow as error:
                self._skipped.take(error)
                continue
            self._left_out.add(row)
            for part in self._shape.split([(text, True)]):
                is_empty = False
                yield self._shape.make_example(part, row.where)
        if is_empty:
            raise BadData(what=f"{NAME}: there is no text", why=f"the column {self._column} holds only blanks")


def load(options: Mapping[str, str], vocab_size: int) -> TextFiles | TextRows:
    """Find the files and check the options; whether a file is text shows when it is read."""
    encoding, document = read_encoding(NAME, options), options.get("document", "file")
    marker = unquote(options.get("response_after", ""))
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
    if "path" not in options and "hub" not in options:
        raise BadExperiment(
            what=f"{NAME} needs a path", next=f"--dataset {NAME}:path=FILE, or a folder, or hub=OWNER/NAME"
        )
    before, after = _read_template(options["template"]) if "template" in options else ("", "")
    shape = TextShape(
        longest=int(options.get("longest", 0 if marker else DEFAULT_LONGEST)), before=before, after=after, marker=marker
    )
    if "hub" in options or (("column" not in options or options["column"] != "none") and _is_table(options)):
        return _open_table(options, shape)
    path = Path(options["path"]).expanduser()
    found = _find_files(path, options.get("suffix"))
    unread = [each for each in list_visible_files(path) if each not in set(found)] if path.is_dir() else []
    return TextFiles(paths=found, unread=unread, encoding=encoding, document=document, shape=shape)


def _is_table(options: Mapping[str, str]) -> bool:
    """Whether the path is a table: a file with the suffix of one, or a folder with such files and none of text but
    those that describe it."""
    path = Path(options["path"]).expanduser()
    if "suffix" in options:
        return False
    if path.is_file():
        return find_format_of_name(path) is not None
    return (
        path.is_dir()
        and all(each.stem.lower() in _DESCRIPTIONS for each in _list_text_files(path, _SUFFIXES))
        and any(map(find_format_of_name, list_visible_files(path)))
    )


def _open_table(options: Mapping[str, str], shape: TextShape) -> TextRows:
    rows, skipped = open_rows(NAME, options), SkippedRows(NAME, options)
    available = rows.columns()
    column = options.get("column", next((each for each in TEXT_COLUMNS if each in available), TEXT_COLUMNS[0]))
    source = options.get("path", options.get("hub", ""))
    check_no_preference(NAME, available, (column,), source)
    advice = f"name the column of the texts, {NAME}:path=FILE:column=COLUMN; column=none reads the file itself as text"
    check_columns(NAME, rows, source, available, [] if column in available else [column], advice)
    return TextRows(rows, column, shape, skipped)


def _read_template(name: str) -> tuple[str, str]:
    text = read_template(NAME, name, next="give a text file that contains {text}").removesuffix("\n")
    before, place, after = text.partition("{text}")
    if not place:
        raise BadExperiment(what=f"{NAME}: the template {name!r} does not contain {{text}}", next="add {text} to it")
    return before, after


def _find_files(path: Path, suffix: str | None) -> list[Path]:
    suffixes = _SUFFIXES if suffix is None else (suffix,)
    if path.is_dir():
        paths = _list_text_files(path, suffixes)
        if not paths:
            raise BadData(
                what=f"{NAME}: there is no file to read in {str(path)!r}",
                why=f"none of its {len(list_visible_files(path))} files ends in {' or '.join(suffixes)}",
                next=f"name their suffix: {NAME}:path=FOLDER:suffix=.rst",
            )
    elif path.is_file():
        paths = [path]
    else:
        raise make_missing_file_error(NAME, path)
    for each in paths:
        try:
            with each.open("rb") as file:
                check_no_pointer(NAME, each, file.read(len(LFS_POINTER)))
        except OSError as error:
            raise BadData(what=f"{NAME}: {str(each)!r} cannot be read", why=str(error)) from error
    return paths


def _list_text_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    packed = tuple(f"{suffix}{more}" for suffix in suffixes for more in ("", *COMPRESSED_SUFFIXES))
    return [path for path in list_visible_files(folder) if path.name.lower().endswith(packed)]


def _find_split(text: str, begin: int, longest: int) -> int:
    """Where to split: after a paragraph, line or word in the second half of the `longest` characters."""
    for words in ("\n\n", "\n", " "):
        found = text.rfind(words, begin + longest // 2, begin + longest)
        if found >= 0:
            return found + len(words)
    return begin + longest
