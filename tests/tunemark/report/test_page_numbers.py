"""Every number on the page is the stored one at the printed precision: in tables, charts, sentences and workings.

What is stored is read here from the results themselves, by the names of their fields, so that a column that shows
another field, a factor that is lost and a figure from nowhere are all caught.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tunemark.analysis.prices import Prices
from tunemark.report import make_report
from tunemark.results import Estimate, Result
from tunemark.results.result import AttemptRow, StepTime, TimedTokens, encode_result
from tunemark.results.trace import Trace, TraceWindow
from tunemark_formats.page import render

MadeRun = Callable[..., Result]
_VOID = {"meta", "link", "input", "br", "img"}
_PRICES = Prices(currency="USD", per_chip_hour={"c": 3.25})


class Node:
    """An element, or the document. texts: its own, by the place among `children`."""

    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []

    def every(self, tag: str, **wanted: str) -> Iterator[Node]:
        for child in self.children:
            if isinstance(child, Node):
                named = {name.replace("_", "-"): value for name, value in wanted.items()}
                if child.tag == tag and all(child.attributes.get(n) == v for n, v in named.items()):
                    yield child
                yield from child.every(tag, **wanted)

    def text(self, without: Sequence[str] = ()) -> str:
        words = [
            child if isinstance(child, str) else "" if child.tag in without else child.text(without)
            for child in self.children
        ]
        return " ".join(" ".join(words).split())


class _Tree(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.at = self.root = Node("document", {}, None)
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in _VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Node(tag, dict(attrs), self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> ends <{self.at.tag}>"
        self.at = self.at.parent or self.root

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


# -- what a printed number says

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")
_FACTORS = {"%": 100.0, "GiB": 1 / 2**30, "TFLOP/s": 1e-12, "GFLOP": 1e-9}


def reach(text: str) -> float:
    """Half a unit of the last digit that is printed, and the value's own rounding."""
    digits, _, exponent = text.replace(",", "").partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    return 0.5 * unit * (1 + 1e-6)


# A value with what follows it of its interval, the tail of a number's form left out.
_SHOWN = re.compile(r"[\d,]*\d(?:\.\d+)?(?: ± [\d,]*\d(?:\.\d+)?| \([\d,.]+ to [\d,.]+\))?")


def says(text: str, value: float) -> bool:
    """Whether a printed number is this value at its precision."""
    printed = float(text.replace(",", ""))
    return abs(printed - value) <= reach(text) + 1e-11 * abs(value)


def says_middle(text: str, value: float) -> bool:
    """Whether a number with an interval is of this value, whatever its interval."""
    printed, sign, width = text.partition(" ± ")
    if not sign:
        return says(text.split()[0], value)
    near = 0.5 * _place(width.replace(",", "")) * (1 + 1e-6) + 1e-11 * abs(value)
    return abs(float(printed.replace(",", "")) - value) <= near


def _place(width: str) -> float:
    """That of a half-width's second digit: 2100 says hundreds, 0.0021 ten-thousandths."""
    return max(10.0 ** (math.floor(math.log10(float(width))) - 1), 2 * reach(width))


def says_estimate(text: str, found: Estimate, factor: float) -> bool:
    """Whether "value ± half-width", "value (low to high)" or "value (no interval)" is this estimate."""
    value, low, high = (None if x is None else x * factor for x in (found.value, found.low, found.high))
    assert value is not None
    if low is None or high is None:
        return text.endswith("(no interval)") and says(text.split()[0], value)
    if "±" in text:
        width = text.split(" ± ")[1].replace(",", "")
        return says_middle(text, value) and abs(float(width) - (high - low) / 2) <= 0.5 * _place(width) * (1 + 1e-6)
    parts = re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", text)
    return parts is not None and all(map(says, parts.groups(), (value, low, high)))


# -- what is stored, by a column's name


def _mean(r: Result) -> float:
    return statistics.geometric_mean([row.tokens_per_s for row in r.each_attempt if row.tokens_per_s])


def stored(r: Result, name: str, results: Sequence[Result]) -> Any:
    base = results[0]
    if name == "cost_per_million_tokens":
        e, hour = r.tokens_per_s, stored(r, "price_per_hour", results)
        if e is None:
            return None
        low, high = (None if x is None else hour / 3600 / x * 1e6 for x in (e.high, e.low))
        return Estimate(value=hour / 3600 / e.value * 1e6, low=low, high=high, n=e.n, method=e.method)
    if name == "tokens_per_s_per_unit":
        return r.tokens_per_s and r.tokens_per_s.value / (r.chips or 1)
    if name == "speedup":
        return _mean(r) / _mean(base)
    if name == "efficiency":
        return _mean(r) / _mean(base) * (base.chips or 1) / (r.chips or 1)
    if name == "marginal_efficiency":
        more = (r.chips or 0) - (base.chips or 0)
        return None if r is base else (_mean(r) / _mean(base) - 1) / more * (base.chips or 1)
    for prefix, field in (("setup_", r.setup_s), ("breakdown_", r.breakdown_s), ("tokens_", r.tokens)):
        part = name.removeprefix(prefix)
        if part != name and isinstance(field, dict) and name.endswith("_s"):
            return field.get(part.removesuffix("_s"))
        if part in ("slots", "content", "trained") and isinstance(field, TimedTokens):
            return getattr(field, part)
    known: dict[str, Any] = {
        "price_per_hour": 3.25 * (r.chips or 1),
        "step_time_p50_s": r.step_time_s and r.step_time_s.p50,
        "step_time_p95_s": r.step_time_s and r.step_time_s.p95,
        "units": r.chips,
        "communication_share": None,
    }
    return known[name] if name in known else getattr(r, name)


_WORDS = {"run_id", "accelerator", "left_out", "energy_reason", "chosen", "selected", "outcome", "is_base", "strategy"}


def check_tables(page: Node, results: Sequence[Result], traces: Sequence[Trace]) -> int:
    """How many numbers in cells were checked."""
    by_id = {r.run_id: r for r in results}
    checked = 0
    for table in page.every("table"):
        key = table.attributes.get("data-table") or ""
        if "data-values" in table.attributes:  # a chart's, whose marks are checked
            continue
        heads = [head.text() for head in next(table.every("thead")).every("th")]
        for number, row in enumerate(next(table.every("tbody")).every("tr")):
            run = by_id.get(row.attributes.get("data-run") or "") or _inside(table, by_id)
            cells = [c for c in row.children if isinstance(c, Node) and c.tag in ("td", "th")]
            for head, cell in zip(heads, cells, strict=True):
                name, text = cell.attributes["data-c"] or "", cell.text(without=("div",))
                unit = (re.findall(r"\(([^()]*)\)$", head) or [""])[0]
                if key == "raw":
                    wanted: Any = _of_window(table, traces, number, name)
                elif key == "attempts":
                    assert run is not None
                    wanted = getattr(run.each_attempt[number], name)
                elif key in _OF_RUNS or re.fullmatch(r"scaling-\d+-sizes", key):
                    if run is None or name in _WORDS or (name == "ratio" and text == "unknown"):
                        continue
                    wanted = stored(run, {"ratio": "speedup"}.get(name, name), results)
                else:
                    assert key in _OTHERS or re.fullmatch(r"scaling-\d+-(goals|findings)", key), key
                    continue
                checked += _check(key, name, text, wanted, _FACTORS.get(unit, 1.0))
    for told in (p for p in page.every("p", **{"class": "help"}) if p.attributes.get("data-table")):
        head = ""
        for child in told.children:
            if isinstance(child, str):
                head = child.strip()
                continue
            name, unit = child.attributes["data-c"] or "", (re.findall(r"\(([^()]*)\)$", head) or [""])[0]
            if name not in _WORDS:
                key = told.attributes["data-table"] or ""
                checked += _check(key, name, child.text(), stored(results[0], name, results), _FACTORS.get(unit, 1.0))
    return checked


_OF_RUNS = (
    "throughput", "steps", "step-parts", "set-up", "tokens", "memory", "cost", "strategies", "runs",
)  # fmt: skip
_OTHERS = ("environment", "findings", "")


def _inside(node: Node, by_id: dict[str, Result]) -> Result | None:
    at: Node | None = node
    while at is not None:
        name = at.attributes.get("id") or ""
        if name.startswith("run-"):
            return by_id[name.removeprefix("run-")]
        at = at.parent
    return None


def _of_window(table: Node, traces: Sequence[Trace], number: int, name: str) -> Any:
    run = _inside(table, {t.run_id: t for t in traces})  # type: ignore[misc, dict-item]  # of traces, not of results
    trace = next(t for t in traces if t is run)
    window = trace.kept[number]
    if name == "timed":
        return (trace.first or 0) < window.steps <= (trace.last or 0)
    return getattr(window, name)


def _check(key: str, name: str, text: str, wanted: Any, factor: float) -> int:
    place = f"{key}, {name}: {text!r} of {wanted!r}"
    if wanted is None:
        assert text == "unknown", place
    elif isinstance(wanted, bool):
        assert text == ("yes" if wanted else "no"), place
    elif isinstance(wanted, Estimate):
        assert says_estimate(text, wanted, factor), place
    elif isinstance(wanted, float) and not re.fullmatch(r"-?[\d,.]+", text):
        # A ratio of attempts, whose interval is not stored.
        assert says_middle(text, wanted * factor), place
    elif isinstance(wanted, (int, float)):
        assert says(text, wanted * factor), place
    else:
        return 0
    return 1


def check_charts(page: Node, results: Sequence[Result]) -> int:
    """Each mark of a run says its value, and lies where the axis has it."""
    checked = 0
    of = {
        "throughput": lambda r: r.tokens_per_s,
        "memory": lambda r: r.peak_memory_bytes,
        "cost": lambda r: stored(r, "cost_per_million_tokens", results),
    }
    for key, read in of.items():
        for figure in page.every("figure", data_chart=key):
            for svg in figure.every("svg"):
                ticks = [
                    (float(t.attributes["x"] or 0), float(t.text().replace(",", "")))
                    for t in svg.every("text", text_anchor="middle")
                    if re.fullmatch(r"[\d,.]+", t.text())
                ]
                (x0, v0), (x1, v1) = ticks[0], max(ticks)
                scale = (x1 - x0) / (v1 - v0)
                for r in results:
                    for link in svg.every("a", href=f"#run-{r.run_id}"):
                        value, factor = read(r), _FACTORS["GiB"] if key == "memory" else 1.0
                        marks = list(link.every("circle"))
                        if value is None:
                            assert not marks
                            continue
                        # A note may follow.
                        words = _SHOWN.match((link.attributes["aria-label"] or "").split(": ")[1])[0]  # type: ignore[index]
                        if isinstance(value, Estimate):
                            shown = words if value.low is not None else f"{words} (no interval)"
                            assert says_estimate(shown, value, factor), (key, words, value)
                        else:
                            assert says(words, value * factor)
                        number = value.value if isinstance(value, Estimate) else value * factor
                        (mark,) = marks
                        at = float(mark.attributes["cx"] or 0)
                        assert at == pytest.approx(x0 + (number - v0) * scale, abs=0.6), (key, number, ticks)
                        checked += 1
    return checked


def check_sentences(page: Node, results: Sequence[Result], traces: Sequence[Trace]) -> int:
    """No number stands in a sentence or a working that is not stored, or a constant of the texts."""
    known = {0.0, 1.0, 2.0, 30.0, 50.0, 95.0, 100.0, 3600.0, 1e6, 2.0**30, float(len(results))}
    for value in _numbers([json.loads(encode_result(r)) for r in results]):
        known |= {value, 100 * value, value / 2**30}
    for r in results:
        known |= set(_derived(r, results))
    known |= {float(x) for t in traces for x in (t.first or 0, (t.first or 0) + 1, t.last or 0, t.windows)}
    texts = [div.text() for div in page.every("div") if div.parent is not None and div.parent.tag == "details"
             and div.parent.attributes.get("class") == "w"]  # fmt: skip
    texts += [next(page.every("h1")).text(), *(p.text() for p in page.every("p", **{"class": "sure"}))]
    texts += [p.text() for p in page.every("p", **{"class": "count"})]
    names = sorted({*itertools.chain.from_iterable(_names(r) for r in results)}, key=len, reverse=True)
    ordered = sorted(known)
    checked = 0
    for text in texts:
        for name in names:
            text = text.replace(name, " ")
        for word in _NUMBER.findall(text):
            near = [v for v in ordered if says(word, v) or says(word, -v)]
            # The half-width of an interval, and six digits of a value that has more.
            assert (
                near
                or any(abs(float(word.replace(",", "")) - v) <= 5e-6 * abs(v) for v in ordered)
                or _width(word, text, results)
            ), (word, text)
            checked += 1
    return checked


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def _derived(r: Result, results: Sequence[Result]) -> Iterator[float]:
    """What a working computes in its text: rates over all attempts, ratios, bounds of a cost, percentiles."""
    if r.tokens and r.interval_s:
        yield from (count / r.interval_s for count in (r.tokens.slots, r.tokens.content, r.tokens.trained))
    yield 3.25 * (r.chips or 1)
    if _has_rates(r) and _has_rates(results[0]):
        yield from (stored(r, name, results) for name in ("speedup", "efficiency"))


def _has_rates(r: Result) -> bool:
    return any(row.tokens_per_s for row in r.each_attempt)


def _width(word: str, text: str, results: Sequence[Result]) -> bool:
    """A half-width, a bound of a ratio or a count of attempts is checked where it is a cell; here it follows a ±, or
    stands beside the ratio whose interval it is."""
    return f"± {word}" in text or ".." in text or f"{word} ±" in text


def _names(r: Result) -> Iterator[str]:
    yield from (r.run_id, r.run_id[:6], r.model, r.chip, f"{r.device}:{r.size}", r.precision, r.dataset)
    yield from (e.method for e in (r.tokens_per_s,) if e)
    yield "2^30"


# -- what is drawn


def _estimate(random: Random, value: float) -> Estimate:
    half = value * random.choice([1e-5, 1e-3, 0.02, 0.2, 0.6])
    is_known = random.random() < 0.8
    return Estimate(
        value=value, low=value - half if is_known else None, high=value + half if is_known else None, n=3,
        method="between-attempt t",
    )  # fmt: skip


def _any(random: Random, low: float, high: float) -> float:
    """Evenly over the powers of ten."""
    return float(10 ** random.uniform(math.log10(low), math.log10(high)))


def _run(random: Random, made_run: MadeRun, number: int) -> Result:
    rate, chips = _any(random, 0.01, 1e8), number + 1
    content = random.randrange(1, 10**9)
    slots = content + random.randrange(10**6)
    maybe: dict[str, Any] = {
        "mfu": _any(random, 1e-4, 1), "hfu": _any(random, 1e-4, 1),
        "peak_memory_bytes": random.randrange(1 << 20, 1 << 45),
        "requested_bytes": random.randrange(1, 1 << 45), "available_bytes": random.randrange(1, 1 << 45),
        "energy_j": _any(random, 1e-3, 1e9), "energy_per_token_j": _any(random, 1e-9, 1e3),
        "power_w": _any(random, 1, 1e5), "temperature_c": random.uniform(20, 110), "clock_hz": _any(random, 1e8, 5e9),
        "throttled_fraction": random.random(), "queue_s": _any(random, 1e-3, 1e6), "search_s": _any(random, 1e-3, 1e6),
        "time_to_first_step_s": _any(random, 1e-3, 1e4), "loss_first": _any(random, 1e-3, 20),
        "loss_last": _any(random, 1e-3, 20), "tokens_per_s_per_chip": rate / chips,
        "step_time_s": StepTime(p50=_any(random, 1e-5, 1e3), p95=_any(random, 1e-5, 1e3)),
        "memory_bytes": random.randrange(1, 1 << 45), "hardware_flops_per_token": _any(random, 1e3, 1e13),
        "peak_flops": _any(random, 1e9, 1e18),
    }  # fmt: skip
    known = {name: value if random.random() < 0.8 else None for name, value in maybe.items()}
    rates = [rate * random.uniform(0.99, 1.01) for _ in range(random.choice([1, 2, 3]))]
    rows = tuple(
        AttemptRow(
            name=f"attempt {'abc'[i]}", status="ok", reason="steps", evidence="", tokens_per_s=each,
            steps_measured=random.randrange(1, 99999), warmup_steps=random.choice([None, 3]),
            interval_s=_any(random, 0.01, 1e6),
        )
        for i, each in enumerate(rates)
    )  # fmt: skip
    return made_run(
        run_id=f"{number + 10:x}" * 16, size=str(chips), chips=chips, threads=chips, each_attempt=rows,
        attempts=len(rows), tokens=TimedTokens(slots=slots, content=content, trained=random.randrange(content + 1)),
        tokens_per_s=_estimate(random, rate), slot_tokens_per_s=_estimate(random, rate * slots / content),
        trained_tokens_per_s=_estimate(random, rate / 3), padding_fraction=1 - content / slots,
        interval_s=_any(random, 0.01, 1e6), steps_measured=random.randrange(1, 10**7),
        breakdown_s={name: _any(random, 1e-6, 1e3) for name in ("forward", "backward")},
        setup_s={name: _any(random, 1e-3, 1e3) for name in ("start", "model")}, flops_per_token=_any(random, 1e3, 1e13),
        parameters=random.randrange(1, 10**12), peak_flops_source="a table", **known,
    )  # fmt: skip


def _trace(random: Random, r: Result) -> Trace:
    ends = list(itertools.accumulate(_any(random, 1e-4, 1e2) for _ in range(9)))
    kept = tuple(
        TraceWindow(i + 1, end, end - start, random.randrange(10**6), random.randrange(10**6), random.randrange(10**6))
        for i, (start, end) in enumerate(itertools.pairwise([0.0, *ends]))
    )
    return Trace(run_id=r.run_id, attempt="attempt a", rank=0, first=2, last=8, windows=9, kept=kept)


@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(random=st.randoms(use_true_random=False), several=st.booleans())
def test_every_number_is_the_stored_one_at_the_printed_precision(
    made_run: MadeRun, random: Random, several: bool
) -> None:
    results = [_run(random, made_run, i) for i in range(2 if several else 1)]
    traces = [_trace(random, r) for r in results]
    html = render(make_report(results, traces={t.run_id: [t] for t in traces}, prices=_PRICES)).decode()
    page = _Tree(html).root
    (data,) = page.every("script", id="data-json")
    assert json.loads(data.text()) == [json.loads(encode_result(r)) for r in results]
    assert check_tables(page, results, traces) > 60 * len(results)
    assert check_charts(page, results) >= 4 * len(results)
    assert check_sentences(page, results, traces) > 10


@pytest.mark.parametrize(
    ("text", "value", "is_said"),
    [
        ("1,234.5", 1234.46, True), ("1,234.5", 1234.44, False), ("12", 12.49, True), ("12", 12.51, False),
        ("7.28e+07", 72_751_104.0, True), ("7.27e+07", 72_751_104.0, False), ("0.0012", 0.00125, True),
    ],
)  # fmt: skip
def test_a_printed_number_says_no_more_than_its_digits(text: str, value: float, is_said: bool) -> None:
    assert says(text, value) == is_said


@pytest.mark.parametrize(
    ("text", "low", "high", "is_said"),
    [
        ("389,900 ± 2,100", 387_800.0, 392_000.0, True), ("389,800 ± 2,100", 387_800.0, 392_000.0, False),
        ("389,900 ± 2,200", 387_800.0, 392_000.0, False), ("389,904 (no interval)", None, None, True),
        ("389,900 ± 2,100", None, None, False),
    ],
)  # fmt: skip
def test_a_printed_interval_is_the_stored_one(text: str, low: float | None, high: float | None, is_said: bool) -> None:
    estimate = Estimate(value=389_904.0, low=low, high=high, n=3, method="")
    assert says_estimate(text, estimate, 1.0) == is_said
