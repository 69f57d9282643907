"""A stranger's plugin has the rights of a built-in one, and a device of known speed is measured at that speed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
# The model, data and strategy of the stranger, two sequences of 32 slots a micro-batch, one attempt.
_TOY = ["--model", "toy-lm", "--dataset", "toy-text", "--strategy", "toy-wrap", "--precision", "fp32"]
_TOY += ["--sequence", "32", "--micro-batch", "2"]
_ONCE = ["--warmup", "2", "--repeats", "1", "--no-measure-peak", "--json"]
pytestmark = pytest.mark.alone

Tunemark = Callable[..., subprocess.CompletedProcess[str]]


def _row(done: subprocess.CompletedProcess[str], *codes: int) -> dict[str, Any]:
    assert done.returncode in codes, done.stderr
    (line,) = done.stdout.splitlines()
    row: dict[str, Any] = json.loads(line)
    return row


def _rules(row: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in row["findings"]}


def test_a_strangers_plugin_is_run_like_a_built_in_one(tunemark: Tunemark, example_plugin: dict[str, str]) -> None:
    done = tunemark("run", *_TOY, "--device", "toy", "--steps", "8", *_ONCE, environment=example_plugin)
    # 8 windows of a millisecond can look like anything on a busy machine, so any verdict but a failed run will do.
    row = _row(done, 0, 1, 3)
    assert row["status"] == "ok"
    assert row["steps_measured"] == 8
    assert row["tokens_per_s"]["value"] > 0
    assert row["slot_tokens_per_s"]["value"] >= row["tokens_per_s"]["value"]
    assert _rules(row).isdisjoint({"weights-unchanged", "tokens-disagree", "sync-does-not-wait"})


def test_it_is_listed_with_its_distribution(tunemark: Tunemark, example_plugin: dict[str, str]) -> None:
    done = tunemark("list", "plugins", environment=example_plugin)
    assert done.returncode == 0, done.stderr
    assert "tunemark-example" in done.stdout
    for kind, name in (("devices", "toy-async"), ("models", "toy-lm"), ("datasets", "toy-text")):
        assert name in tunemark("list", kind, environment=example_plugin).stdout


def test_an_asynchronous_device_is_measured_at_its_true_speed(
    tunemark: Tunemark, example_plugin: dict[str, str], tmp_path: Path
) -> None:
    known = {**example_plugin, "TOY_STEP_S": "0.2"}
    # 48 measured steps are 8 windows of 6 steps, 1.2 s each.
    done = tunemark("run", *_TOY, "--device", "toy-async", "--steps", "48", *_ONCE, environment=known)
    row = _row(done, 0, 3)
    rate = row["slot_tokens_per_s"]["value"]
    # One micro-batch a step: 2 x 32 slots in 0.2 s. Nothing can make the device faster.
    nominal = 2 * 32 / 0.2
    assert rate <= nominal * 1.0001
    # At every edge the device idles until the program has its next step ready: 2 to 4 ms, more where other load holds
    # the program up. That is a true loss, and the device's own account of what it had done by when knows it.
    (account,) = tmp_path.glob("runs/*/*/device.log")
    instants = {int(steps): float(by) for steps, by in map(str.split, account.read_text().splitlines())}
    assert rate == pytest.approx(2 * 32 * 48 / (instants[2 + 48] - instants[2]), rel=0.005)
    assert rate > nominal * 0.9
    assert "sync-does-not-wait" not in _rules(row)


def test_a_device_that_lies_about_being_done_is_invalid(tunemark: Tunemark, example_plugin: dict[str, str]) -> None:
    done = tunemark("run", *_TOY, "--device", "toy-async-lying", "--steps", "16", *_ONCE, environment=example_plugin)
    row = _row(done, 1)
    assert row["verdict"] == "invalid"
    assert "sync-does-not-wait" in _rules(row)


def test_the_guide_quotes_the_example() -> None:
    def lines(text: str) -> str:
        """Without indentation and blank lines, which a formatter of the guide may change."""
        return "\n".join(line.strip() for line in text.splitlines() if line.strip())

    folder = _ROOT / "tests/example_plugin"
    sources = [lines(p.read_text()) for p in [folder / "pyproject.toml", *folder.glob("tunemark_example/*.py")]]
    quoted = re.findall(r"```(?:python|toml)\n(.*?)```", (_ROOT / "docs/plugins.md").read_text(), re.DOTALL)
    assert quoted
    for block in map(lines, quoted):
        assert any(block in source for source in sources), block


def test_a_strategy_that_describes_its_layout_is_searched_and_predicted_and_chosen(
    tunemark: Tunemark, example_plugin: dict[str, str]
) -> None:
    # Adapters have so few gradients that copies of the model are faster than shards of it.
    words = "plan --strategy auto --device H100 --size 8 --model mistral-7b --method lora --sequence 512 --json"
    done = tunemark(*words.split(), environment=example_plugin)
    assert done.returncode == 0, done.stderr
    options = json.loads(done.stdout)["search"]["options"]
    best = {option["strategy"]: option["predicted_tokens_per_s"] for option in reversed(options)}
    # The same formulas as for the built-in strategy of this degree; the first one in the catalog is taken.
    assert best["toy-copies"] == best["ddp"]
    assert [option["strategy"] for option in options if option["outcome"] == "chosen"] == ["toy-copies"]


@pytest.mark.full
def test_it_trains_as_one_process_does(tunemark: Tunemark, example_plugin: dict[str, str]) -> None:
    words = ["run", "--strategy", "toy-copies", "--device", "cpu:2", "--model", "mistral-tiny", "--oversubscribe"]
    words += ["--sequence", "32", "--micro-batch", "2", "--precision", "fp32", "--steps", "3", "--verify", *_ONCE]
    row = _row(tunemark(*words, environment=example_plugin), 0, 1, 3)
    assert (row["status"], row["data_ranks"], row["strategy_selected"]) == ("ok", 2, {"strategy": "toy-copies"})
    assert "verified" in _rules(row)
