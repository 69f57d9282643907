"""The wheel and the source distribution, built from the checkout, installed in an environment without it, and used from
another directory; a user's program is checked by mypy there, and a notebook is executed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Collection
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import tunemark

results = tunemark.run(model="mistral-tiny", device="cpu:1", steps=12, repeats=2)
best: float = max(run.tokens_per_s.value for run in results.runs if run.tokens_per_s is not None)
frame = results.frame()
print(best, frame.shape, [plan.run_id for plan in tunemark.plan(sequence=128)])
"""
_WRONG = "import tunemark\n\nrate: str = tunemark.run(steps=1).runs[0].tokens_per_s\n"
_NOTEBOOK = (
    "import tunemark",
    "results = tunemark.run(model='mistral-tiny', device='cpu:1', sequence=64, steps=12, repeats=1, warmup=1)",
    "results",
    "results.plot()",
)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    pytest.importorskip("build", reason="the package build is not installed")
    folder = tmp_path_factory.mktemp("dist")
    # A copy without what git ignores, as a release is made from a clone.
    source = folder / "source"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{_ROOT}", str(source)], check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Deprecat" not in done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with the wheel, which sees our dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (site / "outer.pth").write_text("\n".join(outer) + "\n")
    (wheel,) = dist.glob("*.whl")
    found = str(folder / "bin/python")
    subprocess.run([found, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    return found


def _run(python: str, folder: Path, *words: str, codes: Collection[int] = (0,)) -> str:
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run([python, *words], cwd=folder, env=plain, capture_output=True, text=True)
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


def test_the_source_distribution_has_what_a_reader_needs(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("LICENSE", "README.ko.md", "CHANGELOG.md", "constraints.txt", "Makefile", "docs/architecture.md",
              "benchmarks/scaling.py", "tests/conftest.py", "tests/example_plugin/pyproject.toml",
              "reports/example/report.html", "harness/tunemark/experiment/built_in/default.toml")  # fmt: skip
    assert [name for name in wanted if name not in names] == []
    assert not [name for name in names if "__pycache__" in name or name.startswith((".git/", "out/", "runs/"))]


def test_the_wheel_has_every_file_of_ours_and_its_licence(dist: Path) -> None:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    tracked = subprocess.run(["git", "ls-files", "harness", "plugins"], cwd=_ROOT, capture_output=True, text=True)
    missing = [name for name in tracked.stdout.split() if name.partition("/")[2] not in names]
    assert missing == []
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_measures_from_another_directory(python: str, tmp_path: Path) -> None:
    where = _run(python, tmp_path, "-c", "import tunemark; print(tunemark.__file__, tunemark.__version__)")
    assert str(Path(python).parents[1]) in where
    version = where.split()[-1]
    tunemark = ("-m", "tunemark")
    assert _run(python, tmp_path, *tunemark, "--version") == f"tunemark {version}\n"
    rows = json.loads(_run(python, tmp_path, *tunemark, "list", "experiments", "--json"))
    assert {"default", "moai-simulated", "scaling-cpu"} <= {row["name"] for row in rows}
    assert "mistral-7b" in _run(python, tmp_path, *tunemark, "plan", "moai-mistral-7b")
    words = ("--device", "cpu:1", "--sequence", "64", "--steps", "3", "--warmup", "1", "--repeats", "1")
    # 3: three steps are too few for an interval. 0: other load is found, which makes the run suspect.
    _run(python, tmp_path, *tunemark, "run", *words, "-o", "report", codes=(0, 3))
    assert (tmp_path / "report/report.html").is_file()
    assert (tmp_path / "runs").is_dir()
    # Trained by adapters, for which a package is needed that is optional.
    method = ("plan", "--method", "lora", "--device", "cpu:1")
    _run(python, tmp_path, *tunemark, *method)


def test_mypy_accepts_a_users_program_and_finds_its_mistakes(python: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    (tmp_path / "wrong.py").write_text(_WRONG)
    # Types of the dependencies are not ours.
    words = ("-m", "mypy", "--strict", "--follow-imports", "silent", "--cache-dir", str(tmp_path / "cache"))
    assert "Success" in _run(python, tmp_path, *words, "program.py")
    assert "Incompatible types in assignment" in _run(python, tmp_path, *words, "wrong.py", codes=(1,))


def test_a_notebook_shows_tables_and_charts(python: str, tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in _NOTEBOOK])
    specification = tmp_path / "kernels/clean"
    specification.mkdir(parents=True)
    kernel = {"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "clean",
              "language": "python"}  # fmt: skip
    (specification / "kernel.json").write_text(json.dumps(kernel))
    environment = {"JUPYTER_PATH": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    os.environ.update(environment)
    try:
        client = NotebookClient(notebook, kernel_name="clean", timeout=300, resources={"metadata": {"path": tmp_path}})
        done = client.execute()
    finally:
        for name in environment:
            del os.environ[name]
    table, chart = ([output["data"] for output in cell["outputs"] if "data" in output] for cell in done["cells"][2:])
    assert "<table" in table[0]["text/html"]
    assert "mistral-tiny" in table[0]["text/html"]
    assert any("<svg" in str(value) for value in chart[0].values())
