"""Names that tell runs distinct by the settings that differ, and the command that measures a run again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence

from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.report.charts import Origin
from tunemark.report.translation import Translate
from tunemark.results import Result, RunIdentity


def origin_of(result: Result) -> Origin:
    return "simulated" if result.simulated else "measured"


def device_of(result: Result) -> str:
    return f"{result.device}:{result.size}"


def make_labels(results: Sequence[Result], tr: Translate, *, without: Sequence[str] = ()) -> list[str]:
    """A name for each run, made of as few differing settings as distinguish the runs. Model, device, strategy and
    breakdown are always used where they differ. Identical names are followed by the run_id.

    without: settings to leave out because they are shown elsewhere.
    """
    values = {name: [read(r) for r in results] for name, read in _SETTINGS.items()}
    varying = [name for name in values if len(set(values[name])) > 1]
    selected = [name for name in varying if name in _ALWAYS]

    def distinct(names: Sequence[str]) -> int:
        return len(set(zip(*(values[name] for name in names), strict=True))) if names else 1

    reached, goal = distinct(selected), distinct(varying)
    # First the setting that distinguishes most runs; among equals, the first in _SETTINGS.
    while reached < goal:
        best = max((name for name in varying if name not in selected), key=lambda name: distinct([*selected, name]))
        selected.append(best)
        reached = distinct(selected)
    shown = {name for name in selected if name not in without}
    names = [_label(r, shown, tr) or f"{r.model} · {device_of(r)}" for r in results]
    counts = Counter(zip(names, *(values[name] for name in without), strict=True))
    keys = zip(names, *(values[name] for name in without), strict=True)
    return [key[0] if counts[key] == 1 else f"{key[0]} · {_short_id(r)}" for key, r in zip(keys, results, strict=True)]


def _short_id(r: Result) -> str:
    """The first characters of the run_id, and its number where a report has several runs of this id."""
    beginning, dash, number = r.run_id.partition("-")
    return beginning[:6] + dash + number


def shared_settings(results: Sequence[Result], tr: Translate) -> list[tuple[str, str]]:
    """(setting, value) pairs that are the same for all runs."""
    if not results:
        return []
    values = {name: {read(r) for r in results} for name, read in _SETTINGS.items()}
    common = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    return [(tr(name), value) for name, value in common.items() if value not in ("-", "auto")]


def command_of(r: Result) -> str:
    """The command that measures a run again, with every setting that is not the default."""
    given: dict[str, object] = {
        name: getattr(r, name) for name in RunIdentity.__struct_fields__ if name in SETTINGS_BY_NAME
    }
    given.update(
        device=device_of(r),
        strategy=r.strategy_requested,
        steps=r.steps_requested,
        warmup=r.warmup_requested,
        budget=r.budget_s,
        window=r.window_s,
        oversubscribe=r.oversubscribed,
        repeats=max(r.attempts, 1),
        global_batch=None if r.global_batch == r.micro_batch * r.data_ranks else r.global_batch,
        # Properties of the accelerator, not settings.
        chip=None,
        chips=None,
        size=None,
    )
    words = ["tunemark", "run"]
    for name, value in given.items():
        is_default = value == SETTINGS_BY_NAME[name].default and name != "device"
        if value is None or value is False or is_default:
            continue
        words += [SETTINGS_BY_NAME[name].flag, *([] if value is True else [shlex.quote(_format(value))])]
    return " ".join(words)


def _format(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(r: Result, varying: set[str], tr: Translate) -> str:
    parts = []
    for name, read in _SETTINGS.items():
        value = read(r)
        if name in varying and value != "-":
            parts.append(value if name in _WITHOUT_NAME else f"{tr(name)} {value}")
    return " · ".join(parts)


def _format_or(value: object, word: str) -> str:
    return word if value is None else _format(value)


_SETTINGS: dict[str, Callable[[Result], str]] = {
    "model": lambda r: r.model,
    "device": device_of,
    "strategy": lambda r: r.strategy_requested,
    "breakdown": lambda r: "breakdown" if r.breakdown else "-",
    "batching": lambda r: r.batching,
    "dataset": lambda r: r.dataset,
    "method": lambda r: r.method,
    "precision": lambda r: r.precision,
    "checkpointing": lambda r: r.checkpointing,
    "sequence": lambda r: str(r.sequence),
    "micro batch": lambda r: str(r.micro_batch),
    "global batch": lambda r: str(r.global_batch),
    "train on": lambda r: r.train_on,
    "weights": lambda r: r.weights,
    "optimizer": lambda r: r.optimizer,
    "learning rate": lambda r: _format(r.learning_rate),
    "schedule": lambda r: r.schedule,
    "clip norm": lambda r: _format(r.clip_norm),
    "seed": lambda r: str(r.seed),
    "python": lambda r: _format_or(r.python, "auto"),
    "warm-up": lambda r: _format_or(r.warmup_requested, "auto"),
    "steps": lambda r: _format_or(r.steps_requested, "-"),
    "epochs": lambda r: _format_or(r.epochs, "-"),
    "budget": lambda r: "-" if r.budget_s is None else f"{r.budget_s:g} s",
}
_ALWAYS = ("model", "device", "strategy", "breakdown")
_WITHOUT_NAME = ("model", "device", "strategy", "precision", "batching", "breakdown", "optimizer", "schedule")
