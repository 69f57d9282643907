"""What `auto` attention is, and which attention, loss, update, compilation and allocator are refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tunemark
from tunemark.errors import BadExperiment
from tunemark.predict.plan_prediction import predict_plan
from tunemark.results.store import make_identity
from tunemark.runner.verification import _plain_kernels
from tunemark_torch.cpu_allocator import allocator_environment

_BASE: dict[str, Any] = {"model": "mistral-tiny", "dataset": "synthetic", "device": "cpu:1", "sequence": 64}


@pytest.mark.parametrize(
    ("settings", "attention"),
    [
        ({}, "varlen"),
        ({"batching": "pad"}, "auto"),
        ({"model": "gemma-2-tiny"}, "varlen"),
        ({"attention": "eager"}, "eager"),
        # Another program's loop says only by positions where documents begin.
        ({"trainer": "hf"}, "auto"),
        ({"device": "cuda:1", "oversubscribe": True}, "auto"),
    ],
)
def test_auto_attention_is_by_documents_where_that_is_known_to_be_faster(
    settings: dict[str, Any], attention: str
) -> None:
    (plan,) = tunemark.plan(**{**_BASE, **settings})
    assert plan.spec.attention == attention


_CUDA = {"device": "cuda:1", "oversubscribe": True}
_TWO = {"device": "cpu:2", "oversubscribe": True}
_EIGHT = {"optimizer": "adamw-8bit"}
_FLOAT8 = {"precision": "fp8"}
_EARLY = {"update": "in-backward", "clip_norm": 0.0}
_HOST = {"activations": "host"}
_B200 = {**_CUDA, "chip": "B200", "chips": 1}
_H100 = {**_CUDA, "chip": "H100", "chips": 1}


@pytest.mark.parametrize(
    ("settings", "what", "next"),
    [
        ({"attention": "flash"}, "cpu cannot compute attention by flash", "varlen"),
        ({"attention": "flex"}, "cpu cannot compute attention by flex", "varlen"),
        ({"attention": "sdpa", "model": "gemma-2-tiny"}, "gemma-2-tiny cannot compute attention by sdpa", "eager"),
        ({**_CUDA, "attention": "flash", "precision": "fp32"}, "cuda cannot compute attention by flash", "sdpa"),
        ({**_CUDA, "attention": "varlen"}, "cuda cannot compute attention by varlen", "flash"),
        ({"loss": "fused"}, "the loss cannot be fused", "--loss chunked"),
        ({"loss": "chunked", "device": "cpu:2", "oversubscribe": True, "strategy": "tp"}, "the loss", "fsdp"),
        (
            {"compile": "full", "device": "cpu:2", "oversubscribe": True, "strategy": "fsdp"},
            "compiled",
            "--compile off",
        ),
        ({"batching": "bucket", "compile": "regional"}, "compiled", "--compile off"),
        ({"batching": "bucket", **_TWO, "strategy": "pp", "global_batch": 8}, "'pp' cannot train", "--batching pack"),
        ({"optimizer": "adafactor", "optimizer_impl": "fused"}, "adafactor cannot be fused", "foreach"),
        ({**_EIGHT, "optimizer_impl": "fused"}, "adamw-8bit has no implementation fused", "--optimizer-impl auto"),
        ({**_EIGHT, **_TWO, "strategy": "fsdp"}, "adamw-8bit cannot update", "--strategy none or ddp"),
        ({**_EIGHT, **_TWO, "strategy": "tp"}, "adamw-8bit cannot update", "--optimizer adamw"),
        ({"method": "qlora", **_TWO, "strategy": "fsdp"}, "fsdp", "--method lora"),
        ({"method": "qlora", **_TWO, "strategy": "pp"}, "pp", "--method lora"),
        ({"method": "qlora", "compile": "regional"}, "qlora cannot train like this", "--compile off, or --method lora"),
        ({"method": "qlora", "save": "tuned"}, "qlora cannot train like this", "leave out --save"),
        ({**_FLOAT8, "device": "cpu:1"}, "precision fp8 cannot", "--precision bf16-autocast"),
        ({**_CUDA, **_FLOAT8}, "precision fp8 cannot", "--chip H100"),
        ({**_CUDA, **_FLOAT8, "chip": "A100", "chips": 1}, "precision fp8 cannot", "--precision bf16-autocast"),
        ({**_H100, **_FLOAT8, "model": "mixtral-tiny"}, "precision fp8 cannot", "--precision bf16-autocast"),
        ({**_H100, **_FLOAT8, "model": "gpt2-tiny"}, "precision fp8 cannot", "--precision bf16-autocast"),
        ({**_H100, **_FLOAT8, "method": "lora"}, "precision fp8 cannot", "--method full"),
        ({**_H100, **_FLOAT8, "sequence": 63, "micro_batch": 1}, "precision fp8 cannot", "--precision bf16-autocast"),
        ({**_H100, **_FLOAT8, "device": "cuda:2", "chips": 2, "strategy": "tp"}, "tp", "ddp or fsdp"),
        ({**_H100, "precision": "mxfp8"}, "precision mxfp8 cannot", "--precision fp8"),
        ({"precision": "mxfp8"}, "precision mxfp8 cannot", "--precision bf16-autocast"),
        ({**_B200, "precision": "mxfp8", "sequence": 16, "micro_batch": 1}, "mxfp8 cannot", "--precision bf16"),
        ({**_EARLY, **_EIGHT}, "updated in the backward pass", "--optimizer adamw"),
        ({**_EARLY, "clip_norm": 1.0}, "updated in the backward pass", "--clip-norm 0"),
        ({**_EARLY, "micro_batch": 2, "global_batch": 4}, "updated in the backward pass", "--global-batch 2"),
        ({**_EARLY, **_TWO, "strategy": "ddp"}, "updated in the backward pass", "--strategy none"),
        ({**_EARLY, **_TWO, "strategy": "auto"}, "updated in the backward pass", "--strategy none"),
        ({**_EARLY, "device": "xla:1", "oversubscribe": True}, "updated in the backward pass", "--update at-end"),
        ({**_EARLY, "trainer": "hf"}, "'hf' does not take --update", "--update at-end"),
        ({**_CUDA, "allocator": "jemalloc"}, "cuda has no allocator jemalloc", "expandable or cuda-async"),
        ({**_CUDA, "device": "rocm:1", "allocator": "cuda-async"}, "rocm has no allocator cuda-async", "expandable"),
        ({"allocator": "expandable"}, "expandable is no allocator of host memory", "--allocator tuned"),
        ({"device": "xla:1", "oversubscribe": True, "allocator": "system"}, "xla does not choose", "--allocator tuned"),
        (_HOST, "activations cannot wait in host memory", "--activations device"),
        ({**_HOST, **_CUDA, "checkpointing": "full"}, "activations cannot wait", "--checkpointing none"),
        ({**_HOST, **_CUDA, "compile": "regional"}, "activations cannot wait", "--compile off"),
        ({**_HOST, **_CUDA, "device": "cuda:2", "strategy": "fsdp"}, "activations cannot wait", "--strategy none"),
        ({**_HOST, **_CUDA, "trainer": "hf"}, "'hf' does not take --activations", "--activations device"),
        ({**_CUDA, "thread_binding": "thread"}, "threads cannot each have a core", "--thread-binding process"),
        ({"device": "cpu:64", "oversubscribe": True, "thread_binding": "thread"}, "threads cannot each", "process"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_on(settings: dict[str, Any], what: str, next: str) -> None:
    with pytest.raises(BadExperiment) as refused:
        tunemark.plan(**{**_BASE, **settings})
    assert what in refused.value.what
    assert next in refused.value.next


@pytest.mark.parametrize(
    ("name", "value"), [("expandable", "expandable_segments:True"), ("cuda-async", "backend:cudaMallocAsync")]
)
def test_the_allocator_of_gpu_memory_is_a_variable_of_its_jobs(name: str, value: str) -> None:
    (plan,) = tunemark.plan(**{**_BASE, **_CUDA, "allocator": name})
    assert plan.launch.environment["PYTORCH_CUDA_ALLOC_CONF"] == value
    (other,) = tunemark.plan(**{**_BASE, **_CUDA})
    assert "PYTORCH_CUDA_ALLOC_CONF" not in other.launch.environment
    assert plan.run_id != other.run_id


def test_activations_in_host_memory_leave_those_of_one_layer_on_the_device() -> None:
    from tunemark.predict import device_facts, predict
    from tunemark.predict.memory_model import predict_memory
    from tunemark.predict.plan_conversion import convert_plan

    settings = {**_BASE, **_H100, "model": "tinyllama-1.1b", "sequence": 2048, "micro_batch": 4}
    made = [convert_plan(plan) for plan in tunemark.plan(**{**settings, "activations": ["device", "host"]})]
    (work, all_here), (_, one_here) = [each for each in made if not isinstance(each, str)]
    facts = device_facts("H100")
    before, after = predict_memory(work, all_here, facts), predict_memory(work, one_here, facts)
    assert after.activations == pytest.approx(before.activations / 22)
    assert after.total == pytest.approx(before.total - 21 / 22 * before.activations)
    # Twice over the bus, which nothing hides.
    longer = predict(work, one_here, facts).step_time_s - predict(work, all_here, facts).step_time_s
    assert longer == pytest.approx(2 * 21 / 22 * before.activations / facts.bus_bytes_per_s, rel=0.1)


def test_a_tuned_run_is_held_to_a_plain_one_of_the_same_rows() -> None:
    (plan,) = tunemark.plan(**{**_BASE, "recipe": "tuned"})
    assert plan.recipe.startswith("tuned-cpu-")
    plain = {"attention": "sdpa", "loss": "plain", "optimizer_impl": "loop", "update": "at-end", "compile": "off"}
    plain["activations"] = "device"
    assert _plain_kernels(plan) == plain
    (gemma,) = tunemark.plan(**{**_BASE, "recipe": "tuned", "model": "gemma-2-tiny"})
    assert _plain_kernels(gemma)["attention"] == "eager"


def test_less_memory_is_predicted_where_scores_and_masks_do_not_exist() -> None:
    from tunemark.predict.plan_conversion import convert_plan
    from tunemark.predict.worker_step_costs import compute_step_costs

    def total(**settings: Any) -> float:
        (plan,) = tunemark.plan(**{**_BASE, "sequence": 2048, "micro_batch": 8, **settings})
        made = convert_plan(plan)
        assert not isinstance(made, str)
        return compute_step_costs(*made).bytes.total

    assert total(loss="chunked") < 0.8 * total(loss="plain")
    assert total() < total(attention="sdpa")
    # Gradients need memory of their own where little else is there, and the floor has none.
    few: dict[str, Any] = {"model": "tinyllama-1.1b", "sequence": 64, "micro_batch": 1, "clip_norm": 0.0}
    (late,), (early,) = (tunemark.plan(**{**_BASE, **few, "update": when}) for when in ("at-end", "in-backward"))
    assert late.memory_floor_bytes - early.memory_floor_bytes == 4 * late.trainable_parameters
    assert total(**few) - total(**few, update="in-backward") > 0.4 * 4 * late.trainable_parameters
    # A fused update takes no temporaries.
    assert total(**few, optimizer_impl="fused") < total(**few)
    # Two moments of a byte and a scale for 256, instead of 4 bytes each.
    (plan,) = tunemark.plan(**_BASE)
    saved = (8 - 2 * (1 + 1 / 64)) * plan.trainable_parameters
    assert total() - total(optimizer="adamw-8bit") == pytest.approx(saved, rel=1e-6)


def test_a_quantized_base_is_predicted_as_what_it_is_kept_in() -> None:
    from tunemark.predict.plan_conversion import make_plan_workload

    given = {**_BASE, "model": "llama-3-8b", "precision": "bf16"}
    (lora,), (qlora,) = (tunemark.plan(**{**given, "method": name}) for name in ("lora", "qlora"))
    plain, few = make_plan_workload(lora), make_plan_workload(qlora)
    assert (plain.stack.base_bits, few.stack.base_bits) == (0, 4)
    quantized = qlora.method.quantized_parameters(qlora.model.architecture)
    frozen = qlora.parameters - qlora.trainable_parameters
    assert few.stack.frozen_bytes * frozen == pytest.approx(4.127 / 8 * quantized + 2 * (frozen - quantized), rel=1e-5)
    # As `--base-bits 4` for another trainer.
    (other,) = tunemark.plan(**{**given, "method": "qlora", "framework": "hf"})
    (said,) = tunemark.plan(**{**given, "method": "lora", "framework": "hf", "base_bits": 4})
    assert make_plan_workload(other).stack == make_plan_workload(said).stack


def test_products_scaled_by_blocks_are_planned_where_the_chip_has_them() -> None:
    (plan,) = tunemark.plan(**{**_BASE, **_B200, "precision": "mxfp8"})
    needed = {need.module: need.minimum for need in plan.version_needs if "mxfp8" in need.what}
    assert needed == {"torchao": "0.13", "torch": "2.9"}
    assert make_identity(plan).peak_flops == make_identity(plan.with_spec(precision="fp8")).peak_flops


@pytest.mark.parametrize("precision", ["fp8", "fp8-rowwise"])
def test_products_in_fp8_are_held_to_that_peak(precision: str) -> None:
    given = {**_BASE, **_H100, "model": "llama-3-8b", "sequence": 2048}
    (half,), (few,) = (tunemark.plan(**{**given, "precision": name}) for name in ("bf16-autocast", precision))
    # The same weights in the same format, and twice the rate of products.
    assert few.memory_floor_bytes == half.memory_floor_bytes
    assert few.flops_per_token == half.flops_per_token
    peaks = [make_identity(each).peak_flops for each in (half, few)]
    assert peaks == [989.4e12, 1978.9e12]
    assert "torchao" in few.requires
    assert {need.module for need in few.version_needs if need.setting == "--precision"} == {"torchao", "torch"}
    seconds = []
    for each in (half, few):
        told = predict_plan(each)
        assert not isinstance(told, str), told
        seconds.append(told.predicted.seconds.compute)
    assert seconds[1] < seconds[0]


def test_an_optimizer_in_eight_bits_needs_its_package_in_the_version_of_the_device() -> None:
    for device, minimum in (({}, "0.50"), (_CUDA, "0.44")):
        (plan,) = tunemark.plan(**{**_BASE, **device, "optimizer": "adamw-8bit"})
        assert "bitsandbytes" in plan.requires
        needs = [need for need in plan.version_needs if need.module == "bitsandbytes"]
        assert [(need.setting, need.minimum) for need in needs] == [("--optimizer", minimum)]
    (plain,) = tunemark.plan(**_BASE)
    assert "bitsandbytes" not in plain.requires


def test_an_allocator_is_looked_for_where_libraries_are(tmp_path: Path) -> None:
    with pytest.raises(BadExperiment, match="no jemalloc"):
        allocator_environment("jemalloc", tmp_path)
    library = tmp_path / "usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
    library.parent.mkdir(parents=True)
    library.touch()
    assert allocator_environment("jemalloc", tmp_path)["LD_PRELOAD"] == str(library)
    assert allocator_environment("system", tmp_path) == {"GLIBC_TUNABLES": ""}
