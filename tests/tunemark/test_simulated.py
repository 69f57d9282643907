"""Steps without data against arithmetic done by hand: one step of the smallest model in each of three layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunemark.experiment import make_experiment, points, resolve
from tunemark.experiment.plan import Plan
from tunemark.physics import parameters
from tunemark.plugin import Axis, Catalog
from tunemark.predict.simulated import Collective, Simulation, kinds_of_ranks, simulate, simulate_all

LAYOUTS = {"none": 1, "ddp": 2, "fsdp": 2}


def _plan(strategy: str, size: int) -> Plan:
    flags = {
        "model": "mistral-tiny",
        "device": f"cpu:{size}",
        "strategy": strategy,
        "precision": "fp32",
        "sequence": 64,
    }
    flags.update(micro_batch=2, batching="pad", oversubscribe=True)
    (point,) = points(make_experiment(flags))
    return resolve(point, Catalog())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache: Path) -> dict[str, Simulation]:
    done = simulate_all([_plan(*item) for item in LAYOUTS.items()], cache=cache)
    return {name: each for name, each in zip(LAYOUTS, done, strict=True) if isinstance(each, Simulation)}


def test_flops_are_those_that_the_physics_counts(found: dict[str, Simulation]) -> None:
    plan = _plan("none", 1)
    assert found["none"].flops == pytest.approx(plan.flops_per_token * 2 * 64, rel=1e-6)


def test_states_of_adam_are_two_of_each_parameter(found: dict[str, Simulation]) -> None:
    weights = 4 * parameters(_plan("none", 1).model.architecture).total
    held = found["none"].bytes
    assert (held.parameters, held.gradients) == pytest.approx((weights, weights), rel=1e-4)
    assert held.optimizer == pytest.approx(2 * weights, rel=1e-4)


def test_ddp_sends_each_gradient_to_all(found: dict[str, Simulation]) -> None:
    # 2 (n - 1) / n of fp32 gradients: once their bytes.
    weights = 4 * parameters(_plan("none", 1).model.architecture).total
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
    # Four layers, each twice, and the rest once; every gradient is scattered once.
    assert counts == {"all_gather": 9, "reduce_scatter": 5}


def test_what_was_found_is_kept(found: dict[str, Simulation], cache: Path) -> None:
    again = simulate(_plan("none", 1), cache=cache)
    assert again.cached
    assert again.ranks == found["none"].ranks


def test_rings_send_what_is_not_their_own() -> None:
    sent = {
        kind: Collective(kind=kind, payload_bytes=400, ranks=(0, 1, 2, 3), count=2).sent_bytes
        for kind in ("all_gather", "reduce_scatter", "all_reduce", "send", "receive")
    }
    assert sent == {"all_gather": 600, "reduce_scatter": 600, "all_reduce": 1200, "send": 800, "receive": 0}


def test_one_rank_of_each_stage_stands_for_the_others() -> None:
    axes = [Axis(strategy="pp", degree=2, options={}), Axis(strategy="tp", degree=4, options={})]
    assert kinds_of_ranks(axes) == (0, 4)
    assert kinds_of_ranks(axes[1:]) == (0,)
    assert kinds_of_ranks([Axis(strategy="pp", degree=16, options={})]) == (0, 1, 8, 15)
