"""The example plugin as a stranger would have it, and the command line in a process and folders of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

_HERE = Path(__file__).parent

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def example_plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which a process finds tests/example_plugin installed; nobody else's environment is touched."""
    return _installed(["example_plugin"], tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="session")
def faulty_plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of tests/faulty_plugin, and of the example, whose data it uses."""
    return _installed(["example_plugin", "faulty_plugin"], tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="session")
def unsound_plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of tests/unsound_plugins, and of the example, which they take a name from."""
    return _installed(["example_plugin", "unsound_plugins"], tmp_path_factory.mktemp("unsound"))


def _installed(names: Sequence[str], folder: Path) -> dict[str, str]:
    # Copies, because building leaves files beside the sources.
    sources = [folder / name for name in names]
    for source in sources:
        shutil.copytree(_HERE / source.name, source, ignore=shutil.ignore_patterns("__pycache__"))
    quiet = ["--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "site")]
    pip = [sys.executable, "-m", "pip", "install", *quiet, *alone, *map(str, sources)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    former = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder / "site"), *([former] if former else [])])}


@pytest.fixture(scope="session")
def tunemark_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where prepared tokens are kept, once for all tests of a session."""
    return tmp_path_factory.mktemp("tunemark-cache")


@pytest.fixture
def tunemark(tmp_path: Path, tunemark_cache: Path) -> Tunemark:
    """Run `tunemark WORDS...` in an empty folder; `environment` is added to what the process inherits."""

    def run(*words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "TUNEMARK_CACHE": str(tunemark_cache), **(environment or {})}
        command = [sys.executable, "-m", "tunemark", *words]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)

    return run
