"""The cost model against arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunemark.physics import make_architecture, train_flops_per_token
from tunemark.plugin import Catalog
from tunemark.predict import DeviceFacts, Efficiency, RankLayout, Workload, find_layout_error, predict, predict_memory
from tunemark.predict.hardware_rates import collective_seconds
from tunemark.predict.layout import MEGATRON, TORCH
from tunemark.predict.memory_model import layer_activation_bytes
from tunemark.predict.worker_step_costs import compute_step_costs

_MODEL = make_architecture(
    layers=32, hidden=4096, intermediate=14336, is_gated=True, heads=32, kv_heads=8, vocab=32000, sequence=2048
)
_DEVICE = DeviceFacts(
    name="a chip", kind="chip", peak_flops={"bf16": 1e15}, memory_bytes=80e9, bandwidth_bytes_per_s=3e12, node=8,
    intra_bytes_per_s=400e9, inter_bytes_per_s=50e9, intra_s=0.0, inter_s=0.0,
    efficiency=Efficiency(intra=1.0, inter=1.0),
)  # fmt: skip
_WORK = Workload(architecture=_MODEL, sequence=2048, global_batch=64)


def test_flops_are_those_that_the_physics_counts() -> None:
    counted = train_flops_per_token(_MODEL, 2048) * 64 * 2048
    assert predict(_WORK, RankLayout(micro_batch=1), _DEVICE).flops == pytest.approx(counted, rel=0.01)


def test_tensor_ranks_divide_the_work() -> None:
    one, eight = (predict(_WORK, RankLayout(tensor=t), _DEVICE).flops for t in (1, 8))
    assert eight == pytest.approx(one / 8, rel=1e-6)


def test_an_all_reduce_passes_its_payload_twice() -> None:
    # 7/8 of 400 GB by 400 GB/s is 0.875 s to gather, twice that to reduce to all.
    seconds = [
        collective_seconds(_DEVICE, size=8, stride=1, payload_bytes=400e9, kind=k) for k in ("gather", "all_reduce")
    ]
    assert seconds == pytest.approx([0.875, 1.75])


def test_ranks_of_one_node_share_its_links_outwards() -> None:
    # Stride 4: two ranks of each node, 2 x 50 GB/s. 15/16 of 100 GB then take 0.9375 s.
    assert collective_seconds(_DEVICE, size=16, stride=4, payload_bytes=100e9) == pytest.approx(0.9375, rel=1e-3)


def test_a_pipeline_of_four_waits_three_micro_batches() -> None:
    # (p - 1) / m = 3 / 64 of the stages' work, about: the ends are not equal.
    found = predict(_WORK, RankLayout(pipeline=4), _DEVICE).seconds
    assert found.bubble / found.compute == pytest.approx(3 / 64, rel=0.1)


def test_fully_sharded_states_are_divided_by_the_ranks() -> None:
    whole, sharded = (
        predict_memory(_WORK, layout, _DEVICE) for layout in (RankLayout(), RankLayout(data=8, shard=8, zero=3))
    )
    assert (sharded.parameters, sharded.optimizer) == pytest.approx((whole.parameters / 8, whole.optimizer / 8))


def test_what_cannot_be_laid_out_says_why() -> None:
    assert find_layout_error(_WORK, RankLayout(tensor=24)) == "24 tensor ranks do not divide 32 heads"
    assert find_layout_error(_WORK, RankLayout(tensor=8)) is None


def test_a_processor_that_launches_its_own_kernels_takes_the_sum_of_both() -> None:
    # 10 ms an operation: 30 of a layer forward, 60 backward, 32 layers, 64 micro-batches, and the ends' 20 + 40 twice.
    slow = replace(_DEVICE.efficiency, host_s=1e-2, host_order=1.0)
    quick = replace(slow, host_s=0.0)
    more, less = (predict(_WORK, RankLayout(), replace(_DEVICE, efficiency=e)).seconds.compute for e in (slow, quick))
    assert more - less == pytest.approx(64 * (32 * 90 + 2 * 60) * 1e-2, rel=0.01)


def test_a_traced_model_keeps_what_its_own_layers_keep() -> None:
    a = Catalog().model("falcon-h1-tiny").architecture
    assert a.traced is not None
    # Layers of one kind; 1000 bytes a token and 3 for each pair of tokens in 16 bits, twice that in 32.
    kinds = tuple(replace(kind, kept=((1000.0, 3.0), (2000.0, 6.0))) for kind in a.traced.kinds)
    a = replace(a, traced=replace(a.traced, kinds=kinds))
    work = replace(_WORK, architecture=a, sequence=64)
    layout = RankLayout()
    narrow, wide = (layer_activation_bytes(replace(work, precision=p), layout, 128.0) for p in ("bf16", "fp32"))
    scores = 0.0 if work.stack.flash_attention else 128.0 * 3.0 * 64
    assert narrow == pytest.approx(128.0 * 1000 + scores)
    assert wide == 2 * narrow
    without = replace(work, stack=replace(work.stack, flash_attention=not work.stack.flash_attention), precision="bf16")
    assert abs(layer_activation_bytes(without, layout, 128.0) - narrow) == pytest.approx(128.0 * 3.0 * 64)


def test_memory_is_that_of_the_stage_that_holds_most() -> None:
    work = replace(_WORK, stack=MEGATRON)
    plain = RankLayout(data=2, pipeline=4)
    each = [predict_memory(work, plain, _DEVICE, stage=stage) for stage in range(4)]
    # Stage i of 1F1B holds p - i micro-batches; the last one's logits come on top.
    layers = [held.activations for held in each]
    assert layers[1] == pytest.approx(3 * layers[3])
    assert predict_memory(work, plain, _DEVICE) == max(each, key=lambda held: held.total) == each[0]
    # Interleaved over v chunks, p + (p - 1 - 2 i) / v micro-batches of a stage's layers.
    woven = RankLayout(data=2, pipeline=4, virtual=2, schedule="interleaved")
    last = predict_memory(work, woven, _DEVICE, stage=3).activations
    assert last == pytest.approx(2.5 * layers[3])


def test_a_heap_of_the_host_takes_more_than_its_blocks() -> None:
    work, layout = replace(_WORK, stack=replace(TORCH, own="bf16-autocast")), RankLayout(micro_batch=2)
    tensors = compute_step_costs(work, layout).bytes.total
    host = replace(_DEVICE, workspace_bytes=1e9, heap_share=0.05)
    assert predict_memory(work, layout, host).total == pytest.approx(1e9 + 1.05 * tensors)
    # Tensors of scores that find no place: 6 bytes for each of 2 x 2048 x 32,000; none where scores never are whole.
    kept = replace(host, keeps_blocks=True)
    assert predict_memory(work, layout, kept).total == pytest.approx(1e9 + 1.05 * (tensors + 6 * 4096 * 32000))
    chunked = replace(work, loss="chunked")
    assert predict_memory(chunked, layout, kept) == predict_memory(chunked, layout, host)
