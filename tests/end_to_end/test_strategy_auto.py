"""Strategy auto through the real command line: it tries, runs the winner, and the next command goes on from there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]

_WORDS = "--device cpu:2 --model llama-2-tiny --sequence 32 --global-batch 4 --precision fp32 --steps 3 --warmup 1 "
_WORDS += "--target-interval 0 --repeats 1 --no-measure-peak --strategy none,auto --trials 2 --oversubscribe"


@pytest.mark.full
def test_auto_tries_and_runs_the_fastest_and_says_how_it_was_found(tunemark: Tunemark, tmp_path: Path) -> None:
    words = ["run", *_WORDS.split()]
    done = tunemark(*words, "--json", "-o", "out")
    none, auto = map(json.loads, done.stdout.splitlines())
    assert done.returncode in (0, 1, 3), done.stderr
    assert (none["strategy_requested"], auto["strategy_requested"]) == ("none", "auto:trials=2")
    log = auto["search"]
    chosen = next(option for option in log["options"] if option["outcome"] == "chosen")
    tried = [option for option in log["options"] if option["tried_tokens_per_s"] is not None]
    assert len(tried) == log["trials"] == 2
    assert chosen["tried_tokens_per_s"] == max(option["tried_tokens_per_s"] for option in tried)
    selected = auto["strategy_selected"]
    assert (selected["layout"], selected["micro_batch"]) == (chosen["strategy"], chosen["micro_batch"])
    assert selected["strategy"] == chosen["strategy"].partition(":")[0]
    assert (auto["micro_batch"], auto["checkpointing"]) == (chosen["micro_batch"], chosen["checkpointing"])
    assert auto["global_batch"] == none["global_batch"] == 4
    assert auto["search_s"] == pytest.approx(log["prediction_s"] + log["trial_s"])
    report = (tmp_path / "out/report.md").read_text()
    assert "What auto looked at, and what it tried" in report
    again = tunemark(*words, "--json")
    assert "chosen before with the same code" in again.stderr
    assert json.loads(again.stdout.splitlines()[1])["search"] == log
