"""`tunemark clean` lists what is left over with its size, and removes nothing but that, and only with --yes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunemark.cli.main import main
from tunemark.report.verification import verify_folder
from tunemark.results import Store
from tunemark.temporary import find_left_over, temporary_folder

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from campaign.made_store import two_plans, write_attempt  # a store as the runner writes it


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, a cache, locks and a temporary folder of its own."""
    for name, variable in (("cache", "TUNEMARK_CACHE"), ("locks", "TUNEMARK_LOCKS"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _age(path: Path, days: float) -> None:
    then = time.time() - days * 86_400
    for each in (*path.rglob("*"), path):
        os.utime(each, (then, then), follow_symlinks=False)


def _list(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """The kind of everything that is listed, by path."""
    assert main(["clean", "--json", *words]) == 0
    return {row["path"]: row["kind"] for row in map(json.loads, capsys.readouterr().out.splitlines())}


def test_what_is_left_over_is_listed_and_removed_only_with_yes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, plan = Store(place / "runs"), two_plans()[0]
    old = write_attempt(store, plan, "attempt-1", series="old")
    new = write_attempt(store, plan, "attempt-2", series="new")
    half = new / ".attempt.json.123-0a1b2c3d"
    half.touch()
    _age(half, 1)
    for name in ("tokens/aa", "code-0/bb", "calibration/cc"):
        folder = place / "cache" / name
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(bytes(1000))
    _age(place / "cache", 40)
    fresh = place / "cache/tokens/dd"
    fresh.mkdir()
    gone = place / "tmp/tunemark-simulation.abc"
    gone.mkdir()
    _age(gone, 1)
    (place / "tmp/tunemark-thesis").mkdir()  # the user's, whatever its name begins with
    lock = place / "locks/tunemark-cpu.lock"
    lock.touch()
    expected = {old: "attempts", half: "half-written", place / "cache/tokens/aa": "cache", gone: "temporary",
                place / "cache/code-0/bb": "code", lock: "locks"}  # fmt: skip
    assert {Path(path).resolve(): kind for path, kind in _list(capsys).items()} == expected
    assert all(path.exists() for path in expected)
    assert _list(capsys, "--only", "temporary,locks", "--yes")
    assert [path.exists() for path in (gone, lock, old)] == [False, False, True]
    _list(capsys, "--yes")
    assert not any(path.exists() for path in expected)
    assert new.exists() and fresh.exists() and (place / "cache/calibration/cc/file").exists()  # noqa: PT018
    assert (place / "tmp/tunemark-thesis").exists()
    # The store says itself that the attempt was removed, so nobody misses it.
    assert {part.state for part in verify_folder(store.root)} == {"whole"}
    assert _list(capsys) == {}


def test_a_folder_that_is_no_store_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "thesis").mkdir()
    (place / "thesis/chapter").touch()
    assert main(["clean", "thesis", "--yes"]) == 2
    assert "is no store" in capsys.readouterr().err
    assert (place / "thesis/chapter").exists()


_HOLD = """
import sys, time
from tunemark.temporary import temporary_folder
with temporary_folder("check") as folder:
    print(folder, flush=True)
    sys.stdin.readline()
"""


def test_the_folder_of_a_killed_command_is_swept_by_the_next(place: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _HOLD], **pipes) as command:  # type: ignore[call-overload]
        folder = Path(command.stdout.readline().strip())
        _age(folder, 1)
        with temporary_folder("trace"):
            assert folder.exists()  # its process lives
        command.kill()
        command.wait()
    assert find_left_over() == [folder]
    with temporary_folder("trace") as own:
        assert list((place / "tmp").iterdir()) == [own]
    assert list((place / "tmp").iterdir()) == []
