"""Every command of the MoAI tutorial, in the order of the page, against the simulator; and its twin in Korean."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(_ROOT / "benchmarks"))
from real_interpreters import NotAvailableError, real_interpreter  # noqa: E402  # a module of the benchmarks

_ENGLISH = _ROOT / "docs" / "moai-mistral.md"
_KOREAN = _ROOT / "docs" / "ko" / "moai-mistral.md"


def _blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def test_the_korean_page_has_the_same_commands_and_steps() -> None:
    for kind in ("sh", "text"):
        assert _blocks(_KOREAN, kind) == _blocks(_ENGLISH, kind) != []
    headings = [re.findall(r"^## (\d+)\.", page.read_text(encoding="utf-8"), re.M) for page in (_ENGLISH, _KOREAN)]
    assert headings[0] == headings[1] == [str(n) for n in range(1, 11)]


# A dozen real runs, a minute and more. With the interpreters that the platform's images ship, too: what their torch and
# transformers cannot do, they cannot do on the platform either.
@pytest.mark.full
@pytest.mark.parametrize("torch", ["own", "2.1", "1.13"])
def test_every_command_of_the_tutorial_runs(tmp_path: Path, tunemark_cache: Path, torch: str) -> None:
    experiment = "moai-simulated"
    if torch != "own":
        try:
            experiment = f'"{experiment} --python {real_interpreter(torch)}"'
        except NotAvailableError as error:
            pytest.skip(str(error))
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, module in (("tunemark", "tunemark"), ("tunemark-moai-sim", "tunemark_moai.simulator.cli")):
        (bin / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (bin / name).chmod(0o755)
    script = "\n".join(_blocks(_ENGLISH, "sh"))
    assert script.count("export EXPERIMENT=moai-simulated\n") == 1
    script = script.replace("EXPERIMENT=moai-simulated\n", f"EXPERIMENT={experiment}\n")
    environment = {
        **os.environ,
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "TUNEMARK_CACHE": str(tunemark_cache),
        "TUNEMARK_MOAI_SAMPLE_S": "1",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(["bash", "-eux"], input=script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The last look at the accelerator shows the flavor that it had at first.
    assert done.stdout.rindex("Small.64GB") > done.stdout.rindex("num_stages")
    with open(tmp_path / "reports" / "both" / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["accelerator"], row["status"], row["simulated"]) for row in rows] == [
        ("moai:4xLarge.2048GB", "ok", "True"),
        ("moai:8xLarge.4096GB", "ok", "True"),
    ]
    report = (tmp_path / "reports" / "parallelization" / "report.md").read_text()
    assert "oom" in report
    manual = (tmp_path / "reports" / "manual" / "report.md").read_text()
    assert "num_stages=2" in manual
    assert list(tmp_path.glob("tunemark-moai-sim-*")) == []
