"""Reads pytest-benchmark's JSON of tests with the fixture `tunemark`: a benchmark is a run, its rounds are steps.

Source: github.com/ionelmc/pytest-benchmark, `src/pytest_benchmark/stats.py` (Metadata.as_dict) and `plugin.py`
(pytest_benchmark_generate_json), versions 3.1 to 5; extra_info is written by `tunemark_pytest.fixture`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim, LoggedStep, LoggedSteps
from tunemark_importers.json_documents import as_count, as_number, object_in, parse_json_object, pop_layout

MEANING = "all slots of the timed steps over their wall time, whole job, as tunemark measured it in a test"

_KIND = "what pytest-benchmark saves"
# Schema versions of extra_info["tunemark"]: 1, the first.
_SCHEMA = 1
_MAX_CLAIMS = 1000


def is_document(head: str) -> bool:
    """Whether a text begins like pytest-benchmark's JSON, whatever was benchmarked."""
    return head.lstrip().startswith("{") and '"machine_info"' in head and '"commit_info"' in head


def document(id: str, source: str, text: str) -> Sequence[Claim]:
    """One claim per benchmark of the fixture. Raises `BadData` if the JSON is broken or has none."""
    benchmarks = parse_json_object(text, source, _KIND).get("benchmarks")
    rows = [row for row in benchmarks if isinstance(row, dict)] if isinstance(benchmarks, list) else []
    ours = [row for row in rows if object_in(object_in(row, "extra_info"), "tunemark")]
    if not ours:
        raise BadData(
            what=f"{source} is {_KIND}, and none of its {len(rows)} benchmarks is a training run",
            why="a run of the fixture `tunemark` has its facts in extra_info",
            next="save the benchmarks of tests that call `tunemark(...)`",
        )
    known = [row for row in ours if object_in(object_in(row, "extra_info"), "tunemark").get("schema") == _SCHEMA]
    if not known:
        raise BadData(
            what=f"{source} was written by another version of tunemark",
            why=f"this one reads facts of schema {_SCHEMA}",
            next="read it with the version that wrote it",
        )
    left_out = len(rows) - len(known)
    notes = (f"{left_out} other benchmarks in the file are left out",) if left_out else ()
    return [_claim(row, id, source, notes) for row in known[:_MAX_CLAIMS]]


def _claim(row: Mapping[str, Any], id: str, source: str, notes: tuple[str, ...]) -> Claim:
    extra = object_in(row, "extra_info")
    run = object_in(extra, "tunemark")
    all_notes = list(notes)
    facts: dict[str, Any] = {}
    origin: dict[str, str] = {}

    def take(field: str, value: Any, words: str) -> None:
        if value is not None:
            facts[field] = value
            origin[field] = words

    for field, key in _TEXTS.items():
        take(field, _text(run.get(key)), f"extra_info: {key}")
    for field, key in _NUMBERS.items():
        value = as_number(run.get(key))
        if value is not None and not math.isfinite(value):
            all_notes.append(f"{field} is {value} as stated")
        elif value is not None and value >= 0:
            take(field, value, f"extra_info: {key}")
    for field, key in _COUNTS.items():
        if key == "sequence" and run.get("batching") == "bucket":
            all_notes.append("its rows differ in width, so no sequence says how many slots a step has")
            continue
        take(field, as_count(run.get(key)), f"extra_info: {key}")
    take("tokens_per_s", _positive(extra.get("slot_tokens_per_s")), "extra_info: slot_tokens_per_s")
    take("step_time_s", _positive(object_in(row, "stats").get("mean")), "stats: mean of the rounds")
    take("tokens_total", _positive(object_in(run, "tokens").get("slots")), "extra_info: tokens.slots")
    take("train_s", _positive(run.get("interval_s")), "extra_info: interval_s")
    take("steps_done", _positive(run.get("steps_measured")), "extra_info: steps_measured")
    if run.get("simulated") is True:
        all_notes.append("measured on a simulated device: no figure says how fast anything is")
    verdict = _text(run.get("verdict"))
    if verdict and verdict != "valid":
        all_notes.append(f"its own verdict was {verdict}")
    layout = pop_layout(facts)
    name = _text(row.get("fullname")) or _text(row.get("name")) or id
    return Claim(
        id=name, source=source, tool="pytest-benchmark", meaning=MEANING,
        counts="slots", scope="job", layout=layout, steps=_steps(row), origin=origin,
        notes=tuple(all_notes),
        **facts,
    )  # fmt: skip


_TEXTS = {"model": "model", "method": "method", "device": "chip", "precision": "precision"}
_NUMBERS = {
    "parameters": "parameters",
    "trainable_parameters": "trainable_parameters",
    "memory_bytes": "peak_memory_bytes",
}
_COUNTS = {
    "count": "chips",
    "sequence": "sequence",
    "global_batch": "global_batch",
    "micro_batch": "micro_batch",
    "gradient_accumulation": "gradient_accumulation",
}


def _steps(row: Mapping[str, Any]) -> LoggedSteps:
    """The rounds as steps, each with its seconds; empty if the file was saved without them."""
    steps = LoggedSteps()
    values = object_in(row, "stats").get("data")
    if isinstance(values, list):
        for at, value in enumerate(values, 1):
            if (seconds := _positive(value)) is not None:
                # Rounds of several attempts follow each other, so their indices are not step numbers of one run.
                steps.add(LoggedStep(at, duration_s=seconds, duration_steps=1.0))
    return steps


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def _positive(value: Any) -> float | None:
    number = as_number(value)
    return number if number is not None and 0 < number < math.inf else None
