"""What the documentation says of the project is so: its paths and names exist, its links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import runpy
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_PAGES = sorted([*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md"), *(_ROOT / "benchmarks").glob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_GLOSSARY = _ROOT / "docs/architecture.md"
_FOLDERS = ("harness", "plugins", "tests", "docs", "benchmarks", "reports")
_PATH = re.compile(rf"`((?:{'|'.join(_FOLDERS)})/[\w./-]+)`")


@cache
def _anchors(path: Path) -> set[str]:
    """The fragments of a page's headings."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _PAGES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text().replace("\n", " ")):
        target, _, fragment = link.partition("#")
        if "://" not in link:
            found = page.parent / target if target else page
            assert found.exists(), link
            assert not fragment or fragment in _anchors(found), link


@pytest.mark.parametrize("page", _PAGES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_paths_that_a_page_names_exist(page: Path) -> None:
    # The tutorial also names a file of the plugin that it makes.
    named = {path for path in _PATH.findall(page.read_text()) if path != "tests/test_kit.py"}
    assert [path for path in sorted(named) if not (_ROOT / path).exists()] == []


@pytest.mark.parametrize("page", _PAGES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_names_that_a_page_uses_exist(page: Path) -> None:
    # Former names, and names that other programs print, are the subject of these.
    if page.name in ("CHANGELOG.md", "log-formats.md") or "interface" in page.name:
        return
    text = page.read_text()
    # Names of two words at least: others are torch's and transformers'.
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w*)[.`]", text)) - {"DistributedDataParallel"}
    assert named - _types() == set()
    for name in re.findall(r"`(tunemark\w*(?:\.\w+)+)(?:\(.*?\))?`", text):
        if name.partition(".")[2] not in ("json", "toml"):
            pkgutil.resolve_name(name)


def test_what_is_decided_where_contributing_says() -> None:
    rows = re.findall(r"^\| .+\? \| `(.+)` \| `(.+)` \|$", (_ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(rows) >= 20
    for path, name in rows:
        defined: set[str] = set()
        for node in ast.parse((_ROOT / path).read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined.update(target.id for target in targets if isinstance(target, ast.Name))
        assert name in defined, f"{path} defines no {name}"


def test_a_commit_is_linted_as_make_test_lints() -> None:
    config = yaml.safe_load((_ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    # Whatever environment `make test` itself was told to use.
    words = ["make", "-n", "-o", ".venv/.test", "test", "VENV=.venv"]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    said = subprocess.run(words, cwd=_ROOT, env=plain, capture_output=True, text=True)
    assert [line for line in said.stdout.splitlines() if "ruff" in line or "mypy" in line] == entries


def test_the_citation_has_the_packages_version() -> None:
    citation = yaml.safe_load((_ROOT / "CITATION.cff").read_text())
    assert f'version = "{citation["version"]}"' in (_ROOT / "pyproject.toml").read_text()
    assert f"## {citation['version']}" in (_ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")


@pytest.mark.parametrize("path", sorted((_ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_scripts_import_what_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tunemark"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


def test_the_picture_of_the_imports_is_current() -> None:
    make_svg = runpy.run_path(str(_ROOT / "docs/architecture.py"))["make_svg"]
    assert (_ROOT / "docs/architecture.svg").read_text() == make_svg(), "python docs/architecture.py"


def test_the_glossary_has_each_word_once_and_types_that_exist() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \| (`(\w+)`)? ?\|$", _GLOSSARY.read_text(), re.MULTILINE)
    words = [word.lower() for word, *_ in rows]
    assert len(words) > 60
    assert sorted(words) == sorted(set(words))
    assert len(words) == _GLOSSARY.read_text().count("\n| **"), "each row has a word, a meaning, and a type or none"
    assert {name for *_, name in rows if name} <= _types()


def test_the_types_on_the_way_exist() -> None:
    text = (_ROOT / "docs/architecture.md").read_text()
    assert set(re.findall(r"`([A-Z]\w+)`", text)) <= _types()
    (way,) = re.findall(r"## The types on the way\n\n```\n(.*?)```", text, re.DOTALL)
    assert set(re.findall(r"^([A-Z]\w+)", way, re.MULTILINE)) <= _types()


def test_the_stations_table_has_every_station() -> None:
    text = (_ROOT / "docs/architecture.md").read_text()
    stations = {path.parent.name for path in (_ROOT / "harness/tunemark").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == stations


@cache
def _types() -> set[str]:
    """The names of all classes of the harness and the plugins."""
    files = [path for folder in ("harness", "plugins") for path in (_ROOT / folder).rglob("*.py")]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    return {node.name for node in nodes if isinstance(node, ast.ClassDef)}
