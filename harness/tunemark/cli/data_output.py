"""What `tunemark plan` says of the data: documents, tokens, lengths and padding, what an epoch is, and how long the
epochs take and what they cost at the predicted rate. Nothing is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunemark.data import (
    DataSummary,
    PreparedData,
    RowSettings,
    load_tokenizer,
    make_row_settings,
    prepare_data,
    summarize_data,
)
from tunemark.errors import NotReachable, TunemarkError
from tunemark.experiment import Plan
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_duration, format_significant, percent_text
from tunemark.plugin.descriptors import Dataset, Model

if TYPE_CHECKING:
    from tunemark.analysis.prices import Prices

# Characters of the histogram's longest bar.
_BAR = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class DataQuestion:
    """The data of one run. title: of its dataset, as the user wrote it."""

    title: str
    dataset: Dataset
    options: Mapping[str, str]
    model: Model
    train_on: str
    rows: RowSettings

    @property
    def key(self) -> str:
        """Equal for runs with the same data in the same rows."""
        tokenizer = self.model.tokenizer.name if self.model.tokenizer else ""
        return json.dumps([self.title, tokenizer, self.model.name, self.train_on, repr(self.rows)])


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedStep:
    """The predicted seconds of one step with their bounds, and the steps after which the run ends without its epochs.

    place: what it runs on, as "cuda:8, fsdp". device, size, chip, chips: for its price.
    """

    place: str
    seconds: float
    low: float
    high: float
    device: str
    size: str
    chip: str
    chips: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReader:
    """Reads the data of plans, each dataset once. errors: of datasets that cannot be used."""

    prices: Prices | None
    prepared: dict[str, PreparedData] = field(default_factory=dict)
    answers: dict[str, DataSummary | str] = field(default_factory=dict)
    errors: dict[str, TunemarkError] = field(default_factory=dict)

    def read(self, question: DataQuestion) -> DataSummary | str:
        """The summary, or a sentence with the reason why the data are not known here."""
        if question.key not in self.answers:
            self.answers[question.key] = self._read(question)
        return self.answers[question.key]

    def row(self, question: DataQuestion, step: PredictedStep | str) -> dict[str, Any]:
        """JSON values of the data and of the time and cost of its epochs."""
        found = self.read(question)
        if isinstance(found, str):
            return {"data": {"reason": found}, "duration": None}
        return {"data": found.as_dict(), "duration": self._duration(found, step)}

    def _read(self, question: DataQuestion) -> DataSummary | str:
        key = json.dumps([question.title, question.model.name, question.train_on])
        try:
            if question.dataset.needs_tokenizer and question.model.tokenizer is not None:
                try:
                    load_tokenizer(question.model.tokenizer)
                except TunemarkError as error:
                    return error.one_line()
            if key not in self.prepared:
                self.prepared[key] = prepare_data(question.dataset, question.options, question.model, question.train_on)
            return summarize_data(self.prepared[key], question.rows)
        except NotReachable as error:
            return error.one_line()
        except TunemarkError as error:
            self.errors[str(error)] = error
            return error.what

    def _duration(self, data: DataSummary, step: PredictedStep | str) -> dict[str, Any]:
        """Of all epochs, or of one where their number is not given."""
        epochs = data.epochs or 1
        steps = data.steps if data.steps is not None else data.steps_per_epoch
        found: dict[str, Any] = {
            "epochs": epochs,
            "steps": steps,
            "slot_tokens": round(steps * data.global_batch * data.mean_width),
        }
        if isinstance(step, str):
            return {**found, "seconds": None, "reason": step}
        found.update(seconds=steps * step.seconds, seconds_low=steps * step.low, seconds_high=steps * step.high)
        if self.prices is None:
            return found
        price = self.prices.hourly_price_of(step.device, step.size, step.chip, step.chips)
        if price is None:
            name = f"{step.device}:{step.size}"
            return {**found, "cost": None, "cost_reason": f"the price file has no price of {name} or {step.chip}"}
        costs = {
            name.replace("seconds", "cost"): found[name] / 3600 * price
            for name in ("seconds", "seconds_low", "seconds_high")
        }
        return {**found, **costs, "currency": self.prices.currency}

    def text(self, question: DataQuestion, steps: Sequence[PredictedStep | str]) -> str:
        """One dataset in words and a table, with the duration of each run on it."""
        found = self.read(question)
        title = f"data {question.title}"
        if isinstance(found, str):
            return escape(f"{title}: not known: {found}")
        durations = [self._duration_text(found, step) for step in steps]
        return "\n".join([escape(f"{title}: {_describe_documents(found, question)}"), "", _histogram(found), "",
                          *map(escape, [*_describe_epoch(found), *dict.fromkeys(durations)])])  # fmt: skip

    def _duration_text(self, data: DataSummary, step: PredictedStep | str) -> str:
        found = self._duration(data, step)
        what = f"{found['epochs']} epochs" if found["epochs"] > 1 else "one epoch"
        if isinstance(step, str):
            return f"how long {what} take{'s' if found['epochs'] == 1 else ''} is not known: {step}"
        low, high = format_duration(found["seconds_low"]), format_duration(found["seconds_high"])
        words = (
            f"{step.place}: {what} in {format_duration(found['seconds'])} ({low} to {high}), predicted at "
            f"{format_significant(step.seconds, 3)} s a step; start, set-up and evaluation come on top"
        )
        if found.get("cost") is not None:
            cost, least, most = (format_significant(found[f"cost{end}"], 3) for end in ("", "_low", "_high"))
            return f"{words}; {cost} {found['currency']} ({least} to {most})"
        return f"{words}; no cost: {found['cost_reason']}" if "cost_reason" in found else words


def make_question(plan: Plan) -> DataQuestion:
    spec = plan.spec
    return DataQuestion(
        title=spec.dataset,
        dataset=plan.dataset,
        options=plan.dataset_options,
        model=plan.model,
        train_on=spec.train_on,
        rows=make_row_settings(spec),
    )


def _format_steps(steps: float) -> str:
    return f"{steps:,.0f}" if steps == int(steps) else format_significant(steps, 4)


def _describe_documents(data: DataSummary, question: DataQuestion) -> str:
    tokenizer = f", tokenizer {question.model.tokenizer.name}" if question.model.tokenizer else ""
    roles = "roles not told apart by the template"
    if data.tokens_by_role is not None:
        roles = ", ".join(f"{count:,} of {role}s" for role, count in data.tokens_by_role.items())
    held = f", {data.held_out_documents:,} of them held out" if data.held_out_documents else ""
    quantiles = ", ".join(f"{value:,} at {at}" for at, value in data.length_quantiles.items())
    return (
        f"{data.documents:,} documents{held}, {data.tokens:,} tokens ({roles}{tokenizer}); lengths {quantiles}, "
        f"longest {data.longest:,}, mean {data.mean_length:,.1f} tokens"
    )


def _histogram(data: DataSummary) -> str:
    most = max(bar.documents for bar in data.histogram)
    total = sum(bar.documents for bar in data.histogram)
    rows = []
    for first, last, count in data.histogram:
        span = f"{first:,} or more" if last is None else f"{first:,} to {last:,}" if last > first else f"{first:,}"
        bar = "#" * max(round(_BAR * count / most), count > 0)
        rows.append([span, f"{count:,}", format_significant(100 * count / total, 3), bar])
    return markdown_table(["length (tokens)", "documents", "share (%)", ""], rows, "<>><")


def _describe_epoch(data: DataSummary) -> list[str]:
    used = data.documents - data.held_out_documents
    lines = [f"sequence {data.sequence:,}: no document is longer"]
    if data.truncated_documents:
        lines = [
            f"sequence {data.sequence:,}: {data.truncated_documents:,} documents "
            f"({percent_text(data.truncated_documents / used)}) are longer; {data.cut_tokens:,} tokens "
            f"({percent_text(data.cut_fraction)}) are cut off and never trained on; --sequence {data.longest:,} would "
            "hold all"
        ]
    if data.untrained_documents:
        lines.append(f"{data.untrained_documents:,} documents have no token to train on within the sequence")
    padding = ", ".join(f"{percent_text(each)} with {name}" for name, each in data.padding_by_batching.items())
    width = f"{data.sequence:,} slots"
    if data.batching == "bucket":
        width = f"{format_significant(data.mean_width, 4)} slots on average, at most {data.widest:,}"
    lines.append(
        f"an epoch: {data.rows:,} rows with {data.batching}, {_format_steps(data.steps_per_epoch)} steps of "
        f"{data.global_batch:,} x {width}; padding {padding}; {data.trained_tokens:,} tokens are "
        "trained on"
    )
    if data.steps is not None:
        unused = ""
        if data.unused_rows:
            rows = "row does" if data.unused_rows == 1 else f"{data.unused_rows:,} rows do"
            unused = f"; the last {rows} not fill a step and {'is' if data.unused_rows == 1 else 'are'} left out"
        epochs = "1 epoch" if data.epochs == 1 else f"{data.epochs:,} epochs"
        slots = round(data.steps * data.global_batch * data.mean_width)
        about = "about " if data.batching == "bucket" else ""
        lines.append(f"{epochs}: {data.steps:,} steps, {about}{slots:,} slots{unused}")
    return [*lines, *data.remarks]
