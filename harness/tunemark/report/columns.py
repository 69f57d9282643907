"""The columns of a run: the field each is of, its unit, what it means, and the tables in which they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from tunemark.report.labels import device_of
from tunemark.report.report import Cell, Column, Table
from tunemark.report.words import Say
from tunemark.results import Result

Field = tuple[Column, Callable[[Result], Cell]]


def table(
    key: str,
    title: str,
    fields: Sequence[Field],
    results: Sequence[Result],
    workings: Sequence[Mapping[str, str]],
    say: Say,
) -> Table:
    """One row for each run, its run_id first. workings: of each run, by column. title: said already."""
    chosen = [_KEY, *fields]
    names = [column.name for column, _ in chosen]
    columns = [map(read, results) for _, read in chosen]
    return Table(
        key=key,
        title=title,
        columns=tuple(_said(column, say) for column, _ in chosen),
        rows=tuple(zip(*columns, strict=True)),
        workings={(i, n): each[n] for i, each in enumerate(workings) for n in names if n in each},
        runs=tuple(r.run_id for r in results),
        origins=tuple("simulated" if r.simulated else "measured" for r in results),
    )


def phases(results: Sequence[Result], field: str) -> list[Field]:
    """A column for each name that a mapping of seconds has in any run."""
    names = dict.fromkeys(name for r in results for name in getattr(r, field) or {})
    return [_phase(field, name) for name in names]


def cell(value: Any) -> Cell:
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    found: Cell = value
    return found


def selected(result: Result) -> str | None:
    """What was truly used, in the platform's own words where it has some."""
    if not result.strategy_selected:
        return None
    return str(result.strategy_selected.get("spelled") or cell(result.strategy_selected))


def plain(name: str, title: str, unit: str = "", help: str = "") -> Field:
    return Column(name=name, title=title, unit=unit, help=help), attrgetter(name)


def _held_out(field: str, title: str, unit: str) -> Field:
    column = Column(name=f"held_out_{field}", title=title, unit=unit, help="documents kept out of training")
    return column, lambda r: getattr(r.held_out, field) if r.held_out else None


def _phase(field: str, name: str) -> Field:
    column = Column(name=f"{field.removesuffix('_s')}_{name}_s", title=name, unit="s", help=name)
    return column, lambda r: (getattr(r, field) or {}).get(name)


def _said(column: Column, say: Say) -> Column:
    # What has its own name for a help is a plugin's word, in no catalogue.
    if column.help == column.title:
        return Column(name=column.name, title=column.title, unit=column.unit)
    return Column(
        name=column.name, title=say(column.title), unit=column.unit, help=say(column.help) if column.help else ""
    )


_KEY = plain("run_id", "run")
THROUGHPUT: list[Field] = [
    plain("tokens_per_s", "content", "tokens/s", "content tokens over the wall time of the timed steps, whole job"),
    plain("verdict", "verdict", help="valid, suspect, invalid or unknown"),
    plain("attempts", "attempts"),
    plain("tokens_per_s_per_chip", "content per chip", "tokens/s"),
    plain("mfu", "MFU", "1", "model FLOPs of all slots (causal, nothing recomputed) over peak FLOP/s"),
    plain("hfu", "HFU", "1", "the same with what checkpointing computed again"),
    plain("steps_measured", "timed steps"),
    plain("interval_s", "timed", "s"),
    plain("status", "status", help="ok, oom, error, killed or timeout"),
    plain("model", "model"),
    (Column(name="accelerator", title="device"), device_of),
    plain("strategy_requested", "strategy"),
    plain("breakdown", "breakdown", help="every part of a step was waited for: its rate is not the run's"),
    plain("simulated", "simulated", help="the accelerator is a simulator's: no figure says how fast anything is"),
]
STEP: list[Field] = [
    (
        Column(name="step_time_p50_s", title="step p50", unit="s"),
        lambda r: r.step_time_s.p50 if r.step_time_s else None,
    ),
    (
        Column(name="step_time_p95_s", title="step p95", unit="s"),
        lambda r: r.step_time_s.p95 if r.step_time_s else None,
    ),
    plain("warmup_steps", "warm-up steps"),
    plain("time_to_first_step_s", "to first step", "s", "from the launch to the first step's end; part of no rate"),
    plain("queue_s", "queued", "s", "waiting for a turn on the device; part of no rate"),
    plain("search_s", "search", "s", "choosing a parallel configuration, compiling included; part of no rate"),
    plain("loss_first", "first loss", "nat"),
    plain("loss_last", "last loss", "nat"),
    plain("stop_reason", "stopped by"),
]
HELD_OUT: list[Field] = [
    _held_out("documents", "held-out documents", ""),
    _held_out("loss_before", "held-out loss before", "nat"),
    _held_out("loss_after", "held-out loss after", "nat"),
]
SAVED: list[Field] = [
    (Column(name="saved_path", title="folder"), lambda r: r.saved.path if r.saved else None),
    (Column(name="saved_bytes", title="size", unit="bytes"), lambda r: r.saved.bytes if r.saved else None),
]
TOKENS: list[Field] = [
    plain("tokens_per_s", "content", "tokens/s"),
    plain("slot_tokens_per_s", "slots", "tokens/s"),
    plain("trained_tokens_per_s", "trained", "tokens/s"),
    plain("padding_fraction", "padding", "1"),
    (Column(name="tokens_slots", title="slots"), lambda r: r.tokens.slots if r.tokens else None),
    (Column(name="tokens_content", title="content tokens"), lambda r: r.tokens.content if r.tokens else None),
    (Column(name="tokens_trained", title="trained tokens"), lambda r: r.tokens.trained if r.tokens else None),
]
MEMORY: list[Field] = [
    plain("peak_memory_bytes", "memory", "bytes", "of the rank that held most"),
    plain("requested_bytes", "memory refused", "bytes", "the allocation that failed"),
    plain("available_bytes", "available for it", "bytes"),
    plain("memory_bytes", "of the accelerator", "bytes", "all that the accelerator has"),
    plain("energy_per_token_j", "energy per token", "J", "by the device's own counters, per content token, timed part"),
    plain("energy_j", "energy", "J", "of the timed part, all devices of the job"),
    plain("power_w", "power", "W", "mean of the timed part, all devices of the job"),
    plain("temperature_c", "temperature", "C", "highest of the timed part"),
    plain("clock_hz", "clock", "Hz", "mean of the timed part"),
    plain("throttled_fraction", "throttled", "1", "samples of the timed part with a device slowed down"),
    (
        Column(name="energy_reason", title="why no energy"),
        lambda r: (r.telemetry_reasons or {}).get("energy_per_token_j"),
    ),
]
SETTINGS: list[Field] = [
    plain("dataset", "dataset"),
    plain("data_sha256", "data sha256"),
    plain("train_on", "train on"),
    plain("method", "method"),
    plain("precision", "precision"),
    plain("checkpointing", "checkpointing"),
    plain("batching", "batching"),
    plain("sequence", "sequence", "tokens"),
    plain("micro_batch", "micro batch", "sequences"),
    plain("global_batch", "global batch", "sequences"),
    plain("gradient_accumulation", "accumulation"),
    plain("weights", "weights"),
    plain("optimizer", "optimizer"),
    plain("learning_rate", "learning rate"),
    plain("schedule", "schedule"),
    plain("clip_norm", "clip norm"),
    plain("seed", "seed"),
    plain("chip", "chip"),
    plain("chips", "chips"),
    plain("processes", "processes"),
    plain("threads", "threads"),
    plain("data_ranks", "data ranks"),
    (Column(name="strategy_selected", title="strategy selected"), lambda r: cell(r.strategy_selected)),
    plain("parameters", "parameters"),
    plain("trainable_parameters", "trainable"),
    plain("flops_per_token", "FLOPs per token", "FLOP"),
    plain("flops_per_token_full_attention", "with full attention", "FLOP"),
    plain("peak_flops", "peak", "FLOP/s"),
    plain("peak_flops_source", "peak's source"),
    plain("mfu_reason", "why no MFU"),
]
