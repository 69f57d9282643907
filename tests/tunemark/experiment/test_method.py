"""Methods by name: what is written, what is refused, and what the plan makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tunemark.errors import BadExperiment
from tunemark.experiment.finetuning_method import parse_method
from tunemark.physics import lora_trained_weights, memory_floor_bytes, train_flops_per_token
from tunemark_models.plugin import tunemark_models

MODELS = {model.name: model for model in tunemark_models()}


def test_what_is_left_out_is_written_out() -> None:
    assert str(parse_method("full")) == "full"
    assert str(parse_method("lora")) == "lora:alpha=32:r=16:targets=all-linear"
    assert parse_method("lora:targets=all-linear:alpha=32:r=16") == parse_method("lora")
    # What runs were called before there were variants still names the same run.
    assert str(parse_method("lora:dora=false:rslora=false")) == str(parse_method("lora"))
    both = "lora:alpha=32:dora=true:r=16:rslora=true:targets=all-linear"
    assert str(parse_method("lora:rslora=true:dora=true")) == str(parse_method(both)) == both
    assert str(parse_method("lora:r=4:targets=v_proj+q_proj")) == "lora:alpha=32:r=4:targets=v_proj+q_proj"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("qlora:dora=true", "the method 'qlora' has no option 'dora'"),
        ("qora", "did you mean 'qlora'"),
        ("full:r=4", "the method 'full' has no option 'r'"),
        ("lora:rank=4", "the method 'lora' has no option 'rank'"),
        ("lora:r=0", "r cannot be '0'"),
        ("lora:r=1.5", "r cannot be '1.5'"),
        ("lora:r", "method cannot be 'lora:r'"),
        ("lora:targets=q_proj+", "targets cannot be 'q_proj+'"),
        ("lora:targets=all-linear+q_proj", "targets cannot be"),
        ("dora", "--method lora:dora=true"),
        ("rslora", "--method lora:rslora=true"),
        ("lora:dora=yes", "dora=true, or leave it out"),
        ("full:dora=true", "the method 'full' has no option 'dora'"),
    ],
)
def test_what_is_no_method_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadExperiment, match=re.escape(says)):
        parse_method(text)


def test_matrices_have_the_names_of_the_model_s_own_module() -> None:
    names = {name: parse_method("lora").names(MODELS[f"{name}-tiny"].architecture) for name in ("phi-3", "gpt2")}
    assert names == {
        "phi-3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
        "gpt2": ("c_attn", "c_proj", "c_fc"),
    }
    # An adapter would stand beside each expert's matrices, which are one tensor.
    assert "up_proj" not in parse_method("lora").names(MODELS["mixtral-tiny"].architecture)
    with pytest.raises(BadExperiment, match="it has qkv_proj, o_proj"):
        parse_method("lora:targets=q_proj").names(MODELS["phi-3-tiny"].architecture)


def test_a_plan_follows_the_method(tunemark: Callable[..., Any]) -> None:
    words = ["--model", "llama-3-8b", "--dataset", "synthetic", "--sequence", "2048", "--device", "cpu:1"]
    done = tunemark("plan", *words, "--method", "full,lora:r=8:targets=q_proj+v_proj", "--precision", "bf16", "--json")
    assert done.returncode == 0, done.stderr
    full, adapted = (json.loads(line) for line in done.stdout.splitlines())
    assert full["parameters"] == full["trainable_parameters"] == 8_030_261_248
    # Rank 8 beside 32 layers' queries (4096 to 4096) and values (4096 to 1024): 8 x 32 x (8192 + 5120).
    assert adapted["trainable_parameters"] == 8 * 32 * (8192 + 5120)
    assert adapted["parameters"] == 8_030_261_248 + adapted["trainable_parameters"]
    a = MODELS["llama-3-8b"].architecture
    assert adapted["flops_per_token"] == train_flops_per_token(
        a, 2048, trained=lora_trained_weights(8, ("q_proj", "v_proj"))
    )
    assert 0.6 < adapted["flops_per_token"] / full["flops_per_token"] < 0.72
    # bf16 weights of all, and of the adapters also gradients and two moments.
    trained = adapted["trainable_parameters"]
    assert adapted["memory_floor_bytes"] == 2 * (8_030_261_248 + trained) + 6 * trained
    assert adapted["memory_floor_bytes"] == memory_floor_bytes(adapted["parameters"], "bf16", "adamw", trained)
    assert adapted["run_id"] != full["run_id"]
    wanted = "lora:r=8:targets=q_proj+v_proj"
    many = tunemark("plan", *words, "--method", f"{wanted}:dora=true,{wanted}:rslora=true", "--precision", "bf16",
                    "--micro-batch", "2", "--global-batch", "8", "--checkpointing", "none,full", "--json")  # fmt: skip
    assert many.returncode == 0, many.stderr
    dora, dora_again, scaled, again = (json.loads(line) for line in many.stdout.splitlines())
    # Queries have 4096 outputs, values 1024. The scale costs nothing.
    assert dora["trainable_parameters"] == trained + 32 * 5120
    assert dora["memory_floor_bytes"] == adapted["memory_floor_bytes"] + 8 * 32 * 5120
    assert scaled["flops_per_token"] == adapted["flops_per_token"] == scaled["hardware_flops_per_token"]
    # Once for each update of 8 x 2048 tokens; in each pass of 2 x 2048 as peft does it, of layers computed again twice.
    assert dora["flops_per_token"] - adapted["flops_per_token"] == pytest.approx(
        2 * 8 * 32 * 4096 * 5120 / (8 * 2048), rel=1e-3
    )
    spent = 2 * 8 * 32 * 4096 * (8192 + 5120) / (2 * 2048)
    assert dora["hardware_flops_per_token"] - adapted["flops_per_token"] == pytest.approx(spent, rel=1e-3)
    assert dora_again["hardware_flops_per_token"] - again["hardware_flops_per_token"] == pytest.approx(
        2 * spent, rel=1e-3
    )
    refused = tunemark("plan", *words, "--method", "lora:targets=qkv_proj")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "flag --method" in refused.stderr
    assert "llama has no matrix 'qkv_proj'" in refused.stderr


def test_a_quantized_base_costs_4_bits_and_their_scales(tunemark: Callable[..., Any]) -> None:
    a = MODELS["llama-3-8b"].architecture
    plain, few = parse_method("lora:r=8"), parse_method("qlora:r=8")
    assert str(few) == "qlora:alpha=32:r=8:targets=all-linear"
    assert (few.parameters(a), few.trained(a)) == (plain.parameters(a), plain.trained(a))
    assert few.requires == ("peft", "bitsandbytes")
    # 32 layers of 4096 x (4096 + 1024 + 1024 + 4096) and three of 4096 x 14336.
    matrices = 32 * (4096 * 10240 + 3 * 4096 * 14336)
    assert few.quantized_parameters(a) == matrices
    assert plain.quantized_parameters(a) == 0
    # Only some are adapted, and all are in 4 bits.
    some = parse_method("qlora:targets=q_proj")
    assert some.quantized_parameters(a) == matrices
    assert some.options(a)["targets"] == ["q_proj"]
    assert set(some.options(a)["quantized"]) == set(plain.names(a))
    words = ["--model", "llama-3-8b", "--dataset", "synthetic", "--device", "cpu:1", "--precision", "bf16", "--json"]
    done = tunemark("plan", *words, "--method", "lora:r=8,qlora:r=8")
    assert done.returncode == 0, done.stderr
    lora, qlora = (json.loads(line) for line in done.stdout.splitlines())
    assert qlora["flops_per_token"] == lora["flops_per_token"]
    # Dettmers et al. 2023, section 3: 4 bits, and 0.127 for the scales of scales.
    saved = lora["memory_floor_bytes"] - qlora["memory_floor_bytes"]
    assert saved == pytest.approx(matrices * (16 - 4.127) / 8, rel=1e-4)
    with pytest.raises(ValueError, match="cannot be quantized"):
        memory_floor_bytes(10, "bf16", "adamw", 4, 7)
