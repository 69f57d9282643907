"""Names that tell runs distinct by the settings that differ, and the command that measures a run again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence

from tunemark.experiment.settings import SETTINGS, SETTINGS_BY_NAME
from tunemark.report.chart_types import Origin
from tunemark.report.translation import Translate
from tunemark.results import Result, RunIdentity
from tunemark_worker.training_settings import Setting


def origin_of(result: Result) -> Origin:
    return "simulated" if result.simulated else "measured"


def device_of(result: Result) -> str:
    return f"{result.device}:{result.size}"


def make_labels(results: Sequence[Result], tr: Translate, *, without: Sequence[str] = ()) -> list[str]:
    """A name for each run, made of as few differing settings as distinguish the runs. Model, device, strategy,
    trainer and breakdown are always used where they differ. Identical names are followed by the run_id.

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
    return [(tr(name), value) for name, value in common.items() if value not in ("-", "auto", _USUAL.get(name))]


def command_of(r: Result) -> str:
    """The command that measures a run again, with every setting that is not the default."""
    stored = [each for each in SETTINGS if each.stored in RunIdentity.__struct_fields__]
    stored.sort(key=lambda each: each.stored != each.name)
    given: dict[str, object] = {each.name: getattr(r, each.stored) for each in stored}
    given.update(
        device=device_of(r),
        oversubscribe=r.oversubscribed,
        repeats=max(r.attempts, 1),
        global_batch=None if r.global_batch == r.micro_batch * r.data_ranks else r.global_batch,
        # Properties of the accelerator, not settings.
        chip=None,
        chips=None,
        size=None,
        peak_flops=None,
        memory=None,
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


def _reader(setting: Setting) -> Callable[[Result], str]:
    """Formats the value of a setting; "-" or "auto" where it was not given."""

    def read(r: Result) -> str:
        value: object = getattr(r, setting.stored)
        if isinstance(value, bool):
            return setting.title if value else "-"
        if value is None:
            return "auto" if setting.unset == "auto" and not setting.unit else "-"
        return f"{_format(value)} s" if setting.unit == "s" else _format(value)

    return read


# The first five are always named where they differ.
_FIRST = ("model", "device", "strategy", "trainer", "breakdown", "batching")
_ALWAYS = _FIRST[:5]
_IN_LABEL = [*map(SETTINGS_BY_NAME.__getitem__, _FIRST)]
_IN_LABEL += [each for each in SETTINGS if each.is_in_label and each.name not in _FIRST]
_SETTINGS = {each.title: _reader(each) for each in _IN_LABEL} | {"device": device_of}
# Of settings that reports came to know later; not said where all runs have it.
_USUAL = {each.title: str(each.unhashed) for each in _IN_LABEL if each.unhashed is not None}
# Of each, the usual value and the function that formats a run's.
USUAL_READERS = {name: (usual, _SETTINGS[name]) for name, usual in _USUAL.items()}
_WITHOUT_NAME = [each.title for each in _IN_LABEL if each.names_itself]
