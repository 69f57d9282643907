"""Reads tables of metrics: metrics.csv of Lightning and LitGPT, and what W&B, TensorBoard and MLflow export.

Source: lightning `src/lightning/fabric/loggers/csv_logs.py` (one row per step, a column per metric) and
`utilities/throughput.py`; W&B's "export as CSV" of a chart (`run - metric`, `__MIN`, `__MAX`); TensorBoard's download
of one scalar (Wall time, Step, Value); MLflow's file store (`metrics/NAME`: time in ms, value, step), its CSV of a
chart and of a table of runs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim
from tunemark_importers.figure_names import NameMeaning, meaning_of
from tunemark_importers.metric_rows import (
    MetricRow,
    claims_of_rows,
    group_by_step,
    is_metric,
    is_rate,
    read_seconds,
)
from tunemark_importers.numbers import parse_number

MEANING = (
    "metrics as the program recorded them, by their names; what they count is unknown where the name does not say it"
)
_SCALAR = ("wall time", "step", "value")
_NAMES = ("metric", "key", "tag", "name")
_TIMES = ("timestamp", "_timestamp", "wall time", "wall_time", "walltime", "time", "created_at", "relative time (wall)")
_RUNS = ("run id", "run_id", "run", "run name", "run_name", "name")
# Columns of a table of runs, as W&B and MLflow export it.
_RUN_TABLE = ("state", "run id", "start time", "created", "lifecycle_stage")
_MLFLOW = re.compile(r"1[0-9]{12} [-+0-9.eEinfaN]+ [0-9]+\s*")
_MAX_RUNS = 64

_Table = tuple[Sequence[str], Sequence[tuple[int, Sequence[str]]]]


def is_document(head: str) -> bool:
    """Whether a text begins like one of these tables."""
    if _MLFLOW.fullmatch(head.lstrip("\ufeff").partition("\n")[0]):
        return True
    names = _header(head)
    return names is not None and _kind(names) is not None


def document(id: str, source: str, text: str) -> Sequence[Claim]:
    """A claim for each run. Raises `BadData` if no metric in it is a rate or a time, or the table is broken."""
    if _MLFLOW.fullmatch(text.lstrip("\ufeff").partition("\n")[0]):
        return _metric_file(id, source, text)
    names = _header(text)
    kind = _kind(names) if names is not None else None
    if names is None or kind is None:
        raise BadData(
            what=f"{source} is no table of metrics", why="its first line names none", next="see docs/audit.md"
        )
    tool, read = kind
    try:
        rows = [(number, cells) for number, cells in _rows(text) if len(cells) == len(names)]
    except csv.Error as error:
        raise BadData(
            what=f"{source} is a broken or truncated table", why=str(error), next="export it again"
        ) from error
    found: list[Claim] = []
    runs = list(read(source, (names, rows)))[:_MAX_RUNS]
    for name, run in runs:
        shown = f"{id}#{name}" if name and len(runs) > 1 else id
        found += claims_of_rows(run, id=shown, source=source, tool=tool, meaning=MEANING)
    if not found:
        raise BadData(
            what=f"no figure of a training is in {source}",
            why=f"its metrics are {', '.join(list(names)[:8])}",
            next="export a metric of tokens, sequences or steps per second, or a time of a step",
        )
    return found


def _header(text: str) -> Sequence[str] | None:
    first = next((line for line in text.lstrip("\ufeff").splitlines() if line.strip()), "")
    if "," not in first or len(first) > 1 << 16:
        return None
    try:
        return [cell.strip() for cell in next(csv.reader([first], strict=True))]
    except (csv.Error, StopIteration):
        return None


def _rows(text: str) -> Iterator[tuple[int, Sequence[str]]]:
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""))
    is_header = True
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if not is_header:
                yield reader.line_num, cells
            is_header = False


_Reader = Callable[[str, _Table], Iterator[tuple[str, Sequence[MetricRow]]]]


def _kind(names: Sequence[str]) -> tuple[str, _Reader] | None:
    """The tool that writes such a table, and how it is read."""
    lower = [name.lower() for name in names]
    if len(set(lower)) < len(lower):
        return None
    if tuple(lower) == _SCALAR:
        return "tensorboard", _one_scalar
    if any(name.endswith(("__MIN", "__MAX")) for name in names) and any(" - " in name for name in names):
        return "wandb", _chart
    if "step" in lower and "value" in lower and set(lower) & set(_NAMES):
        return "mlflow", _long
    rates = [name for name in names if is_rate(name)]
    if rates and set(lower) & set(_RUN_TABLE) and set(lower) & set(_RUNS):
        return "runs", _run_table
    if _step_column(names) is not None and any(is_rate(name) or _is_counter(name) for name in names):
        return "metrics", _wide
    return None


def _is_counter(name: str) -> bool:
    meaning = meaning_of(name)
    return meaning is not None and meaning.quantity in ("tokens", "elapsed", "time")


def _step_column(names: Sequence[str]) -> int | None:
    """The column of the step: the optimizer's, else of the iteration."""
    found = [(meaning.rank, -at) for at, name in enumerate(names) if (meaning := _step(name)) is not None]
    return -max(found)[1] if found else None


def _step(name: str) -> NameMeaning | None:
    meaning = meaning_of(name)
    return meaning if meaning is not None and meaning.quantity == "step" else None


def _time_column(names: Sequence[str]) -> int | None:
    return next((at for at, name in enumerate(names) if name.lower() in _TIMES), None)


def _one_scalar(source: str, table: _Table) -> Iterator[tuple[str, Sequence[MetricRow]]]:
    """TensorBoard names the scalar in the name of the file that it downloads: run-NAME-tag-TAG.csv."""
    tag = PurePath(source).stem.rpartition("tag-")[2]
    if not is_metric(tag):
        raise BadData(
            what=f"{source} does not say which scalar it holds",
            why="TensorBoard's CSV has only Wall time, Step and Value; the tag is in the name that it downloads",
            next="name it run-NAME-tag-TAG.csv, such as run-1-tag-train_tokens_per_second.csv, or give the event file",
        )
    found = []
    for line, (wall, step, value) in table[1]:
        found.append((line, parse_number(step), read_seconds(wall), tag, value))
    yield "", group_by_step(found)


def _chart(source: str, table: _Table) -> Iterator[tuple[str, Sequence[MetricRow]]]:
    names, rows = table
    columns: dict[str, list[tuple[int, str]]] = {}
    for at, name in enumerate(names):
        run, separator, metric = name.rpartition(" - ")
        if separator and not metric.endswith(("__MIN", "__MAX")):
            columns.setdefault(run, []).append((at, metric))
    for run, metrics in columns.items():
        yield (
            run,
            [
                MetricRow(
                    line, parse_number(cells[0]), None, {name: cells[at] for at, name in metrics if cells[at].strip()}
                )
                for line, cells in rows
            ],
        )


def _long(source: str, table: _Table) -> Iterator[tuple[str, Sequence[MetricRow]]]:
    names, rows = table
    lower = [name.lower() for name in names]
    step, value = lower.index("step"), lower.index("value")
    metric = next(lower.index(name) for name in _NAMES if name in lower)
    time = _time_column(names)
    run = next((lower.index(name) for name in _RUNS if name in lower and lower.index(name) != metric), None)
    found: dict[str, list[tuple[int, float | None, float | None, str, str]]] = {}
    for line, cells in rows:
        stamp_s = read_seconds(cells[time]) if time is not None else None
        one = (line, parse_number(cells[step]), stamp_s, cells[metric], cells[value])
        found.setdefault(cells[run] if run is not None else "", []).append(one)
    for name, each in found.items():
        yield name, group_by_step(each)


def _run_table(source: str, table: _Table) -> Iterator[tuple[str, Sequence[MetricRow]]]:
    names, rows = table
    lower = [name.lower() for name in names]
    label = next(lower.index(name) for name in ("name", "run name", "run_name", *_RUNS) if name in lower)
    for line, cells in rows:
        values = {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip() and is_metric(name)}
        yield cells[label], [MetricRow(line, None, None, values)]


def _wide(source: str, table: _Table) -> Iterator[tuple[str, Sequence[MetricRow]]]:
    """A column per metric. A logger that is called twice for one step writes two rows for it."""
    names, rows = table
    step, time = _step_column(names), _time_column(names)
    # Beside a step, an iteration is one of its micro-batches, and its time is not the step's.
    parts = {name for name in names if name.startswith("iter") and step is not None and names[step] != name}
    found = []
    for line, cells in rows:
        at = parse_number(cells[step]) if step is not None else None
        stamp_s = read_seconds(cells[time]) if time is not None else None
        for column, (name, cell) in enumerate(zip(names, cells, strict=True)):
            if column != step and name not in parts and cell.strip():
                found.append((line, at, stamp_s, name, cell))
    yield "", group_by_step(found)


def _metric_file(id: str, source: str, text: str) -> Sequence[Claim]:
    """A file of MLflow's file store, whose path names the metric."""
    parts = PurePath(source).parts
    name = "/".join(parts[parts.index("metrics") + 1 :]) if "metrics" in parts else PurePath(source).name
    if not is_metric(name):
        raise BadData(
            what=f"{source} does not say which metric it holds",
            why="MLflow writes one file per metric, and names it metrics/NAME",
            next="give it under that name, such as mlruns/0/RUN/metrics/tokens_per_second",
        )
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if _MLFLOW.fullmatch(line):
            time, value, step = line.split()
            found.append((number, parse_number(step), read_seconds(time), name, value))
    return claims_of_rows(group_by_step(found), id=id, source=source, tool="mlflow", meaning=MEANING)
