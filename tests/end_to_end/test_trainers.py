"""A stranger's trainer beside tunemark's own loop, and trainers with faults: each has a row, and the sweep goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]
_WORDS = ["run", "--model", "toy-lm", "--dataset", "toy-text", "--device", "cpu:1", "--precision", "fp32"]
_WORDS += ["--sequence", "32", "--micro-batch", "2", "--batching", "pack", "--steps", "6", "--warmup", "1"]
_WORDS += ["--repeats", "1", "--no-measure-peak", "--json"]


def _rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["trainer"]: row for row in rows}


@pytest.mark.full
def test_a_strangers_trainer_trains_the_same_and_states_its_slots(
    tunemark: Tunemark, example_plugin: dict[str, str]
) -> None:
    done = tunemark(*_WORDS, "--trainer", "tunemark,toy-loop", "--verify", environment=example_plugin)
    found = _rows(done)
    assert set(found) == {"tunemark", "toy-loop"}, done.stderr
    rules = {finding["rule"] for finding in found["toy-loop"]["findings"]}
    assert {"verified", "trainer-rate"} <= rules
    assert not rules & {"trains-otherwise", "rows-differ", "steps-skipped", "tokens-disagree", "slots-disagree"}
    assert found["toy-loop"]["tokens"]["content"] == found["tunemark"]["tokens"]["content"]
    assert found["toy-loop"]["loss_last"] == pytest.approx(found["tunemark"]["loss_last"], rel=1e-5)


@pytest.mark.full
def test_trainers_with_faults_have_rows_with_reasons(tunemark: Tunemark, faulty_plugin: dict[str, str]) -> None:
    names = [f"faulty-{name}" for name in ("importsnothing", "hangs", "boasts", "talks")]
    words = ["--trainer", ",".join(names), "--optimizer", "sgd", "--timeout", "20"]
    done = tunemark(*_WORDS, *words, environment=faulty_plugin)
    found = _rows(done)
    assert list(found) == names, done.stderr
    ends = {name: (found[name]["status"], found[name]["each_attempt"][0]["evidence"]) for name in names}
    assert ends[names[0]][0] == "error"
    assert "a_package_that_is_not_there" in ends[names[0]][1]
    assert ends[names[1]][0] == "timeout"
    assert [ends[name][0] for name in names[2:]] == ["ok", "ok"]
    assert "trainer-rate-denied" in {finding["rule"] for finding in found[names[2]]["findings"]}
    assert found[names[3]]["tokens_per_s"]["value"] < 1e8
