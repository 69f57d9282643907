"""Which global batch strong and weak scaling ask of every size, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from tunemark.errors import BadExperiment
from tunemark.experiment import assign_scaling_batches, make_experiment, make_grid_points, make_plans
from tunemark.experiment.scaling_batches import ScalingMode
from tunemark.plugin import Catalog

_BASE = {"model": "mistral-tiny", "strategy": "ddp", "device": "cpu:1,2,4", "oversubscribe": True, "micro_batch": 2}


def batches(mode: ScalingMode, **settings: Any) -> tuple[dict[str, int], list[str]]:
    """The global batch of each strategy and size, and what was noticed."""
    catalog = Catalog()
    chosen, notes = assign_scaling_batches(make_grid_points(make_experiment({**_BASE, **settings})), catalog, mode)
    plans = make_plans(chosen, catalog)
    return {f"{p.spec.strategy} {p.accelerator.name}": p.spec.global_batch for p in plans}, notes


def test_strong_keeps_the_batch_that_is_given() -> None:
    assert batches("strong", global_batch=16)[0] == {"ddp 1": 16, "ddp 2": 16, "ddp 4": 16}


def test_strong_takes_the_least_batch_of_all_strategies_where_none_is_given() -> None:
    found, notes = batches("strong", strategy=["none", "ddp"], device="cpu:1,3", micro_batch=4)
    assert found == {"none 1": 12, "none 3": 12, "ddp 1": 12, "ddp 3": 12}
    assert any("keeps a global batch of 12" in note for note in notes)


def test_weak_grows_with_the_data_ranks() -> None:
    found, notes = batches("weak")
    assert found == {"ddp 1": 2, "ddp 2": 4, "ddp 4": 8}
    assert any("keeps a batch of 2 per data rank" in note for note in notes)


def test_weak_takes_a_given_batch_for_that_of_the_smallest_size_wherever_it_stands() -> None:
    found, notes = batches("weak", device="cpu:4,2", global_batch=12)
    # 12 on two data ranks are 6 each.
    assert found == {"ddp 4": 24, "ddp 2": 12}
    assert any("of ddp on cpu:2, which has 12 on 2 data ranks" in note for note in notes)


def test_a_pipeline_sets_the_batch_of_all_where_none_is_given() -> None:
    # Two stages need two micro-batches; ddp has two data ranks.
    strong, _ = batches("strong", strategy=["ddp", "pp"], device="cpu:1,2")
    weak, _ = batches("weak", strategy=["ddp", "pp"], device="cpu:1,2")
    assert set(strong.values()) == {4}
    assert weak == {"ddp 1": 4, "ddp 2": 8, "pp 1": 4, "pp 2": 4}


def test_weak_without_growing_data_ranks_is_said_to_be_strong() -> None:
    found, notes = batches("weak", strategy="none")
    assert found == {"none 1": 2, "none 2": 2, "none 4": 2}
    assert any("weak scaling equals strong scaling" in note for note in notes)


def test_a_batch_that_some_size_cannot_take_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadExperiment) as refused:
        batches("strong", global_batch=12)
    # cpu:4 needs multiples of 8; a micro-batch of 1 would need multiples of 4.
    assert refused.value.what == "a global batch of 12 cannot be kept at every size"
    assert "ddp on cpu:4 needs multiples of 2 x 4" in refused.value.why
    assert refused.value.next == "--global-batch 8 or 16, or --micro-batch 1"


def test_a_batch_that_no_micro_batch_divides_has_larger_ones_alone() -> None:
    with pytest.raises(BadExperiment) as refused:
        batches("strong", global_batch=3)
    assert refused.value.next == "--global-batch 8"


def test_a_search_takes_any_batch() -> None:
    strong, _ = batches("strong", strategy="auto", global_batch=6)
    assert list(strong.values()) == [6, 6, 6]
    weak, notes = batches("weak", strategy="auto", global_batch=3)
    assert list(weak.values()) == [3, 6, 12]
    assert any("keeps a batch of 3 per rank" in note for note in notes)


def test_a_weak_batch_that_the_smallest_size_cannot_take_is_refused() -> None:
    with pytest.raises(BadExperiment, match="does not fit the smallest size") as refused:
        batches("weak", device="cpu:2,4", global_batch=10)
    assert refused.value.next == "--global-batch 8 or 12"


@pytest.mark.parametrize("device", ["cpu:2", "cpu", "cpu:2,2"])
def test_one_size_is_no_scaling(device: str) -> None:
    with pytest.raises(BadExperiment, match="two sizes or more") as refused:
        batches("strong", device=device)
    assert "--device cpu:1,2" in refused.value.next


def test_axes_make_groups_of_their_own() -> None:
    found, _ = batches("weak", device="cpu:1,2", micro_batch=[2, 4], strategy="ddp")
    assert len(found) == 2  # the later micro-batch has the same names
    catalog = Catalog()
    settings = {**_BASE, "device": "cpu:1,2", "micro_batch": [2, 4]}
    plans = make_plans(assign_scaling_batches(make_grid_points(make_experiment(settings)), catalog, "weak")[0], catalog)
    assert [(p.spec.micro_batch, p.spec.global_batch) for p in plans] == [(2, 2), (2, 4), (4, 4), (4, 8)]
