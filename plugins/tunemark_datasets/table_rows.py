"""Rows of tables from files or from the hub, streamed so that a table is never in memory as a whole.

The formats are parquet, arrow, JSON Lines, CSV and TSV, the last three also compressed with gzip. A `.json` file with
one list or one object of columns is read as a whole, so use JSON Lines for datasets larger than memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from tunemark.errors import BadData, BadExperiment
from tunemark_datasets.files import combine_hashes, hash_path, list_visible_files, make_missing_file_error

# In a folder only files with the first of these suffixes that occurs are read: a clone of a hub repository holds
# parquet and, next to it, json that describes it.
SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv")
_COMPRESSIBLE = (".jsonl", ".json", ".csv", ".tsv")
# Options of every dataset that reads tables, with their help texts.
OPTIONS = {
    "path": f"a file ({', '.join(s[1:] for s in SUFFIXES)}; text formats also as .gz), or a folder of them",
    "hub": "instead of path: a dataset's id on the hub, preferably from the local cache",
    "config": "configuration of the hub dataset, if it has several",
    "split": "split of the hub dataset (train)",
    "revision": "a commit, branch or tag of the hub repository",
    "rows": "how many rows from the beginning, instead of all",
}
_BATCH_ROWS = 1024


class DataRow(NamedTuple):
    """where: a description for error messages, such as "rows.jsonl, row 3"."""

    where: str
    values: Mapping[str, Any]


class DataTable(NamedTuple):
    """columns: names, in order. rows: values by column; can be read only once."""

    columns: Sequence[str]
    rows: Iterator[Mapping[str, Any]]


class FileRows:
    """The rows of several files, one file after another. name: the dataset's, for error messages."""

    def __init__(self, name: str, paths: Sequence[Path], limit: int | None = None) -> None:
        self._name, self.paths, self._limit = name, paths, limit
        self._fingerprint = ""
        self._count: int | None = None

    def fingerprint(self) -> str:
        """A hash of the content only; for one file its SHA-256, as `sha256sum` prints it."""
        if not self._fingerprint:
            hashes = [hash_path(path) for path in self.paths]
            whole = combine_hashes(hashes)
            self._fingerprint = whole if self._limit is None else f"{whole}/{self._limit}"
        return self._fingerprint

    def facts(self) -> Mapping[str, Any]:
        """rows: None until all have been read."""
        return {
            "files": [str(path.absolute()) for path in self.paths],
            "bytes": sum(path.stat().st_size for path in self.paths),
            "sha256": self.fingerprint().partition("/")[0],
            "rows": self._count,
        }

    def __iter__(self) -> Iterator[DataRow]:
        count = 0
        for path in self.paths:
            table = self.table(path)
            for number, values in enumerate(table.rows, 1):
                if count == self._limit:
                    self._count = count
                    return
                count += 1
                yield DataRow(f"{str(path)!r}, row {number}", values)
        self._count = count

    def columns(self) -> Sequence[str]:
        """The columns of the first file."""
        return self.table(self.paths[0]).columns

    def table(self, path: Path) -> DataTable:
        """Open one file; BadData if its content does not match its suffix."""
        kind = path.suffixes[-2] if path.suffix == ".gz" else path.suffix
        if kind == ".parquet":
            return _open_parquet(self._name, path)
        if kind == ".arrow":
            return _open_arrow(self._name, path)
        return _open_csv(self._name, path, kind) if kind in (".csv", ".tsv") else _open_json(self._name, path)


class HubRows:
    """A split of a hub dataset as loaded by `datasets`, which memory-maps its rows."""

    def __init__(self, repository: str, options: Mapping[str, str], loaded: Any, limit: int | None = None) -> None:
        self.repository, self._options, self.loaded, self._limit = repository, options, loaded, limit

    def fingerprint(self) -> str:
        # The only identity that `datasets` gives: a hash of the builder, its revision and the split.
        return f"{self.loaded._fingerprint}/{self.facts()['rows']}"

    def facts(self) -> Mapping[str, Any]:
        return {
            "repository": self.repository,
            "revision": self._options.get("revision"),
            "files": sorted(self.loaded.info.download_checksums or {}),
            "fingerprint": self.loaded._fingerprint,
            "rows": self.loaded.num_rows if self._limit is None else min(self._limit, self.loaded.num_rows),
        }

    def __iter__(self) -> Iterator[DataRow]:
        rows = itertools.chain.from_iterable(self._batches())
        for number, values in enumerate(itertools.islice(rows, self._limit), 1):
            yield DataRow(f"{self.repository}, row {number}", values)

    def columns(self) -> Sequence[str]:
        return list(self.loaded.column_names)

    def _batches(self) -> Iterator[Iterable[Mapping[str, Any]]]:
        for batch in self.loaded.iter(batch_size=_BATCH_ROWS):
            names = list(batch)
            yield (dict(zip(names, row, strict=True)) for row in zip(*batch.values(), strict=True))


def open_rows(name: str, options: Mapping[str, str]) -> FileRows | HubRows:
    """The rows that `path` or `hub` names. BadExperiment if the options conflict, BadData if nothing can be read."""
    limit = parse_row_limit(name, options)
    if ("path" in options) == ("hub" in options):
        raise BadExperiment(
            what=f"{name} needs a path or a hub's id, and only one of them",
            why="path and hub exclude each other" if "path" in options else "neither is given",
            next=f"--dataset {name}:path=FILE, or {name}:hub=OWNER/NAME",
        )
    if "path" in options:
        for option in ("revision", "split", "config"):
            if option in options:
                raise BadExperiment(
                    what=f"{name}: path and {option} exclude each other",
                    why=f"a {option} belongs to a hub dataset; a file has none",
                    next="leave out one of them",
                )
        path = Path(options["path"]).expanduser()
        if not path.exists():
            raise BadData(
                what=f"{name}: there is no file {str(path)!r}",
                why="it was given with path=",
                next=f"correct the path, relative to the current folder; or, for the hub, use {name}:hub=OWNER/NAME",
            )
        return FileRows(name, find_files(name, path), limit)
    loaded = load_from_hub(name, options["hub"], options, f"give a file with {name}:path=FILE, or use another dataset")
    return HubRows(options["hub"], options, loaded, limit)


def parse_row_limit(name: str, options: Mapping[str, str]) -> int | None:
    """The value of the option `rows`, None if it is not given."""
    text = options.get("rows")
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise BadExperiment(what=f"{name}: rows cannot be {text!r}", next="use a whole number, 1 or more")
    return int(text)


def load_from_hub(name: str, repository: str, options: Mapping[str, str], advice: str) -> Any:
    """A split of a dataset on the hub; BadData if it cannot be loaded. No other data replaces it."""
    import datasets

    datasets.disable_progress_bars()
    revision = options.get("revision")
    more = [options["config"]] if "config" in options else []
    try:
        return datasets.load_dataset(repository, *more, split=options.get("split", "train"), revision=revision)
    # The network, the hub, the cache and four libraries each raise exceptions of their own.
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = " ".join(str(error).split())
        raise BadData(
            what=f"{name}: {repository}{at} is not in the local cache and cannot be downloaded from the hub",
            why=f"{type(error).__name__}: {reason[:300]}",
            next=advice,
        ) from error


def find_files(name: str, path: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The files at a path, with only suffixes and first bytes checked."""
    if path.is_dir():
        shown = list_visible_files(path)
        kinds = [[p for p in shown if _has_suffix(p, suffix)] for suffix in suffixes]
        paths = next((kind for kind in kinds if kind), [])
        if not paths:
            raise make_bad_data(name, path, "there is no file to read", f"it has no {', '.join(suffixes)} file")
    elif path.is_file():
        paths = [path]
    else:
        raise make_missing_file_error(name, path)
    for each in paths:
        if not any(_has_suffix(each, suffix) for suffix in suffixes):
            raise make_bad_data(
                name,
                each,
                f"its format {each.suffix or 'without a suffix'} is not known",
                f"the known formats are {', '.join(suffixes)}",
            )
        head = _read_head(name, each)
        if not head:
            raise make_bad_data(name, each, "it is empty", "0 bytes")
        if each.suffix == ".parquet" and head != b"PAR1":
            raise make_bad_data(name, each, "it is not parquet", f"it begins with {head!r} instead of b'PAR1'")
    return paths


def make_bad_data(name: str, where: Path | str, fact: str, why: str, advice: str = "") -> BadData:
    """The error for a file, or for a row of one."""
    shown = str(where) if str(where).startswith(("'", '"')) else repr(str(where))
    return BadData(
        what=f"{name}: cannot use {shown}: {fact}",
        why=why,
        next=advice or "correct it, or give another file with path=FILE",
    )


def _has_suffix(path: Path, suffix: str) -> bool:
    packed = suffix in _COMPRESSIBLE and path.name.endswith(f"{suffix}.gz")
    return path.suffix == suffix or packed


def _read_head(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise make_bad_data(name, path, "it cannot be read", str(error)) from error


def _open_parquet(name: str, path: Path) -> DataTable:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = list(file.schema_arrow.names)
    # For a broken file pyarrow raises OSError, ArrowInvalid, ValueError and others.
    except Exception as error:
        raise make_bad_data(name, path, "it is not parquet", str(error)) from error
    return DataTable(columns, _rows_of_batches(name, path, file.iter_batches(batch_size=_BATCH_ROWS)))


def _open_arrow(name: str, path: Path) -> DataTable:
    """Arrow's stream format, which `datasets` writes, or its file format."""
    import pyarrow

    try:
        mapped = pyarrow.memory_map(str(path))
        if mapped.read(6) == b"ARROW1":
            whole = pyarrow.ipc.open_file(mapped)
            batches: Any = (whole.get_batch(n) for n in range(whole.num_record_batches))
            return DataTable(list(whole.schema.names), _rows_of_batches(name, path, batches))
        mapped.seek(0)
        stream = pyarrow.ipc.open_stream(mapped)
    except Exception as error:
        raise make_bad_data(name, path, "it is not arrow", str(error)) from error
    return DataTable(list(stream.schema.names), _rows_of_batches(name, path, stream))


def _rows_of_batches(name: str, path: Path, batches: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    try:
        for batch in batches:
            yield from batch.to_pylist()
    except BadData:
        raise
    except Exception as error:  # pyarrow's, for a truncated file
        raise make_bad_data(name, path, "it cannot be read to its end", str(error)) from error


def _open_text(name: str, path: Path) -> IO[str]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    return io.TextIOWrapper(opened(path, "rb"), encoding="utf-8-sig", newline="")


def _read_lines(name: str, path: Path) -> Iterator[str]:
    """Lines without newlines. splitlines() would also split at U+2028 and others, which JSON strings may contain."""
    try:
        with _open_text(name, path) as file:
            for line in file:
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise make_bad_data(name, path, "it is not text in UTF-8", str(error)) from error
    except (OSError, EOFError) as error:
        raise make_bad_data(name, path, "it cannot be read", str(error)) from error


def _open_json(name: str, path: Path) -> DataTable:
    """One object per line, a list of objects, or an object of lists (as pandas writes), whatever the suffix is."""
    first = next((line for line in _read_lines(name, path) if line.strip()), "")
    try:
        row = json.loads(first)
    except ValueError:
        row = None
    # An object that ends with its line is the first of many. A `.jsonl` file is always read by lines, so that a broken
    # first line does not cause millions of them to be read into memory.
    if ".jsonl" in path.suffixes and first.lstrip().startswith("{"):
        columns = list(next(_read_json_lines(name, path)))
        return DataTable(columns, _read_json_lines(name, path))
    if isinstance(row, dict) and not _is_table_of_columns(row):
        return DataTable(list(row), _read_json_lines(name, path))
    try:
        whole = json.loads("\n".join(_read_lines(name, path)))
    except ValueError as error:
        raise make_bad_data(name, path, "it is neither JSON nor one JSON object a line", str(error)) from error
    if isinstance(whole, dict):
        if _is_table_of_columns(whole):
            if len({len(column) for column in whole.values()}) > 1:
                raise make_bad_data(name, path, "its columns differ in length", "")
            rows = (dict(zip(whole, values, strict=True)) for values in zip(*whole.values(), strict=True))
            return DataTable(list(whole), rows)
        whole = [whole]
    if not isinstance(whole, list) or not all(isinstance(row, dict) for row in whole):
        raise make_bad_data(name, path, "its rows are not JSON objects", "")
    names = list(dict.fromkeys(name for row in whole for name in row))
    return DataTable(names, iter(whole))


def _is_table_of_columns(value: Mapping[str, Any]) -> bool:
    """Whether the object is a table, with a list per column; lists of messages make it a row."""
    return bool(value) and all(isinstance(column, list) for column in value.values()) and not _holds_objects(value)


def _holds_objects(value: Mapping[str, Any]) -> bool:
    """Whether every list holds objects, as the messages of a conversation do."""
    return all(column and all(isinstance(each, dict) for each in column) for column in value.values())


def _read_json_lines(name: str, path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(_read_lines(name, path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise make_bad_data(
                name, path, "it is neither JSON nor one JSON object a line", f"line {number}: {error}"
            ) from error
        if not isinstance(row, dict):
            raise make_bad_data(name, path, "its rows are not JSON objects", f"line {number}")
        yield row


def _open_csv(name: str, path: Path, kind: str) -> DataTable:
    # The csv module's default limit is 128 KiB per field; answers can be longer.
    csv.field_size_limit(1 << 30)

    def parsed() -> Iterator[list[str]]:
        try:
            with _open_text(name, path) as file:
                yield from csv.reader(file, delimiter="\t" if kind == ".tsv" else ",", strict=True)
        except UnicodeDecodeError as error:
            raise make_bad_data(name, path, "it is not text in UTF-8", str(error)) from error
        except (csv.Error, OSError, EOFError) as error:
            raise make_bad_data(name, path, f"it is not {kind[1:].upper()}", str(error)) from error

    header = next(parsed(), [])
    if len(set(header)) < len(header):
        raise make_bad_data(name, path, "a column is named twice", ", ".join(header))

    def rows() -> Iterator[Mapping[str, Any]]:
        for number, values in enumerate(itertools.islice(parsed(), 1, None), 1):
            if len(values) != len(header):
                if not values:
                    continue
                raise make_bad_data(
                    name, path, f"row {number} has {len(values)} fields", f"its first line has {len(header)}"
                )
            yield dict(zip(header, values, strict=True))

    return DataTable(header, rows())
