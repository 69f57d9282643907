"""The page in a real browser: nothing complains, all is drawn, and it can be used by everybody.

Two reports are looked at: the committed example, and one of written results that has everything a page can hold:
claims of others, a simulator's rates, predictions, runs that failed, and names that would be scripts.
"""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunemark.analysis.prices import read_prices
from tunemark.loading import load_runs
from tunemark.report import make_report
from tunemark.report.chart_types import Chart, DotPlot, LineChart, StackedBars
from tunemark_formats.page import render

pytestmark = pytest.mark.full

_ROOT = Path(__file__).parents[3]
_EXAMPLE = _ROOT / "reports/example"
_DARK = "rgb(20, 23, 28)"
_NAMES = ("example", "example in Korean", "everything", "everything in Korean", "nothing")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages on disk by name."""
    golden = runpy.run_path(str(_ROOT / "tests/tunemark/report/test_golden.py"))
    folder = tmp_path_factory.mktemp("pages")
    found = {"example": _EXAMPLE / "report.html", "example in Korean": _EXAMPLE / "ko/report.html"}
    for name, language in (("everything", "en"), ("everything in Korean", "ko")):
        found[name] = folder / f"{language}.html"
        found[name].write_bytes(render(golden["report"](language)))
    found["example drawn anew"] = folder / "anew.html"
    example = load_runs([_EXAMPLE], lambda result: result)
    found["example drawn anew"].write_bytes(render(make_report(example.results)))
    found["nothing"] = folder / "nothing.html"
    found["nothing"].write_bytes(render(make_report([])))
    return found


Open = Callable[..., tuple[Any, list[str]]]


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Open]:
    """opened(name, width=1200, scheme="light"): a page from disk without any network, and what its console says."""
    contexts = []

    def open_page(name: str, *, width: int = 1200, scheme: str = "light") -> tuple[Any, list[str]]:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=True
        )
        contexts.append(context)
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else said.append(r.url))
        page.goto(pages[name].as_uri())
        return page, said

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_complains_and_nothing_is_cut_off(opened: Open, name: str, width: int, scheme: str) -> None:
    page, said = opened(name, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == _DARK
    assert dark == (scheme == "dark")
    assert page.evaluate("document.documentElement.lang") == ("ko" if "Korean" in name else "en")
    # What is folded is looked at too.
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("example", 1200, "light"), ("example in Korean", 1200, "light"), ("everything", 1200, "dark"),
        ("everything", 390, "light"), ("nothing", 1200, "light"),
    ],
)  # fmt: skip
def test_nobody_is_shut_out(opened: Open, name: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
    page, _ = opened(name, width=width, scheme=scheme)
    # One of each that is folded is looked at too; all alike would take minutes.
    page.evaluate(
        "for (const kind of ['w', 'run', 'defs']) { const one = document.querySelector('details.' + kind);"
        " if (one) for (const each of [one, ...one.querySelectorAll('details')]) each.open = true; }"
    )
    # Evaluated by the browser's own debugger, which no policy of the page binds.
    page.evaluate(axe.AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    bad = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert not bad


def marks(chart: Chart) -> int:
    """How many marks a chart has, without its legend."""
    if isinstance(chart, DotPlot):
        return sum(row.value is not None for row in chart.rows)
    if isinstance(chart, StackedBars):
        return sum(part > 0 for row in chart.rows for part in row.parts)
    if isinstance(chart, LineChart):
        return sum(len(s.points) for s in chart.lines if s.kind == "points")
    return len(chart.points) if len(chart.points) <= 120 else 0


_COUNT = """figure => {
    const svg = [...figure.querySelectorAll('svg')].filter(each => each.getClientRects().length);
    const inside = svg.length === 1 ? svg[0].getBoundingClientRect() : null;
    const all = svg.length === 1 ? [...svg[0].querySelectorAll('[data-mark]:not([data-legend])')] : [];
    const seen = all.filter(each => {
        const box = each.getBoundingClientRect();
        return box.width > 0 && box.left >= inside.left - 1 && box.right <= inside.right + 1
            && box.top >= inside.top - 1 && box.bottom <= inside.bottom + 1;
    });
    const lines = svg.length === 1 ? svg[0].querySelectorAll('[data-line]').length : 0;
    const texts = svg.length === 1 ? [...svg[0].querySelectorAll('text')] : [];
    const out = texts.filter(each => {
        const box = each.getBoundingClientRect();
        return box.width && (box.left < inside.left - 2 || box.right > inside.right + 2);
    });
    return {drawings: svg.length, marks: seen.length, lines, out: out.map(each => each.textContent)};
}"""


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("name", ["example", "everything", "everything in Korean"])
def test_every_chart_is_drawn_with_the_right_number_of_marks(opened: Open, name: str, width: int) -> None:
    if name == "example":
        found = load_runs([_EXAMPLE], lambda result: result)
        prices = read_prices(_ROOT / "reports/prices.toml")
        report = make_report(found.results, found.imported, found.traces, unread=found.unread, prices=prices)
    else:
        golden = runpy.run_path(str(_ROOT / "tests/tunemark/report/test_golden.py"))
        report = golden["report"]("ko" if "Korean" in name else "en")
    page, _ = opened(name, width=width)
    assert len(report.charts) >= 7
    drawn = {f.get_attribute("data-chart"): f for f in page.locator("main > section > figure").all()}
    assert set(drawn) == {chart.key for chart in report.charts}
    for chart in report.charts:
        said = drawn[chart.key].evaluate(_COUNT)
        lines = (
            len(chart.lines) if isinstance(chart, LineChart) else 0 if isinstance(chart, (DotPlot, StackedBars)) else 1
        )
        assert said == {"drawings": 1, "marks": marks(chart), "lines": lines, "out": []}, chart.key


def test_what_was_not_measured_is_told_by_shape_and_word(opened: Open) -> None:
    page, _ = opened("everything")
    for key, origin, shape in (
        ("throughput", "measured", "circle"),
        ("throughput-simulated", "simulated", "path"),
        ("claims", "imported", "rect"),
    ):
        chart = page.locator(f"figure[data-chart={key}] svg:visible")
        found = chart.locator("[data-mark]").all()
        assert {mark.get_attribute("data-mark") for mark in found} == {origin}
        assert {mark.evaluate("each => each.tagName") for mark in found} == {shape}
        assert origin == "measured" or origin in (chart.text_content() or "")


def test_a_number_opens_to_its_formula_and_steps_by_keyboard(opened: Open) -> None:
    page, _ = opened("example")
    number = page.locator("#throughput details.w summary").first
    number.focus()
    page.keyboard.press("Enter")
    working = page.locator("#throughput details.w[open] div").first
    assert "content tokens" in working.inner_text()
    working.locator("a").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('details.run[open]') !== null")
    assert page.locator("details.run[open] details summary").first.is_visible()


_TABBED = """() => [...document.querySelectorAll('a[href], button, summary, [tabindex="0"]')].filter(each =>
    each.checkVisibility() && !(each.closest('details:not([open])') && each.tagName !== 'SUMMARY')).length"""


@pytest.mark.parametrize("width", [1200, 390])
def test_everything_is_reached_by_tab_in_the_order_of_the_page(opened: Open, width: int) -> None:
    page, _ = opened("everything", width=width)
    wanted = page.evaluate(_TABBED)
    page.evaluate("window.reached = []; document.addEventListener('focusin', e => window.reached.push(e.target))")
    for _ in range(wanted):
        page.keyboard.press("Tab")
    assert page.evaluate("new Set(window.reached).size") == wanted
    assert page.evaluate("window.reached.every((each, i, all) => !i || (all[i - 1].compareDocumentPosition(each) & 4))")
    # What has the focus is seen to have it.
    page.locator("#theme").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_theme_is_toggled_and_kept(opened: Open) -> None:
    page, _ = opened("example")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == _DARK
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == _DARK


def test_it_is_read_without_any_script(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(pages["example"].as_uri())
    assert page.locator("h1").is_visible()
    assert page.locator("main > section > figure svg:visible").count() >= 7
    context.close()


@pytest.mark.parametrize(("file", "kind"), [("report.csv", "data-csv"), ("runs.json", "data-json")])
def test_data_is_downloaded_as_it_is_stored(opened: Open, file: str, kind: str) -> None:
    page, _ = opened("example")
    with page.expect_download() as caught:
        page.locator(f"button[data-from='{kind}']").click()
    assert caught.value.suggested_filename == file
    content = Path(caught.value.path()).read_bytes()
    if file == "report.csv":
        assert content == (_EXAMPLE / "report.csv").read_bytes()
    else:
        assert content.decode() == f"[{','.join((_EXAMPLE / 'runs.jsonl').read_text().split(chr(10))[:-1])}]"


@pytest.mark.parametrize("name", ["example drawn anew", "everything in Korean"])
def test_it_prints_on_white_within_the_page(opened: Open, name: str) -> None:
    page, _ = opened(name, width=687, scheme="dark")  # an A4 sheet within its margins, at 96 dots an inch
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".tools:not(.pick)").is_visible()
    assert page.locator("figure .wide svg").first.is_visible()
    out = page.evaluate(
        "[...document.querySelectorAll('table')].filter(e => e.checkVisibility()"
        " && e.getBoundingClientRect().right > 690).map(e => e.dataset.table)"
    )
    assert out == []
    sheet = page.pdf(format="A4")
    assert sheet.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", sheet)) <= 24
    assert page.locator("table[data-values]:visible, table[data-table=runs]:visible").count() == 0
    assert page.locator(".paper").is_visible()


@pytest.mark.parametrize("name", ["example drawn anew", "everything", "everything in Korean"])
def test_no_table_cuts_its_verdicts(opened: Open, name: str) -> None:
    page, _ = opened(name, width=1280)
    cut = page.evaluate(
        "[...document.querySelectorAll('td[data-c=verdict]')].filter(e => e.checkVisibility() && "
        "e.getBoundingClientRect().right > e.closest('.scroll').getBoundingClientRect().right)"
        ".map(e => e.closest('table').dataset.table)"
    )
    assert cut == []


def test_a_table_is_sorted_filtered_and_shown_without_columns(opened: Open) -> None:
    page, said = opened("example")
    table = page.locator("table[data-table=throughput]")
    cells = table.locator("tbody tr:visible td[data-c=tokens_per_s]")

    def rates() -> list[float]:
        texts = [each.inner_text() for each in cells.all()]
        return [float(text.split()[0].replace(",", "")) for text in texts if text[:1].isdigit()]

    before = rates()
    heading = table.locator("th:has(button)", has_text="content").first
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert rates() == sorted(before)
    heading.locator("button").click()
    assert rates() == sorted(before, reverse=True)
    heading.locator("button").click()
    assert rates() == before
    tools = page.locator("section#throughput .pick").first
    rows = table.locator("tbody tr:visible").count()
    tools.locator("input[type=search]").fill("moai auto")
    shown = table.locator("tbody tr:visible").all_inner_texts()
    assert 0 < len(shown) < rows
    assert all("moai" in text and "auto" in text for text in shown)
    assert f"{len(shown)} of {rows}" in tools.locator(".count").inner_text()
    tools.locator("input[type=search]").fill("")
    tools.locator("summary").click()
    box = tools.locator("label", has_text="verdict").locator("input")
    box.uncheck()
    assert table.locator("th:visible", has_text="verdict").count() == 0
    assert table.locator("td[data-c=verdict]:visible").count() == 0
    box.check()
    assert table.locator("td[data-c=verdict]:visible").count() == rows
    assert said == []


def test_every_chart_has_its_data_below_it(opened: Open) -> None:
    page, _ = opened("example")
    for figure in page.locator("section > figure").all():
        data = figure.locator("details.data")
        assert data.count() == 1
        data.locator("summary").click()
        assert data.locator("tbody tr").count() > 0
