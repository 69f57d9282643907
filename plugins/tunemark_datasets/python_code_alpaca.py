"""iamtarun/python_code_instructions_18k_alpaca, from the hub (or its local cache) or from a file of the same columns.

No row of it is shipped: its licence is not stated. Where the hub cannot be reached that is said; nothing stands in.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemark.errors import BadData
from tunemark.plugin.descriptors import Example
from tunemark_datasets import alpaca

REPOSITORY = "iamtarun/python_code_instructions_18k_alpaca"
_PARTS = ("instruction", "input", "output")
_NEXT = "give a file with path=FILE, or use another dataset such as python-stdlib"
# In a folder, the first of these that occurs is read and the others are left alone: a clone of the hub's repository
# holds parquet and, beside it, json that describes it.
_SUFFIXES = (".parquet", ".jsonl", ".json")


def load(options: Mapping[str, str], vocab_size: int) -> LocalFiles | Hub:
    if "path" not in options:
        return Hub(_from_hub(options.get("revision")), options.get("revision"))
    if "revision" in options:
        raise BadData(
            what="python-code-alpaca: path and revision exclude each other",
            why="a revision is a version of the hub's repository; a file has none",
            next="leave out one of them",
        )
    return LocalFiles(_found(Path(options["path"]).expanduser()))


@dataclass(frozen=True)
class LocalFiles:
    """Files of one format; a file's rows follow the former's."""

    paths: Sequence[Path]

    def fingerprint(self) -> str:
        return self._fingerprint

    def facts(self) -> Mapping[str, Any]:
        return {
            "files": [str(path.absolute()) for path in self.paths],
            "sha256": self._fingerprint,
            "rows": len(self._examples),
        }

    def examples(self) -> Iterator[Example]:
        yield from self._examples

    @functools.cached_property
    def _fingerprint(self) -> str:
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths]
        # One file is known by its own hash, which `sha256sum` prints too.
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @functools.cached_property
    def _examples(self) -> list[Example]:
        return [e for path in self.paths for e in _examples(_columns(path), str(path))]


@dataclass(frozen=True)
class Hub:
    """The train split as `datasets` loaded it. revision: what was asked for, None for the newest."""

    rows: Any
    revision: str | None

    def fingerprint(self) -> str:
        # The only name that `datasets` has for it: a hash of the builder, its revision and the split.
        return f"{self.rows._fingerprint}/{self.rows.num_rows}"

    def facts(self) -> Mapping[str, Any]:
        return {
            "repository": REPOSITORY,
            "revision": self.revision,
            "files": sorted(self.rows.info.download_checksums or {}),
            "fingerprint": self.rows._fingerprint,
            "rows": self.rows.num_rows,
        }

    def examples(self) -> Iterator[Example]:
        columns = {name: self.rows[name][:] for name in self.rows.column_names}
        yield from _examples(columns, REPOSITORY)


def _from_hub(revision: str | None) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(REPOSITORY, split="train", revision=revision)
    # The network, the hub, the cache and four libraries are on the other side, each with exceptions of its own.
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = " ".join(str(error).split())
        raise BadData(
            what=f"python-code-alpaca: {REPOSITORY}{at} is not in the local cache and cannot be had from the hub",
            why=f"{type(error).__name__}: {reason[:300]}",
            next=_NEXT,
        ) from error


def _found(path: Path) -> list[Path]:
    """The files that `path` means, each looked at no further than to know that it is what it claims to be."""
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file())
        shown = [p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        kinds = [[p for p in shown if p.suffix == suffix] for suffix in _SUFFIXES]
        paths = next((kind for kind in kinds if kind), [])
        if not paths:
            raise _bad(path, "there is no file to read", f"it holds no {', '.join(_SUFFIXES)} file")
    elif path.is_file():
        paths = [path]
    else:
        raise BadData(
            what=f"python-code-alpaca: there is no file {str(path)!r}",
            why="it was given with path=",
            next="correct the path; it is relative to the current folder",
        )
    for each in paths:
        if each.suffix not in _SUFFIXES:
            raise _bad(each, f"its format {each.suffix or 'without a suffix'} is not known", "")
        try:
            with each.open("rb") as file:
                head = file.read(4)
        except OSError as error:
            raise _bad(each, "it cannot be read", str(error)) from error
        if not head:
            raise _bad(each, "it is empty", "0 bytes")
        if each.suffix == ".parquet" and head != b"PAR1":
            raise _bad(each, "it is not parquet", f"it begins with {head!r} instead of b'PAR1'")
    return paths


def _columns(path: Path) -> Mapping[str, Sequence[Any]]:
    if path.suffix == ".parquet":
        import pandas

        try:
            frame = pandas.read_parquet(path)
        # pandas, pyarrow and a broken file: OSError, ArrowInvalid, ValueError and others.
        except Exception as error:
            raise _bad(path, "it is not parquet", str(error)) from error
        return {str(name): frame[name].tolist() for name in frame.columns}
    return _json_columns(path)


def _json_columns(path: Path) -> Mapping[str, Sequence[Any]]:
    """A list of objects, an object of lists (as pandas writes), or an object a line, whatever the suffix says."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path, "it is not text in UTF-8", str(error)) from error
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = _json_lines(path, text)
    if isinstance(whole, dict):
        if whole and all(isinstance(column, list) for column in whole.values()):
            if len({len(column) for column in whole.values()}) > 1:
                raise _bad(path, "its columns differ in length", "")
            return whole
        whole = [whole]
    if not isinstance(whole, list) or not all(isinstance(row, dict) for row in whole):
        raise _bad(path, "its rows are not JSON objects", "")
    names = dict.fromkeys(name for row in whole for name in row)
    return {name: [row.get(name) for row in whole] for name in names}


def _json_lines(path: Path, text: str) -> list[Any]:
    rows = []
    # Not splitlines(): U+2028 and others may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise _bad(path, "it is neither JSON nor one JSON object a line", f"line {number}: {error}") from error
    return rows


def _examples(columns: Mapping[str, Sequence[Any]], where: str) -> list[Example]:
    """One example a row. The text is the column `prompt`; where that is missing it is made of the other three."""
    missing = [name for name in _PARTS if name not in columns]
    if "prompt" not in columns and missing:
        raise _bad(
            where,
            f"it lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            f"it has {', '.join(columns) or 'none'}; needed are prompt, or instruction, input and output",
        )
    names = ("prompt", "output") if "output" in columns else ("prompt",)
    rows = zip(*(columns[name] for name in (names if "prompt" in columns else _PARTS)), strict=True)
    examples = []
    for number, row in enumerate(rows, start=1):
        if "prompt" in columns:
            text, output = row[0], row[1] if len(row) > 1 else None
            pair = alpaca.split(text, output if isinstance(output, str) else None) if isinstance(text, str) else None
            if pair is None:
                raise _bad(where, f"row {number} has no text with a section '### Output:' in its column prompt", "")
        else:
            instruction, input, output = row
            input = "" if input is None else input
            if not (isinstance(instruction, str) and isinstance(input, str) and isinstance(output, str)):
                raise _bad(where, f"row {number} has something else than text in instruction, input or output", "")
            pair = alpaca.prompt(instruction, input), output
        examples.append(alpaca.example(*pair))
    if not examples:
        raise _bad(where, "it has no rows", "")
    return examples


def _bad(where: Path | str, fact: str, why: str) -> BadData:
    return BadData(what=f"python-code-alpaca: cannot use {str(where)!r}: {fact}", why=why, next=_NEXT)
