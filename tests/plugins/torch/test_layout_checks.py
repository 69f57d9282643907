"""Products of strategies: how they are written, what degrees follow from a size, and what the plan refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tunemark.errors import TunemarkError
from tunemark.experiment import Plan, make_experiment, make_grid_points, make_plan
from tunemark.experiment.mesh_layout import parse_strategy_terms
from tunemark.plugin import Catalog, StrategyAxis
from tunemark.plugin.traced_model import TracedLayer
from tunemark_torch.layout_checks import MULTI_STAGE_SCHEDULES, SCHEDULES, refusal

CATALOG = Catalog()


def _plan(strategy: str, size: int = 4, **flags: Any) -> Plan:
    """Of a model of 4 layers, 4 heads and an MLP of 344."""
    chosen = {"model": "llama-2-tiny", "device": f"cpu:{size}", "strategy": strategy, "sequence": 64, "micro_batch": 2}
    (point,) = make_grid_points(make_experiment({**chosen, "oversubscribe": True, **flags}))
    return make_plan(point, CATALOG)


def _refused(strategy: str, size: int = 4, **flags: Any) -> str:
    with pytest.raises(TunemarkError) as caught:
        _plan(strategy, size, **flags)
    assert "strategy" in str(caught.value)
    return str(caught.value)


def test_a_product_is_written_with_degrees_and_options() -> None:
    found = parse_strategy_terms("fsdp:4:reshard=false+tp:2:sequence_parallel=true")
    assert [(f.name, f.degree, f.options) for f in found] == [
        ("fsdp", 4, {"reshard": "false"}),
        ("tp", 2, {"sequence_parallel": "true"}),
    ]
    assert parse_strategy_terms("auto:limit=1e+5")[0].options == {"limit": "1e+5"}
    for wrong in ("tp:0", "tp:2:2", "fsdp:reshard=false:4", "fsdp++tp", "fsdp+"):
        with pytest.raises(ValueError, match=r"degree|option|name"):
            parse_strategy_terms(wrong)


@pytest.mark.parametrize(
    ("written", "size", "name", "degrees", "data_ranks"),
    [
        ("fsdp", 4, "fsdp", [4], 4),
        ("fsdp:4", 4, "fsdp", [4], 4),
        ("fsdp+tp:2", 4, "fsdp:2+tp:2", [2, 2], 2),
        ("tp+pp:2", 4, "tp:2+pp:2", [2, 2], 1),
        ("ddp:2+fsdp:2:reshard=false+tp", 8, "ddp:2+fsdp:2:reshard=false+tp:2", [2, 2, 2], 4),
        ("tp", 1, "tp", [1], 1),
    ],
)
def test_a_degree_that_is_left_out_follows_from_the_size(
    written: str, size: int, name: str, degrees: list[int], data_ranks: int
) -> None:
    plan = _plan(written, size)
    assert (plan.spec.strategy, [axis.degree for axis in plan.axes], plan.data_ranks) == (name, degrees, data_ranks)
    assert plan.launch.processes == size


def test_the_same_layout_is_the_same_run_however_it_is_written() -> None:
    assert _plan("fsdp+tp:2").run_id == _plan("fsdp:2+tp").run_id != _plan("tp:2+fsdp:2").run_id


def test_a_pipeline_is_full_unless_the_batch_is_given() -> None:
    assert _plan("pp", 2).gradient_accumulation == 2
    assert _plan("pp:2+fsdp:2").spec.global_batch == 2 * 2 * 2
    assert _plan("tp", 2).gradient_accumulation == 1
    assert _plan("pp:schedule=gpipe", 2, global_batch=2).gradient_accumulation == 1


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        ("fsdp+tp", "are missing"),
        ("fsdp:3+tp:2", "multiply to 6"),
        ("fsdp:3+tp", "multiply to 3"),
        ("tp:2", "multiply to 2"),
        ("none+tp", "'none' cannot be combined"),
        ("none:4", "takes no degree"),
        ("tp:2+tp:2", "twice"),
        ("fsdp:2+ddp:2", "write ddp before fsdp"),
        ("fsdp:reshard=maybe", "true or false"),
        ("tp:2:sequence_parallel=on+fsdp", "true or false"),
        ("fsdp:offload=true", "no option 'offload'"),
        ("pp:schedule=best", "no schedule 'best'"),
        ("pp:virtual=2", "option of the schedules"),
        ("pp:schedule=interleaved", "do not fill 8 stages"),
        ("pp:schedule=zbv:virtual=1", "exactly 2"),
        ("fsdp+teleport:2", "no strategy named 'teleport'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(strategy: str, why: str) -> None:
    assert why in _refused(strategy)


def test_numbers_that_do_not_divide_are_refused() -> None:
    assert "8 cannot divide 4 attention heads" in _refused("tp", 8)
    assert "2 key and value heads" in _refused("tp", 4, model="llama-3-tiny")
    assert "a sequence of 63" in _refused("tp:sequence_parallel=true", 2, sequence=63)
    assert "4 layers do not fill 8 stages" in _refused("pp", 8)
    assert "at least 2 micro-batches" in _refused("pp", 2, global_batch=2)
    assert "rounds, which must be equal" in _refused("pp:schedule=interleaved", 2, global_batch=10)
    assert "does not support adapters" in _refused("tp", 2, method="lora")


def test_the_schedules_of_the_plan_are_those_of_the_worker() -> None:
    from tunemark_torch.parallel.pipeline_parallel import SCHEDULES as OURS

    assert {name: several for name, (_, several) in OURS.items()} == {
        name: name in MULTI_STAGE_SCHEDULES for name in SCHEDULES
    }


@pytest.mark.parametrize(
    ("strategy", "flags", "torch"),
    [
        ("ddp", {}, None),
        ("ddp", {"precision": "bf16-autocast"}, None),
        ("ddp", {"precision": "bf16"}, "2.4"),
        ("tp:2+ddp:2", {}, "2.13"),
        ("ddp:2+fsdp:2", {}, "2.9"),
        ("tp", {"size": 2}, "2.4"),
        ("fsdp", {}, "2.9"),
        ("pp:schedule=zb", {"size": 2}, "2.9"),
        ("pp:schedule=zbv", {"size": 2, "global_batch": 8}, "2.13"),
        ("fsdp", {"device": "cuda:4"}, "2.6"),
        ("fsdp", {"device": "cuda:4", "precision": "bf16"}, "2.6"),
        ("ddp", {"device": "cuda:4", "precision": "bf16"}, None),
        ("pp:2+tp:2", {"device": "cuda:4"}, "2.13"),
        ("none", {"size": 1, "precision": "bf16"}, None),
    ],
)
def test_the_torch_that_a_layout_needs(strategy: str, flags: dict[str, Any], torch: str | None) -> None:
    plan = _plan(strategy, batching="pad", **flags)
    needs = [need.minimum for need in plan.version_needs if need.module == "torch"]
    assert set(needs) == ({torch} if torch else set())


def test_a_traced_model_is_divided_by_what_its_own_matrices_allow() -> None:
    a = CATALOG.model("smollm3-tiny").architecture
    assert a.traced is not None
    axis = _plan("tp", 2, model="smollm3-tiny").axes[0]
    settings = {"method": "full", "sequence": 64}

    def refused(kind: TracedLayer) -> str | None:
        assert a.traced is not None
        traced = replace(a.traced, kinds=(kind,) * len(a.traced.kinds))
        return refusal([axis], replace(a, traced=traced, intermediate_size=171), settings)

    (kind, *_) = a.traced.kinds
    # The average width of its MLP is no width that it has.
    assert refused(kind) is None
    odd = tuple(replace(m, outputs=171) if m.name == "up_proj" else m for m in kind.matrices)
    assert "tp:2 cannot divide mlp.up_proj of 171" in str(refused(replace(kind, matrices=odd)))
    unknown = tuple(replace(p, name=f"block.{p.name.replace('.', '_')}") for p in kind.parameters)
    assert "knows none of mlp." in str(refused(replace(kind, parameters=unknown)))
    around = replace(a.traced, ends_obstacle="Opus: which is the final norm?")
    assert "Opus: which" in str(refusal([axis], replace(a, traced=around), settings))


def test_layers_with_weights_in_common_are_not_sharded_each_by_itself() -> None:
    a = CATALOG.model("smollm3-tiny").architecture
    assert a.traced is not None
    shared = [replace(kind, matrices=tuple(replace(m, is_own=False) for m in kind.matrices)) for kind in a.traced.kinds]
    common = replace(a, traced=replace(a.traced, kinds=tuple(shared)))
    axes = {name: _plan(name, 2, model="smollm3-tiny").axes for name in ("fsdp", "ddp")}
    settings = {"method": "full", "sequence": 64}
    assert "in common: use ddp" in str(refusal(axes["fsdp"], common, settings))
    assert refusal(axes["ddp"], common, settings) is None


def test_code_that_adds_in_place_is_not_divided() -> None:
    (axis,) = _plan("tp", 2).axes
    a = replace(CATALOG.model("llama-2-tiny").architecture, model_type="falcon")
    assert "falcon's code adds in place" in str(refusal([axis], a, {"method": "full", "sequence": 64}))


def test_rows_of_many_widths_pass_no_stages_and_are_divided_evenly() -> None:
    grouped = {"batching": "bucket", "global_batch": 8}
    assert "hidden states of one shape" in _refused("pp:2+ddp:2", **grouped)
    for strategy in ("ddp", "fsdp", "tp:4:sequence_parallel=true", "fsdp:2+tp:2"):
        assert _plan(strategy, **grouped).spec.batching == "bucket"
    # Widths are multiples of 8, which 3 does not divide, though it divides the sequence and what the model has.
    a = replace(_plan("tp:4").model.architecture, num_attention_heads=6, num_key_value_heads=6, intermediate_size=48)
    axis = StrategyAxis(strategy="tp", degree=3, options={"sequence_parallel": "true"})
    settings = {"method": "full", "sequence": 96, "batching": "bucket"}
    assert "every multiple of 8 tokens" in str(refusal([axis], a, settings))
    assert refusal([axis], a, {**settings, "batching": "pad"}) is None
