"""Hold the rate that a trainer states of itself to what was witnessed, and say by what it is off.

A stated rate is read as some tokens over some time: which tokens (slots, content, trained), which time (the timed
part, all steps, all steps with the trainer's own set-up, the median step), of which ranks, of which micro-batches. The
reading that fits is the reason. Rates of a log are audited in the same way, from the log alone, by `tunemark audit`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from tunemark.number_format import percent_text
from tunemark.plugin.descriptors import Finding
from tunemark.results.measurement import JobTokens, Measurement
from tunemark.results.timed_part import TimedPart

# A log rounds, and its clock is read at other instants than ours: of ten steps some percent of one.
RATE_TOLERANCE = 0.05
_TOKENS = {"content": "content tokens", "slots": "all slots, padding included", "trained": "tokens with a label"}
_SPANS = {
    "timed": "over the timed part",
    "whole": "over all steps, the warm-up included",
    "set-up": "over all steps and the trainer's set-up",
    "step": "of the median step",
}


class CountedSpan(NamedTuple):
    """The job's tokens over a span of time."""

    tokens: JobTokens
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RateReading:
    """How a stated rate comes about. rate: by the witness's counts. multiplier: in words, and what it multiplies by."""

    tokens: str
    span: str
    rate: float
    multiplier: str = ""
    factor: float = 1.0

    def words(self) -> str:
        of = f", {self.multiplier}" if self.multiplier else ""
        return f"{_TOKENS[self.tokens]} {_SPANS[self.span]}{of}"


def list_readings(
    spans: Mapping[str, CountedSpan], ranks: int, accumulation: int, steps: Sequence[CountedSpan] = ()
) -> list[RateReading]:
    """Every reading of a rate, the plainest first. steps: each step's tokens and time, where each was timed."""
    multipliers = [("", 1.0)]
    if ranks > 1:
        multipliers += [(f"multiplied by {ranks} ranks", float(ranks)), (f"of one of {ranks} ranks", 1.0 / ranks)]
    if accumulation > 1:
        multipliers += [
            (f"multiplied by {accumulation} accumulated micro-batches", float(accumulation)),
            (f"of one of {accumulation} accumulated micro-batches", 1.0 / accumulation),
        ]
    rates = {}
    for (span, counted), name in itertools.product(spans.items(), _TOKENS):
        if counted.seconds > 0:
            rates[span, name] = getattr(counted.tokens, name) / counted.seconds
    for name in _TOKENS if steps else ():
        rates["step", name] = median(getattr(step.tokens, name) / step.seconds for step in steps)
    return [
        RateReading(tokens=name, span=span, rate=factor * rate, multiplier=words, factor=factor)
        for (words, factor), ((span, name), rate) in itertools.product(multipliers, rates.items())
        if rate
    ]


def find_reading(stated: float, readings: list[RateReading]) -> RateReading | None:
    """The reading that a stated rate has, the plainest of those that fit; None if none does."""
    fitting = [each for each in readings if abs(stated - each.rate) <= RATE_TOLERANCE * each.rate]
    plain = [each for each in fitting if not each.multiplier] or fitting
    return min(plain, key=lambda each: abs(stated - each.rate) / each.rate, default=None)


def judge_own_rate(
    stated: float,
    spans: Mapping[str, CountedSpan],
    ranks: int,
    accumulation: int,
    steps: Sequence[CountedSpan] = (),
) -> Finding:
    """The finding on the rate that a trainer states, tokens per second."""
    content = spans["timed"].tokens.content / spans["timed"].seconds
    message = f"the trainer itself states {stated:,.6g} tokens/s, {content:,.6g} content tokens/s were witnessed: "
    message += f"factor {stated / content:.3g}"
    readings = list_readings(spans, ranks, accumulation, steps)
    found = find_reading(stated, readings)
    if found is not None:
        apart = percent_text(abs(stated - found.rate) / found.rate)
        message += f", as it counts {found.words()} ({found.rate:,.6g} by the witness, {apart} apart)"
        return Finding(rule="trainer-rate", severity="note", message=message)
    highest = max(readings, key=lambda each: each.rate)
    if stated > highest.rate:
        message += f", more than any count gives ({highest.rate:,.6g}: {highest.words()}): it does not wait for the "
        message += "device, or counts what was not trained on"
    else:
        message += ", which no count of its tokens over no part of its time gives"
    return Finding(rule="trainer-rate-denied", severity="suspect", message=message)


def find_own_rate(measurement: Measurement) -> Mapping[str, Any] | None:
    """What the trainer reported of its own rate; None if nothing."""
    for rank in measurement.ranks[:1]:
        for row in rank.untimed_records:
            if row["kind"] == "trainer_end":
                own: Mapping[str, Any] | None = row.get("own")
                return own
    return None


def check_own_rate(measurement: Measurement, timed: TimedPart) -> Finding | None:
    """The finding on the rate that another program's loop states of itself; None if it states none."""
    own = find_own_rate(measurement)
    if own is None or not timed.total.content or not timed.interval_s:
        return None
    rank = measurement.ranks[0]
    first, last = rank.edges[0], rank.edges[-1]
    every = measurement.counts(0, measurement.step_count)
    spans = {
        "timed": CountedSpan(timed.total, timed.interval_s),
        "whole": CountedSpan(every, last.instant_s - first.instant_s),
    }
    began = [row["instant_s"] for row in rank.untimed_records if row["kind"] == "reference"]
    ended = [row["instant_s"] for row in rank.untimed_records if row["kind"] == "trainer_end"]
    if began and ended:
        spans["set-up"] = CountedSpan(every, ended[0] - began[0])
    steps = [
        CountedSpan(measurement.counts(before.steps, after.steps), after.instant_s - before.instant_s)
        for before, after in itertools.pairwise(rank.edges)
    ]
    is_each_timed = all(after.steps == before.steps + 1 for before, after in itertools.pairwise(rank.edges))
    if not is_each_timed or any(step.seconds <= 0 for step in steps):
        steps = []
    a = measurement.assignment
    return judge_own_rate(float(own["tokens_per_s"]), spans, a.processes, a.gradient_accumulation, steps)
