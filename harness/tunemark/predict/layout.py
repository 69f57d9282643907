"""What is predicted: a layout of ranks, the work of one step, and the software that carries it out. Data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunemark.physics.flops import EVERYTHING, Trained
from tunemark.plugin.descriptors import Architecture

Recompute = Literal["none", "selective", "full"]
Schedule = Literal["1f1b", "gpipe", "interleaved", "zb", "zbv"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How ranks share a model and a batch. All degrees are counts of ranks; their product is `ranks`.

    data: replicas of the model, whether whole or sharded; each takes a share of the batch. shard: of these, neighbours
    that divide states among them (FSDP, ZeRO); data > shard > 1 is hybrid sharding. zero: what they divide: 0 nothing,
    1 optimizer states, 2 and gradients, 3 and parameters (Rajbhandari et al. 2020, "ZeRO", section 5). reshard: whether
    gathered parameters are let go after the forward pass. tensor: ranks that divide every matrix; sequence_parallel:
    and the tokens between matrices (Korthikanti et al. 2022, section 4.2.2). pipeline: stages of layers; virtual:
    pieces of layers in each stage (Narayanan et al. 2021, section 2.2); schedule "zbv" gives a rank one piece from the
    front and one from the back, "zb" and it take gradients of inputs before those of weights (Qi et al. 2023, "Zero
    bubble pipeline parallelism"). context: ranks that divide a sequence.
    expert: ranks, of the data-parallel ones, that divide the experts. recomputed: share of the layers that `recompute`
    is done to. offloaded: bytes of activations of each micro-batch that wait for their backward pass in the processor's
    memory. micro_batch: sequences of one forward pass.
    """

    data: int = 1
    shard: int = 1
    zero: int = 0
    reshard: bool = True
    tensor: int = 1
    sequence_parallel: bool = True
    pipeline: int = 1
    virtual: int = 1
    schedule: Schedule = "1f1b"
    context: int = 1
    expert: int = 1
    recompute: Recompute = "none"
    recomputed: float = 1.0
    offloaded: float = 0.0
    micro_batch: int = 1

    def __post_init__(self) -> None:
        degrees = {"data": self.data, "shard": self.shard, "tensor": self.tensor, "pipeline": self.pipeline,
                   "virtual": self.virtual, "context": self.context, "expert": self.expert,
                   "micro_batch": self.micro_batch}  # fmt: skip
        bad = [f"{name} {value}" for name, value in degrees.items() if value < 1]
        if bad:
            raise ValueError(f"degrees are 1 or more, not {', '.join(bad)}")
        if not 0.0 <= self.recomputed <= 1.0:
            raise ValueError(f"{self.recomputed:g} of the layers cannot be recomputed")
        if self.zero not in (0, 1, 2, 3):
            raise ValueError(f"there is no ZeRO stage {self.zero}")
        if (self.data * self.context) % self.shard:
            raise ValueError(f"{self.shard} ranks that shard do not divide {self.data * self.context} replicas")
        if self.virtual > 1 and self.pipeline == 1:
            raise ValueError("virtual stages need a pipeline")

    @property
    def ranks(self) -> int:
        return self.data * self.tensor * self.pipeline * self.context

    def words(self) -> str:
        """The layout as `--strategy` spells it; in the same manner what it has no words for: ZeRO 1 and 2, context and
        expert parallelism. "none" of one rank."""
        parts = []
        if self.pipeline > 1:
            virtual = f":virtual={self.virtual}" if self.virtual not in (1, 2) else ""
            schedule = f":schedule={self.schedule}" if self.schedule != "1f1b" else ""
            parts.append(f"pp:{self.pipeline}{schedule}{virtual}")
        replicas = self.data * self.context // self.shard if self.zero == 3 else self.data
        if replicas > 1:
            parts.append(f"zero{self.zero}:{replicas}" if self.zero in (1, 2) else f"ddp:{replicas}")
        if self.zero == 3 and self.shard > 1:
            parts.append(f"fsdp:{self.shard}" + ("" if self.reshard else ":reshard=false"))
        if self.context > 1:
            parts.append(f"cp:{self.context}")
        if self.expert > 1:
            parts.append(f"ep:{self.expert}")
        if self.tensor > 1:
            parts.append(f"tp:{self.tensor}" + (":sequence_parallel=true" if self.sequence_parallel else ""))
        return "+".join(parts) or "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What the software does with a layout, as far as it changes times or bytes.

    flash_attention: scores are never written to memory (Dao et al. 2022); native_attention: by kernels of the device's
    own class (cuDNN's; Shah et al. 2024), not by those that any class runs. fused: neighbouring elementwise operations
    are one kernel. tensor_overlap, data_overlap: collectives of tensor and of data parallelism run beside the
    matrices. pipeline_balanced: stages of unequal layers make up for the embedding and the head.
    scores_gathered: tensor ranks make the scores whole in each of them before the loss.
    selective: what a selective recomputation does again: "pointwise" all but what matrix products gave (where scores
    are written, the scores alone: Korthikanti et al. 2022, section 5), "alternate" every second matrix product as well.
    copied_collectives: what is gathered or scattered along tokens is laid out by ranks first, one copy each.
    scattered_messages: tensor ranks send a part each of what passes between stages (Narayanan et al. 2021, 4.1).
    head_bytes: of temporaries at the loss, per logit. gradient_bytes, main_bytes: per parameter; main_bytes holds
    the optimizer's states and any fp32 copy of the parameters. head_gradient_bytes: of the largest end's gradient while
    it is formed. parameter_bytes: as kept; gather_bytes, reduce_bytes: as sent.
    touched_bytes: read and written per parameter of the rank in each micro-batch beside the matrix products: the sum of
    gradients, and copies in and out of what is sent. stream_bytes: read and written forward by the elementwise work of
    one layer, per token and value of the hidden state: two norms (12 bytes each in fp32 under autocast, with a cast; 4
    fused) and two residuals (6, or none where fused into the norm).
    own: the worker's name of the precision where it is our own worker that trains; `footprint` then counts work and
    bytes by what it does, and the figures here serve times alone. "" where it is another.
    """

    flash_attention: bool = True
    native_attention: bool = False
    fused: bool = False
    tensor_overlap: bool = False
    data_overlap: bool = True
    pipeline_balanced: bool = False
    scores_gathered: bool = False
    scattered_messages: bool = False
    selective: Literal["pointwise", "alternate"] = "pointwise"
    copied_collectives: bool = False
    head_bytes: float = 20.0
    head_gradient_bytes: float = 0.0
    parameter_bytes: float = 4.0
    gradient_bytes: float = 4.0
    main_bytes: float = 8.0
    gather_bytes: float = 2.0
    reduce_bytes: float = 4.0
    touched_bytes: float = 12.0
    stream_bytes: float = 36.0
    own: str = ""


# torch's own parallelism: fp32 parameters sharded, gathered in 16 bits; logits in 2, 4 and 4 bytes, their gradients in
# 4, 4 and 2 (cross_entropy of float logits).
TORCH = Stack()
# Likewise where the loss is one compiled kernel: logits in 2 and 4 bytes, and their gradients.
COMPILED_HEAD_BYTES = 12.0
# Megatron with Transformer Engine: 16-bit parameters, fp32 gradients, master copy and Adam's two moments (18 bytes,
# Korthikanti et al. 2022, section 4); the loss in 2 + 4 bytes a logit, made in place.
MEGATRON = Stack(
    native_attention=True, fused=True, tensor_overlap=True, pipeline_balanced=True, scattered_messages=True,
    head_bytes=6.0, head_gradient_bytes=5.0,
    parameter_bytes=2.0, gradient_bytes=4.0, main_bytes=12.0, gather_bytes=2.0, reduce_bytes=4.0, touched_bytes=4.0,
    stream_bytes=12.0,
)  # fmt: skip
# Megatron as of 2021, in fp16: scores in memory, nothing overlapped.
MEGATRON_2021 = Stack(
    flash_attention=False, tensor_overlap=False, data_overlap=False, scattered_messages=True, head_bytes=10.0,
    parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=12.0, reduce_bytes=2.0, touched_bytes=6.0, stream_bytes=24.0,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One optimizer step. global_batch, sequence: sequences and tokens. precision: that of matrix multiplication.

    trained_fraction: of the parameters (LoRA trains few); frozen ones have no gradient and no optimizer state, and
    the backward pass is twice a forward pass minus the gradients of their weights.
    trained: which weights these are. packed: rows hold several documents, and attention is given a mask.
    """

    architecture: Architecture
    sequence: int
    global_batch: int
    precision: str = "bf16"
    optimizer: str = "adamw"
    trained_fraction: float = 1.0
    trained: Trained = EVERYTHING
    packed: bool = False
    stack: Stack = TORCH
