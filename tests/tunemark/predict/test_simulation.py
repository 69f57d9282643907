"""Steps without data against arithmetic done by hand and against the formulas, all of one worker process."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunemark.cli.main import main
from tunemark.experiment import make_experiment, make_grid_points, make_plan
from tunemark.experiment.plan import Plan
from tunemark.physics import count_parameters, train_flops_per_token
from tunemark.plugin import Catalog, StrategyAxis
from tunemark.predict import convert_plan
from tunemark.predict.simulation import (
    SimulatedCollective,
    Simulation,
    SimulationFailed,
    select_representative_ranks,
    simulate_all,
)
from tunemark.predict.worker_step_costs import compute_step_costs

ROOT = Path(__file__).parents[3]
SEQUENCE, MICRO_BATCH, VOCABULARY = 64, 2, 512

# What each plan adds to one process of two layers of the smallest Mistral, in fp32.
PLANS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "none": ("none", 1, {}),
    "early": ("none", 1, {"update": "in-backward", "clip_norm": 0.0}),
    "ddp": ("ddp", 2, {}),
    "fsdp": ("fsdp", 2, {}),
    "tp": ("tp:2:sequence_parallel=true", 2, {"precision": "bf16-autocast", "batching": "pack"}),
}

# With the whole vocabulary.
CHUNKED: tuple[str, int, dict[str, Any]] = ("none", 1, {"loss": "chunked", "micro_batch": 16})


def _plan(strategy: str, size: int, more: dict[str, Any], *, layers: int | None = 2) -> Plan:
    flags = {"model": "mistral-tiny", "device": f"cpu:{size}", "strategy": strategy, "precision": "fp32"}
    flags |= {"sequence": SEQUENCE, "micro_batch": MICRO_BATCH, "batching": "pad", "oversubscribe": True}
    (point,) = make_grid_points(make_experiment({**flags, **more}))
    plan = make_plan(point, Catalog())
    if layers is None:
        return plan
    small = replace(plan.model.architecture, num_hidden_layers=layers, vocab_size=VOCABULARY)
    return replace(plan, model=replace(plan.model, architecture=small))


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: _plan(*each) for name, each in PLANS.items()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(plans: dict[str, Plan], cache: Path) -> dict[str, Simulation]:
    whole = [_plan("none", 1, {}, layers=None), _plan(*CHUNKED, layers=None)]
    done = simulate_all([*plans.values(), *whole], cache=cache)
    wrong = [each.why for each in done if isinstance(each, SimulationFailed)]
    assert not wrong
    return {name: each for name, each in zip(plans, done, strict=False) if isinstance(each, Simulation)}


def test_flops_are_those_that_the_physics_counts(plans: dict[str, Plan], found: dict[str, Simulation]) -> None:
    counted = train_flops_per_token(plans["none"].model.architecture, SEQUENCE) * MICRO_BATCH * SEQUENCE
    assert found["none"].flops == pytest.approx(counted, rel=1e-6)


def test_states_of_adam_are_two_of_each_parameter(plans: dict[str, Plan], found: dict[str, Simulation]) -> None:
    weights = 4 * count_parameters(plans["none"].model.architecture).total
    held = found["none"].bytes
    assert (held.parameters, held.gradients) == pytest.approx((weights, weights), rel=1e-4)
    assert held.optimizer == pytest.approx(2 * weights, rel=1e-4)


def test_an_update_in_the_backward_pass_holds_few_gradients(
    plans: dict[str, Plan], found: dict[str, Simulation]
) -> None:
    late, early = found["none"].bytes, found["early"].bytes
    assert early.gradients < 0.2 * late.gradients
    assert early.total < late.total
    assert early.optimizer == late.optimizer


def test_a_chunked_loss_never_holds_all_scores(cache: Path, found: dict[str, Simulation]) -> None:
    plan = _plan(*CHUNKED, layers=None)
    (each,) = simulate_all([plan], cache=cache)
    assert isinstance(each, Simulation)
    made = convert_plan(plan)
    assert not isinstance(made, str)
    # As plain it would be more than twice as much: 16 x 64 rows of 32,000 scores, of which 20 bytes each are held.
    assert each.bytes.total == pytest.approx(compute_step_costs(*made).bytes.total, rel=0.02)


def test_ddp_sends_each_gradient_to_all(plans: dict[str, Plan], found: dict[str, Simulation]) -> None:
    # 2 (n - 1) / n of fp32 gradients: once their bytes.
    weights = 4 * count_parameters(plans["none"].model.architecture).total
    assert found["ddp"].sent_bytes == pytest.approx(weights, rel=1e-3)
    assert found["none"].sent_bytes == 0


def test_fsdp_halves_the_states_and_gathers_layers_twice(found: dict[str, Simulation]) -> None:
    whole, sharded = found["none"].bytes, found["fsdp"].bytes
    assert (sharded.parameters, sharded.optimizer) == pytest.approx(
        (whole.parameters / 2, whole.optimizer / 2), rel=0.01
    )
    (rank,) = found["fsdp"].ranks
    counts = {
        kind: sum(each.count for each in rank.collectives if each.kind == kind)
        for kind in ("all_gather", "reduce_scatter")
    }
    # Two layers, each twice, and the rest once; every gradient is scattered once.
    assert counts == {"all_gather": 5, "reduce_scatter": 3}


@pytest.mark.parametrize("name", PLANS)
def test_the_formulas_agree(name: str, plans: dict[str, Plan], found: dict[str, Simulation]) -> None:
    told = convert_plan(plans[name])
    assert not isinstance(told, str)
    own, one = compute_step_costs(*told), found[name]
    assert own.flops == pytest.approx(one.flops, rel=0.03)
    assert sum(own.sent_bytes.values()) == pytest.approx(one.sent_bytes, rel=0.05, abs=4096)
    assert own.bytes.total == pytest.approx(one.bytes.total, rel=0.06)


def test_what_was_found_is_kept(plans: dict[str, Plan], found: dict[str, Simulation], cache: Path) -> None:
    again = simulate_all([plans["none"], plans["none"]], cache=cache)
    assert all(isinstance(each, Simulation) and each.cached for each in again)
    assert [each.ranks for each in again if isinstance(each, Simulation)] == [found["none"].ranks] * 2
    assert not [path.name for path in (cache / "simulations").iterdir() if path.suffix != ".json"]


def test_the_command_tells_which_engine_says_what(
    found: dict[str, Simulation], cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(cache))
    given = {"model": "mistral-tiny", "device": "cpu:1", "precision": "fp32", "batching": "pad"}
    given |= {"sequence": str(SEQUENCE), "micro-batch": str(MICRO_BATCH), "strategy": "none"}
    words = ["predict", *(f"--{name}={value}" for name, value in given.items())]
    assert main([*words, "--engine", "simulated", "--json"]) == 0
    simulated = json.loads(capsys.readouterr().out)
    assert main([*words, "--json"]) == 0
    analytic = json.loads(capsys.readouterr().out)
    assert (simulated["engine"], analytic["engine"]) == ("simulated", "analytic")
    assert simulated["cached"]
    assert simulated["engines"] == {"step_time_s": "analytic", **dict.fromkeys(
        ("flops", "communicated_bytes", "memory_bytes"), "simulated"
    )}  # fmt: skip
    assert simulated["step_time_s"] == analytic["step_time_s"]
    assert simulated["memory_bytes"] == sum(simulated["ranks"][0]["bytes"].values())
    assert simulated["flops"] == sum(simulated["ranks"][0]["flops_by_operator"].values())
    # The formulas add what the process holds besides tensors.
    assert simulated["memory_bytes"] < analytic["memory_bytes"]
    assert main([*words, "--engine", "simulated"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[-1].split(" | ")[1:3] == ["none", "0"]


def test_rows_are_not_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--rows", "a.csv", "--engine", "simulated"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "rows cannot be simulated" in err


def test_rings_send_what_is_not_their_own() -> None:
    sent = {
        kind: SimulatedCollective(kind=kind, payload_bytes=400, ranks=(0, 1, 2, 3), count=2).sent_bytes
        for kind in ("all_gather", "reduce_scatter", "all_reduce", "send", "receive")
    }
    assert sent == {"all_gather": 600, "reduce_scatter": 600, "all_reduce": 1200, "send": 800, "receive": 0}


def test_one_rank_of_each_stage_stands_for_the_others() -> None:
    axes = [StrategyAxis(strategy="pp", degree=2, options={}), StrategyAxis(strategy="tp", degree=4, options={})]
    deep = StrategyAxis(strategy="pp", degree=16, options={})
    known = Catalog().strategies()
    assert select_representative_ranks(axes, [known["pp"], known["tp"]]) == (0, 4)
    assert select_representative_ranks(axes[1:], [known["tp"]]) == (0,)
    assert select_representative_ranks([deep], [known["pp"]]) == (0, 1, 8, 15)


def _engines() -> ModuleType:
    spec = importlib.util.spec_from_file_location("engines", ROOT / "benchmarks/engines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.full
def test_the_engines_agree_over_random_plans(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(cache))
    engines = _engines()
    words, agreed = engines.table(engines.compare(engines.random_plans(24, seed=24)))
    assert agreed, words


_COMMAND = [sys.executable, "-m", "tunemark", "predict", "--engine=simulated", "--json", "--model=mistral-tiny",
            "--device=cpu:2", "--batching=pad", "--sequence=32"]  # fmt: skip


@pytest.mark.full
def test_a_tied_head_that_a_pipeline_copies_stays_frozen_beside_adapters(cache: Path) -> None:
    pytest.importorskip("peft", reason="adapters are put in by peft")
    plan = _plan("pp:2", 2, {"model": "gpt2-tiny", "method": "lora:r=4", "global_batch": 4}, layers=None)
    (one,) = simulate_all([plan], cache=cache)
    told = convert_plan(plan)
    assert isinstance(one, Simulation)
    assert not isinstance(told, str)
    # A head that trains takes half as much again.
    assert compute_step_costs(*told).flops == pytest.approx(one.flops, rel=0.01)
    assert sum(compute_step_costs(*told).sent_bytes.values()) == pytest.approx(one.sent_bytes, rel=0.01)


@pytest.mark.full
@pytest.mark.parametrize("method", ["lora:r=4", "lora:r=4:dora=true"])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_the_formulas_of_adapters_agree(method: str, checkpointing: str, cache: Path) -> None:
    pytest.importorskip("peft", reason="adapters are put in by peft")
    plan = _plan("none", 1, {"method": method, "checkpointing": checkpointing}, layers=None)
    (one,) = simulate_all([plan], cache=cache)
    told = convert_plan(plan)
    assert isinstance(one, Simulation)
    assert not isinstance(told, str)
    assert compute_step_costs(*told).flops == pytest.approx(one.flops, rel=1e-6)
    assert compute_step_costs(*told).bytes.total == pytest.approx(one.bytes.total, rel=0.005)


@pytest.mark.full
def test_two_who_simulate_the_same_at_once_find_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, "TUNEMARK_CACHE": str(tmp_path)}
    command = [*_COMMAND, "--strategy=ddp"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    one, two = (json.loads(process.communicate()[0]) for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert one["ranks"] == two["ranks"]
    assert len(list((tmp_path / "simulations").iterdir())) == 1


@pytest.mark.full
def test_an_interrupted_simulation_keeps_what_is_whole_and_nothing_else(tmp_path: Path) -> None:
    scratch, kept = tmp_path / "scratch", tmp_path / "cache" / "simulations"
    scratch.mkdir()
    environment = {**os.environ, "TUNEMARK_CACHE": str(tmp_path / "cache"), "TMPDIR": str(scratch)}
    command = [*_COMMAND, "--strategy=ddp,fsdp,tp,pp", "--global-batch=8"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while not list(scratch.glob("*/0.0.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    whole = [json.loads(path.read_text(encoding="utf-8")) for path in kept.iterdir()]
    assert 1 <= len(whole) < 4
    assert all("memory_bytes" in rank for ranks in whole for rank in ranks)
    assert not list(scratch.glob("tunemark-*"))
