"""Which software trains, as far as anyone says it, and the stack (`SoftwareStack`) that the cost model takes for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from tunemark.physics import NF4_BYTES
from tunemark.predict.assumption_list import AssumptionList
from tunemark.predict.layout import (
    COMPILED_HEAD_BYTES,
    DEEPSPEED,
    HF,
    MEGATRON,
    MEGATRON_2021,
    NATIVE,
    TORCH,
    XLA,
    Framework,
    SoftwareStack,
)
from tunemark_worker.optimizer import OPTIMIZERS

# Words of a description that name the software, in the order in which they decide.
_WORDS: tuple[tuple[Framework, str], ...] = (
    ("xla", r"maxtext|\bjax\b|\bxla\b|levanter|paxml|axlearn|easylm|\balpa\b|neuronx|\bneuron\b|optimum-tpu|"
            r"tpu-recipes"),
    ("native", r"c\+\+/cuda|\bllm[.-]c\b|\bllmq\b"),
    ("megatron", r"megatron|\bnemo\b(?!.*automodel)|\bmcore\b|dgxc-benchmarking|mindspeed|primus(?!.*fsdp)|"
                 r"gpt-neox|\bsimumax\b"),
    ("deepspeed", r"deepspeed|\bzero-?3? offload\b"),
    ("torch", r"torchtitan|torchtune|torchao|pytorch|\bfsdp ?2\b|llm-foundry|composer|mosaicml|lit-?(?:gpt|llama)|"
              r"internevo|internlm|colossal|automodel|\blightning\b|fairscale|fairseq|metaseq|\bolmo\b|nanotron|tinyllama"),
    ("hf", r"\bhf\b|hf_eager|hugging ?face|transformers|\bpeft\b|\btrl\b|swift|llama-?factory|axolotl|unsloth|"
           r"accelerate|alignment-handbook|optimum"),
)  # fmt: skip
# Year since which Megatron and torch have fused attention (Dao et al. 2022 was published in the summer before).
_FUSED_ATTENTION_YEAR = 2023


@dataclass(frozen=True, kw_only=True, slots=True)
class StackFacts:
    """What is known of the training software. framework: as stated, one of `Framework`, "torch-compiled", or any other
    name. words: any description of the run, in which a framework may be named. year: of the software that ran, 0 where
    unknown. is_compiled: None where nobody says. precision: of matrix products. zero, tensor, others: the sharding
    stage, tensor ranks, and pipeline, context and expert ranks together. chip: its name."""

    framework: str = ""
    words: str = ""
    year: int = 0
    is_year_stated: bool = False
    is_compiled: bool | None = None
    precision: str = "bf16"
    zero: int = 0
    tensor: int = 1
    others: int = 1
    chip: str = ""


def choose_framework(facts: StackFacts, notes: AssumptionList) -> tuple[Framework, bool | None]:
    """(the framework, whether its modules are compiled); where its name is not known, by the layout, and told."""
    name = re.sub(r"[^a-z0-9]+", "-", facts.framework.lower()).strip("-")
    if name in ("torch-compiled", "torch-compile", "compiled"):
        return "torch", True
    name = {"pytorch": "torch", "jax": "xla", "maxtext": "xla", "huggingface": "hf", "transformers": "hf",
            "megatron-lm": "megatron", "nemo": "megatron"}.get(name, name)  # fmt: skip
    for each in get_args(Framework):
        if name == each:
            return each, facts.is_compiled
    if found := _find_framework(name):
        return found, facts.is_compiled
    found = "xla" if facts.chip.startswith(("TPU", "Trainium")) else _find_framework(facts.words.lower())
    if found:
        return found, facts.is_compiled
    # Only torch's software states whether it compiles, and FSDP is torch's.
    is_torch = facts.is_compiled is not None or facts.zero == 3 or facts.tensor * facts.others == 1
    if facts.precision == "fp16" and facts.year < _FUSED_ATTENTION_YEAR:
        is_torch = False
    chosen: Framework = "torch" if is_torch else "megatron"
    why = f"{facts.framework!r} is not known" if name else "none is stated"
    notes.add("framework", f"{chosen} as the software, by the layout, because {why}")
    return chosen, facts.is_compiled


def _find_framework(words: str) -> Framework | None:
    return next((name for name, pattern in _WORDS if re.search(pattern, words)), None)


def choose_stack(facts: StackFacts, notes: AssumptionList) -> tuple[Framework, SoftwareStack]:
    """The framework and its stack; what nobody states is assumed and told."""
    framework, is_compiled = choose_framework(facts, notes)
    if framework == "megatron":
        is_old = 0 < facts.year < _FUSED_ATTENTION_YEAR
        if facts.precision == "fp16" and not (facts.is_year_stated and not is_old):
            notes.add("year", "Megatron before fused attention, because it trains in fp16")
            return framework, MEGATRON_2021
        if is_old:
            notes.sentences.append(f"Megatron before fused attention, because it is of {facts.year}")
            return framework, MEGATRON_2021
        return framework, MEGATRON
    if framework == "torch":
        return framework, _make_torch_stack(facts, is_compiled, notes)
    stack = {"hf": HF, "deepspeed": DEEPSPEED, "xla": XLA, "native": NATIVE}[framework]
    if 0 < facts.year < _FUSED_ATTENTION_YEAR and "flash" not in facts.words.lower() and framework != "xla":
        stack = replace(stack, flash_attention=False)
    return framework, stack


def _make_torch_stack(facts: StackFacts, is_compiled: bool | None, notes: AssumptionList) -> SoftwareStack:
    words = facts.words.lower()
    if is_compiled is None:
        is_compiled = bool(re.search(r"\bcompiled?\b|fused kernel|flash[- ]attention, apex|\bte\b", words))
        if not is_compiled:
            notes.add("framework", "eager modules, because nobody says whether they are compiled")
    stack = replace(
        TORCH,
        fused=is_compiled,
        stream_bytes=MEGATRON.stream_bytes if is_compiled else TORCH.stream_bytes,
        head_bytes=COMPILED_HEAD_BYTES if is_compiled and facts.tensor == 1 else TORCH.head_bytes,
        # torchtitan's policy: every second matrix product of a layer is computed again, attention never.
        selective="alternate",
        # torch's functional collectives join the ranks' parts along tokens by copying the whole, unless gathering is
        # fused with the product.
        copied_collectives=facts.tensor > 1,
        tensor_overlap=facts.tensor > 1 and "async" in words,
        native_attention=bool(re.search(r"\bte\b|transformer engine|flash[- ]attention[- ]?3", words)),
    )
    if facts.zero in (1, 2):
        # Only optimizer states or gradients are sharded by engines that keep weights and gradients in 16 bits and a
        # master copy with the states.
        stack = replace(
            stack, parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=12.0, reduce_bytes=2.0, gathers_late=True
        )
    if 0 < facts.year < _FUSED_ATTENTION_YEAR and "flash" not in words and facts.zero != 3:
        stack = replace(stack, flash_attention=False)
    return stack


def read_year(*texts: str | None) -> int:
    """The earliest year that the first text with one names: a run is no younger than its first mention. 0: none."""
    for text in texts:
        years = re.findall(r"(?<![\w.])(20[12]\d)(?![\w.])", text or "")
        if years:
            return int(min(years))
    return 0


# Values of `optimizer_bits`, bits of each of Adam's two moments, and of `base_bits`, those of frozen weights, each with
# the bytes that it takes. Scales of blocks come on top: of 8 bits those of the worker's optimizer, of 4 bits NF4's.
STATE_BITS: Mapping[int, float] = {32: 4.0, 16: 2.0, 8: OPTIMIZERS["adamw-8bit"].bytes_per_state(4.0), 4: 0.5}
BASE_BYTES: Mapping[int, float] = {32: 4.0, 16: 2.0, 8: 1.0, 4: NF4_BYTES}

# Bytes moved to expand a frozen weight of 4 bits in single operations. AutoGPTQ's layers that can be trained
# (qlinear_cuda_old.py): shifted in 32 bits, cast to 8, masked, the zero subtracted, scaled to 16. torchao's NF4
# (nf4tensor.py): cast to an index of 64 bits, looked up, scaled, interleaved.
GPTQ_EXPANDED_BYTES, TORCHAO_EXPANDED_BYTES = 18.5, 30.5

# Bytes per logit where the loss is computed in pieces and logits are never whole (Liger, torchtune's chunked loss).
CHUNKED_HEAD_BYTES = 1.0


def find_state_bits(optimizer: str) -> int | None:
    """Bits of each moment of an optimizer by its name; None where they are those of the weights."""
    width = OPTIMIZERS[optimizer].state_bytes
    return None if width is None else next(bits for bits, each in STATE_BITS.items() if each == width)


def change_states(
    stack: SoftwareStack,
    *,
    optimizer_bits: int | None = None,
    base_bits: int | None = None,
    is_frozen: bool = False,
    is_offloaded: bool = False,
    loss: str = "",
    is_in_backward: bool = False,
) -> SoftwareStack:
    """The stack with other training states. optimizer_bits, base_bits: of each moment and of frozen weights, None as
    the stack has them. is_frozen: most weights are frozen. is_offloaded: the optimizer's states wait in host memory.
    loss: "chunked", "fused" or "". is_in_backward: gradients are freed in the backward pass. ValueError for bits that
    no software has."""
    if optimizer_bits is not None:
        if optimizer_bits not in STATE_BITS:
            raise ValueError(f"optimizer_bits is {optimizer_bits}: one of {', '.join(map(str, STATE_BITS))}")
        # Besides both moments, a master copy where the stack keeps one.
        master = stack.main_bytes - 8.0 if stack.main_bytes > 8.0 else 0.0
        stack = replace(stack, main_bytes=master + 2.0 * STATE_BITS[optimizer_bits])
    if base_bits is not None and base_bits not in BASE_BYTES:
        raise ValueError(f"base_bits is {base_bits}: one of {', '.join(map(str, BASE_BYTES))}")
    if is_frozen:
        few = base_bits if base_bits is not None and base_bits < 16 else 0
        is_torchao = stack.framework == "torch" and not stack.fused
        stack = replace(
            stack,
            frozen_bytes=BASE_BYTES[base_bits or 16],
            base_bits=few,
            expanded_bytes=TORCHAO_EXPANDED_BYTES if is_torchao else stack.expanded_bytes,
        )
    if is_offloaded:
        stack = replace(stack, main_bytes=0.0, host_bytes=stack.main_bytes)
    if loss == "chunked":
        stack = replace(stack, head_bytes=CHUNKED_HEAD_BYTES)
    elif loss == "fused":
        stack = replace(stack, head_bytes=min(stack.head_bytes, COMPILED_HEAD_BYTES))
    if is_in_backward:
        stack = replace(stack, gradient_bytes=0.0, step_bytes=0.0)
    return stack
