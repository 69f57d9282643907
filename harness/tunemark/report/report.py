"""Results arranged as titled tables with units; it knows no file format and rounds nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunemark.analysis.scaling import Scaling, every_scaling
from tunemark.report.scaling import SCALING_NOTES, scaling_tables
from tunemark.report.table import Cell as Cell
from tunemark.report.table import Column as Column
from tunemark.report.table import Table as Table
from tunemark.results.imported import Imported
from tunemark.results.result import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a format renders. notes: what a reader must know to read the tables. scalings: whole, for charts."""

    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    scalings: tuple[Scaling, ...] = ()


NOTES = (
    "tokens/s: content tokens (no padding) over the wall time of the timed steps, whole job; slots: batch x sequence; "
    "trained: tokens with a label.",
    "An interval is 95 %: between attempts where there are two or more, else within the one run.",
    "Not timed: preparing the data, starting, building the model, the peak's measurement, and the warm-up steps.",
)

CLAIM_NOTES = (
    "An imported claim was not measured here. Its rate is as its source states it, and counts what its tool counts; "
    "the re-derived ones count every slot of a batch.",
    "Implied MFU: of the chips' dense peak, model FLOPs with causal attention, nothing recomputed.",
    "Valid means that nothing contradicts a claim.",
)

_Field = tuple[Column, Callable[[Result], Cell]]


def arrange(
    results: Sequence[Result], imported: Sequence[Imported] = (), scalings: Sequence[Scaling] | None = None
) -> Report:
    """The tables of some runs, in their order, and of what others claim, which is told apart by a table of its own.

    scalings: of these runs; None is every one that they hold, of both modes."""
    if not results:
        return Report(title="tunemark audit", tables=_claims(imported, alone=True), notes=CLAIM_NOTES)
    tables = [
        _per_run("Throughput", results, _THROUGHPUT),
        _per_run("Efficiency, memory and loss", results, _EFFICIENCY),
        _per_run("Runs", results, _RUNS),
    ]
    if any(r.setup_s for r in results):
        tables.append(_per_run("Set-up", results, [_phase("setup_s", n) for n in _names(results, "setup_s")]))
    if any(r.breakdown_s for r in results):
        tables.append(
            _per_run("Parts of a step", results, [_phase("breakdown_s", n) for n in _names(results, "breakdown_s")])
        )
    found = tuple(every_scaling(results) if scalings is None else scalings)
    tables += [table for scaling in found for table in scaling_tables(scaling)]
    if any(r.completion for r in results):
        tables.append(_completions(results))
    if any(r.saved for r in results):
        tables.append(_per_run("Saved models", [r for r in results if r.saved], _SAVED))
    tables.append(_findings(results))
    claims = _claims(imported) if imported else ()
    notes = (*NOTES, *(SCALING_NOTES if found else ()), *(CLAIM_NOTES if claims else ()))
    return Report(title="tunemark report", tables=(*tables, *claims), notes=notes, scalings=found)


def _plain(name: str, title: str, unit: str = "", help: str = "") -> _Field:
    return Column(name=name, title=title, unit=unit, help=help), lambda r: _cell(getattr(r, name))


def _cell(value: Any) -> Cell:
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    found: Cell = value
    return found


def _phase(field: str, name: str) -> _Field:
    column = Column(name=f"{field.removesuffix('_s')}_{name}_s", title=name, unit="s")
    return column, lambda r: (getattr(r, field) or {}).get(name)


def _names(results: Sequence[Result], field: str) -> list[str]:
    return list(dict.fromkeys(name for r in results for name in getattr(r, field) or {}))


def _held_out(field: str, title: str, unit: str) -> _Field:
    column = Column(name=f"held_out_{field}", title=title, unit=unit, help="kept out of training")
    return column, lambda r: getattr(r.held_out, field) if r.held_out else None


def _completions(results: Sequence[Result]) -> Table:
    columns = tuple(Column(name=name, title=title) for name, title in _COMPLETION)
    shown = [(r.run_id, r.completion) for r in results if r.completion]
    rows = tuple((run_id, c.prompt, c.before, c.after) for run_id, c in shown)
    return Table(title="Completions", columns=columns, rows=rows, per_run=False)


_COMPLETION = (("run_id", "run"), ("prompt", "prompt"), ("before", "before training"), ("after", "after training"))
_SAVED: list[_Field] = [
    (Column(name="saved_path", title="folder"), lambda r: r.saved.path if r.saved else None),
    (Column(name="saved_bytes", title="size", unit="bytes"), lambda r: r.saved.bytes if r.saved else None),
]

_KEY = _plain("run_id", "run")
_THROUGHPUT: list[_Field] = [
    _plain("model", "model"),
    (Column(name="accelerator", title="device"), lambda r: f"{r.device}:{r.size}"),
    _plain("strategy_requested", "strategy"),
    _plain("breakdown", "breakdown", help="every part of a step was waited for: its rate is not the run's"),
    _plain("status", "status", help="ok, oom, error, killed or timeout"),
    _plain("verdict", "verdict", help="valid, suspect, invalid or unknown"),
    _plain("simulated", "simulated", help="the accelerator is a simulator's: no figure says how fast anything is"),
    _plain("tokens_per_s", "content", "tokens/s"),
    _plain("slot_tokens_per_s", "slots", "tokens/s"),
    _plain("trained_tokens_per_s", "trained", "tokens/s"),
    _plain("tokens_per_s_per_chip", "content per chip", "tokens/s"),
    _plain("padding_fraction", "padding", "1"),
    _plain("attempts", "attempts"),
    _plain("steps_measured", "timed steps"),
    _plain("interval_s", "timed", "s"),
]
_EFFICIENCY: list[_Field] = [
    _plain("mfu", "MFU", "1", "model FLOPs of all slots (causal, nothing recomputed) over peak FLOP/s"),
    _plain("peak_flops", "peak", "FLOP/s"),
    _plain("peak_flops_source", "peak's source"),
    _plain("mfu_reason", "why no MFU"),
    (
        Column(name="step_time_p50_s", title="step p50", unit="s"),
        lambda r: r.step_time_s.p50 if r.step_time_s else None,
    ),
    (
        Column(name="step_time_p95_s", title="step p95", unit="s"),
        lambda r: r.step_time_s.p95 if r.step_time_s else None,
    ),
    _plain("peak_memory_bytes", "memory", "bytes", "of the rank that held most"),
    _plain("requested_bytes", "memory refused", "bytes", "the allocation that failed"),
    _plain("available_bytes", "available for it", "bytes"),
    _plain("queue_s", "queued", "s", "waiting for a turn on the device; part of no rate"),
    _plain("search_s", "search", "s", "choosing a parallel configuration, compiling included; part of no rate"),
    _plain(
        "energy_per_token_j", "energy per token", "J", "by the device's own counters, per content token, timed part"
    ),
    _plain("energy_j", "energy", "J", "of the timed part, all devices of the job"),
    _plain("power_w", "power", "W", "mean of the timed part, all devices of the job"),
    _plain("temperature_c", "temperature", "C", "highest of the timed part"),
    _plain("clock_hz", "clock", "Hz", "mean of the timed part"),
    _plain("throttled_fraction", "throttled", "1", "samples of the timed part with a device slowed down"),
    (
        Column(name="energy_reason", title="why no energy"),
        lambda r: (r.telemetry_reasons or {}).get("energy_per_token_j"),
    ),
    _plain("loss_first", "first loss", "nat"),
    _plain("loss_last", "last loss", "nat"),
    _held_out("documents", "held out", "documents"),
    _held_out("loss_before", "held-out loss before", "nat"),
    _held_out("loss_after", "held-out loss after", "nat"),
    _plain("warmup_steps", "warm-up steps"),
    _plain("time_to_first_step_s", "to first step", "s"),
    _plain("stop_reason", "stopped by"),
]
_RUNS: list[_Field] = [
    _plain("dataset", "dataset"),
    _plain("data_sha256", "data sha256"),
    _plain("train_on", "train on"),
    _plain("method", "method"),
    _plain("precision", "precision"),
    _plain("batching", "batching"),
    _plain("sequence", "sequence", "tokens"),
    _plain("micro_batch", "micro batch", "sequences"),
    _plain("global_batch", "global batch", "sequences"),
    _plain("gradient_accumulation", "accumulation"),
    _plain("weights", "weights"),
    _plain("optimizer", "optimizer"),
    _plain("learning_rate", "learning rate"),
    _plain("schedule", "schedule"),
    _plain("clip_norm", "clip norm"),
    _plain("seed", "seed"),
    _plain("chip", "chip"),
    _plain("chips", "chips"),
    _plain("processes", "processes"),
    _plain("threads", "threads"),
    _plain("data_ranks", "data ranks"),
    _plain("strategy_selected", "strategy selected"),
    _plain("parameters", "parameters"),
    _plain("trainable_parameters", "trainable"),
    _plain("flops_per_token", "FLOPs per token", "FLOP"),
    _plain("flops_per_token_full_attention", "with full attention", "FLOP"),
]


def _per_run(title: str, results: Sequence[Result], fields: Sequence[_Field]) -> Table:
    chosen = [_KEY, *fields]
    rows = tuple(tuple(read(result) for _, read in chosen) for result in results)
    return Table(title=title, columns=tuple(column for column, _ in chosen), rows=rows)


def _findings(results: Sequence[Result]) -> Table:
    columns = tuple(Column(name=name, title=title) for name, title in _FINDING)
    rows = tuple((r.run_id, f.severity, f.rule, f.message) for r in results for f in r.findings)
    return Table(title="Findings", columns=columns, rows=rows, per_run=False)


_FINDING = (("run_id", "run"), ("severity", "severity"), ("rule", "rule"), ("message", "what was noticed"))


def _claims(rows: Sequence[Imported], *, alone: bool = False) -> tuple[Table, Table]:
    ways = list(dict.fromkeys(way for row in rows for way in row.tokens_per_s_rederived))
    columns = [Column(name=name, title=title, unit=unit) for name, title, unit in _CLAIM]
    columns += [
        Column(name=f"tokens_per_s_{way.replace('-', '_')}", title=f"by {way}", unit="tokens/s") for way in ways
    ]
    cells = [
        (*(_cell(getattr(row, name)) for name, _, _ in _CLAIM), *(row.tokens_per_s_rederived.get(w) for w in ways))
        for row in rows
    ]
    found = [(row.id, f.severity, f.rule, f.message) for row in rows for f in row.findings]
    words = (Column(name="id", title="claim"), *(Column(name=n, title=t) for n, t in _FINDING[1:]))
    return (
        Table(title="Imported claims", columns=tuple(columns), rows=tuple(cells), per_run=alone),
        Table(title="Findings on imported claims", columns=words, rows=tuple(found), per_run=False),
    )


_CLAIM = (
    ("id", "claim", ""),
    ("kind", "origin", ""),
    ("source", "source", ""),
    ("tool", "tool", ""),
    ("counts", "counts", ""),
    ("model", "model", ""),
    ("device", "device", ""),
    ("count", "count", ""),
    ("precision", "precision", ""),
    ("sequence", "sequence", "tokens"),
    ("global_batch", "global batch", "sequences"),
    ("verdict", "verdict", ""),
    ("mfu_implied", "implied MFU", "1"),
    ("tokens_per_s_claimed", "claimed", "tokens/s"),
)
