"""`--python PATH`: another interpreter trains with its own transformers, and nothing of ours is installed into it.

The other environment is real: a virtual environment with an older release of transformers. torch, which is large and
may be of any build, is shared with it from the running one by links, as is all else that transformers needs; tunemark
is not, so that only the code which the harness brings along can train there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]

# Older releases with what they insist on of their own time: the oldest that tunemark says it works with, and one more
# for an environment that runs the oldest itself. All else that they need may be of today.
_RELEASES = {"4.46.3": ["tokenizers==0.20.3"], "4.49.0": ["tokenizers==0.21.0"]}
_HUB = "huggingface-hub==0.26.5"
_SHARED = ["torch", "numpy", "filelock", "fsspec", "packaging", "pyyaml", "regex", "requests", "safetensors", "tqdm"]

_SHORT = ["--model", "mistral-tiny", "--precision", "fp32", "--sequence", "32", "--micro-batch", "2"]
_SHORT += ["--warmup", "1", "--steps", "3", "--repeats", "1", "--target-interval", "0", "--no-measure-peak"]


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has nothing but Python."""
    return _new_environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with another transformers than the running one's, and without tunemark."""
    python = _new_environment(tmp_path_factory.mktemp("other"))
    running = metadata.version("transformers")
    release = next(release for release in _RELEASES if release != running)
    # Before anything is shared, and without dependencies: pip would write through the links. Uncompiled, because few
    # of the many modules are ever imported.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-compile"]
    soon = ["--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    wanted = [f"transformers=={release}", _HUB, *_RELEASES[release]]
    done = subprocess.run([*pip, *soon, *wanted], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith("ERROR")] or lines
        pytest.skip(f"pip could not install transformers {release}: {' '.join(said[-1:])}")
    _share(_SHARED, _site(python))

    # Without these the tests below would show nothing.
    assert _ask(python, "import transformers; print(transformers.__version__)") == release != running
    assert _ask(python, "import torch; print(torch.__file__)").startswith(str(_site(python)))
    ours = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
    assert _ask(python, ours.format(["tunemark", "tunemark_worker", "tunemark_models", "tunemark_torch"])) == "[]"
    return python


def _new_environment(folder: Path) -> Path:
    # Without a pip of its own, which would take seconds: the running environment's can install into this one.
    venv.create(folder / "venv", symlinks=True, with_pip=False)
    return folder / "venv/bin/python"


def _site(python: Path) -> Path:
    return Path(_ask(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))


def _ask(python: Path, program: str) -> str:
    """What a program prints under an interpreter that sees nothing of the tests' own surroundings."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", program], env=environment, cwd=python.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _share(names: Iterable[str], site: Path) -> None:
    """Link distributions of the running environment, and all that they need, into another's site-packages."""
    waiting, seen = list(names), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # needed on another platform only
            continue
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            # What is there already wins: its own packages, and a folder that several of torch's distributions share.
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
        for requirement in found.requires or ():
            plain, _, marker = requirement.partition(";")
            if "extra" not in marker:
                waiting += re.findall(r"^[A-Za-z0-9._-]+", plain)


def _files(site: Path) -> set[str]:
    """All names under a folder, links not followed; what Python compiles on its way is nobody's installation."""
    found = set()
    for folder, folders, files in os.walk(site):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found.update(os.path.join(folder, name) for name in [*folders, *files])
    return found


def _rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The rows of a run of any verdict that did not fail: three windows are too few for a verdict."""
    assert done.returncode in (0, 1, 3), done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        assert row["status"] == "ok", row["each_attempt"]
        assert row["steps_measured"] == 3
    return rows


@pytest.mark.full
def test_two_releases_of_transformers_train_the_same_in_one_sweep(tunemark: Tunemark, other: Path) -> None:
    before = _files(_site(other))
    words = ["--device", "cpu:1", "--batching", "pack,pad", "--python", f"{sys.executable},{other}", "--json"]
    rows = {(row["batching"], row["python"]): row for row in _rows(tunemark("run", *_SHORT, *words))}
    running = os.path.abspath(sys.executable)
    assert set(rows) == {(batching, python) for batching in ("pack", "pad") for python in (running, str(other))}
    release = _ask(other, "import transformers; print(transformers.__version__)")
    for (_, python), row in rows.items():
        expected = release if python == str(other) else metadata.version("transformers")
        # What the parent found in the metadata, and what the worker says of itself.
        assert row["environment"]["interpreter"]["path"] == python
        assert row["environment"]["interpreter"]["transformers"] == expected
        assert row["environment"]["worker"]["transformers"] == expected
    for batching in ("pack", "pad"):
        here, there = rows[batching, running], rows[batching, str(other)]
        assert here["run_id"] != there["run_id"]
        assert here["tokens"] == there["tokens"]
        # The same seed and the same ids give the same weights and loss; another seed moves the loss by 2e-3 and more.
        assert here["loss_first"] == pytest.approx(there["loss_first"], rel=1e-4)
        assert here["loss_last"] == pytest.approx(there["loss_last"], rel=1e-3)
    assert _files(_site(other)) == before


@pytest.mark.full
def test_every_process_of_a_job_is_the_other_interpreter(tunemark: Tunemark, other: Path, tmp_path: Path) -> None:
    words = ["--device", "cpu:2", "--oversubscribe", "--strategy", "ddp", "--python", str(other), "--json"]
    (row,) = _rows(tunemark("run", *_SHORT, *words))
    release = _ask(other, "import transformers; print(transformers.__version__)")
    found = []
    for rank in range(row["processes"]):
        (path,) = tmp_path.glob(f"runs/*/*/records.{rank}.jsonl")
        found += [r["transformers"] for r in map(json.loads, path.read_text().splitlines()) if r["kind"] == "facts"]
    assert found == [release, release]


def _refused(done: subprocess.CompletedProcess[str], python: Path, folder: Path) -> str:
    """The complaint about an interpreter, given before any attempt was made."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert not list(folder.glob("runs/*/*/plan.json"))
    assert "Traceback" not in done.stderr
    complaint = done.stderr[done.stderr.index("tunemark: ") :]
    assert str(python) in complaint.splitlines()[0]
    return complaint


def test_an_interpreter_without_torch_is_refused_before_anything_runs(
    tunemark: Tunemark, bare: Path, tmp_path: Path
) -> None:
    # The first interpreter could train: it does not begin before the second one is known to be able to.
    done = tunemark("run", *_SHORT, "--device", "cpu:1", "--python", f"{sys.executable},{bare}")
    first, why, after = _refused(done, bare, tmp_path).splitlines()
    assert "torch" in first
    assert "nothing is installed" in why
    assert f"{bare} -m pip install torch transformers" in after


def test_a_folder_of_the_user_that_is_called_torch_is_not_torch(tunemark: Tunemark, bare: Path, tmp_path: Path) -> None:
    # `python -c` looks into the folder that it is started in, and a folder without an __init__ can be imported too.
    (tmp_path / "torch").mkdir()
    (tmp_path / "transformers").mkdir()
    done = tunemark("run", *_SHORT, "--device", "cpu:1", "--python", str(bare))
    assert "torch" in _refused(done, bare, tmp_path)


@pytest.mark.parametrize(
    ("content", "is_executable"),
    [
        (None, False),
        ("print('a program, not an interpreter')\n", False),
        ("no program at all\n", True),
        ("#!/bin/sh\nexit 0\n", True),
        ("#!/bin/sh\necho hello\n", True),
        ("#!/bin/sh\nexit 3\n", True),
        ("#!/bin/sh\necho broken >&2\nexit 3\n", True),
    ],
    ids=["missing", "not executable", "no program", "silent", "talkative", "failing", "complaining"],
)
def test_what_is_no_python_is_refused_in_words(
    tunemark: Tunemark, tmp_path: Path, content: str | None, is_executable: bool
) -> None:
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o755 if is_executable else 0o644)
    complaint = _refused(tunemark("run", *_SHORT, "--device", "cpu:1", "--python", str(python)), python, tmp_path)
    assert "Python" in complaint.splitlines()[-1]
    if content is not None and "broken" in content:
        assert "broken" in complaint
    # Our own question to the interpreter, and our own reader of its answer, are no reason that a person can use.
    assert not re.search(r"importlib|Expecting value|char 0", complaint), complaint
