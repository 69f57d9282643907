"""`--verbose`: each whole line of the workers once, those of earlier attempts never."""

from __future__ import annotations

import os
from pathlib import Path

from tunemark.cli.worker_output import WorkerOutput


def _attempt(store: Path, name: str) -> Path:
    folder = store / "mistral-tiny-cpu-1-none-1f3a" / name
    folder.mkdir(parents=True)
    return folder


def test_lines_are_said_once_and_when_they_are_whole(tmp_path: Path) -> None:
    old, said = _attempt(tmp_path, "old"), []
    (old / "stdout.log").write_text("of yesterday\n")
    os.utime(old / "stdout.log", (0, 0))
    with WorkerOutput(tmp_path, said.append) as output:
        new = _attempt(tmp_path, "new")
        with (new / "stdout.log").open("a") as file:
            file.write("one\ntw")
            file.flush()
            output.flush()
            assert said == ["stdout: one"]
            file.write("o\nthr")
        (new / "stderr.log").write_bytes(b"a warning\n\xff\n")
        trial = _attempt(tmp_path / "trials", "trial")
        (trial / "stdout.log").write_text("of a trial\n")
    assert sorted(said) == ["stderr: a warning", "stderr: \ufffd", "stdout: of a trial", "stdout: one", "stdout: thr",
                            "stdout: two"]  # fmt: skip
