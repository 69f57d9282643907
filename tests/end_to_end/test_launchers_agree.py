"""The same experiment has the same rate under every launcher: benchmarks/launchers.py, with real servers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "benchmarks/launchers.py"


@pytest.mark.full
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None
    or os.geteuid() != 0
    or any(shutil.which(name) is None for name in ("slurmctld", "slurmd", "munged")),
    reason="needs root, Debian's slurm-wlm and munge, and the package ray",
)
def test_slurm_and_ray_have_the_rate_of_local() -> None:
    done = subprocess.run([sys.executable, str(_SCRIPT)], capture_output=True, text=True)
    print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| PASS |") == 2
