"""The committed page in a real browser: nothing complains, all is drawn, and it can be used by everybody."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.full

_EXAMPLE = Path(__file__).parents[1] / "reports/example"
_PAGES = (_EXAMPLE / "report.html", _EXAMPLE / "ko/report.html")


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


def opened(browser: Any, path: Path, *, width: int = 1200, scheme: str = "light") -> tuple[Any, list[str]]:
    """A page from disk without any network, and what its console says."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=True
    )
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize("path", _PAGES, ids=["en", "ko"])
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_complains_and_nobody_is_shut_out(browser: Any, path: Path, width: int, scheme: str) -> None:
    axe_core = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    page, said = opened(browser, path, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert dark == (scheme == "dark")
    (script,) = Path(os.path.dirname(axe_core.__file__)).rglob("axe*.js")
    # Evaluated by the browser's own debugger, which no policy of the page binds.
    page.evaluate(script.read_text())
    found = page.evaluate("axe.run()")["violations"]
    bad = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert not bad
    assert said == []


@pytest.mark.parametrize("width", [1200, 390])
def test_every_chart_is_drawn_with_its_marks(browser: Any, width: int) -> None:
    page, _ = opened(browser, _PAGES[0], width=width)
    figures = page.locator("main > section > figure").all()
    assert len(figures) >= 7
    for figure in figures:
        assert figure.locator("svg:visible").count() == 1
        assert figure.locator("svg:visible [data-mark], svg:visible [data-line]").count() > 0
    runs = page.evaluate("JSON.parse(document.getElementById('data-json').textContent).length")
    chart = page.locator("figure[data-chart=throughput] svg:visible")
    rated = page.evaluate(
        "JSON.parse(document.getElementById('data-json').textContent).filter(r => r.tokens_per_s).length"
    )
    assert chart.locator("a [data-mark]").count() == rated
    assert chart.locator("a").count() == runs


def test_a_number_opens_to_its_formula_and_steps_by_keyboard(browser: Any) -> None:
    page, _ = opened(browser, _PAGES[0])
    number = page.locator("#throughput details.w summary").first
    number.focus()
    page.keyboard.press("Enter")
    working = page.locator("#throughput details.w[open] div").first
    assert "content tokens" in working.inner_text()
    working.locator("a").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('details.run[open]') !== null")
    assert page.locator("details.run[open] details summary").first.is_visible()


def test_every_control_is_reached_by_tab(browser: Any) -> None:
    page, _ = opened(browser, _PAGES[0])
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "theme", "print"} <= reached


def test_the_theme_is_toggled(browser: Any) -> None:
    page, _ = opened(browser, _PAGES[0])
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"


def test_data_is_downloaded_as_it_is_stored(browser: Any) -> None:
    page, _ = opened(browser, _PAGES[0])
    with page.expect_download() as caught:
        page.locator("button[data-file='report.csv']").click()
    assert Path(caught.value.path()).read_bytes() == (_EXAMPLE / "report.csv").read_bytes()


def test_it_prints(browser: Any) -> None:
    page, _ = opened(browser, _PAGES[0], scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
