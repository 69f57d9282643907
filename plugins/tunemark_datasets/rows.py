"""Rows of tables, from files or from the hub, one after another: a table is never in memory as a whole.

Read that way are parquet, arrow, JSON Lines, CSV and TSV, the last three also packed by gzip. A `.json` file that is
one list, or one object of columns, is read whole; so sets larger than memory are better JSON Lines.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from tunemark.errors import BadData, BadExperiment

# In a folder, the first of these that occurs is read and the others are left alone: a clone of a hub's repository
# holds parquet and, beside it, json that describes it.
SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv")
_PACKED = (".jsonl", ".json", ".csv", ".tsv")
# What a dataset of tables takes for options, with their meaning.
OPTIONS = {
    "path": f"a file ({', '.join(s[1:] for s in SUFFIXES)}; text also packed as .gz), or a folder of them",
    "hub": "instead of path: a dataset's id on the hub, from its local cache where it is there",
    "config": "of the hub's dataset, where it has several",
    "split": "of the hub's dataset (train)",
    "revision": "a commit, branch or tag of the hub's repository",
    "rows": "so many rows from the beginning, instead of all",
}
_CHUNK = 1 << 20
_BATCH = 1024


class Row(NamedTuple):
    """where: for a person, as "rows.jsonl, row 3"."""

    where: str
    values: Mapping[str, Any]


class Table(NamedTuple):
    """columns: names, in order. rows: values by column; read once."""

    columns: Sequence[str]
    rows: Iterator[Mapping[str, Any]]


class Files:
    """Files of tables; a file's rows follow the former's. name: of the dataset, for errors."""

    def __init__(self, name: str, paths: Sequence[Path], limit: int | None = None) -> None:
        self._name, self.paths, self._limit = name, paths, limit
        self._fingerprint = ""
        self._count: int | None = None

    def fingerprint(self) -> str:
        """Of the content alone. One file is known by its own SHA-256, which `sha256sum` prints too."""
        if not self._fingerprint:
            hashes = [_sha256(path) for path in self.paths]
            whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
            self._fingerprint = whole if self._limit is None else f"{whole}/{self._limit}"
        return self._fingerprint

    def facts(self) -> Mapping[str, Any]:
        """rows: None until they have been read."""
        return {
            "files": [str(path.absolute()) for path in self.paths],
            "bytes": sum(path.stat().st_size for path in self.paths),
            "sha256": self.fingerprint().partition("/")[0],
            "rows": self._count,
        }

    def __iter__(self) -> Iterator[Row]:
        count = 0
        for path in self.paths:
            table = self.table(path)
            for number, values in enumerate(table.rows, 1):
                if count == self._limit:
                    self._count = count
                    return
                count += 1
                yield Row(f"{str(path)!r}, row {number}", values)
        self._count = count

    def columns(self) -> Sequence[str]:
        """Of the first file."""
        return self.table(self.paths[0]).columns

    def table(self, path: Path) -> Table:
        """One file, opened: BadData where it is not what it claims to be."""
        kind = path.suffixes[-2] if path.suffix == ".gz" else path.suffix
        if kind == ".parquet":
            return _parquet(self._name, path)
        if kind == ".arrow":
            return _arrow(self._name, path)
        return _csv(self._name, path, kind) if kind in (".csv", ".tsv") else _json(self._name, path)


class Hub:
    """A split of a dataset on the hub as `datasets` loaded it; its rows lie in files that are mapped."""

    def __init__(self, repository: str, options: Mapping[str, str], loaded: Any, limit: int | None = None) -> None:
        self.repository, self._options, self.loaded, self._limit = repository, options, loaded, limit

    def fingerprint(self) -> str:
        # The only name that `datasets` has for it: a hash of the builder, its revision and the split.
        return f"{self.loaded._fingerprint}/{self.facts()['rows']}"

    def facts(self) -> Mapping[str, Any]:
        return {
            "repository": self.repository,
            "revision": self._options.get("revision"),
            "files": sorted(self.loaded.info.download_checksums or {}),
            "fingerprint": self.loaded._fingerprint,
            "rows": self.loaded.num_rows if self._limit is None else min(self._limit, self.loaded.num_rows),
        }

    def __iter__(self) -> Iterator[Row]:
        rows = itertools.chain.from_iterable(self._batches())
        for number, values in enumerate(itertools.islice(rows, self._limit), 1):
            yield Row(f"{self.repository}, row {number}", values)

    def columns(self) -> Sequence[str]:
        return list(self.loaded.column_names)

    def _batches(self) -> Iterator[Iterable[Mapping[str, Any]]]:
        for batch in self.loaded.iter(batch_size=_BATCH):
            names = list(batch)
            yield (dict(zip(names, row, strict=True)) for row in zip(*batch.values(), strict=True))


def open_rows(name: str, options: Mapping[str, str]) -> Files | Hub:
    """The rows that `path` or `hub` names. BadExperiment where the options do not fit, BadData where there is nothing
    that can be read."""
    limit = limit_of(name, options)
    if ("path" in options) == ("hub" in options):
        raise BadExperiment(
            what=f"{name} needs a path or a hub's id, and one of them",
            why="path and hub exclude each other" if "path" in options else "neither is given",
            next=f"--dataset {name}:path=FILE, or {name}:hub=OWNER/NAME",
        )
    if "path" in options:
        for option in ("revision", "split", "config"):
            if option in options:
                raise BadExperiment(
                    what=f"{name}: path and {option} exclude each other",
                    why=f"a {option} is the hub's; a file has none",
                    next="leave out one of them",
                )
        path = Path(options["path"]).expanduser()
        if not path.exists():
            raise BadData(
                what=f"{name}: there is no file {str(path)!r}",
                why="it was given with path=",
                next=f"correct the path, relative to the current folder; or, of the hub, {name}:hub=OWNER/NAME",
            )
        return Files(name, found(name, path), limit)
    loaded = from_hub(name, options["hub"], options, f"give a file with {name}:path=FILE, or use another dataset")
    return Hub(options["hub"], options, loaded, limit)


def limit_of(name: str, options: Mapping[str, str]) -> int | None:
    """The number that `rows` is, None where it is not given."""
    text = options.get("rows")
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise BadExperiment(what=f"{name}: rows cannot be {text!r}", next="a whole number, 1 or more")
    return int(text)


def from_hub(name: str, repository: str, options: Mapping[str, str], advice: str) -> Any:
    """A split of a dataset on the hub; BadData where it cannot be had. Nothing stands in for it."""
    import datasets

    datasets.disable_progress_bars()
    revision = options.get("revision")
    more = [options["config"]] if "config" in options else []
    try:
        return datasets.load_dataset(repository, *more, split=options.get("split", "train"), revision=revision)
    # The network, the hub, the cache and four libraries are on the other side, each with exceptions of its own.
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = " ".join(str(error).split())
        raise BadData(
            what=f"{name}: {repository}{at} is not in the local cache and cannot be had from the hub",
            why=f"{type(error).__name__}: {reason[:300]}",
            next=advice,
        ) from error


def found(name: str, path: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The files that a path means, each looked at no further than to know that it is what it claims to be."""
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file())
        shown = [p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        kinds = [[p for p in shown if _is(p, suffix)] for suffix in suffixes]
        paths = next((kind for kind in kinds if kind), [])
        if not paths:
            raise bad(name, path, "there is no file to read", f"it holds no {', '.join(suffixes)} file")
    elif path.is_file():
        paths = [path]
    else:
        raise BadData(
            what=f"{name}: there is no file {str(path)!r}",
            why="it was given with path=",
            next="correct the path; it is relative to the current folder",
        )
    for each in paths:
        if not any(_is(each, suffix) for suffix in suffixes):
            raise bad(
                name,
                each,
                f"its format {each.suffix or 'without a suffix'} is not known",
                f"known are {', '.join(suffixes)}",
            )
        head = _head(name, each)
        if not head:
            raise bad(name, each, "it is empty", "0 bytes")
        if each.suffix == ".parquet" and head != b"PAR1":
            raise bad(name, each, "it is not parquet", f"it begins with {head!r} instead of b'PAR1'")
    return paths


def bad(name: str, where: Path | str, fact: str, why: str, advice: str = "") -> BadData:
    """The error about a file, or about a place in one."""
    shown = str(where) if str(where).startswith(("'", '"')) else repr(str(where))
    return BadData(
        what=f"{name}: cannot use {shown}: {fact}",
        why=why,
        next=advice or "mend it, or give another file with path=FILE",
    )


def _is(path: Path, suffix: str) -> bool:
    packed = suffix in _PACKED and path.name.endswith(f"{suffix}.gz")
    return path.suffix == suffix or packed


def _head(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise bad(name, path, "it cannot be read", str(error)) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _parquet(name: str, path: Path) -> Table:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = list(file.schema_arrow.names)
    # pyarrow and a broken file: OSError, ArrowInvalid, ValueError and others.
    except Exception as error:
        raise bad(name, path, "it is not parquet", str(error)) from error
    return Table(columns, _of_batches(name, path, file.iter_batches(batch_size=_BATCH)))


def _arrow(name: str, path: Path) -> Table:
    """A stream of record batches, which `datasets` writes, or a file of them."""
    import pyarrow

    try:
        mapped = pyarrow.memory_map(str(path))
        if mapped.read(6) == b"ARROW1":
            whole = pyarrow.ipc.open_file(mapped)
            batches: Any = (whole.get_batch(n) for n in range(whole.num_record_batches))
            return Table(list(whole.schema.names), _of_batches(name, path, batches))
        mapped.seek(0)
        stream = pyarrow.ipc.open_stream(mapped)
    except Exception as error:
        raise bad(name, path, "it is not arrow", str(error)) from error
    return Table(list(stream.schema.names), _of_batches(name, path, stream))


def _of_batches(name: str, path: Path, batches: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    try:
        for batch in batches:
            yield from batch.to_pylist()
    except BadData:
        raise
    except Exception as error:  # pyarrow's own, where the file is cut off
        raise bad(name, path, "it cannot be read to its end", str(error)) from error


def _text(name: str, path: Path) -> IO[str]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    return io.TextIOWrapper(opened(path, "rb"), encoding="utf-8-sig", newline="")


def _lines(name: str, path: Path) -> Iterator[str]:
    """Lines without their ends. Not splitlines(): U+2028 and others may stand inside a JSON string."""
    try:
        with _text(name, path) as file:
            for line in file:
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise bad(name, path, "it is not text in UTF-8", str(error)) from error
    except (OSError, EOFError) as error:
        raise bad(name, path, "it cannot be read", str(error)) from error


def _json(name: str, path: Path) -> Table:
    """An object a line, a list of objects, or an object of lists (as pandas writes), whatever the suffix says."""
    first = next((line for line in _lines(name, path) if line.strip()), "")
    try:
        row = json.loads(first)
    except ValueError:
        row = None
    # An object that ends where its line ends is the first of many. Where lines are promised they are kept to, so that a
    # broken first one of millions does not bring all into memory.
    if ".jsonl" in path.suffixes and first.lstrip().startswith("{"):
        columns = list(next(_json_lines(name, path)))
        return Table(columns, _json_lines(name, path))
    if isinstance(row, dict) and not _is_columns(row):
        return Table(list(row), _json_lines(name, path))
    try:
        whole = json.loads("\n".join(_lines(name, path)))
    except ValueError as error:
        raise bad(name, path, "it is neither JSON nor one JSON object a line", str(error)) from error
    if isinstance(whole, dict):
        if _is_columns(whole):
            if len({len(column) for column in whole.values()}) > 1:
                raise bad(name, path, "its columns differ in length", "")
            rows = (dict(zip(whole, values, strict=True)) for values in zip(*whole.values(), strict=True))
            return Table(list(whole), rows)
        whole = [whole]
    if not isinstance(whole, list) or not all(isinstance(row, dict) for row in whole):
        raise bad(name, path, "its rows are not JSON objects", "")
    names = list(dict.fromkeys(name for row in whole for name in row))
    return Table(names, iter(whole))


def _is_columns(value: Mapping[str, Any]) -> bool:
    """An object of lists is a table, but one message list alone is a row."""
    return bool(value) and all(isinstance(column, list) for column in value.values()) and not _is_row(value)


def _is_row(value: Mapping[str, Any]) -> bool:
    """Whether lists hold objects, as the messages of a conversation do."""
    return all(column and all(isinstance(each, dict) for each in column) for column in value.values())


def _json_lines(name: str, path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(_lines(name, path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise bad(name, path, "it is neither JSON nor one JSON object a line", f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise bad(name, path, "its rows are not JSON objects", f"line {number}")
        yield row


def _csv(name: str, path: Path, kind: str) -> Table:
    # A field of csv is at most 128 KiB unless it is told otherwise; answers can be longer.
    csv.field_size_limit(1 << 30)

    def parsed() -> Iterator[list[str]]:
        try:
            with _text(name, path) as file:
                yield from csv.reader(file, delimiter="\t" if kind == ".tsv" else ",", strict=True)
        except UnicodeDecodeError as error:
            raise bad(name, path, "it is not text in UTF-8", str(error)) from error
        except (csv.Error, OSError, EOFError) as error:
            raise bad(name, path, f"it is not {kind[1:].upper()}", str(error)) from error

    header = next(parsed(), [])
    if len(set(header)) < len(header):
        raise bad(name, path, "a column is named twice", ", ".join(header))

    def rows() -> Iterator[Mapping[str, Any]]:
        for number, values in enumerate(itertools.islice(parsed(), 1, None), 1):
            if len(values) != len(header):
                if not values:
                    continue
                raise bad(name, path, f"row {number} has {len(values)} fields", f"its first line has {len(header)}")
            yield dict(zip(header, values, strict=True))

    return Table(header, rows())
