"""`tunemark list runs`: the runs of a store or report, filtered and sorted."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tunemark.cli.messages import print_json
from tunemark.cli.run_arguments import read_runs
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment, did_you_mean
from tunemark.markdown import escape, markdown_table
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.results import Result


def print_runs(name: str, catalog: Catalog, *, where: Sequence[str], sort: str | None, as_json: bool) -> int:
    """Print one row for each run. where: FIELD=VALUE, all of which must hold; VALUE may have * and ?. sort: a field,
    the smallest first, or -FIELD for the largest first; runs without a value come last."""
    # Heavy, and not needed by --help.
    from tunemark.report.estimate_format import format_estimate
    from tunemark.results import encode_result

    wanted = [_parse_condition(words) for words in where]
    found = [r for r in read_runs(name, catalog) if all(fits(r) for fits in wanted)]
    if sort is not None:
        field = _check_field(sort.removeprefix("-"))
        known = [r for r in found if _value(r, field) is not None]
        known.sort(key=lambda r: _sort_key(_value(r, field)), reverse=sort.startswith("-"))
        found = known + [r for r in found if _value(r, field) is None]
    if as_json:
        for result in found:
            print_json(encode_result(result))
        return 0
    shown = [condition.partition("=")[0] for condition in where] + ([sort.removeprefix("-")] if sort else [])
    extra = [each for each in dict.fromkeys(shown) if each not in _COLUMNS]
    rows = []
    for result in found:
        cells = [escape(str(_value(result, each))) for each in (*_COLUMNS, *extra)]
        rows.append([*cells, format_estimate(result.tokens_per_s), result.status, result.verdict])
    names = [*(name.removesuffix("_requested") for name in _COLUMNS), *extra]
    heading, left = [*names, "tokens/s (content)", "status", "verdict"], "<" * len(names)
    print_result(markdown_table(heading, rows, left + "><<") if rows else "no runs")
    return 0


_COLUMNS = ("run_id", "model", "device", "size", "strategy_requested", "precision", "batching", "sequence",
            "micro_batch")  # fmt: skip


def _parse_condition(words: str) -> Callable[[Result], bool]:
    field, equals, pattern = words.partition("=")
    if not equals:
        raise BadExperiment(what=f"--where {words} is no condition", next="write --where FIELD=VALUE")
    _check_field(field)
    return lambda result: fnmatch.fnmatchcase(str(_value(result, field)), pattern)


def _check_field(field: str) -> str:
    from tunemark.results import Result

    if field not in Result.__struct_fields__:
        raise BadExperiment(what=f"results have no field {field!r}", next=did_you_mean(field, Result.__struct_fields__))
    return field


def _value(result: Result, field: str) -> Any:
    """The value of a field; of an estimate its value."""
    found = getattr(result, field)
    return getattr(found, "value", found)


def _sort_key(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0, str(value)
