"""Every text of a report exists in both languages, none is there for nothing, and a Korean page has no English left."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.report.definitions import CLAIM_NOTES, NOTES, TERMS
from tunemark.report.korean import KOREAN
from tunemark.report.scaling import SCALING_NOTES
from tunemark.report.translation import LANGUAGES, make_translator, parse_language
from tunemark_formats.page import render

_ROOT = Path(__file__).parents[2]
_SOURCES = [*(_ROOT / "harness/tunemark/report").glob("*.py"), *(_ROOT / "plugins/tunemark_formats").glob("*.py")]
_TEMPLATE = (_ROOT / "plugins/tunemark_formats/page.html").read_text()
# Words that are the same, or a name, in both.
_ALIKE = {"AICc", "HFU", "MFU", "N", "N0", "k", "ok, oom, error, killed or timeout", "python", "s", "to", "x1"}


def _constants() -> set[str]:
    """Every text in the sources but the catalogue's own, those of the analyses that a report repeats among them."""
    paths = [path for path in _SOURCES if path.name != "korean.py"]
    paths += [*(_ROOT / "harness/tunemark/analysis").glob("*.py"), _ROOT / "harness/tunemark/results/result.py"]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text())))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _said() -> Iterator[str]:
    """Texts that the sources say in so many words, or that are titles and explanations of columns."""
    for node in (node for path in _SOURCES for node in ast.walk(ast.parse(path.read_text()))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "tr":
            texts: list[ast.expr] = node.args[:1]
        elif node.func.id == "_col":
            texts = [*node.args[1:2], *node.args[3:4], *(k.value for k in node.keywords if k.arg == "help")]
        elif node.func.id == "Column":
            texts = [k.value for k in node.keywords if k.arg in ("title", "help")]
        else:
            continue
        yield from (t.value for t in texts if isinstance(t, ast.Constant) and isinstance(t.value, str) and t.value)
    yield from re.findall(r"""\btr\(["'](.*?)["'][,)]""", _TEMPLATE)


def test_every_text_has_its_korean() -> None:
    said = {*_said(), *NOTES, *CLAIM_NOTES, *SCALING_NOTES, *(text for term in TERMS for text in term)}
    assert len(said) > 200
    assert sorted(said - set(KOREAN)) == []


def test_no_korean_is_there_for_nothing() -> None:
    texts = {*_constants(), *re.findall(r"""\btr\(["'](.*?)["'][,)]""", _TEMPLATE)}
    assert sorted(set(KOREAN) - texts) == []


def test_korean_is_korean_and_takes_the_same_values() -> None:
    for english, korean in KOREAN.items():
        assert set(re.findall(r"{(\w+)", english)) == set(re.findall(r"{(\w+)", korean)), english
        assert english in _ALIKE or re.search("[가-힣]", korean), english


def test_a_page_with_everything_has_no_english_of_the_catalogue_left() -> None:
    golden = runpy.run_path(str(Path(__file__).with_name("test_golden.py")))
    html = render(golden["report"]("ko")).decode()
    assert '<html lang="ko">' in html
    shown = re.sub(r"<script.*?</script>|<style>.*?</style>", "", html, flags=re.DOTALL)
    sentences = [text for text in KOREAN if len(text.split()) > 3 and "{" not in text]
    assert len(sentences) > 50
    assert [text for text in sentences if text in shown] == []


def test_languages_are_those_of_the_settings() -> None:
    assert SETTINGS_BY_NAME["language"].choices == LANGUAGES
    assert [parse_language(name) for name in LANGUAGES] == list(LANGUAGES)


def test_a_text_without_a_translation_is_an_error() -> None:
    with pytest.raises(KeyError):
        make_translator("ko")("a text that nobody has translated")
