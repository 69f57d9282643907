"""What `tunemark plan` says below its table: whether each run fits in memory, what the data are, how long epochs take.

All of it is predicted or counted; nothing is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tunemark.cli.data_output import DataQuestion, DataReader, PredictedStep, make_question
from tunemark.data import make_point_rows
from tunemark.errors import TunemarkError
from tunemark.experiment import Experiment, GridPoint, Plan
from tunemark.experiment.named_parts import find_dataset
from tunemark.markdown import escape
from tunemark.number_format import format_gib
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.predict.absent_device import AbsentDeviceSearch
    from tunemark.predict.memory_fit import MemoryFit
    from tunemark.predict.plan_prediction import PlanPrediction
    from tunemark.predict.search import LayoutOption


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanDetails:
    """Details of the plans of one command. data: None where the user named neither a dataset nor epochs nor prices: the
    default dataset stands for none in particular, and preparing it would take longer than all the rest."""

    catalog: Catalog
    data: DataReader | None
    predictions: dict[str, PlanPrediction | str] = field(default_factory=dict)
    fits: dict[str, MemoryFit | None] = field(default_factory=dict)

    def row(self, plan: Plan) -> dict[str, Any]:
        """JSON values of a plan: its predicted step, whether it fits, its data."""
        found, fit = self._predict(plan), self._judge(plan)
        predicted = (
            {"reason": found}
            if isinstance(found, str)
            else {"step_time_s": found.predicted.step_time_s, "tokens_per_s": found.predicted.tokens_per_s}
        )
        row = {"predicted": predicted, "fit": None if fit is None else asdict(fit)}
        return {**row, **({} if self.data is None else self.data.row(make_question(plan), self._step(plan)))}

    def search_row(self, one: AbsentDeviceSearch, point: GridPoint, chosen: LayoutOption | None) -> dict[str, Any]:
        """JSON values of the data of a search on chips that are not here."""
        if self.data is None:
            return {}
        question = _make_question_of_point(one, point, self.catalog)
        return self.data.row(question, _step_of_option(one, chosen))

    def text(self, plans: Sequence[Plan]) -> str:
        """Sections below the table of plans."""
        lines = [*self._fit_lines(plans)]
        if self.data is not None:
            runs: dict[str, list[tuple[DataQuestion, PredictedStep | str]]] = {}
            for plan in plans:
                question = make_question(plan)
                runs.setdefault(question.key, []).append((question, self._step(plan)))
            lines += [self.data.text(each[0][0], [step for _, step in each]) for each in runs.values()]
        return "\n\n".join(lines)

    def search_text(self, one: AbsentDeviceSearch, point: GridPoint, chosen: LayoutOption | None) -> str:
        if self.data is None:
            return ""
        question = _make_question_of_point(one, point, self.catalog)
        return self.data.text(question, [_step_of_option(one, chosen)])

    @property
    def errors(self) -> list[TunemarkError]:
        """Of datasets that cannot be used."""
        return [] if self.data is None else list(self.data.errors.values())

    def _fit_lines(self, plans: Sequence[Plan]) -> list[str]:
        lines, largest = [], None
        unknown: dict[str, int] = {}
        for plan in plans:
            fit = self._judge(plan)
            if fit is None:
                found = self._predict(plan)
                reason = found if isinstance(found, str) else "how much memory a rank has is not known"
                unknown[reason] = unknown.get(reason, 0) + 1
            elif fit.outcome == "fits":
                if largest is None or fit.memory_bytes / fit.usable_bytes > largest.memory_bytes / largest.usable_bytes:
                    largest = fit
            else:
                lines.append(escape(f"{_place(plan)}, {plan.model.name}, run {plan.run_id}: {fit.words()}"))
        if largest is not None and not lines and not unknown:
            runs = "the run fits" if len(plans) == 1 else "every run fits"
            most, usable = format_gib(largest.memory_bytes), format_gib(largest.usable_bytes)
            lines.append(f"memory: {runs}: {most} GiB predicted, of {usable} GiB that a rank may use")
        return lines + [escape(f"memory: whether {n} of {len(plans)} runs fit is not known: {reason}")
                        for reason, n in unknown.items()]  # fmt: skip

    def _predict(self, plan: Plan) -> PlanPrediction | str:
        from tunemark.predict.plan_prediction import predict_plan  # heavy, and not needed by --help

        if plan.run_id not in self.predictions:
            self.predictions[plan.run_id] = predict_plan(plan)
        return self.predictions[plan.run_id]

    def _judge(self, plan: Plan) -> MemoryFit | None:
        from tunemark.predict.memory_fit import judge_fit  # heavy, and not needed by --help

        found = self._predict(plan)
        if plan.run_id not in self.fits:
            self.fits[plan.run_id] = judge_fit(plan, self.catalog, found)
        return self.fits[plan.run_id]

    def _step(self, plan: Plan) -> PredictedStep | str:
        found = self._predict(plan)
        if isinstance(found, str):
            return found
        fit = self._judge(plan)
        if fit is not None and fit.outcome == "does not fit":
            return f"{_place(plan)} does not fit in memory"
        low, high = found.predicted.step_time_bounds_s
        accelerator = plan.accelerator
        return PredictedStep(
            place=_place(plan),
            seconds=found.predicted.step_time_s,
            low=low,
            high=high,
            device=plan.device.name,
            size=accelerator.name,
            chip=accelerator.chip,
            chips=accelerator.chips,
        )


def make_details(experiment: Experiment, catalog: Catalog) -> PlanDetails:
    """The details that an experiment asks for."""
    prices = None
    if experiment.prices is not None:
        from tunemark.analysis.prices import read_prices  # only needed with prices

        prices = read_prices(experiment.prices)
    is_asked = "dataset" in experiment.sources or experiment.epochs is not None or prices is not None
    return PlanDetails(catalog=catalog, data=DataReader(prices=prices) if is_asked else None)


def _place(plan: Plan) -> str:
    return f"{plan.device.name}:{plan.accelerator.name}, {plan.spec.strategy}"


def _make_question_of_point(one: AbsentDeviceSearch, point: GridPoint, catalog: Catalog) -> DataQuestion:
    dataset, options = find_dataset(point, catalog)
    return DataQuestion(
        title=point["dataset"],
        dataset=dataset,
        options=options,
        model=one.model,
        train_on=point["train_on"],
        rows=make_point_rows(point.values, one.global_batch),
    )


def _step_of_option(one: AbsentDeviceSearch, chosen: LayoutOption | None) -> PredictedStep | str:
    if chosen is None or chosen.predicted_tokens_per_s is None or chosen.low is None or chosen.high is None:
        return f"{one.title} does not fit in memory"
    slots = one.question.work.global_batch * one.question.work.sequence
    return PredictedStep(
        place=f"{one.size} x {one.chip}, {chosen.words()}",
        seconds=slots / chosen.predicted_tokens_per_s,
        low=slots / chosen.high,
        high=slots / chosen.low,
        device=one.chip,
        size=str(one.size),
        chip=one.chip,
        chips=one.size,
    )
