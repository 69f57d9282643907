"""Training in real environments: old Pythons with torch and transformers of their own time, on the CPU and on MoAI.

benchmarks/real_interpreters.py makes each once in a cache folder (1 to 5 GB each; the first time takes minutes);
where one cannot be made, its tests say why. benchmarks/interpreters.py has the matrix that they run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunemark
from tunemark.errors import BadExperiment
from tunemark.launch.interpreter import Interpreter, check_interpreter

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import interpreters  # noqa: E402  # a program of the benchmarks
from real_interpreters import (  # noqa: E402  # likewise
    INTERPRETERS,
    NotAvailableError,
    extended_interpreter,
    real_interpreter,
)

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]
# What MoAI's images ship, with a version of the platform that ships it.
MOAI = {"2.1": "25.1.202", "1.13": "24.5.0"}


def _python(name: str) -> str:
    try:
        return real_interpreter(name)
    except NotAvailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> interpreters.Matrix:
    """What one process trains with the newest torch."""
    _python(interpreters.NEWEST)
    matrix = interpreters.Matrix()
    interpreters.fill(matrix, interpreters.NEWEST, [], tmp_path_factory.mktemp("newest") / "runs", is_all=False)
    _python("2.9")
    interpreters.fill(matrix, "2.9", [], tmp_path_factory.mktemp("reference") / "runs", is_all=False)
    return matrix


@pytest.mark.full
@pytest.mark.parametrize("name", INTERPRETERS)
def test_what_the_plan_accepts_trains_what_one_process_trains(
    name: str, newest: interpreters.Matrix, tmp_path: Path
) -> None:
    _python(name)
    matrix = interpreters.Matrix(trained=dict(newest.trained))
    interpreters.fill(matrix, name, None, tmp_path / "runs", is_all=False)
    assert not matrix.failed
    for key in matrix.trained:
        assert matrix.is_equal(key), interpreters.describe(matrix, key)
    # One process and its copies train in all of them.
    assert {key.strategy for key in matrix.trained if key.torch == name} >= {"none", "ddp"}


def _documented(page: str) -> dict[tuple[str, str], str]:
    """The cells of the table in a page, by strategy and torch."""
    text = (ROOT / page).read_text(encoding="utf-8")
    block = text.partition(interpreters.BEGIN)[2].partition(interpreters.END)[0]
    head, _, _, *rows = [line.strip("| ").split(" | ") for line in block.strip().splitlines()]
    return {
        (row[0].strip("`"), column.split()[1]): cell
        for row in rows
        for column, cell in zip(head[1:], row[1:], strict=True)
    }


@pytest.mark.full
@pytest.mark.parametrize("page", ["docs/strategies.md", "docs/moai.md"])
def test_the_table_of_the_docs_is_what_plan_refuses(page: str) -> None:
    cells = _documented(page)
    assert {torch for _, torch in cells} == {each.torch for each in INTERPRETERS.values()}
    for (strategy, torch), cell in cells.items():
        size = 1 if strategy == "none" else 4 if "+" in strategy else 2
        settings: dict[str, Any] = {"model": "mistral-tiny", "device": f"cpu:{size}", "oversubscribe": True}
        # What attention over packed rows needs depends on the interpreter, which is only named here.
        settings.update(global_batch=16, micro_batch=2, strategy=strategy, batching="pad")
        asked = Interpreter(path="python", python="3.10", versions={"torch": torch})
        needs = []
        for precision in ("fp32", "bf16-autocast", "bf16"):
            (plan,) = tunemark.plan(**settings, precision=precision)
            try:
                check_interpreter(asked, plan)
            except BadExperiment as error:
                needs.append(f"needs {error.what.partition(' needs ')[2]}")
        assert not re.search("FAILED|DIFFERS", cell)
        assert ("needs" in cell) == bool(needs), (strategy, torch, cell, needs)
        assert all(need in cell for need in needs), (strategy, torch, cell, needs)


@pytest.fixture
def on_moai(tunemark: Tunemark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """on_moai(version, python, ...): the rows of a run on the simulator of this version of the platform."""
    from tunemark_moai.simulator.cli import main as simulator

    def run(version: str, python: str, *words: str) -> list[dict[str, Any]]:
        folder = tmp_path / "sim"
        assert simulator(["up", "--version", version, "--dir", str(folder)]) == 0
        monkeypatch.setenv("TUNEMARK_MOAI_SIM", str(folder))
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        short = ["--model", "mistral-tiny", "--dataset", "synthetic", "--sequence", "32", "--micro-batch", "2"]
        short += ["--warmup", "1", "--steps", "3", "--repeats", "1", "--precision", "fp32"]
        done = tunemark("run", *short, "--device", "moai", "--python", python, "--json", *words)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert rows, done.stderr
        return rows

    return run


@pytest.mark.full
@pytest.mark.parametrize("name", MOAI)
def test_a_sweep_on_moai_has_six_rows(name: str, on_moai: Callable[..., list[dict[str, Any]]]) -> None:
    sizes = ("Small.64GB", "xLarge.512GB", "2xLarge.1024GB")
    rows = on_moai(MOAI[name], _python(name), "--size", ",".join(sizes), "--strategy", "none,auto")
    assert [(row["size"], row["strategy_requested"]) for row in rows] == [
        (s, t) for s in sizes for t in ("none", "auto")
    ]
    for row in rows:
        assert row["status"] == "ok", row["each_attempt"]
        assert row["environment"]["worker"]["torch"].startswith(INTERPRETERS[name].torch)
        assert row["attention"] == "eager"
        assert "torch" in row["attention_reason"]
        assert row["simulated"]
        assert ("No TP" in str(row["strategy_selected"])) == (row["strategy_requested"] == "auto")
    # The same weights and data: neither the size nor the strategy changes what is trained.
    assert len({(row["loss_first"], row["loss_last"]) for row in rows}) == 1


@pytest.mark.full
@pytest.mark.parametrize("name", MOAI)
def test_rows_of_such_an_interpreter_say_how_attention_was_computed(name: str, tunemark: Tunemark) -> None:
    words = ["--model", "mistral-tiny", "--sequence", "32", "--micro-batch", "2", "--device", "cpu:1"]
    done = tunemark("run", *words, "--python", _python(name), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "attention is computed eagerly" in done.stderr
    for flag, value, what in (
        ("--strategy", "fsdp", "'fsdp' needs torch"),
        ("--optimizer", "adafactor", "needs torch 2.5"),
    ):
        refused = tunemark(
            "plan",
            *words[:-1],
            "cpu:2",
            "--oversubscribe",
            "--python",
            _python(name),
            *(["--strategy", "ddp"] if flag != "--strategy" else []),
            flag,
            value,
        )
        assert refused.returncode == 2
        assert what in refused.stderr


@pytest.mark.full
@pytest.mark.parametrize("name", MOAI)
def test_adapters_train_there_as_with_the_newest_torch(name: str, tunemark: Tunemark, tmp_path: Path) -> None:
    try:
        python = extended_interpreter(f"lora-{name}")
    except NotAvailableError as error:
        pytest.skip(str(error))
    words = ["--model", "mistral-tiny", "--dataset", "synthetic", "--method", "lora", "--sequence", "32"]
    words += ["--micro-batch", "2", "--global-batch", "4", "--warmup", "1", "--steps", "3", "--repeats", "1"]
    words += ["--precision", "fp32", "--target-interval", "0", "--no-measure-peak", "--oversubscribe", "--json"]

    def train(*more: str) -> dict[str, Any]:
        done = tunemark("run", *words, *more)
        (row,) = [json.loads(line) for line in done.stdout.splitlines()]
        assert row["status"] == "ok", row["each_attempt"]
        return dict(row)

    own = train("--device", "cpu:1", "--strategy", "none")
    one = train("--device", "cpu:1", "--strategy", "none", "--python", python, "--save", str(tmp_path / "saved"))
    two = train("--device", "cpu:2", "--strategy", "ddp", "--python", python)
    for row in (one, two):
        assert row["environment"]["worker"]["torch"].startswith(INTERPRETERS[name].torch)
        assert row["trainable_parameters"] == own["trainable_parameters"]
        assert row["loss_first"] == pytest.approx(own["loss_first"], rel=1e-5)
        assert row["loss_last"] == pytest.approx(own["loss_last"], rel=1e-4)
    assert (tmp_path / "saved/config.json").exists()


@pytest.mark.full
def test_adapters_without_peft_are_refused_in_the_plan(tunemark: Tunemark) -> None:
    done = tunemark("plan", "--model", "mistral-tiny", "--method", "lora", "--python", _python("2.1"))
    assert done.returncode == 2
    assert "lacks peft" in done.stderr
