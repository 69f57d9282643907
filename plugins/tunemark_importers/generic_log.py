"""Reads any other program's log: lines whose numbers have names that say what they are.

Used last. Names and values are bound by the grammar of `named_values`; what a name means is in `figure_names`. Lines
that belong together, such as a figure per line under a step, make one record. What only the whole log can tell is
decided from its first records: which of several rates is claimed, whether a time is that of a step or since the start,
whether an MFU is a fraction or a percentage.
"""

from __future__ import annotations

import html
import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunemark.plugin.claims import Claim, ClaimScope, FigureQuantity, LoggedStep, LogLine, NamedFigure
from tunemark_importers import numbers
from tunemark_importers.figure_names import NamedQuantity, NameMeaning, meaning_of
from tunemark_importers.line_prefixes import MAX_LINE, Prefix, cut_inline_stamp, strip_prefixes
from tunemark_importers.log_runs import FigureValues, LogRuns
from tunemark_importers.logged_options import find_options, find_parameter_counts
from tunemark_importers.named_values import NamedValue, NamedValues
from tunemark_importers.numbers import multiply_exactly, parse_clock, parse_number
from tunemark_importers.translated_words import turn_rates

MEANING = "tokens per second as the program prints them; what they count is unknown"

# So many records are looked at before it is decided what their names mean.
_DECIDING_RECORDS = 200
_MAX_APART = 64
# Lines this far apart are not of one record.
_RECORD_LINES = 60
_MARKS = (
    "tok", "TOK", "Tok", "tps", "tgs", "TPS", "TGS", "padding", "Padding", "loss", "Loss", "LOSS", "step", "Step",
    "STEP", "iter", "Iter", "epoch", "Epoch", "/s", "per_sec", "per sec", "PerSec", "per_gpu", "FLOP", "flop", "Flop",
    "mfu", "MFU", "batch", "time", "Time", "throughput", "Throughput", "seq", "params", "model", "--", "Namespace",
    "samples", "Samples", "memory", "elapsed", "it/s", "s/it", "wps", "speed", "norm",
    "토큰", "스텝", "손실", "처리량", "속도", "步", "损失", "吞吐", "速度", "ステップ", "損失", "トークン",
)  # fmt: skip
_GENERATION = re.compile(r"\b(?:generat(?:ed|ing|ion)|decod(?:ed|ing)|prefill|inference|serving)\b", re.I)
_GAP = re.compile(r"\s{2,}|\t")
_BAR = re.compile(
    r"(?P<n>[0-9]{1,15})/(?P<total>[0-9]{1,15}) +(?:\[ ?(?P<elapsed>[0-9:]+) ?< ?[^,\]]*,?"
    r"|(?P<elapsed_rich>[0-9:]+) (?:•|-) )(?:\s*[0-9.?]+ ?(?:s/it|it/s))?,?"
)
_FLAGS = {
    "global_batch_size": "global_batch",
    "global_batch": "global_batch",
    "sequence_length": "sequence",
    "seq_length": "sequence",
    "seq_len": "sequence",
    "max_seq_length": "sequence",
    "block_size": "sequence",
}
_RATES: Mapping[NamedQuantity, FigureQuantity] = {
    "tokens_per_s": "tokens_per_s",
    "samples_per_s": "samples_per_s",
    "steps_per_s": "steps_per_s",
    "duration": "step_time_s",
    "tflops": "tflops",
    "mfu": "mfu",
}
# The fields of a step that a record fills, by quantity.
_STEP_FIELDS: Mapping[NamedQuantity, str] = {
    "step": "number", "epoch": "epoch", "loss": "loss", "gradient_norm": "gradient_norm", "tokens": "tokens",
    "samples": "samples", "step_tokens": "step_tokens", "tokens_per_s": "tokens_per_s", "duration": "duration_s",
    "samples_per_s": "samples_per_s", "tflops": "tflops", "mfu": "mfu",
}  # fmt: skip
_FACTS: Sequence[NamedQuantity] = ("global_batch", "micro_batch", "gradient_accumulation", "sequence", "count")
_PLAN_FACTS: Sequence[NamedQuantity] = (*_FACTS, "padding", "memory", "steps_total")
_NUMBER, _DURATION = LoggedStep._fields.index("number"), LoggedStep._fields.index("duration_s")
# What makes values a record of a training, or of its clock.
_RECORD_QUANTITIES = frozenset((*_STEP_FIELDS, "time", "elapsed", "steps_per_s"))


@dataclass(slots=True)
class _Record:
    """What belongs together, from one line or several."""

    prefix: Prefix
    line: LogLine
    last: int
    values: dict[str, NamedValue] = field(default_factory=dict)
    bar: tuple[float, float, float] | None = None

    def has(self, *quantities: NamedQuantity) -> bool:
        return any(value.meaning.quantity in quantities for value in self.values.values())

    @property
    def is_training(self) -> bool:
        """Whether it is a step's: it has a loss, or the number of a step."""
        return self.has("step", "loss") or self.bar is not None


@dataclass(frozen=True, slots=True)
class _RecordPlan:
    """Where the figures of records of the same names go. places: of a step's fields, by their place in `LoggedStep`;
    fields: those of a step without them. is_interval: whether its duration is that of all steps since the line before.
    iteration: the name of the count of micro-batches, where its duration is that of one.
    beside: what is kept under its own name."""

    facts: Sequence[tuple[str, NameMeaning]]
    places: Sequence[tuple[int, str, NameMeaning]]
    elapsed: tuple[str, NameMeaning] | None
    beside: Sequence[tuple[str, NameMeaning]]
    is_step: bool
    is_interval: bool
    iteration: str | None
    fields: list[Any]


@dataclass(frozen=True, slots=True)
class _HeaderFact:
    name: str
    value: float
    words: str
    line: int


class GenericLogReader:
    """Reads one log."""

    def __init__(self) -> None:
        self._values = NamedValues()
        self._pending: _Record | None = None
        self._buffer: list[_Record | _HeaderFact] = []
        self._runs: LogRuns | None = None
        self._roles: dict[str, NameMeaning] = {}
        self._claimed: dict[NamedQuantity, str] = {}
        self._plans: dict[tuple[str, ...], _RecordPlan] = {}
        self._apart: dict[str, FigureValues] = {}
        self._bar_total: float | None = None
        self._has_steps = False
        self._last_number: float | None = None
        self._header: Sequence[str] = ()
        self._records = 0

    def read(self, line: LogLine) -> bool:
        text = line.text[-MAX_LINE:]
        if self._header and (row := _row_under(self._header, text)) is not None:
            text = row
        elif not any(mark in text for mark in _MARKS):
            return False
        elif (names := _header_of(text)) is not None:
            self._header = names
            return False
        if "&nbsp;" in text:
            text = html.unescape(text).replace("\xa0", " ")
        prefix = cut_inline_stamp(strip_prefixes(text if text.isascii() else turn_rates(text)))
        words, bar = _cut_bar(prefix.text)
        found = [] if len(words) > 4096 else self._values.find(words)
        if found and _GENERATION.search(words) and not any(v.meaning.quantity in ("step", "loss") for v in found):
            # Of generated text, whatever its names.
            found = [value._replace(meaning=replace(value.meaning, is_training=False)) for value in found]
        training = [value for value in found if value.meaning.is_training]
        for value in found:
            if not value.meaning.is_training and value.meaning.quantity in _RATES:
                self._set_apart(value, line)
        is_record = any(v.meaning.quantity in _RECORD_QUANTITIES for v in training)
        if bar is not None and any(v.meaning.quantity in ("loss", "tokens_per_s", "step") for v in training):
            self._bar_total = bar[1]
        if bar is not None and bar[1] != self._bar_total:
            # The bar of a download, or of another loop.
            bar = None
        if is_record or bar is not None:
            self._add_values(training, bar, prefix, line)
            return True
        if facts := [v for v in training if v.meaning.quantity in (*_FACTS, "padding", "steps_total")]:
            self._flush()
            self._keep(_Record(prefix, line, line.number, {value.name: value for value in facts}))
            return True
        if "--" in text or "Namespace" in text or "params" in text or len(text) < 200:
            return self._add_flags(text, line)
        return False

    def claims(self) -> Sequence[Claim]:
        self._flush()
        if self._runs is None:
            if not any(isinstance(one, _Record) for one in self._buffer):
                return []
            self._decide()
        assert self._runs is not None
        apart = tuple(values.summary() for values in self._apart.values())
        return [
            replace(claim, figures=(*claim.figures, *apart), notes=(*claim.notes, *self._notes()))
            for claim in self._runs.claims()
            if _says_something(claim)
        ]

    def _notes(self) -> list[str]:
        if self._values.ambiguous is None:
            return []
        count, example = self._values.ambiguous
        return [f"in {count:,} lines a number could belong to two names, and is left out: {example!r}"]

    def _set_apart(self, value: NamedValue, line: LogLine) -> None:
        """A rate of generation, evaluation or the like."""
        if value.name not in self._apart and len(self._apart) < _MAX_APART:
            self._apart[value.name] = FigureValues(_named_figure(value, value.meaning, line.number))
        if value.name in self._apart and value.value == value.value:
            self._apart[value.name].add(_scaled(value, value.meaning))

    def _add_values(
        self, values: Sequence[NamedValue], bar: tuple[float, float, float] | None, prefix: Prefix, line: LogLine
    ) -> None:
        pending = self._pending
        is_next = pending is not None and (
            any(value.name in pending.values for value in values)
            or (bar is not None and pending.bar is not None)
            or pending.prefix.rank != prefix.rank
            or line.number > pending.last + _RECORD_LINES
        )
        if pending is None or is_next:
            self._flush()
            pending = self._pending = _Record(prefix, line, line.number)
        pending.last = line.number
        pending.bar = pending.bar or bar
        for value in values:
            pending.values.setdefault(value.name, value)

    def _add_flags(self, text: str, line: LogLine) -> bool:
        found = [_HeaderFact(name, value, words, line.number) for name, value, words in find_parameter_counts(text)]
        for name, printed, words in find_options(text, _FLAGS):
            if (parsed := numbers.parse_integer(printed)) is not None and parsed > 0:
                found.append(_HeaderFact(name, parsed, words, line.number))
        if found:
            # What a header says belongs to what follows.
            self._flush()
        for fact in found:
            self._keep(fact)
        # Other tools have the same options, so the line counts as understood only once the log has records.
        return bool(found) and self._records > 0

    def _flush(self) -> None:
        if self._pending is not None:
            record, self._pending = self._pending, None
            self._records += 1
            self._keep(record)

    def _keep(self, one: _Record | _HeaderFact) -> None:
        if self._runs is not None:
            self._emit(one, self._runs)
            return
        self._buffer.append(one)
        if self._records >= _DECIDING_RECORDS or len(self._buffer) > 10 * _DECIDING_RECORDS:
            self._decide()

    def _decide(self) -> None:
        """What the names mean in this log, and which of them are claimed."""
        records = [one for one in self._buffer if isinstance(one, _Record)]
        steps = [record for record in records if record.is_training]
        self._has_steps = bool(steps)
        by_name: dict[str, list[NamedValue]] = defaultdict(list)
        in_steps: dict[str, int] = defaultdict(int)
        for record in records:
            for name, value in record.values.items():
                by_name[name].append(value)
                in_steps[name] += record.is_training
        self._roles = {name: _settled(values) for name, values in by_name.items()}
        for quantity in (*_STEP_FIELDS, "elapsed", "steps_per_s"):
            names = [name for name, role in self._roles.items() if role.quantity == quantity]
            if steps:
                # A rate without a step or a loss is not shown to be of the training.
                names = [name for name in names if in_steps[name]]
            if names:
                often = max(in_steps[name] for name in names) if steps else max(len(by_name[name]) for name in names)
                counts = in_steps if steps else {name: len(by_name[name]) for name in names}
                self._claimed[quantity] = max(
                    names, key=lambda name: (2 * counts[name] >= often, *self._preference(name))
                )
        rate = self._claimed.get("tokens_per_s")
        scope = self._scope(rate)
        samples = self._claimed.get("samples_per_s")
        flops = self._claimed.get("tflops")
        role = self._roles[rate] if rate is not None else None
        self._runs = LogRuns(
            tool="anything", meaning=MEANING if role is None or role.counts is None else _meaning(role),
            counts=role.counts if role else None, scope=scope, samples_scope=self._scope(samples), rate_name=rate,
            flops_scope="device" if flops is None else self._roles[flops].scope,
        )  # fmt: skip
        for one in self._buffer:
            self._emit(one, self._runs)
        self._buffer.clear()

    def _preference(self, name: str) -> tuple[int, int]:
        role = self._roles[name]
        # TFLOP/s are claimed per device, rates of the job.
        order = (
            {"job": 0, "unknown": 1, "device": 2}
            if role.quantity == "tflops"
            else {"job": 2, "unknown": 1, "device": 0}
        )
        return role.rank, order[role.scope]

    def _claimed_names(self, record: _Record) -> frozenset[str]:
        """The figures that count of each kind in a record. Rates are never mixed: one name is claimed in the whole log;
        of a step's number or loss the name that says most."""
        best: dict[NamedQuantity, str] = {}
        for name, value in record.values.items():
            role = self._roles.get(name, value.meaning)
            if role.quantity in _RATES:
                if self._claimed.get(role.quantity) == name:
                    best[role.quantity] = name
            elif role.quantity in _STEP_FIELDS or role.quantity == "elapsed":
                other = best.get(role.quantity)
                if other is None or role.rank > self._roles.get(other, record.values[other].meaning).rank:
                    best[role.quantity] = name
        return frozenset(best.values())

    def _scope(self, name: str | None) -> ClaimScope:
        """The scope of a rate; one that stands beside the same rate per device is that of the job."""
        if name is None:
            return "unknown"
        role = self._roles[name]
        if role.scope == "unknown" and any(
            other.quantity == role.quantity and other.scope == "device" for other in self._roles.values()
        ):
            return "job"
        return role.scope

    def _emit(self, one: _Record | _HeaderFact, runs: LogRuns) -> None:
        if isinstance(one, _HeaderFact):
            runs.add_fact(one.name, one.value, one.words, one.line)
            return
        plan = self._plan(one)
        for name, role in plan.facts:
            self._add_fact(one, name, role, runs)
        fields = plan.fields.copy()
        for at, name, role in plan.places:
            value = one.values[name]
            fields[at] = _scaled(value, role)
            if value.of is not None and value.of >= value.value and role.quantity == "step":
                runs.add_fact("steps_total", value.of, f"{name} {value.text}/{value.of:g}", one.line.number,
                              differing="largest")  # fmt: skip
        if plan.is_interval:
            self._divide_interval(fields)
        elif plan.iteration is not None and fields[_NUMBER] and one.values[plan.iteration].value >= fields[_NUMBER]:
            fields[_DURATION + 1] = fields[_NUMBER] / one.values[plan.iteration].value
        elapsed_s = None
        if plan.elapsed is not None:
            name, role = plan.elapsed
            elapsed_s = _scaled(one.values[name], role)
        has_fields = bool(plan.places)
        if one.bar is not None:
            at_step, total, seconds = one.bar
            elapsed_s = seconds if elapsed_s is None else elapsed_s
            if fields[_NUMBER] is None:
                fields[_NUMBER], has_fields = at_step, True
                runs.add_fact("steps_total", total, f"{at_step:g}/{total:g} in the progress bar", one.line.number,
                              differing="largest")  # fmt: skip
        is_step = plan.is_step or one.bar is not None
        kept = is_step and has_fields and runs.add(one.prefix, one.line, LoggedStep(*fields), elapsed_s)
        if plan.beside and (kept or not is_step):
            for name, role in plan.beside:
                figure = _named_figure(one.values[name], role, one.line.number)
                if is_step:
                    runs.add_figure(figure)
                elif figure.name in self._apart or len(self._apart) < _MAX_APART:
                    # It has no step and no loss: it may be of anything.
                    self._apart.setdefault(figure.name, FigureValues(replace(figure, is_training=False)))
                    self._apart[figure.name].add(figure.value)

    def _divide_interval(self, fields: list[Any]) -> None:
        """A time of the interval since the line before is one of all steps since then; of the first line it is open."""
        number, last = fields[_NUMBER], self._last_number
        self._last_number = number
        if number is None:
            return
        if last is None or not number > last:
            fields[_DURATION] = fields[_DURATION + 1] = None
        else:
            fields[_DURATION + 1] = number - last

    def _plan(self, record: _Record) -> _RecordPlan:
        """Where the figures of a record go: the same for all records of the same names."""
        names = tuple(record.values)
        plan = self._plans.get(names)
        if plan is not None:
            return plan
        claimed = self._claimed_names(record)
        roles = {name: self._roles.get(name, value.meaning) for name, value in record.values.items()}
        places = [
            (LoggedStep._fields.index(_STEP_FIELDS[role.quantity]), name, role)
            for name, role in roles.items()
            if role.quantity in _STEP_FIELDS and name in claimed
        ]
        placed = {name for _, name, _ in places}
        rates: Sequence[NamedQuantity] = (
            ("tokens_per_s",) if self._has_steps else ("tokens_per_s", "samples_per_s", "tflops")
        )
        plan = _RecordPlan(
            facts=[(name, role) for name, role in roles.items() if role.quantity in _PLAN_FACTS],
            places=places,
            elapsed=next(((n, r) for n, r in roles.items() if r.quantity == "elapsed" and n in claimed), None),
            beside=[
                (name, role)
                for name, role in roles.items()
                if role.quantity in _RATES and role.scale is not None and name not in placed
            ],
            is_step=record.has("step", "loss") or any(self._claimed.get(rate) in record.values for rate in rates),
            is_interval=any(at == _DURATION and "interval" in name.lower() for at, name, _ in places),
            iteration=_micro_batch_count(places, roles),
            fields=[0, *[None] * (len(LoggedStep._fields) - 1)],
        )
        if any(at == _DURATION for at, *_ in places):
            plan.fields[_DURATION + 1] = 1.0
        if len(self._plans) > _MAX_APART:
            self._plans.clear()
        self._plans[names] = plan
        return plan

    def _add_fact(self, record: _Record, name: str, role: NameMeaning, runs: LogRuns) -> None:
        value, line, quantity = record.values[name], record.line.number, role.quantity
        words = f"{name} {value.text}"
        if quantity in _FACTS:
            if value.value.is_integer() and value.value > 0:
                runs.add_fact(quantity, int(value.value), words, line)
        elif quantity == "padding":
            share = _scaled(value, role)
            if 0 <= share < 1:
                runs.add_fact("padding_fraction", share, words, line, differing="first")
        elif quantity == "memory" and role.scale is not None:
            runs.add_fact("memory_bytes", _scaled(value, role), words, line, differing="largest")
        elif quantity == "steps_total":
            runs.add_fact("steps_total", value.value, words, line, differing="largest")


def _micro_batch_count(places: Sequence[tuple[int, str, NameMeaning]], roles: Mapping[str, NameMeaning]) -> str | None:
    """The name of a count of micro-batches that stands beside that of the steps, where the duration is named after it:
    `iter 12 step 3 iter time 150 ms`."""
    named = {at: name.lower() for at, name, _ in places}
    if "iter" not in named.get(_DURATION, "") or "iter" in named.get(_NUMBER, "iter"):
        return None
    return next((name for name, role in roles.items() if role.quantity == "step" and "iter" in name.lower()), None)


def _header_of(text: str) -> list[str] | None:
    """The names in a line that stands over columns of figures; None if it is no such line."""
    if len(text) > 500 or any(character.isdigit() for character in text) or ":" in text or "=" in text:
        return None
    names = [name for name in _GAP.split(text.strip()) if name]
    names = names if len(names) > 1 else text.split()
    known = [meaning.quantity for name in names if (meaning := meaning_of(name)) is not None]
    is_header = 1 < len(names) <= 30 and len(known) > 1 and {"step", "loss", *_RATES} & set(known)
    return names if is_header else None


def _row_under(names: Sequence[str], text: str) -> str | None:
    """A line of figures under such names, as if each had its name beside it."""
    cells = text.split()
    if len(cells) != len(names) or any(parse_number(cell.rstrip("%")) is None for cell in cells):
        return None
    return " | ".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True))


def _cut_bar(text: str) -> tuple[str, tuple[float, float, float] | None]:
    """The words of a line beside its progress bar, and the bar's place, total and clock in seconds."""
    if "/" not in text or not (match := _BAR.search(text)):
        return text, None
    seconds = parse_clock(match["elapsed"] or match["elapsed_rich"])
    if seconds is None:
        return text, None
    before = text[: match.start()].rpartition("%|")[0] if "%|" in text else text[: match.start()]
    return f"{before.rstrip('0123456789. ')} , {text[match.end() :]}", (
        float(match["n"]),
        float(match["total"]),
        seconds,
    )


def _settled(values: Sequence[NamedValue]) -> NameMeaning:
    """The meaning of a name as its values show it."""
    meaning = values[0].meaning
    figures = [value.value for value in values if value.value == value.value]
    rises = len(figures) > 1 and all(b >= a for a, b in itertools.pairwise(figures)) and figures[-1] > figures[0]
    if meaning.quantity == "time":
        # A step's time does not rise with every line, to many times the first.
        is_elapsed = rises and len(figures) > 2 and figures[-1] > 2 * figures[0]
        return replace(meaning, quantity="elapsed" if is_elapsed else "duration" if len(figures) > 1 else "other")
    if meaning.quantity == "duration" and rises and len(figures) > 2 and figures[-1] > 2 * figures[0]:
        # A count by its name alone, such as time/batch.
        return replace(meaning, quantity="other")
    if meaning.quantity == "some_tokens":
        return replace(meaning, quantity="tokens" if rises else "step_tokens" if len(figures) > 1 else "other")
    if meaning.quantity == "mfu" and any(value.meaning.is_per_cent for value in values):
        return replace(meaning, is_per_cent=True, scale=0.01)
    if meaning.quantity == "mfu" and figures:
        highest = max(figures)
        if highest > 2:
            return replace(meaning, scale=0.01)
        # Between 1 and 2 it may be a percentage, or a fraction above what is possible.
        return meaning if highest <= 1 else replace(meaning, quantity="other")
    return meaning


def _scaled(value: NamedValue, meaning: NameMeaning) -> float:
    # The unit stands at each value; only of an MFU without a sign the whole log says what it is.
    scale = meaning.scale if meaning.quantity == "mfu" else value.meaning.scale
    scale = 1.0 if scale is None else scale
    if scale == 1.0 or value.value != value.value or value.value in (float("inf"), float("-inf")):
        return value.value
    return multiply_exactly(value.value, scale)


def _named_figure(value: NamedValue, meaning: NameMeaning, line: int) -> NamedFigure:
    return NamedFigure(
        name=value.name, quantity=_RATES[meaning.quantity], value=_scaled(value, meaning), scope=meaning.scope,
        counts=meaning.counts, is_training=meaning.is_training, place=f"line {line}",
    )  # fmt: skip


def _meaning(role: NameMeaning) -> str:
    kinds = {"slots": "slots, padding counted", "content": "tokens without padding", "trained": "trained tokens"}
    return f"{kinds[role.counts or 'slots']} per second, by the name under which the program prints them"


def _says_something(claim: Claim) -> bool:
    """Whether a run has a figure, a clock, or at least the lines of a training."""
    figures = ("tokens_per_s", "duration_s", "samples_per_s", "tflops", "mfu")
    if any(value is not None for name in figures for value in claim.steps.column(name)):
        return True
    points = zip(claim.steps.column("number"), claim.steps.column("stamp_s"), strict=True)
    clocks = {at for number, at in points if number is not None and at is not None}
    return len(clocks) > 2 or sum(loss is not None for loss in claim.steps.column("loss")) > 2
