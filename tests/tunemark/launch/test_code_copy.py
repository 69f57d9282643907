"""A copy of the code runs only while it is what its hash says, and only for the user who made it."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunemark.errors import BadStore
from tunemark.launch import CodeCopy, copy_code, user_code_folder
from tunemark_worker.contract import code_variables

_RUNTIMES = ["tunemark_torch.runtime:CpuRuntime"]


@pytest.fixture
def copied(tmp_path: Path) -> CodeCopy:
    return copy_code(_RUNTIMES, tmp_path / "code")


def _add_startup_code(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text("raise SystemExit('run')")


def _change_clock(folder: Path) -> None:
    path = folder / "tunemark_worker" / "recorder.py"
    path.write_text(path.read_text().replace("self._clock()", "self._clock() / 2"))


def _link_module(folder: Path) -> None:
    path = folder / "tunemark_worker" / "recorder.py"
    other = folder.parent / "recorder.py"
    path.rename(other)
    path.symlink_to(other)


def _remove_module(folder: Path) -> None:
    (folder / "tunemark_worker" / "recorder.py").unlink()


def _open_to_others(folder: Path) -> None:
    (folder / "tunemark_worker" / "recorder.py").chmod(0o666)


@pytest.mark.parametrize("poison", [_add_startup_code, _change_clock, _link_module, _remove_module, _open_to_others])
def test_a_folder_that_is_not_what_was_copied_is_refused(copied: CodeCopy, poison: Callable[[Path], None]) -> None:
    copied.verify()
    poison(copied.folder)
    with pytest.raises(BadStore, match="is not the code that its name says"):
        copied.verify()
    with pytest.raises(BadStore):  # nor is it taken over by the next command
        copy_code(_RUNTIMES, copied.folder.parent)


def test_bytecode_of_others_is_removed(copied: CodeCopy, tmp_path: Path) -> None:
    """Python runs it instead of a source of the same time and size."""
    source = copied.folder / "tunemark_worker" / "contract.py"
    other = tmp_path / "other.py"
    other.write_text("raise SystemExit('run')".ljust(source.stat().st_size))
    os.utime(other, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    cached = source.parent / "__pycache__" / f"contract.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(other), str(cached))
    words = [sys.executable, "-c", "import tunemark_worker.contract"]
    environment = {**os.environ, **code_variables(str(copied.folder))}
    assert b"run" in subprocess.run(words, env=environment, capture_output=True).stderr
    copied.verify()
    assert not cached.exists()
    subprocess.run(words, env=environment, check=True)
    copied.verify()  # what an honest start has compiled is no reason to refuse the next


def test_jobs_of_this_machine_have_their_code_where_only_the_user_reads(copied: CodeCopy) -> None:
    assert copied.folder.stat().st_mode & 0o777 == 0o700
    assert copied.folder.parent.stat().st_mode & 0o777 == 0o700
    assert (copied.folder / "tunemark_worker" / "contract.py").stat().st_mode & 0o777 == 0o600
    assert user_code_folder().name == f"code-{os.getuid()}"
