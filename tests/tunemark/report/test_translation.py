"""Every text of a report exists in both languages, none is there for nothing, and a Korean page has no English left.

Run as a program, this carries the catalogue's translations over to texts that were changed, and drops unused ones.
"""

from __future__ import annotations

import ast
import difflib
import re
import runpy
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from tunemark.experiment.settings import SETTINGS, SETTINGS_BY_NAME
from tunemark.report.definitions import CLAIM_NOTES, NOTES, TERMS
from tunemark.report.finding_sentences import FINDING_SENTENCES, OF_AN_ATTEMPT, translate_finding
from tunemark.report.scaling_text import SCALING_NOTES
from tunemark.report.translation import LANGUAGES, make_translator, parse_language, read_catalogue
from tunemark.results.run_rules import check_machine_load
from tunemark.results.verdict import merge_findings
from tunemark_formats.page import render

_ROOT = Path(__file__).parents[3]
_SOURCES = [*(_ROOT / "harness/tunemark/report").glob("*.py"), *(_ROOT / "plugins/tunemark_formats").glob("*.py")]
_CATALOGUE = _ROOT / "harness/tunemark/report/ko.po"
_HEADER = r"""msgid ""
msgstr ""
"Language: ko\n"
"MIME-Version: 1.0\n"
"Content-Type: text/plain; charset=utf-8\n"
"Content-Transfer-Encoding: 8bit\n"

"""
_UPDATE = f"python {Path(__file__).relative_to(_ROOT)}"
_TEMPLATE = (_ROOT / "plugins/tunemark_formats/page.html").read_text()
_TEMPLATE_TEXTS = re.findall(r"""\btr\(["'](.*?)["'][,)]""", _TEMPLATE)
# Of settings in labels and columns.
_TITLES = [each.title for each in SETTINGS if each.is_in_label]
KOREAN = read_catalogue("ko")
# Words that are the same, or a name, in both.
_ALIKE = {
    "({low} to {high})",
    "AICc",
    "HFU",
    "MFU",
    "N",
    "N0",
    "k",
    "ok, oom, error, killed or timeout",
    "python",
    "s",
    "to",
    "x1",
}


def _constants() -> set[str]:
    """Every text in the sources and the page, those of the analyses that a report repeats among them."""
    paths = [
        *_SOURCES,
        *(_ROOT / "harness/tunemark/analysis").glob("*.py"),
        _ROOT / "harness/tunemark/results/result.py",
    ]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text())))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {*texts, *_TEMPLATE_TEXTS, *_TITLES}


def _written_texts() -> Iterator[str]:
    """Texts that the sources say in so many words, or that are titles and explanations of columns."""
    yield from (
        *NOTES,
        *CLAIM_NOTES,
        *SCALING_NOTES,
        *FINDING_SENTENCES,
        OF_AN_ATTEMPT,
        *(text for term in TERMS for text in term),
        *_TEMPLATE_TEXTS,
        *_TITLES,
    )
    for node in (node for path in _SOURCES for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Assign) and re.search("(?i)columns|fields", ast.unparse(node.targets[0])):
            for field in (each for each in ast.iter_child_nodes(node.value) if isinstance(each, ast.Tuple)):
                yield from _strings([field.elts[i] for i in (1, 3) if i < len(field.elts)])
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "tr":
            texts = node.args[:1]
        elif node.func.id == "_col":
            texts = [*node.args[1:2], *node.args[3:4], *(k.value for k in node.keywords if k.arg == "help")]
        elif node.func.id == "Column":
            texts = [k.value for k in node.keywords if k.arg in ("title", "help")]
        else:
            continue
        yield from _strings(texts)


def _words_of(node: ast.AST) -> Iterator[str]:
    """The texts of some source in their order, with {} for a value."""
    if isinstance(node, ast.FormattedValue):
        yield "{}"
    elif isinstance(node, ast.Constant):
        yield node.value if isinstance(node.value, str) else ""
    else:
        for child in ast.iter_child_nodes(node):
            yield from _words_of(child)


def _strings(nodes: Collection[ast.expr]) -> Iterator[str]:
    yield from (t.value for t in nodes if isinstance(t, ast.Constant) and isinstance(t.value, str) and t.value)


def carry_over(catalogue: Catalog, said: Collection[str], constants: Collection[str]) -> Catalog:
    """The catalogue with the translation of each changed text under its new text, marked fuzzy; a text that is new has
    an empty one, and one that nothing says any more is left out."""
    known = [message for message in catalogue if message.id]
    gone = [str(message.id) for message in known if message.id not in constants]
    new = sorted(set(said) - {str(message.id) for message in known})
    changed: dict[str, str] = {}
    for text in new:
        left = [each for each in gone if each not in changed]
        near = difflib.get_close_matches(text, left, 1) or (left if len(new) == len(left) == 1 else [])
        changed.update((each, text) for each in near)
    found = Catalog()
    for message in known:
        text = str(message.id)
        if text in changed:
            found.add(changed[text], message.string, flags=[*message.flags, "fuzzy"], previous_id=[text])
        elif text not in gone:
            found[text] = message
    for text in new:
        if text not in changed.values():
            found.add(text)
    return found


def test_every_text_has_its_korean() -> None:
    said = set(_written_texts())
    assert len(said) > 200
    assert sorted(said - set(KOREAN)) == [], _UPDATE


def test_no_korean_is_there_for_nothing() -> None:
    assert sorted(set(KOREAN) - _constants()) == [], _UPDATE


def test_a_changed_text_keeps_its_korean() -> None:
    with _CATALOGUE.open("rb") as file:
        catalogue = read_po(file)
    said = ["Everything was measured here.", "an entirely new text"]
    found = carry_over(catalogue, said, set(KOREAN) - {"Nothing was measured here.", "Print"})
    message = found.get("Everything was measured here.")
    assert message is not None
    assert (message.string, message.fuzzy) == (KOREAN["Nothing was measured here."], True)
    assert {str(m.id): m.string or "" for m in found if m.id} == {
        **{text: korean for text, korean in KOREAN.items() if text not in ("Nothing was measured here.", "Print")},
        "Everything was measured here.": KOREAN["Nothing was measured here."],
        "an entirely new text": "",
    }
    assert carry_over(catalogue, ["x"], set(KOREAN) - {"Print"}).get("x").string == KOREAN["Print"]


def test_the_catalogue_is_written_as_the_program_writes_it(tmp_path: Path) -> None:
    assert _CATALOGUE.read_bytes() == _write(tmp_path / "ko.po").read_bytes(), _UPDATE


def test_english_reads_no_catalogue() -> None:
    program = "import sys, tunemark.report.translation as t; t.make_translator('en'); print('babel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


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


def _said_by_rules() -> str:
    """What each function of the rules says, its values as {}, in the order of the source."""
    folders = [_ROOT / "harness/tunemark" / name for name in ("results", "analysis", "launch")]
    folders += [_ROOT / "harness/tunemark_worker", _ROOT / "plugins/tunemark_telemetry"]
    paths = [*(path for folder in folders for path in folder.glob("*.py")), _ROOT / "harness/tunemark/loading.py"]
    return "\n".join(
        "".join(_words_of(node))
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )


def test_the_sentences_of_findings_are_those_that_the_rules_say() -> None:
    said = _said_by_rules()
    # Values are anything, so only what stands between them is compared, word by word in threes.
    for text in FINDING_SENTENCES:
        for part in re.split(r"{\w+}", text):
            assert all(words in said for words in re.findall(r"(?=\b(\w+ \w+ \w+)\b)", part)), (text, part)


def test_a_finding_keeps_its_values_in_korean() -> None:
    korean = make_translator("ko")
    for english in FINDING_SENTENCES:
        values = {name: f"{at}.5" for at, name in enumerate(re.findall(r"{(\w+)}", english))}
        assert translate_finding(english.format(**values), korean) == KOREAN[english].format(**values)
        assert translate_finding(english.format(**values), make_translator("en")) == english.format(**values)


def test_evidence_reasons_and_methods_are_korean_to_their_end() -> None:
    korean = make_translator("ko")
    for english in (
        "2,506 tokens/s, 1.72 (1.50 to 1.98) times as fast as cpu:1: no difference shown; and cpu:1 is unknown",
        "0.0076 USD per million tokens, 1.16 (1.01 to 1.34) times as cheap as cpu:2",
        "no size was measured well: nothing to choose",
        "no telemetry: this host has no /sys/class/powercap with a processor's energy, no hwmon of a processor and no "
        "cpufreq",
        "the interval is ±2.8 % wide, ±2 % was wanted (between-attempt t on log 95 %, n = 3)",
    ):
        said = translate_finding(english, korean)
        assert not re.search(r"[a-z]+ (to|as|is|on|of|was|has|means) |shown|measured|unknown", said), said


def test_findings_of_several_attempts_are_translated_each() -> None:
    found = [(number, check_machine_load(0.2 + number / 10, 2)) for number in (1, 2)]
    (merged,) = merge_findings([(number, each) for number, each in found if each], 2)
    korean = translate_finding(f"{merged.message}; nobody knows this", make_translator("ko"))
    assert re.search("(?s)반복 실행 1: .*30 %.*; 반복 실행 2: .*40 %.*; nobody knows this", korean)
    assert "other processes" not in korean


def test_languages_are_those_of_the_settings() -> None:
    assert SETTINGS_BY_NAME["language"].choices == LANGUAGES
    assert [parse_language(name) for name in LANGUAGES] == list(LANGUAGES)


def test_a_text_without_a_translation_is_an_error() -> None:
    with pytest.raises(KeyError):
        make_translator("ko")("a text that nobody has translated")


def _write(path: Path) -> Path:
    """Write the catalogue for the texts of the sources as they are."""
    with _CATALOGUE.open("rb") as file:
        found = carry_over(read_po(file), set(_written_texts()), _constants())
    with path.open("wb") as file:
        file.write(_HEADER.encode())
        write_po(file, found, width=120, omit_header=True, include_previous=True)
    return path


if __name__ == "__main__":
    _write(_CATALOGUE)
