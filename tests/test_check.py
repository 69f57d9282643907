"""`tunemark check` on the command line: a table with reasons, JSON, and an exit code that a pipeline can use."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]


def _checks(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    answer = json.loads(done.stdout)
    assert answer["passed"] + answer["failed"] + answer["skipped"] == len(answer["checks"]), done.stderr
    return {(check["name"], check["subject"]): check for check in answer["checks"]}


def test_a_sound_plugin_passes_without_a_worker(tunemark: Tunemark, example_plugin: dict[str, str]) -> None:
    only = "import,interface,lazy,speed,quiet,hooks,name,facts,tokenizer,recount"
    done = tunemark("check", "tunemark-example", "--only", only, "--json", environment=example_plugin)
    checks = _checks(done)
    assert done.returncode == 0, done.stdout
    assert {c["outcome"] for c in checks.values()} == {"passed"}
    assert "8,304 parameters" in checks["facts", "model toy-lm"]["reason"]
    # 48 documents: bytes, and one id before and behind each.
    assert "1493 tokens of 48 documents" in checks["recount", "dataset toy-text"]["reason"]


def test_a_name_that_nothing_has_is_the_users_to_mend(tunemark: Tunemark) -> None:
    done = tunemark("check", "mistrall")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'mistral'?" in done.stderr
    assert tunemark("check", "mistral", "--only", "nonsense").returncode == 2
