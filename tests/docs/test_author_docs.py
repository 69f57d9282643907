"""What authors of plugins are told is true: the hooks' pages, the interface's promise, the commands of the tutorial."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

import tunemark.plugin
from tunemark.plugin import INTERFACE
from tunemark.plugin.reference import interface_members, make_pages

_TESTS = Path(__file__).parents[1]
_DOCS = _TESTS.parent / "docs"
# What was promised by the first interface of this number: {"version": ..., "promised": what `promised` returned then}.
_PROMISE = _TESTS / "interface.json"


def test_the_hooks_pages_are_what_the_specifications_say() -> None:
    written = {path.name: path.read_text() for path in (_DOCS / "hooks").iterdir()}
    assert written == make_pages(), "python -m tunemark.plugin.reference docs/hooks"


def test_a_hooks_page_has_what_an_author_needs() -> None:
    page = make_pages()["tunemark_models.md"]
    for words in (
        "def tunemark_models() -> Sequence[Model]",
        "## Model (returns)",
        "tokenizer: TokenizerSpec | None",
        "## ModelRuntime (implemented by)",
        "def build(self, assignment: Assignment, place: Place) -> torch.nn.Module",
        "## Architecture",
    ):
        assert words in page
    assert "## HasMonitor (optional)" in make_pages()["tunemark_devices.md"]


def test_nothing_that_was_promised_is_gone() -> None:
    record = json.loads(_PROMISE.read_text())
    now = interface_members()
    assert record["version"].partition(".")[0] == INTERFACE.partition(".")[0], "a new record belongs to a new promise"
    gone = {name: sorted(set(lines) - set(now.get(name, ()))) for name, lines in record["promised"].items()}
    assert {name: lines for name, lines in gone.items() if lines} == {}
    # What is added may be left out.
    for name, lines in record["promised"].items():
        added = set(now[name]) - set(lines)
        assert not [line for line in added if line.endswith("(must be given)")], name


def test_the_page_of_the_second_interface_names_what_exists() -> None:
    page = (_DOCS / "plugin-interface-2.md").read_text()
    types = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", page.partition("## Fields")[0], re.MULTILINE)
    assert len(types) == 15
    assert [new for old, new in types if not hasattr(tunemark.plugin, new) or hasattr(tunemark.plugin, old)] == []
    members = {line.partition("(")[0].split()[0] for lines in interface_members().values() for line in lines}
    named = re.findall(r"^\| [^|]+ \| `(\w+)[^|]*` \| `(\w+)[^|]*` \|$", page, re.MULTILINE)
    assert len(named) == 17
    # A method whose argument alone has another name keeps its own.
    assert [new for old, new in named if new not in members and new != "start_waiting"] == []
    assert [old for old, new in named if old in members and old not in (new, "watch")] == []


def test_the_guide_names_the_interfaces_version() -> None:
    assert f"`tunemark.plugin.INTERFACE`, now {INTERFACE}." in (_DOCS / "plugins.md").read_text()


def test_links_between_the_docs_for_authors_lead_somewhere() -> None:
    for path in (_DOCS / "plugins.md", _DOCS / "first-plugin.md", *(_DOCS / "hooks").iterdir()):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text().replace("\n", " ")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A virtual environment to install into, which sees all that this one has; no network."""
    folder = tmp_path_factory.mktemp("author") / "venv"
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for packages in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        # A .pth file there, of an editable install, is read too.
        (site / "outer.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
    for name in ("tunemark", "pip"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {folder}/bin/python -m {name} "$@"\n')
        program.chmod(0o755)
    variables = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "OMP_NUM_THREADS": "1"}
    variables["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **variables, "TUNEMARK_CACHE": str(folder.parent / "cache")}


@pytest.mark.full
def test_the_tutorials_commands_lead_to_a_passing_kit(environment: dict[str, str], tmp_path: Path) -> None:
    guide = (_DOCS / "first-plugin.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)
    words = ["sh", "-e", "-c", "\n".join(blocks)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "my-model: 23 passed, 0 failed, 0 skipped" in done.stdout
    # The table that the guide quotes, its figures among it.
    (quoted,) = re.findall(r"^    (\| parameters .*)$", guide, re.MULTILINE)
    assert quoted in done.stdout
    assert "as it should be: exit code 1" in done.stdout
    assert "my-model: 5 passed, 0 failed, 0 skipped" in done.stdout
    assert "23 passed" in done.stdout.splitlines()[-1], said
