"""A repository of strangers with a model of their own and the workflow that `tunemark new ci github` writes: pushes
measure a baseline, an unchanged pull request passes, and one that makes the model slower fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunemark.cli.main import main

pytestmark = pytest.mark.full


def _run_workflow(repository: Path, event: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run the scripts of the workflow's steps as GitHub would for an event: (exit code, what they printed)."""
    workflow: Any = yaml.safe_load((repository / ".github/workflows/tunemark.yml").read_text())
    said = ""
    for step in workflow["jobs"]["gate"]["steps"]:
        script, condition = step.get("run"), str(step.get("if", ""))
        if script is None or step["name"] in ("install", "comment"):
            continue  # it is installed already, and there is nothing to comment on
        if "event_name" in condition and f"'{event}'" not in condition:
            continue
        # A machine that runs tests is not idle.
        script = script.replace("tunemark gate", "tunemark gate --despite heavy-load")
        done = subprocess.run(
            ["sh", "-e", "-c", script], cwd=repository, env=environment, capture_output=True, text=True
        )
        said += done.stdout + done.stderr
        if done.returncode != 0:
            return done.returncode, said
    return 0, said


def test_a_strangers_repository_passes_and_fails_its_gate(tmp_path: Path, tunemark_cache: Path) -> None:
    repository = tmp_path / "repository"
    assert main(["new", "model", "my-model", "-o", str(repository)]) == 0
    assert main(["new", "ci", "github", "-o", str(repository)]) == 0
    (repository / "tunemark.toml").write_text(
        'model = "my-model"\ndataset = "synthetic"\ndevice = "cpu:1"\nprecision = "fp32"\nsequence = 128\n'
        "micro_batch = 2\nwarmup = 2\nbudget = 3\nrepeats = 3\ntarget_interval = 0\n"
    )
    runtime = repository / "tunemark_my_model/runtime.py"
    plain = runtime.read_text()

    def write_model(seconds: float) -> None:
        """A model whose forward pass waits, so that its rate depends on little else."""
        at = plain.index("\n", plain.index("def forward(self, ids:")) + 1
        text = f"{plain[:at]}        time.sleep({seconds})\n{plain[at:]}"
        runtime.write_text(text.replace("import torch\n", "import time\n\nimport torch\n", 1))

    write_model(0.1)
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target",
         str(site), str(repository)], check=True,
    )  # fmt: skip
    # The repository's own files, as an editable install has them.
    subprocess.run(["rm", "-r", str(site / "tunemark_my_model"), str(repository / "build")], check=False)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "tunemark").write_text(f'#!/bin/sh\nexec {sys.executable} -m tunemark "$@"\n')
    (tools / "tunemark").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{repository}{os.pathsep}{site}",
        "TUNEMARK_CACHE": str(tunemark_cache),
    }
    code, said = _run_workflow(repository, "pull_request", environment)
    assert code == 0, said
    assert "there is no baseline yet" in said
    for _ in range(3):
        code, said = _run_workflow(repository, "push", environment)
        assert code == 0, said
    code, said = _run_workflow(repository, "pull_request", environment)
    assert code == 0, said
    assert "PASS" in said or "no verdict" in said
    write_model(0.2)
    code, said = _run_workflow(repository, "pull_request", environment)
    assert code == 1, said
    assert "FAIL" in said
    assert (repository / "gate.md").read_text().startswith("<!-- tunemark gate -->")
