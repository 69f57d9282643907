"""Names for runs that say what differs between them, and the command that measures one again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence

from tunemark.experiment.settings import BY_NAME
from tunemark.report.charts import Origin
from tunemark.report.words import Say
from tunemark.results import Identity, Result

# Attempts that `run` makes where nothing is said.
_REPEATS = BY_NAME["repeats"].default


def origin(result: Result) -> Origin:
    return "simulated" if result.simulated else "measured"


def device_of(result: Result) -> str:
    return f"{result.device}:{result.size}"


def labels(results: Sequence[Result], say: Say, *, without: Sequence[str] = ()) -> list[str]:
    """A name for each run, of as few settings as tell the runs apart: where they differ, always the model, the device,
    the strategy and whether parts were timed. Where two would have the same name, the run_id follows.

    without: settings that stand elsewhere.
    """
    values = {name: [read(r) for r in results] for name, read in _SETTINGS.items()}
    varying = [name for name in values if len(set(values[name])) > 1]
    chosen = [name for name in varying if name in _ALWAYS]

    def apart(names: Sequence[str]) -> int:
        return len(set(zip(*(values[name] for name in names), strict=True))) if names else 1

    reached, goal = apart(chosen), apart(varying)
    # The setting that tells most runs apart first; of those that do alike, the one that people name first.
    while reached < goal:
        best = max((name for name in varying if name not in chosen), key=lambda name: apart([*chosen, name]))
        chosen.append(best)
        reached = apart(chosen)
    shown = {name for name in chosen if name not in without}
    named = [_label(r, shown, say) or f"{r.model} · {device_of(r)}" for r in results]
    counts = Counter(zip(named, *(values[name] for name in without), strict=True))
    keys = zip(named, *(values[name] for name in without), strict=True)
    return [key[0] if counts[key] == 1 else f"{key[0]} · {_short(r)}" for key, r in zip(keys, results, strict=True)]


def _short(r: Result) -> str:
    """The beginning of a run's id, and its number where a report has several of this id."""
    beginning, dash, number = r.run_id.partition("-")
    return beginning[:6] + dash + number


def shared(results: Sequence[Result], say: Say) -> list[tuple[str, str]]:
    """(setting, value) that all runs have in common."""
    if not results:
        return []
    common = {name: {read(r) for r in results} for name, read in _SETTINGS.items()}
    one = {name: next(iter(values)) for name, values in common.items() if len(values) == 1}
    return [(say(name), value) for name, value in one.items() if value not in ("-", "auto")]


def command_of(r: Result) -> str:
    """The command that measures a run again: every setting that is not its default."""
    given: dict[str, object] = {name: getattr(r, name) for name in Identity.__struct_fields__ if name in BY_NAME}
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
        # Said of the accelerator, not by the user.
        chip=None,
        chips=None,
        size=None,
    )
    words = ["tunemark", "run"]
    for name, value in given.items():
        is_default = value == BY_NAME[name].default and name != "device"
        if value is None or value is False or is_default:
            continue
        words += [BY_NAME[name].flag, *([] if value is True else [shlex.quote(_written(value))])]
    return " ".join(words)


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(r: Result, varying: set[str], say: Say) -> str:
    parts = []
    for name, read in _SETTINGS.items():
        value = read(r)
        if name in varying and value != "-":
            parts.append(value if name in _SPEAK_FOR_THEMSELVES else f"{say(name)} {value}")
    return " · ".join(parts)


def _or(value: object, word: str) -> str:
    return word if value is None else _written(value)


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
    "learning rate": lambda r: _written(r.learning_rate),
    "schedule": lambda r: r.schedule,
    "clip norm": lambda r: _written(r.clip_norm),
    "seed": lambda r: str(r.seed),
    "python": lambda r: _or(r.python, "auto"),
    "warm-up": lambda r: _or(r.warmup_requested, "auto"),
    "steps": lambda r: _or(r.steps_requested, "-"),
    "epochs": lambda r: _or(r.epochs, "-"),
    "budget": lambda r: "-" if r.budget_s is None else f"{r.budget_s:g} s",
}
_ALWAYS = ("model", "device", "strategy", "breakdown")
_SPEAK_FOR_THEMSELVES = ("model", "device", "strategy", "precision", "batching", "breakdown", "optimizer", "schedule")
