"""The columns of the tables with a row for each run: the field each shows, its unit and what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from tunemark.report.finding_sentences import translate_finding
from tunemark.report.labels import device_of
from tunemark.report.report import Cell, Column, ReportTable
from tunemark.report.translation import Translate
from tunemark.results import Result
from tunemark_worker.training_settings import TRAINING_SETTINGS

RunColumn = tuple[Column, Callable[[Result], Cell]]


def make_table(
    key: str,
    title: str,
    fields: Sequence[RunColumn],
    results: Sequence[Result],
    derivations: Sequence[Mapping[str, str]],
    tr: Translate,
) -> ReportTable:
    """A table of one row for each run, run_id first. derivations: of each run, by column. title: already translated."""
    all_fields = [_KEY, *(each for each in fields if not _is_usual(each, results))]
    names = [column.name for column, _ in all_fields]
    columns = [[_translate_reason(column, read(r), tr) for r in results] for column, read in all_fields]
    return ReportTable(
        key=key,
        title=title,
        columns=tuple(_translated(column, tr) for column, _ in all_fields),
        rows=tuple(zip(*columns, strict=True)),
        derivations={(i, n): row[n] for i, row in enumerate(derivations) for n in names if n in row},
        runs=tuple(r.run_id for r in results),
        origins=tuple("simulated" if r.simulated else "measured" for r in results),
    )


def _translate_reason(column: Column, cell: Cell, tr: Translate) -> Cell:
    return translate_finding(cell, tr) if column.name.endswith("_reason") and isinstance(cell, str) else cell


# Of settings that reports came to know later, the value that all runs had before.
_USUAL = {each.stored: each.unhashed for each in TRAINING_SETTINGS if each.unhashed is not None}


def _is_usual(field: RunColumn, results: Sequence[Result]) -> bool:
    """Whether a column is of such a setting, and no run has another value."""
    column, read = field
    return column.name in _USUAL and all(read(each) == _USUAL[column.name] for each in results)


def phase_columns(results: Sequence[Result], field: str) -> list[RunColumn]:
    """A column for each name in a field that maps names to seconds, over all runs."""
    names = dict.fromkeys(name for r in results for name in getattr(r, field) or {})
    return [_phase_column(field, name) for name in names]


def to_cell(value: Any) -> Cell:
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    found: Cell = value
    return found


def selected_strategy(result: Result) -> str | None:
    """The strategy that was actually used, in the platform's own spelling if it has one; None if unknown."""
    if not result.strategy_selected:
        return None
    return str(result.strategy_selected.get("spelled") or to_cell(result.strategy_selected))


def _col(name: str, title: str, unit: str = "", help: str = "") -> RunColumn:
    return Column(name=name, title=title, unit=unit, help=help), attrgetter(name)


def _training_columns() -> Iterator[RunColumn]:
    for each in TRAINING_SETTINGS:
        yield _col(each.stored, each.title, each.unit)
        if each.name == "global_batch":
            yield _col("gradient_accumulation", "accumulation")


def _held_out_column(field: str, title: str, unit: str) -> RunColumn:
    column = Column(name=f"held_out_{field}", title=title, unit=unit, help="documents kept out of training")
    return column, lambda r: getattr(r.held_out, field) if r.held_out else None


def _phase_column(field: str, name: str) -> RunColumn:
    column = Column(name=f"{field.removesuffix('_s')}_{name}_s", title=name, unit="s", help=name)
    return column, lambda r: (getattr(r, field) or {}).get(name)


def _translated(column: Column, tr: Translate) -> Column:
    # A column whose help is its title is named by a plugin, and has no translation.
    if column.help == column.title:
        return Column(name=column.name, title=column.title, unit=column.unit)
    return Column(
        name=column.name, title=tr(column.title), unit=column.unit, help=tr(column.help) if column.help else ""
    )


_KEY = _col("run_id", "run")
THROUGHPUT: list[RunColumn] = [
    _col("tokens_per_s", "content", "tokens/s", "content tokens over the wall time of the timed steps, whole job"),
    _col("verdict", "verdict", help="valid, suspect, invalid or unknown"),
    _col("attempts", "attempts"),
    _col("tokens_per_s_per_chip", "content per chip", "tokens/s"),
    _col("mfu", "MFU", "1", "model FLOPs of all slots (causal, nothing recomputed) over peak FLOP/s"),
    _col("hfu", "HFU", "1", "the same with what checkpointing computed again"),
    _col("steps_measured", "timed steps"),
    _col("interval_s", "timed", "s"),
    _col("status", "status", help="ok, oom, error, killed or timeout"),
    _col("model", "model"),
    (Column(name="accelerator", title="device"), device_of),
    _col("strategy_requested", "strategy"),
    _col("breakdown", "breakdown", help="every part of a step was waited for: its rate is not the run's"),
    _col("simulated", "simulated", help="the accelerator is a simulator's: no figure says how fast anything is"),
]
STEP: list[RunColumn] = [
    (
        Column(name="step_time_p50_s", title="step p50", unit="s"),
        lambda r: r.step_time_s.p50 if r.step_time_s else None,
    ),
    (
        Column(name="step_time_p95_s", title="step p95", unit="s"),
        lambda r: r.step_time_s.p95 if r.step_time_s else None,
    ),
    _col("warmup_steps", "warm-up steps"),
    _col("time_to_first_step_s", "to first step", "s", "from the launch to the first step's end; part of no rate"),
    _col("queue_s", "queued", "s", "waiting for a turn on the device; part of no rate"),
    _col("search_s", "search", "s", "choosing a parallel configuration, compiling included; part of no rate"),
    _col("compilations", "compilations", help="programs that the device compiled until the timed part ended"),
    _col("compile_s", "compiling", "s", "compiling them; part of no rate, unless the finding `compiled` says so"),
    _col("loss_first", "first loss", "nat"),
    _col("loss_last", "last loss", "nat"),
    _col("stop_reason", "stopped by"),
]
HELD_OUT: list[RunColumn] = [
    _held_out_column("documents", "held-out documents", ""),
    _held_out_column("loss_before", "held-out loss before", "nat"),
    _held_out_column("loss_after", "held-out loss after", "nat"),
]
SAVED: list[RunColumn] = [
    (Column(name="saved_path", title="folder"), lambda r: r.saved.path if r.saved else None),
    (Column(name="saved_bytes", title="size", unit="bytes"), lambda r: r.saved.bytes if r.saved else None),
]
TOKENS: list[RunColumn] = [
    _col("tokens_per_s", "content", "tokens/s"),
    _col("slot_tokens_per_s", "slots", "tokens/s"),
    _col("trained_tokens_per_s", "trained", "tokens/s"),
    _col("padding_fraction", "padding", "1"),
    (Column(name="tokens_slots", title="slots"), lambda r: r.tokens.slots if r.tokens else None),
    (Column(name="tokens_content", title="content tokens"), lambda r: r.tokens.content if r.tokens else None),
    (Column(name="tokens_trained", title="trained tokens"), lambda r: r.tokens.trained if r.tokens else None),
]
MEMORY: list[RunColumn] = [
    _col("peak_memory_bytes", "memory", "bytes", "of the rank that held most"),
    _col("requested_bytes", "memory refused", "bytes", "the allocation that failed"),
    _col("available_bytes", "available for it", "bytes"),
    _col("memory_bytes", "of the accelerator", "bytes", "all that the accelerator has"),
    _col("energy_per_token_j", "energy per token", "J", "by the device's own counters, per content token, timed part"),
    _col("energy_j", "energy", "J", "of the timed part, all devices of the job"),
    _col("power_w", "power", "W", "mean of the timed part, all devices of the job"),
    _col("temperature_c", "temperature", "C", "highest of the timed part"),
    _col("clock_hz", "clock", "Hz", "mean of the timed part"),
    _col("throttled_fraction", "throttled", "1", "samples of the timed part with a device slowed down"),
    (
        Column(name="energy_reason", title="why no energy"),
        lambda r: (r.telemetry_reasons or {}).get("energy_per_token_j"),
    ),
]
SETTINGS: list[RunColumn] = [
    _col("dataset", "dataset"),
    _col("data_sha256", "data sha256"),
    _col("train_on", "train on"),
    *_training_columns(),
    _col("chip", "chip"),
    _col("chips", "chips"),
    _col("processes", "processes"),
    _col("threads", "threads"),
    _col("data_ranks", "data ranks"),
    (Column(name="strategy_selected", title="strategy selected"), lambda r: to_cell(r.strategy_selected)),
    _col(
        "attention",
        "attention used",
        help="sdpa: torch's scaled_dot_product_attention; eager: product by product; varlen: by documents",
    ),
    _col("attention_reason", "why not by SDPA"),
    _col("parameters", "parameters"),
    _col("trainable_parameters", "trainable"),
    _col("flops_per_token", "FLOPs per token", "FLOP"),
    _col("flops_per_token_full_attention", "with full attention", "FLOP"),
    _col("peak_flops", "peak", "FLOP/s"),
    _col("peak_flops_source", "peak's source"),
    _col("mfu_reason", "why no MFU"),
]
TRAINERS: list[RunColumn] = [
    _col("trainer", "trainer"),
    _col("trainer_version", "version"),
    _col("tokens_per_s", "content", "tokens/s"),
    _col("trainer_tokens_per_s", "by its own log", "tokens/s", "what the trainer itself states"),
    _col("trainer_counts", "what that counts"),
    _col("time_to_first_step_s", "to first step", "s"),
    _col("peak_memory_bytes", "memory", "bytes"),
    (Column(name="trainer_differs", title="differs"), lambda r: to_cell(r.trainer_differs) or None),
]
