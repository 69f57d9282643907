"""Rows of tables from files or from the hub, streamed so that a table is never in memory as a whole.

The formats are parquet, arrow, JSON in any form, CSV and TSV, the texts also compressed. A file whose suffix does not
say its format is known by its first bytes.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunemark.errors import BadData, BadExperiment, NotReachable
from tunemark.hub import explain_hub_failure, hub_or_its_cache
from tunemark_datasets.arrow_rows import open_arrow, open_parquet
from tunemark_datasets.delimited_rows import DelimitedRows
from tunemark_datasets.files import combine_hashes, hash_path
from tunemark_datasets.json_rows import BadJsonError, JsonTable, read_json_rows
from tunemark_datasets.row_errors import BadRow, make_bad_data, make_bad_row
from tunemark_datasets.row_forms import refuse_preference, suggest_reading
from tunemark_datasets.table_files import FoundFiles, find_files, find_format, find_registered
from tunemark_datasets.text_files import ENCODING_HELP, open_text, read_encoding, report_unreadable

# Options of every dataset that reads tables, with their help texts.
OPTIONS = {
    "path": "a file (parquet, arrow, json, jsonl, csv, tsv; texts also compressed), or a folder of them",
    "hub": "instead of path: a dataset's id on the hub, preferably from the local cache",
    "config": "configuration of the hub dataset, or of a folder's README.md, if it has several",
    "split": "split of the hub dataset, or of a folder whose files' names name several (train); all: every file",
    "revision": "a commit, branch or tag of the hub repository",
    "field": "the key under which a json file has its rows; data, rows and others are recognized",
    "encoding": ENCODING_HELP,
    "entry": "of a folder with LLaMA-Factory's dataset_info.json: the entry whose file and columns are read",
    "rows": "how many rows from the beginning, instead of all",
    "incomplete": "rows that lack a text: refuse (the default), or skip, which leaves them out and counts them",
}
_BATCH_ROWS = 1024


class DataRow(NamedTuple):
    """where: a description for error messages, such as "rows.jsonl, row 3"."""

    where: str
    values: Mapping[str, Any]


class DataTable(NamedTuple):
    """columns: names, in order; of JSON those of the first rows. rows: values by column; can be read only once.
    source: how the file holds them, where that is worth saying."""

    columns: Sequence[str]
    rows: Iterator[Mapping[str, Any]]
    source: str = ""


class FileRows:
    """The rows of several files, one file after another. name: the dataset's, for error messages. found: of a folder,
    what was chosen in it."""

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        limit: int | None = None,
        *,
        encoding: str = "utf-8",
        field: str | None = None,
        found: FoundFiles | None = None,
    ) -> None:
        self._name, self.paths, self._limit = name, paths, limit
        self._encoding, self._field, self._found = encoding, field, found or FoundFiles([])
        self._fingerprint = ""
        self._count: int | None = None
        self._sources: dict[str, None] = {}

    def fingerprint(self) -> str:
        """A hash of the content only; for one file its SHA-256, as `sha256sum` prints it."""
        if not self._fingerprint:
            hashes = [hash_path(path) for path in self.paths]
            whole = combine_hashes(hashes)
            self._fingerprint = whole if self._limit is None else f"{whole}/{self._limit}"
        return self._fingerprint

    def facts(self) -> Mapping[str, Any]:
        """rows: None until all have been read."""
        more = {
            "split": self._found.split,
            "rows_are": ", ".join(self._sources),
            "unread_files": [path.name for path in self._found.unread],
        }
        return {
            "files": [str(path.absolute()) for path in self.paths],
            "bytes": sum(path.stat().st_size for path in self.paths),
            "sha256": self.fingerprint().partition("/")[0],
            "rows": self._count,
            **{name: value for name, value in more.items() if value},
        }

    def __iter__(self) -> Iterator[DataRow]:
        count = 0
        for path in self.paths:
            table = self.table(path)
            if table.source:
                self._sources[table.source] = None
            for number, values in enumerate(table.rows, 1):
                if count == self._limit:
                    self._count = count
                    return
                count += 1
                yield DataRow(f"{str(path)!r}, row {number}", values)
        self._count = count

    def describe_source(self) -> str:
        """The files in a few words, for error messages."""
        return f"{str(self.paths[0])!r}" + (f" and {len(self.paths) - 1} more files" if self.paths[1:] else "")

    def columns(self) -> Sequence[str]:
        """The columns of the first file."""
        return self.table(self.paths[0]).columns

    def table(self, path: Path) -> DataTable:
        """Open one file; BadData if its content does not match its suffix."""
        kind = find_format(path)
        if kind == "parquet":
            return DataTable(*open_parquet(self._name, path))
        if kind == "arrow":
            return DataTable(*open_arrow(self._name, path))
        if kind in ("csv", "tsv"):
            found = DelimitedRows(self._name, path, self._encoding, kind.upper())
            source = "" if found.separator in ",\t" else f"fields separated by {found.separator!r}"
            return DataTable(found.columns, found.rows(), source)
        return self._open_json(path)

    def _open_json(self, path: Path) -> DataTable:
        """The rows of a JSON file, which stays open until they are read."""

        def read() -> Iterator[JsonTable | Mapping[str, Any]]:
            with report_unreadable(self._name, path, self._encoding):
                try:
                    with open_text(path, self._encoding) as file:
                        table = read_json_rows(file, self._field, is_lines=find_format(path) == "json lines")
                        yield table
                        yield from table.rows
                except BadJsonError as error:
                    fact = "it is neither JSON nor one JSON object a line"
                    raise make_bad_data(self._name, path, fact, str(error), error.advice) from error

        rows: Any = read()
        table = next(rows)
        return DataTable(table.columns, rows, table.source)


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

    def describe_source(self) -> str:
        """The repository, for error messages."""
        return self.repository

    def columns(self) -> Sequence[str]:
        return list(self.loaded.column_names)

    def _batches(self) -> Iterator[Iterable[Mapping[str, Any]]]:
        for batch in self.loaded.iter(batch_size=_BATCH_ROWS):
            names = list(batch)
            yield (dict(zip(names, row, strict=True)) for row in zip(*batch.values(), strict=True))


class LeftOutText:
    """The text in columns that a dataset does not use, counted while its rows are read, so that it can be named.

    used: the columns that are used."""

    def __init__(self, used: Collection[str | None]) -> None:
        self._used = frozenset(used)
        self._rows: dict[str, int] = {}
        self._characters: dict[str, int] = {}

    def add(self, row: DataRow) -> None:
        for name, value in row.values.items():
            if name not in self._used and (characters := _count_characters(value)):
                self._rows[name] = self._rows.get(name, 0) + 1
                self._characters[name] = self._characters.get(name, 0) + characters

    def facts(self) -> Mapping[str, Any]:
        """By column: rows and characters."""
        return {name: {"rows": self._rows[name], "characters": self._characters[name]} for name in self._rows}


def _count_characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.strip() else 0
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return 0
    return sum(map(_count_characters, value))


class SkippedRows:
    """Rows that lack a text, where `incomplete=skip` leaves them out. first: the first one's error."""

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        wanted = options.get("incomplete", "refuse")
        if wanted not in ("refuse", "skip"):
            raise BadExperiment(what=f"{name}: incomplete cannot be {wanted!r}", next="use refuse or skip")
        self._skips = wanted == "skip"
        self.count, self.first = 0, ""

    def take(self, error: BadRow) -> None:
        """Count the row, or raise its error."""
        if not self._skips:
            raise error
        self.count += 1
        self.first = self.first or error.what

    def facts(self) -> Mapping[str, Any]:
        return {"skipped": {"rows": self.count, "first": self.first}} if self.count else {}


def read_text(name: str, row: DataRow, column: str, *, may_lack: bool = False) -> str:
    """The text in a row's column; `BadRow` where it has none. may_lack: then it is empty."""
    value = row.values.get(column)
    if isinstance(value, str):
        return value
    if value is None and may_lack:
        return ""
    if column not in row.values:
        has = f"it has {', '.join(row.values) or 'none'}"
        raise make_bad_row(name, row.where, f"it lacks the column {column}", has)
    why, advice = f"it is {json.dumps(value, default=str, ensure_ascii=False)[:100]}", ""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        advice = "these are messages: chat:path=FILE reads them"
    elif isinstance(value, float) and value != value:
        why, advice = "it is NaN, as pandas writes an empty cell", "write it with DataFrame.fillna('')"
    elif isinstance(value, (int, float)):
        advice = "write it as text, between quotes"
    raise make_bad_row(name, row.where, f"its {column} is {type(value).__name__}, not text", why, advice)


def make_no_rows_error(name: str, rows: FileRows | HubRows) -> BadData:
    """The error for data that can be read and are empty."""
    return BadData(
        what=f"{name}: there are no rows",
        why=f"{rows.describe_source()} can be read, and holds none",
        next="give another file with path=FILE",
    )


def check_columns(
    name: str, rows: FileRows | HubRows, source: str, available: Collection[str], missing: Sequence[str], advice: str
) -> None:
    """`BadData` where rows lack columns, with how they are read where their form is known; advice: else. source: what
    the user named."""
    if not missing or not available:
        return
    why, known = f"{source} has {', '.join(available)}", suggest_reading(available, source)
    inner = {column: each for column, each in next(iter(rows)).values.items() if isinstance(each, dict)}
    wanted = {each.rpartition(".")[2] for each in missing}
    for column, values in inner.items():
        if wanted & set(values) or any(each.startswith(f"{column}.") for each in missing):
            why += f"; its {column} is an object of {', '.join(values)}"
            known = (
                f"columns within columns are not read; make them columns of their own, for example by datasets: "
                f"Dataset.flatten(), which names them {column}.{next(iter(values))}"
            )
    raise BadData(what=f"{name}: there is no column {', '.join(missing)}", why=why, next=known or advice)


def open_rows(name: str, options: Mapping[str, str]) -> FileRows | HubRows:
    """The rows that `path` or `hub` names. BadExperiment if the options conflict, BadData if nothing can be read."""
    limit, encoding = parse_row_limit(name, options), read_encoding(name, options)
    if ("path" in options) == ("hub" in options):
        raise BadExperiment(
            what=f"{name} needs a path or a hub's id, and only one of them",
            why="path and hub exclude each other" if "path" in options else "neither is given",
            next=f"--dataset {name}:path=FILE, or {name}:hub=OWNER/NAME",
        )
    if "hub" in options:
        advice = f"give a file with {name}:path=FILE, or use another dataset"
        loaded = load_from_hub(name, options["hub"], options, advice)
        return HubRows(options["hub"], options, loaded, limit)
    path = Path(options["path"]).expanduser()
    for option in ("revision", *(() if path.is_dir() else ("config", "split"))):
        if option in options:
            raise BadExperiment(
                what=f"{name}: path and {option} exclude each other",
                why=f"a {option} belongs to a hub dataset; a file has none",
                next="leave out one of them",
            )
    if not path.exists():
        raise BadData(
            what=f"{name}: there is no file {str(path)!r}",
            why="it was given with path=",
            next=f"correct the path, relative to the current folder; or, for the hub, use {name}:hub=OWNER/NAME",
        )
    found = find_files(name, path, split=options.get("split"), config=options.get("config"))
    return FileRows(name, found.paths, limit, encoding=encoding, field=options.get("field"), found=found)


def resolve_entry(name: str, options: Mapping[str, str], columns: Mapping[str, str]) -> Mapping[str, str]:
    """The options with those that a folder's dataset_info.json (LLaMA-Factory's) says: its file, its columns, and the
    keys and roles of its messages. Preference pairs are refused.

    columns: options by that file's names of columns and tags. Options that the user gives stay.
    """
    folder = Path(options.get("path", "")).expanduser()
    if "path" not in options or not folder.is_dir():
        if "entry" in options:
            raise BadExperiment(
                what=f"{name}: entry needs path=FOLDER", why="it names an entry of the folder's dataset_info.json"
            )
        return options
    found = find_registered(name, folder, options.get("entry"))
    if found is None:
        return options
    pair = (found.columns.get("chosen", "chosen"), found.columns.get("rejected", "rejected"))
    if found.is_ranking and not {pair[0], pair[1]} & set(options.values()):
        refuse_preference(name, str(found.path), pair)
    said = {columns[key]: value for key, value in {**found.columns, **found.tags}.items() if key in columns}
    if "role_tag" in columns and (roles := found.roles()):
        said["roles"] = ",".join(f"{theirs}={ours}" for theirs, ours in roles.items())
    return {**said, **options, "path": str(found.path)}


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
        with hub_or_its_cache():
            return datasets.load_dataset(repository, *more, split=options.get("split", "train"), revision=revision)
    # The network, the hub, the cache and four libraries each raise exceptions of their own.
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = " ".join(str(error).split())
        refused = explain_hub_error(name, repository, reason)
        if refused is not None:
            raise refused from error
        raise NotReachable(
            what=f"{name}: {repository}{at} is not in the local cache and cannot be downloaded from the hub",
            why=explain_hub_failure(error),
            next=advice,
        ) from error


# What `datasets` says of a name that a repository does not have, with the names that it has.
_UNKNOWN_NAMES = (
    (r"among the available configs: (\[.*?\])", "has several configurations", "config"),
    (r"BuilderConfig '.*?' not found\. Available: (\[.*?\])", "has no such configuration", "config"),
    (r"Unknown split .*? Should be one of (\[.*?\])", "has no such split", "split"),
)


def explain_hub_error(name: str, repository: str, reason: str) -> BadData | None:
    """The error of a configuration or split that a repository does not have; None where it is another one. reason: the
    library's message."""
    for pattern, what, option in _UNKNOWN_NAMES:
        if found := re.search(pattern, reason):
            return BadData(
                what=f"{name}: {repository} {what}",
                why=f"it has {found[1]}",
                next=f"name one: {name}:hub={repository}:{option}=NAME",
            )
    return None
