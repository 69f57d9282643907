"""The sentences of findings, evidence and reasons in another language.

A finding is stored as an English sentence with its figures in it, and may have been written by another version. So its
translation is found by the form of the sentence: text around values. What has none of these forms, such as what a
plugin, a log or an error says, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from tunemark.report.translation import Translate

# What is said of runs, of sizes and of attempts. `{name}` stands for a value.
FINDING_SENTENCES = (
    "{bad} of {steps} steps have a loss that is not finite, step {first} is the first",
    "{bad} of {steps} steps have a gradient norm that is not finite, step {first} is the first",
    "no sampled weight differs from the start after {steps} steps on {bad} of {ranks} ranks: nothing was trained",
    "{cut} of {documents} documents are longer than the sequence: {lost} of {tokens} tokens ({share}) are cut off and "
    "never trained on",
    "{bad} of {documents} documents have no token to train on within the sequence",
    "the timed part lasts {one} s on one clock and {other} s on another, {apart} apart (limit {limit})",
    "{seconds} s were timed, and less than {least} s is too short to be believed: give more --steps, or a --budget",
    "after {waits} waits for the device its results took {late} s more, {share} of the {timed} s timed (limit "
    "{limit}): the device had not finished",
    "the token file is gone or changed, so nobody could count the tokens again, and no seal says what it held",
    "{bad} of {steps} steps have not the {slots} slots of global batch x sequence, step {first} is the first with "
    "{found}",
    "what is stored is not what was measured: {problems}",
    "{bad} of {ranks} ranks have no record of the load: what else ran is unknown",
    "over {steps} steps the loss rises by {errors} standard errors of its slope (limit {limit}), from {first} to "
    "{last}",
    "step time changes by {change} % over the timed part (limit {limit}, p = {p})",
    "other processes used {share} of the time of our {cores} cores (limit {limit})",
    "the machine was in a state that changes rates: {words}; `tunemark doctor` says how to mend it",
    "{slow} of {windows} windows took more than {limit} s per {work}, the slowest {slowest} s against a median of "
    "{median} s; they count as they are",
    "the interval is {half} wide, {target} was wanted ({method}, n = {n})",
    "{attempts} of at least {least} attempts: the variation between processes is poorly known",
    "more was requested than the device has: this tests the mechanics, and its rates mean nothing",
    "the accelerator is a simulator's: no figure here says how fast anything is",
    "the device is not as it was before: {why}",
    "{windows} windows were timed, an interval needs {least}; or repeat the run",
    "no steady part was found in {windows} windows: the rate is of their second half",
    "all {windows} windows lie within the {steps} steps of warm-up that were asked for: the rate is of their second "
    "half",
    "the model that was built has {parameters} parameters, {trained} of them trained; the plan said {planned} and "
    "{planned_trained}: its FLOPs and memory are another model's",
    "attention was computed as {kernel}: {reason}. It takes other time and memory than SDPA, so the run is only "
    "compared with runs that did the same",
    "it could not be compared with {reference}: {failure}",
    "over {steps} steps the loss differs from that of {reference} by up to {worst}, relative (limit {limit})",
    "over {steps} steps loss and gradient norm differ from those of {reference} by up to {loss} and {norm}, relative "
    "(limit {limit})",
    "another job was on the device before or during the timed part: {words}",
    "the device was slowed down in {share} of {samples} samples of the timed part (limit {limit}): {causes}",
    "the device's power limit held it back in {share} of {samples} samples of the timed part: under another limit it "
    "would be another rate",
    "its processes were started again {lives} times: what is measured is their last life alone, and the records of the "
    "earlier ones are kept beside it",
    "{library} was loaded into the timed process: it changes what clocks say",
    "loaded into the timed process before all other libraries: {libraries}; what that changes is unknown here",
    "the clock was before an earlier attempt's start when attempt {number} began: attempts are in the order in which "
    "they were made, not in that of their dates",
    "{status}, ended by {reason}: {evidence}",
    "the plugin {plugin} could not audit: {error}",
    "sizes were not measured under the same {name}: {seen}",
    "what is derived from {sizes} is no better than their verdicts",
    "the data ranks do not grow with the size, so that neither does the batch: these runs are strong too",
    "{sizes}: faster than N times the base; a base that lacks memory or cache explains it",
    "s = {share} is no share: units beyond the first make it slower from the second on, by a cost that one unit does "
    "not have",
    "the report is not what was written: {problems}",
    "the peak of this accelerator was measured between {lowest} and {highest} TFLOP/s; every MFU is a share of the "
    "highest",
    "its own figures contradict each other: {found}",
    "it has neither tokens and seconds nor the rates of its attempts, so nothing confirms its rate",
    "{lines} last lines of records were cut off and are left out",
    "a fit needs at least {least} sizes that were measured well, there are {sizes}",
    "a choice between laws needs at least {least} attempts in all, there are {attempts}",
    "every rank wrote its end record",
    # Which size is best, and why.
    "{cost}, {ratio} times as fast as {size}: no difference shown",
    "{cost}, {ratio} times as fast as {size}: one attempt each shows no difference",
    "{cost}, {ratio} times as fast as {size}",
    "{cost}, {ratio} times as cheap as {size}: no difference shown",
    "{cost}, {ratio} times as cheap as {size}: one attempt each shows no difference",
    "{cost}, {ratio} times as cheap as {size}",
    "{cost} per million tokens",
    "from {low} to {high} each {unit} adds {share} % of what one gives at {first}, below {limit}",
    "from {low} to {high} each {unit} adds {share} % of what one gives at {first}: not shown to be below {limit}",
    "no knee up to {high}: its {unit} still add {share} % each, and a knee is below {limit}",
    "chips",
    "chip",
    "devices",
    "device",
    "units",
    "unit",
    "neither prices nor numbers of chips are known",
    "fewer than two sizes were measured well",
    "{sizes} measured well: nothing to choose",
    "no size was",
    "one size was",
    "{n} sizes were",
    "and {size} is valid",
    "and {size} is suspect",
    "and {size} is invalid",
    "and {size} is unknown",
    # Why a value is unknown.
    "nothing was timed",
    "a breakdown waits for every part of a step, so its rate is not the run's",
    "no peak FLOP/s is known of {chip} in {precision}",
    "the device names no monitor",
    "no telemetry: {why}, no hwmon of a processor and no cpufreq",
    "no telemetry: {why}",
    "this host has no /sys/class/powercap with a processor's energy",
    "the kernel lets only root read energy_uj",
    # How an interval was computed.
    "by definition: it is the base",
    "paired t on log {level} %",
    "Welch t on log {level} %",
    "between-attempt t on log {level} %",
    "within-run batch means {level} %",
    "none: one attempt",
    "none: one attempt on a side",
)
# A rule that found something in several attempts says it of each of them.
OF_AN_ATTEMPT = "attempt {number}: {sentence}"
_INTERVAL = re.compile(r"\((?P<low>[\d.,]+) to (?P<high>[\d.,]+)\)")
_BETWEEN_PARTS = re.compile(r"; (?=attempt \d+: |and \S+ is \w+$)")


def translate_finding(sentence: str, tr: Translate) -> str:
    """A finding's sentence in the language of a translator; what has none of these forms is returned as it is."""
    sentence = _INTERVAL.sub(lambda bounds: tr("({low} to {high})", **bounds.groupdict()), sentence)
    # Findings of several attempts are joined, and so are several of one, and evidence with what it rests on.
    return "; ".join(
        _translate(each, tr) or "; ".join(_translate(part, tr) or part for part in each.split("; "))
        for each in _BETWEEN_PARTS.split(sentence)
    )


def _translate(sentence: str, tr: Translate) -> str | None:
    if (found := _find_form(sentence)) is None:
        return None
    text, values = found
    return tr(text, **{name: translate_finding(value, tr) for name, value in values.items()})


@lru_cache(maxsize=4096)
def _find_form(sentence: str) -> tuple[str, Mapping[str, str]] | None:
    """The form of a sentence and its values."""
    for pattern, text in _list_patterns():
        if match := pattern.fullmatch(sentence):
            return text, match.groupdict()
    return None


@cache
def _list_patterns() -> list[tuple[re.Pattern[str], str]]:
    # An attempt's number comes first: other forms begin with a value, which would take it.
    return [(re.compile(_make_pattern(text), re.DOTALL), text) for text in (OF_AN_ATTEMPT, *FINDING_SENTENCES)]


def _make_pattern(text: str) -> str:
    """A value is as short as it can be."""
    parts = re.split(r"{(\w+)}", text)
    return "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
