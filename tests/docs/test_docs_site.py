"""The documentation site builds without a warning, has no broken link, and every page is two clicks from the first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytestmark = pytest.mark.full

_ROOT = Path(__file__).parents[2]


class _Page(HTMLParser):
    """The links of a page, what it loads, and the names that a fragment may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.names: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") == "stylesheet":
            self.loaded.add(given["href"])
        elif tag in ("img", "script", "iframe") and "src" in given:
            self.loaded.add(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=_ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, _Page]:
    return {path: _Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_no_link_is_broken(pages: dict[Path, _Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links | page.loaded:
            target, _, fragment = link.partition("#")
            if "://" in link or link.startswith(("data:", "mailto:")):
                continue
            found = (path.parent / unquote(target)).resolve() if target else path
            found = found / "index.html" if found.is_dir() else found
            names = pages[found].names if found in pages else set()
            if not found.exists() or (fragment and unquote(fragment) not in names):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_every_page_is_two_clicks_from_the_first(site: Path, pages: dict[Path, _Page]) -> None:
    clicks = {site / "index.html": 0}
    reached = defaultdict(set)
    reached[0] = {site / "index.html"}
    for distance in (1, 2):
        for path in reached[distance - 1]:
            for link in pages[path].links:
                found = (path.parent / unquote(link.partition("#")[0])).resolve()
                if found in pages and found not in clicks:
                    clicks[found] = distance
                    reached[distance].add(found)
    assert pages.keys() - clicks.keys() == set()
    # Both languages, the reports, the interface, and every page in docs/ among them.
    names = {path.relative_to(site).as_posix() for path in clicks}
    assert {"ko/index.html", "reports/example/ko/report.html", "api/plugin.html", "architecture.html"} <= names
    sources = [path.relative_to(_ROOT / "docs") for path in (_ROOT / "docs").rglob("*.md") if path.name != "README.md"]
    assert {path.with_suffix(".html").as_posix() for path in sources} <= names


def test_no_page_loads_anything_from_the_network(pages: dict[Path, _Page]) -> None:
    assert {link for page in pages.values() for link in page.loaded if "://" in link or link.startswith("//")} == set()


def test_the_interfaces_are_described_from_their_docstrings(pages: dict[Path, _Page], site: Path) -> None:
    assert {"tunemark.run", "tunemark.scale", "tunemark.plan"} <= pages[site / "api/tunemark.html"].names
    names = {name.rpartition(".")[2] for name in pages[site / "api/plugin.html"].names}
    exported = (_ROOT / "harness/tunemark/plugin/__init__.py").read_text()
    assert {line.split()[-1] for line in exported.splitlines() if " as " in line} <= names
