"""The worker's torch-free modules under a real Python 3.8, where there is one: vendors' images still ship it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

_HARNESS = Path(__file__).parents[2] / "harness"
_PROGRAM = """
import json, sys, time
from tunemark_worker import contract, recorder, row_packing, steady_state

fields = {"loss_sum": float("nan"), "step": 3, "marks": None}
path = sys.argv[1]
recorder.Recorder(path, 0, time.monotonic).write("step", instant_s=1.5, **fields)
with open(path) as file:
    row = contract.decode_record(file.readline())
assert row["loss_sum"] != row["loss_sum"], row
print(json.dumps([sys.version_info[:2], row["kind"], row["step"], row["instant_s"], row["marks"]]))
"""


def _python38() -> str | None:
    """An interpreter that says of itself that it is 3.8: a shim of that name may lead nowhere."""
    candidates = [shutil.which("python3.8")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        candidates += [str(path) for path in sorted(Path(root).glob("versions/3.8.*/bin/python"))]
    for candidate in filter(None, candidates):
        said = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        if said.returncode == 0 and said.stdout.startswith("Python 3.8."):
            return candidate
    return None


def test_a_record_makes_the_round_trip_under_python_3_8(tmp_path: Path) -> None:
    python = _python38()
    if python is None:
        pytest.skip("no Python 3.8 here: neither python3.8 on the PATH nor one of pyenv's versions")
    done = subprocess.run(
        [
            python,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(_HARNESS)!r})\n{_PROGRAM}",
            str(tmp_path / "records"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[3, 8], "step", 3, 1.5, None]
