"""Climb a ladder: measure plain settings, then the rungs of a recipe one above the other, in rounds.

In the first round each rung is tried upon those that were climbed before it. One that is refused, or whose run fails,
is named with its reason, and the next one stands on the rung below it. The further rounds measure every climbed rung
again, one after the other, so that factors are of pairs and a drift of the machine falls on all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment import Experiment, GridPoint, Plan, make_grid_points
from tunemark.experiment.device_choice import expand_sizes
from tunemark.experiment.planning import make_plan
from tunemark.experiment.recipes import find_recipe
from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.experiment.value_parsing import parse_value
from tunemark.plugin import Catalog
from tunemark.results import Result, Store
from tunemark.results.mfu import share_measured_peaks
from tunemark.results.studies import LadderRung, LadderStudy, store_study
from tunemark.runner.observer import RunObserver, run_title
from tunemark.runner.preparation import Preparation, PreparedRun
from tunemark.runner.session import Session, make_session
from tunemark.runner.sweep import run_sweep

_RECIPE = "tuned"
# Settings that belong to a run of its own, not to one of a ladder.
_LEFT_OUT: dict[str, Any] = {"recipe": None, "breakdown": False, "sample": None, "save": None, "evaluate": None}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLadder:
    """A ladder before it is climbed. point, base: without any rung. rungs: those that can be planned have no reason.
    plans: of the climbable rungs, each with those below it."""

    point: GridPoint
    base: Plan
    recipe: str
    rungs: tuple[LadderRung, ...]
    plans: tuple[Plan, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClimbedLadders:
    """Ladders with the results of their runs, in order. is_interrupted: they are not finished, and the same command
    continues."""

    studies: tuple[LadderStudy, ...]
    runs: tuple[Result, ...]
    is_interrupted: bool = False


def plan_ladders(experiment: Experiment, catalog: Catalog) -> list[PlannedLadder]:
    """A ladder for each combination of the settings that are not rungs. Raises `BadExperiment` where the plain run of
    one cannot be planned, or no rung of it can be climbed."""
    found: dict[str, PlannedLadder] = {}
    for point in (sized for each in make_grid_points(experiment) for sized in expand_sizes(each, catalog)):
        if not point["breakdown"]:
            planned = _plan_ladder(point, catalog)
            found.setdefault(planned.base.run_id, planned)
    return list(found.values())


def _plan_ladder(point: GridPoint, catalog: Catalog) -> PlannedLadder:
    free = replace(point, values={**point.values, **_LEFT_OUT})
    device = make_plan(free, catalog).device.name
    recipe = find_recipe(_RECIPE, device)
    for rung in recipe.rungs:
        if rung.setting not in point.sources:
            free = _with_value(free, rung.setting, rung.plain, f"{recipe.title} without its rungs")
    base = make_plan(free, catalog)
    rungs: list[LadderRung] = []
    plans: list[Plan] = []
    current = free
    for rung in recipe.rungs:
        named = LadderRung(setting=rung.setting, value=rung.value, plain=rung.plain, why=rung.why)
        if rung.setting in point.sources:
            rungs.append(
                _with_reason(named, f"{rung.setting} {point[rung.setting]} was given ({point.place(rung.setting)})")
            )
            continue
        climbed = _with_value(current, rung.setting, rung.value, recipe.title)
        try:
            plan = make_plan(climbed, catalog)
        except TunemarkError as error:
            rungs.append(_with_reason(named, error.one_line()))
            continue
        current = climbed
        rungs.append(named)
        plans.append(plan)
    if not plans:
        reasons = "; ".join(f"{rung.setting} {rung.value}: {rung.reason}" for rung in rungs)
        raise BadExperiment(
            what=f"{run_title(base)}: the recipe {recipe.title} has no rung to climb",
            why=reasons or "it has no rung for this device",
            next="leave out the settings that it would choose",
        )
    return PlannedLadder(point=free, base=base, recipe=recipe.title, rungs=tuple(rungs), plans=tuple(plans))


def climb_ladders(
    planned: Sequence[PlannedLadder], experiment: Experiment, catalog: Catalog, watch: RunObserver
) -> ClimbedLadders:
    """Measure ladders. A `TunemarkError` is raised before any device is used; Ctrl-C ends the climb with what there
    is, and the same command continues from there."""
    Store(Path(experiment.store)).prove_writable()
    session = make_session(experiment, planned[0].base, catalog, watch)
    done: dict[str, Result] = {}
    studies: list[LadderStudy] = []
    is_interrupted = False
    try:
        # Everything that can be refused is refused before the first run.
        Preparation(session=session.silenced()).prepare(planned[0].base)
        ready: list[PreparedRun] = []
        for each in planned:
            for study in _climb_first_round(each, session, done, ready):
                studies = [*(known for known in studies if known.id != study.id), study]
                store_study(study, session.store.root)
        for result in run_sweep(ready, replace(session, redo=False)):
            done[result.run_id] = result
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        session.launching.close()
    results = tuple(share_measured_peaks(list(done.values())))
    return ClimbedLadders(studies=tuple(studies), runs=results, is_interrupted=is_interrupted)


def _climb_first_round(
    planned: PlannedLadder, session: Session, done: dict[str, Result], climbed: list[PreparedRun]
) -> Iterator[LadderStudy]:
    """The ladder as far as it is known, after each rung. done, climbed: results and climbed runs are added to them."""
    first = replace(session, repeats=1)
    preparation = Preparation(session=session)
    base = preparation.prepare(planned.base)
    (done[base.plan.run_id],) = run_sweep([base], first)
    climbed.append(base)
    rungs = list(planned.rungs)
    study = LadderStudy(
        id=base.plan.run_id,
        title=run_title(base.plan),
        recipe=planned.recipe,
        base=base.plan.run_id,
        rungs=tuple(rungs),
    )
    point = planned.point
    for at, rung in enumerate(planned.rungs):
        if rung.reason:
            continue
        above = _with_value(point, rung.setting, rung.value, planned.recipe)
        try:
            ready = preparation.prepare(make_plan(above, session.catalog))
        except TunemarkError as error:
            rungs[at] = _with_reason(rung, error.one_line())
        else:
            (result,) = run_sweep([ready], first)
            done[result.run_id] = result
            rungs[at] = LadderRung(
                setting=rung.setting, value=rung.value, plain=rung.plain, why=rung.why, run_id=result.run_id
            )
            if result.status == "ok":
                climbed.append(ready)
                point = above
        study = LadderStudy(id=study.id, title=study.title, recipe=study.recipe, base=study.base, rungs=tuple(rungs))
        yield study


def _with_value(point: GridPoint, name: str, text: str, source: str) -> GridPoint:
    value = parse_value(SETTINGS_BY_NAME[name], text, source)
    return replace(point, values={**point.values, name: value}, sources={**point.sources, name: source})


def _with_reason(rung: LadderRung, reason: str) -> LadderRung:
    return LadderRung(setting=rung.setting, value=rung.value, plain=rung.plain, why=rung.why, reason=reason)
