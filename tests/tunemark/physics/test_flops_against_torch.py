"""Formulas against torch's own count of the FLOPs of real, small models: eager attention, all of it counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from tunemark.physics import (
    LORA_TARGETS,
    TrainedWeights,
    count_lora_parameters,
    count_parameters,
    hardware_flops_per_token,
    lora_trained_weights,
    train_flops_by_role,
    train_flops_per_token,
)
from tunemark.plugin import Architecture

# With transformers 5.23 all of them agree to the last FLOP. Other versions multiply for rotary angles, head_dim FLOPs
# a token of a million.
WITHIN = 0.0005

BATCH, SEQUENCE = 2, 48

LLAMA = Architecture(
    model_type="llama",
    vocab_size=199,
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
)
ARCHITECTURES = {
    "llama": LLAMA,
    "mistral": dataclasses.replace(LLAMA, model_type="mistral", sliding_window=64),
    "qwen2": dataclasses.replace(LLAMA, model_type="qwen2", qkv_bias=True),
    "qwen3": dataclasses.replace(LLAMA, model_type="qwen3", qk_norm="head", head_dim=32),
    "gemma2": dataclasses.replace(
        LLAMA,
        model_type="gemma2",
        head_dim=32,
        sliding_window=64,
        layer_types=("sliding_attention", "full_attention", "sliding_attention"),
        norms_per_layer=4,
        tie_word_embeddings=True,
    ),
    "gpt2": dataclasses.replace(
        LLAMA,
        model_type="gpt2",
        num_key_value_heads=4,
        rope_theta=None,
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        gated_mlp=False,
        norm_bias=True,
        learned_positions=True,
    ),
    "mixtral": dataclasses.replace(LLAMA, model_type="mixtral", num_local_experts=4, num_experts_per_tok=2),
}


def _build(a: Architecture) -> nn.Module:
    """transformers' model of `a`, from its own configuration class."""
    fields = {k: v for k, v in a.as_dict().items() if k not in ("model_type", "rope_theta")}
    if a.model_type == "gpt2":
        renamed = {"n_embd": a.hidden_size, "n_inner": a.intermediate_size, "n_layer": a.num_hidden_layers}
        renamed |= {"n_head": a.num_attention_heads, "n_positions": a.max_position_embeddings}
        fields = {"vocab_size": a.vocab_size, **renamed}
    ours = ("qkv_bias", "qk_norm", "norms_per_layer")
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items() if k not in ours}
    config = transformers.AutoConfig.for_model(a.model_type, **fields, use_cache=False)
    # One multiplication per expert; all of them in one grouped multiplication would not be counted.
    config._experts_implementation = "eager"
    torch.manual_seed(0)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.train()


def _counted(model: nn.Module) -> float:
    """FLOPs per slot of one forward and one backward pass."""
    ids = torch.randint(0, 199, (BATCH, SEQUENCE))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    return counter.get_total_flops() / (BATCH * SEQUENCE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_whole_training_step(name: str) -> None:
    a = ARCHITECTURES[name]
    model = _build(a)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(a).total
    assert train_flops_per_token(a, SEQUENCE, "full") == pytest.approx(_counted(model), rel=WITHIN)


class _Adapted(nn.Module):
    """A frozen matrix with a low-rank pair beside it, as peft builds it."""

    def __init__(self, base: nn.Module, rank: int) -> None:
        super().__init__()
        shape = base.weight.shape if isinstance(base, Conv1D) else base.weight.shape[::-1]
        self.base = base
        self.down, self.up = nn.Linear(shape[0], rank, bias=False), nn.Linear(rank, shape[1], bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def _with_adapters(model: nn.Module, rank: int, targets: tuple[str, ...]) -> nn.Module:
    model.requires_grad_(False)
    found = [(n, m) for n, m in model.named_modules() if n.rpartition(".")[2] in targets]
    assert found
    for name, module in found:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _Adapted(module, rank))
    return model


_EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        *((name, LORA_TARGETS) for name in ARCHITECTURES if name != "gpt2"),
        ("gpt2", ("c_attn",)),
        ("gpt2", ("c_attn", "c_proj", "c_fc")),
        *((name, _EVERY) for name in ("llama", "gemma2")),
        # What each target makes trainable bounds backward in the first layer in its own way.
        *(("llama", (target,)) for target in _EVERY),
    ],
)
def test_lora(name: str, targets: tuple[str, ...]) -> None:
    a = ARCHITECTURES[name]
    model = _with_adapters(_build(a), 8, targets)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count_lora_parameters(a, 8, targets)
    assert train_flops_per_token(a, SEQUENCE, "full", lora_trained_weights(8, targets)) == pytest.approx(
        _counted(model), rel=WITHIN
    )


def _freeze_embedding(model: Any) -> None:
    model.model.embed_tokens.requires_grad_(False)


def _freeze_two_layers(model: Any) -> None:
    _freeze_embedding(model)
    model.model.layers[:2].requires_grad_(False)


def _freeze_all_but_head(model: Any) -> None:
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)


def _freeze_all_but_embedding(model: Any) -> None:
    model.requires_grad_(False)
    model.model.embed_tokens.requires_grad_(True)


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        (_freeze_embedding, TrainedWeights(embedding=False)),
        (_freeze_two_layers, TrainedWeights(embedding=False, first_layer=2)),
        (_freeze_all_but_head, TrainedWeights(embedding=False, first_layer=None)),
        (_freeze_all_but_embedding, TrainedWeights(first_layer=None, head=False)),
    ],
)
def test_partly_frozen(freeze: Callable[[Any], None], trained: TrainedWeights) -> None:
    model = _build(LLAMA)
    freeze(model)
    assert train_flops_per_token(LLAMA, SEQUENCE, "full", trained) == pytest.approx(_counted(model), rel=WITHIN)


@pytest.fixture
def whole_recomputation() -> Iterator[None]:
    """By default torch stops recomputing a layer before its last matrix, whose output nobody needs."""
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        yield


# The name that transformers 4.46 knows too.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.usefixtures("whole_recomputation")
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_full_recomputation(name: str) -> None:
    a = ARCHITECTURES[name]
    model: Any = _build(a)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    expected = hardware_flops_per_token(a, SEQUENCE, "full", "full")
    assert expected == pytest.approx(_counted(model), rel=WITHIN)
    # The head is not recomputed, all else is.
    head = train_flops_by_role(a, SEQUENCE, "full").head
    assert expected - head == pytest.approx((train_flops_per_token(a, SEQUENCE, "full") - head) * 4 / 3)
