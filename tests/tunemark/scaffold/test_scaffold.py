"""A generated distribution is installed without a network and passes the kit as it is."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from tunemark.plugin import Catalog
from tunemark.scaffold import make_names, write_files

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]
# By name, which is a plugin's, a distribution's and what is offered.
KINDS = {"new-model": "model", "new.data": "dataset", "newdevice": "device", "newtrainer": "trainer"}
_PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
_PIP += ["--no-index", "--no-deps", "--no-build-isolation", "--target"]
_ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the distributions as they were written, and `site` with them installed."""
    folder = tmp_path_factory.mktemp("scaffold")
    for name, kind in KINDS.items():
        command = [sys.executable, "-m", "tunemark", "new", kind, name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"next: pip install -e {name} && tunemark check {name}" in done.stdout
    folders = [str(folder / name) for name in KINDS]
    installed = subprocess.run([*_PIP, str(folder / "site"), *folders], capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    return folder / "site"


@pytest.fixture
def variables(site: Path) -> dict[str, str]:
    former = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(site), *([former] if former else [])]), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("name", KINDS)
def test_all_its_files_are_there(site: Path, name: str) -> None:
    package = "tunemark_" + name.replace("-", "_").replace(".", "_")
    found = {str(path.relative_to(site.parent / name)) for path in (site.parent / name).rglob("*") if path.is_file()}
    assert found >= {
        "pyproject.toml",
        "README.md",
        ".gitignore",
        ".github/workflows/check.yml",
        "tests/test_kit.py",
        f"{package}/__init__.py",
        f"{package}/plugin.py",
        f"{package}/runtime.py",
    }
    lines = (site.parent / name / "pyproject.toml").read_text().splitlines()
    assert lines[lines.index("[project.entry-points.tunemark]") + 1] == f'"{name}" = "{package}.plugin"'
    assert "$" not in (site.parent / name / package / "plugin.py").read_text()


@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("new.data", ""),
        ("newdevice", "import,interface,lazy,quiet,hooks,name,facts"),
        pytest.param("new-model", "parameters,flops,alignment,packing,determinism,facts,tokenizer", id="model"),
        *(
            pytest.param(name, "", marks=pytest.mark.full, id=f"all of {name}")
            for name in ("new-model", "newdevice", "newtrainer")
        ),
    ],
)
def test_it_passes_the_kit_as_generated(tunemark: Tunemark, variables: dict[str, str], name: str, only: str) -> None:
    done = tunemark("check", name, "--json", *(["--only", only] if only else []), environment=variables)
    answer = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert (answer["failed"], answer["skipped"]) == (0, 0)
    assert answer["passed"] >= 6


def test_its_own_test_runs_the_kit(site: Path, variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(
        command, cwd=site.parent / "new.data", env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["model", "Capital"], "cannot be named"),
        (["model", "../up"], "cannot be named"),
        (["model", "torch"], "the installed plugin 'torch' has it"),
        (["dataset", "synthetic"], "the installed plugin 'datasets' has it"),
        (["model", "worker"], "a package 'tunemark_worker' is installed"),
        (["modle", "x"], "no scaffold of a 'modle'"),
        (["model", "fine", "--output", "taken"], "taken already exists"),
    ],
)
def test_bad_and_taken_names_are_refused(tunemark: Tunemark, tmp_path: Path, words: list[str], why: str) -> None:
    (tmp_path / "taken").mkdir()
    done = tunemark("new", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("kind", "name", "type_name"),
    [("model", "my-model", "MyModel"), ("model", "layer", "LayerModel"), ("model", "true", "TrueModel"),
     ("dataset", "example", "ExampleDataset"), ("device", "path", "PathDevice"), ("device", "x.2", "X2")],
)  # fmt: skip
def test_what_is_written_is_python_whatever_it_is_called(tmp_path: Path, kind: str, name: str, type_name: str) -> None:
    chosen = make_names(kind, name, Catalog([]))
    assert chosen.type_name == type_name
    sources = [path for path in write_files(chosen, tmp_path / "new") if path.suffix == ".py"]
    assert len(sources) >= 4
    for path in sources:
        module = ast.parse(path.read_text())
        bound = [n.name for n in ast.walk(module) if isinstance(n, ast.ClassDef)]
        bound += [a.name for n in ast.walk(module) if isinstance(n, ast.ImportFrom) for a in n.names]
        assert len(set(bound)) == len(bound), path


@pytest.mark.full
def test_the_templates_travel_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "-w", str(tmp_path), str(_ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in ZipFile(wheel).namelist() if name.endswith(".template")}
    here = {
        str(path.relative_to(_ROOT / "harness")) for path in (_ROOT / "harness/tunemark/scaffold").rglob("*.template")
    }
    assert here <= names
