"""The settings of training, each written once: what a run is told, what its worker reads and what its result stores.

Flags, TOML keys, the JSON Schema, labels, columns and which runs are comparable follow from these declarations.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Optional, Tuple

from tunemark_worker.optimizer import OPTIMIZERS
from tunemark_worker.precision import PRECISIONS
from tunemark_worker.schedule import SCHEDULES

# How attention is computed. eager: product by product. sdpa: by torch's `scaled_dot_product_attention`. varlen: by
# documents' lengths. flash: by the package flash-attn. flex: by torch's FlexAttention.
ATTENTIONS = ("auto", "eager", "sdpa", "varlen", "flash", "flex")
LOSSES = ("plain", "chunked", "fused")
# Scores of the rows that a chunked loss computes at a time: 128 MiB in float32.
CHUNK_SCORES = 2**25
# Of these so many at a time on a CPU, between the matrix products: 4 MiB in float32, which its caches hold.
CACHED_SCORES = 2**20
COMPILES = ("off", "regional", "full")
OPTIMIZER_IMPLS = ("auto", "loop", "foreach", "fused")
IN_BACKWARD = "in-backward"
UPDATES = ("at-end", IN_BACKWARD)
MATMUL_PRECISIONS = ("highest", "high", "medium")
# The last two are of a GPU's memory.
ALLOCATORS = ("system", "tuned", "tcmalloc", "jemalloc", "expandable", "cuda-async")
THREAD_BINDINGS = ("process", "thread")
ACTIVATIONS = ("device", "host")
CHECKPOINTING = ("none", "selective", "full")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A flag `--micro-batch` that is also a TOML key `micro_batch`.

    is_axis: the setting may be a list, each value of which adds runs. choices: all allowed values; one that ends in
    ":PATH" takes any path. unset: the word that means None. minimum, maximum: inclusive bounds. above: an exclusive
    lower bound. aliases: former names, which are still read. follows: the setting after which it is listed.

    title: in tables and labels; by default the name. unit: of the value. is_compared: runs that differ in it are not
    comparable. is_in_label: it tells runs distinct. names_itself: its values need no title in a label. stored: the
    field of a result, by default the name. before: the value of plans and results from before the setting existed; None
    if these all have it. unhashed: the value that is no part of a run_id, so that runs from before the setting existed
    keep theirs; None if each is. name, type: of the declaring field.
    """

    default: Any
    help: str
    is_axis: bool = True
    choices: Tuple[str, ...] = ()
    unset: Optional[str] = None
    minimum: Optional[float] = None
    above: Optional[float] = None
    maximum: Optional[int] = None
    aliases: Tuple[str, ...] = ()
    follows: str = ""
    title: str = ""
    unit: str = ""
    is_compared: bool = True
    is_in_label: bool = True
    names_itself: bool = False
    stored: str = ""
    before: Any = None
    unhashed: Any = None
    name: str = ""
    type: Any = str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def declare(default: Any, help: str, **more: Any) -> Any:
    """A field, without a default of its own, that declares a setting; more: fields of `Setting`."""
    return dataclasses.field(metadata={"setting": Setting(default, help, **more)})


def read_settings(declaration: Any) -> Tuple[Setting, ...]:
    """The settings that a dataclass declares, in order."""
    hints = typing.get_type_hints(declaration)
    found = []
    for each in dataclasses.fields(declaration):
        setting = each.metadata["setting"]
        # The X of Optional[X].
        kinds = [kind for kind in typing.get_args(hints[each.name]) if kind is not type(None)]
        named = {"name": each.name, "type": kinds[0] if kinds else hints[each.name]}
        named["title"] = setting.title or each.name.replace("_", " ")
        found.append(dataclasses.replace(setting, stored=setting.stored or each.name, **named))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """What trains. In a run's spec, its worker's assignment and its result.

    method, weights: in the assignment the method's name alone, and where the weights come from. Batches are in
    sequences: `micro_batch` per forward pass and data rank, `global_batch` per step and job.
    """

    method: str = declare(
        "full",
        "train everything (`full`) or LoRA adapters: `lora:r=16:alpha=32:targets=all-linear`, also with "
        "`:rslora=true` or `:dora=true`; `qlora` keeps the layers' matrices in 4 bits",
    )
    precision: str = declare(
        "bf16-autocast",
        "pure fp32, fp32 weights with bf16 autocast, pure bf16; or as with autocast, with products in layers in fp8 "
        "scaled by tensors, rows or blocks of 32 (torchao)",
        choices=tuple(PRECISIONS),
        names_itself=True,
    )
    checkpointing: str = declare(
        "none",
        "activation checkpointing: recompute whole layers (full) or everything except matmul outputs (selective)",
        choices=CHECKPOINTING,
        before="none",
    )
    activations: str = declare(
        "device",
        "where activations wait for the backward pass: on the device, or in the host's memory (host)",
        choices=ACTIVATIONS,
        before="device",
        unhashed="device",
    )
    batching: str = declare(
        "pack",
        "pack several documents into a sequence, pad each one to a sequence, or group those of one length and pad "
        "them to the longest of a micro-batch (bucket)",
        choices=("pack", "pad", "bucket"),
        names_itself=True,
    )
    attention: str = declare(
        "auto",
        "how attention is computed; `varlen`: within each document, without a mask; `auto` is `varlen` for packed rows "
        "where it is known to be faster, else what the model's library chooses",
        choices=ATTENTIONS,
        stored="attention_requested",
        before="auto",
        unhashed="auto",
    )
    sequence: int = declare(512, "sequence length in tokens", minimum=2, unit="tokens")
    micro_batch: int = declare(4, "sequences per forward pass and data-parallel rank", minimum=1, unit="sequences")
    global_batch: int = declare(
        None,
        "sequences per step of the whole job; `auto` is micro_batch x data-parallel ranks (x pipeline stages)",
        unset="auto",
        minimum=1,
        unit="sequences",
    )
    weights: str = declare(
        "random",
        "initial weights: random, the model's published weights, or those in a folder",
        choices=("random", "pretrained", "pretrained:PATH"),
    )
    loss: str = declare(
        "plain",
        "the scores of all tokens at once (plain), those of some rows at a time (chunked), or liger-kernel's (fused)",
        choices=LOSSES,
        before="plain",
        unhashed="plain",
    )
    optimizer: str = declare(
        "adamw",
        "optimizer; sgd has no momentum; adamw-8bit is bitsandbytes'",
        choices=tuple(OPTIMIZERS),
        names_itself=True,
    )
    optimizer_impl: str = declare(
        "auto",
        "how the optimizer is computed: tensor by tensor (loop), many at once (foreach), in one kernel (fused); `auto` "
        "is what torch chooses",
        choices=OPTIMIZER_IMPLS,
        before="auto",
        unhashed="auto",
    )
    update: str = declare(
        "at-end",
        "when weights are updated: once all gradients of a step are there (at-end), or each as soon as its own is "
        "there, which is then freed (in-backward)",
        choices=UPDATES,
        before="at-end",
        unhashed="at-end",
    )
    matmul_precision: str = declare(
        "highest",
        "torch's precision of float32 matrix products: below highest they may be rounded to TF32 or bf16",
        choices=MATMUL_PRECISIONS,
        before="highest",
        unhashed="highest",
    )
    compile: str = declare(
        "off",
        "torch.compile: of each decoder layer (regional), or of the whole forward (full)",
        choices=COMPILES,
        before="off",
        unhashed="off",
    )
    allocator: str = declare(
        "tuned",
        "of host memory: `tuned` keeps freed blocks (glibc on CPUs, elsewhere as it is), `system` is glibc's default; "
        "of a GPU's: torch's with segments that grow (`expandable`), or CUDA's own (`cuda-async`)",
        choices=ALLOCATORS,
        before="tuned",
        unhashed="tuned",
    )
    thread_binding: str = declare(
        "process",
        "of a CPU job: each process has cores of its own, among which its threads move (process), or each thread has "
        "one (thread)",
        choices=THREAD_BINDINGS,
        before="process",
        unhashed="process",
    )
    learning_rate: float = declare(1e-4, "peak learning rate", above=0)
    schedule: str = declare("constant", "learning-rate schedule", choices=tuple(SCHEDULES), names_itself=True)
    clip_norm: float = declare(1.0, "max gradient norm (0 disables clipping)", minimum=0)
    seed: int = declare(0, "random seed of the weights and the data order", minimum=0, maximum=2**32 - 1)
    trainer: str = declare(
        "tunemark",
        "whose training loop is measured, options after colons (`tunemark list trainers`)",
        names_itself=True,
        before="tunemark",
        unhashed="tunemark",
    )


TRAINING_SETTINGS = read_settings(TrainingSettings)

# Values of settings that a plan from before they existed does not store.
VALUES_BEFORE = {each.name: each.before for each in TRAINING_SETTINGS if each.before is not None}
