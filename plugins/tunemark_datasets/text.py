"""Plain text of any size: files, or folders of them, in documents that are read one after another."""

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
from tunemark.plugin.descriptors import Example, Piece

NAME = "text"
# Characters of a document, unless it is said otherwise: some 500 tokens of English, a sequence of the default length.
LONGEST = 2000
OPTIONS = {
    "path": "a file of text, also packed as .gz, or a folder of them",
    "suffix": "of files in a folder (.txt and .md; those packed as .gz too)",
    "encoding": "of the files (utf-8)",
    "document": "what is one: file (the default), paragraph (blank lines between) or line",
    "longest": f"characters, beyond which a document goes on as another one ({LONGEST}); 0 never cuts",
    "template": "a file with {text}: every document stands there, and what stands before {text} is the prompt",
    "response_after": "a text that is in every document: what stands behind it is the response; %3A is a colon, %2C a "
    "comma, %0A a line's end",
}
_SUFFIXES = (".txt", ".md")
_CHUNK = 1 << 16
# Changes whenever the same files would give other examples.
_FORM = "1"


@dataclass(frozen=True, kw_only=True)
class Text:
    """Files, in the order of their paths. before, after: around every document. marker: as `response_after` has it."""

    paths: Sequence[Path]
    encoding: str
    document: str
    longest: int
    before: str
    after: str
    marker: str

    def fingerprint(self) -> str:
        settings = [_FORM, self.encoding, self.document, self.longest, self.before, self.after, self.marker]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update("".join(self._hashes).encode())
        return digest.hexdigest()

    @functools.cached_property
    def _hashes(self) -> list[str]:
        return [_sha256(path) for path in self.paths]

    def facts(self) -> Mapping[str, Any]:
        hashes = self._hashes
        return {
            "files": len(self.paths),
            "bytes": sum(path.stat().st_size for path in self.paths),
            "sha256": hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
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
                yield Example(pieces=tuple(self._pieces(text, path, number)))
        if is_empty:
            raise BadData(what=f"{NAME}: there is no text", why=f"{len(self.paths)} files hold nothing but blanks")

    def _pieces(self, text: str, path: Path, number: int) -> Iterator[Piece]:
        if self.before:
            yield Piece(role="prompt", text=self.before)
        at = 0
        if self.marker:
            found = text.find(self.marker)
            if found < 0:
                raise BadData(
                    what=f"{NAME}: document {number} of {str(path)!r} does not hold {self.marker!r}",
                    why="response_after says that every one does",
                    next="leave out that document, or response_after",
                )
            at = found + len(self.marker)
            yield Piece(role="prompt", text=text[:at])
        yield Piece(role="response", text=text[at:] + self.after)

    def _documents(self, path: Path) -> Iterator[str]:
        """Each of at most `longest` characters, cut behind a paragraph, a line or a word where there is one."""
        waiting = ""
        for part, is_end in self._parts(path):
            waiting += part
            at = 0
            while self.longest and len(waiting) - at > self.longest:
                end = _boundary(waiting, at, self.longest)
                if not waiting[at:end].isspace():
                    yield waiting[at:end]
                at = end
            waiting = waiting[at:]
            if is_end:
                if waiting and not waiting.isspace():
                    yield waiting
                waiting = ""

    def _parts(self, path: Path) -> Iterator[tuple[str, bool]]:
        """(text, whether a document ends with it), no part longer than a chunk."""
        try:
            with _opened(path, self.encoding) as file:
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


def load(options: Mapping[str, str], vocab_size: int) -> Text:
    """Finds the files; a file that is not text is found out where it is read."""
    encoding, document = options.get("encoding", "utf-8"), options.get("document", "file")
    marker = unquote(options.get("response_after", ""))
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # refuses codecs that are not of text
    except LookupError as error:
        raise BadExperiment(
            what=f"{NAME}: there is no encoding {encoding!r}", why=str(error), next="utf-8, latin-1, cp1252, utf-16"
        ) from error
    if document not in ("file", "paragraph", "line"):
        raise BadExperiment(what=f"{NAME}: document cannot be {document!r}", next="file, paragraph or line")
    if "longest" in options and (not options["longest"].isdecimal() or options["longest"] == "1"):
        raise BadExperiment(
            what=f"{NAME}: longest cannot be {options['longest']!r}", next="a whole number of characters, or 0"
        )
    if marker and int(options.get("longest", "0")):
        raise BadExperiment(
            what=f"{NAME}: longest and response_after exclude each other",
            why="what a document goes on with would not hold the text before the response",
            next="leave out one of them",
        )
    if "path" not in options:
        raise BadExperiment(what=f"{NAME} needs a path", next=f"--dataset {NAME}:path=FILE, or a folder")
    before, after = _around(options["template"]) if "template" in options else ("", "")
    return Text(
        paths=_found(Path(options["path"]).expanduser(), options.get("suffix")),
        encoding=encoding,
        document=document,
        longest=int(options.get("longest", 0 if marker else LONGEST)),
        before=before,
        after=after,
        marker=marker,
    )


def _around(name: str) -> tuple[str, str]:
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadExperiment(
            what=f"{NAME}: there is no template {name!r}", why=str(error), next="a file of text that holds {text}"
        ) from error
    before, place, after = text.partition("{text}")
    if not place:
        raise BadExperiment(what=f"{NAME}: the template {name!r} does not hold {{text}}", next="write {text} into it")
    return before, after


def _found(path: Path, suffix: str | None) -> list[Path]:
    suffixes = _SUFFIXES if suffix is None else (suffix,)
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file())
        shown = [p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts)]
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
        raise BadData(
            what=f"{NAME}: there is no file {str(path)!r}",
            why="it was given with path=",
            next="correct the path; it is relative to the current folder",
        )
    for each in paths:
        try:
            with each.open("rb"):
                pass
        except OSError as error:
            raise BadData(what=f"{NAME}: {str(each)!r} cannot be read", why=str(error)) from error
    return paths


def _opened(path: Path, encoding: str) -> IO[str]:
    """Lines end in \\n, whatever they end in there; a mark at the beginning is no text."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    return io.TextIOWrapper(opened(path, "rb"), encoding="utf-8-sig" if encoding == "utf-8" else encoding)


def _boundary(text: str, begin: int, longest: int) -> int:
    """Where to cut, in the second half of what may be taken."""
    for words in ("\n\n", "\n", " "):
        found = text.rfind(words, begin + longest // 2, begin + longest)
        if found >= 0:
            return found + len(words)
    return begin + longest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
