"""Inputs of a prediction: the layout of ranks, the workload of one step, and the software stack. Data only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tunemark.physics.flops import ALL_WEIGHTS, TrainedWeights
from tunemark.plugin.descriptors import Architecture, Schedule

Recompute = Literal["none", "selective", "full"]
# hf: transformers' modules in an eager trainer; deepspeed: the same in DeepSpeed's engine; xla: programs compiled as a
# whole, of JAX and on TPUs; native: a trainer without a framework, in C++ and CUDA.
Framework = Literal["megatron", "torch", "hf", "deepspeed", "xla", "native"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankLayout:
    """How ranks share a model and a batch. All degrees are numbers of ranks; data x tensor x pipeline x context is
    `ranks`.

    data: replicas of the model, whole or sharded, each with a share of the batch. shard: neighbouring replicas that
    shard training states (FSDP, ZeRO); data > shard > 1 is hybrid sharding. zero: what they shard: 0 nothing, 1
    optimizer states, 2 also gradients, 3 also parameters (Rajbhandari et al. 2020, "ZeRO", section 5). reshard: whether
    gathered parameters are freed after the forward pass. tensor: ranks that divide every matrix; sequence_parallel:
    they also divide the tokens between matrices (Korthikanti et al. 2022, section 4.2.2). pipeline: stages of layers;
    virtual: model chunks in each stage (Narayanan et al. 2021, section 2.2); schedule "zbv" gives a rank one chunk from
    the front and one from the back; "zb" and "zbv" compute gradients of inputs before those of weights (Qi et al. 2023,
    "Zero bubble pipeline parallelism"). context: ranks that divide a sequence. expert: ranks among the data-parallel
    ones that divide the experts, which lie next to each other; expert_tensor: tensor ranks that divide each expert, 0:
    as everything else. recomputed: share of the layers that `recompute` applies to. offloaded: bytes of
    activations of each micro-batch that wait for their backward pass in host memory. micro_batch: sequences of one
    forward pass.
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
    expert_tensor: int = 0
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftwareStack:
    """Properties of the training software that change time or memory. framework: whose it is, which bounds depend on.

    flash_attention: attention scores are never written to memory (Dao et al. 2022); native_attention: by kernels for
    the device's class (cuDNN's; Shah et al. 2024) instead of portable ones. fused: neighbouring elementwise operations
    are one kernel. tensor_overlap, data_overlap: collectives of tensor and of data parallelism overlap with matrix
    products. pipeline_balanced: stages have unequal numbers of layers to compensate for the embedding and the head.
    scores_gathered: every tensor rank gathers all logits before the loss.
    selective: what selective recomputation computes again: "pointwise" everything except outputs of matrix products
    (only the scores where they are stored: Korthikanti et al. 2022, section 5), "alternate" also every second product.
    copied_collectives: gathers and scatters along tokens copy their payload once, into an order by ranks.
    scattered_messages: each tensor rank sends a part of what passes between stages (Narayanan et al. 2021, 4.1).
    head_bytes: temporaries at the loss, per logit. parameter_bytes, gradient_bytes, main_bytes: kept per parameter;
    main_bytes are optimizer states and any fp32 copy of the parameters. gather_bytes, reduce_bytes: sent per parameter.
    head_gradient_bytes: temporaries while the gradient of the larger of embedding and head forms, per parameter of it.
    touched_bytes: read and written per parameter of the rank in each micro-batch besides the matrix products: summing
    gradients, and copies into and out of communication buffers. stream_bytes: read and written by one layer's
    elementwise work in the forward pass, per token and value of the hidden state: two norms (12 bytes each in fp32
    under autocast, with a cast; 4 fused) and two residuals (6, or none where fused into the norm).
    frozen_bytes: kept per parameter that is not trained; 0: `parameter_bytes`. base_bits: of frozen weights that are
    expanded to 16 bits for every product, else 0; expanded_bytes: moved to expand one: by one kernel half a byte read,
    2 written and 2 read by the product (bitsandbytes). launches: operations launched relative to eager torch modules,
    or to fused ones. logit_bytes: moved per logit at the loss, 0: 38, or 12 fused. reserve: share of what tensors hold
    that the allocator keeps besides.
    step_bytes: temporaries in the update, per trained parameter of the rank. host_bytes: of optimizer states per
    parameter that wait in host memory. gathers_late: with sharded optimizer states the update is followed by the gather
    of all parameters, which nothing hides. engine_bytes: buffers of a sharding engine, twice as many where parameters
    are sharded; of a trainer without one, the context and the workspaces of libraries.
    own: the worker's name of the precision if our own worker trains, else "". `worker_step_costs` then computes FLOPs,
    traffic and memory, and the figures here only serve times.
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
    frozen_bytes: float = 0.0
    launches: float = 1.0
    reserve: float = 0.0
    step_bytes: float = 0.0
    host_bytes: float = 0.0
    base_bits: int = 0
    expanded_bytes: float = 4.5
    logit_bytes: float = 0.0
    gathers_late: bool = False
    engine_bytes: float = 0.0
    framework: Framework = "torch"
    own: str = ""


# PyTorch's parallelism: fp32 parameters are sharded and gathered in 16 bits; logits take 2, 4 and 4 bytes, their
# gradients 4, 4 and 2 (cross_entropy of float logits).
TORCH = SoftwareStack()
# `head_bytes` where the loss is one compiled kernel: logits in 2 and 4 bytes, and the same for their gradients.
COMPILED_HEAD_BYTES = 12.0
# Megatron with Transformer Engine: 16-bit parameters, fp32 gradients, master copy and Adam's two moments (18 bytes,
# Korthikanti et al. 2022, section 4); the loss takes 2 + 4 bytes a logit, in place.
MEGATRON = SoftwareStack(
    framework="megatron", native_attention=True, fused=True, tensor_overlap=True, pipeline_balanced=True,
    scattered_messages=True, head_bytes=6.0, head_gradient_bytes=5.0,
    parameter_bytes=2.0, gradient_bytes=4.0, main_bytes=12.0, gather_bytes=2.0, reduce_bytes=4.0, touched_bytes=4.0,
    stream_bytes=12.0,
)  # fmt: skip
# Megatron as of 2021, in fp16: scores in memory, nothing overlapped.
MEGATRON_2021 = SoftwareStack(
    framework="megatron", flash_attention=False, tensor_overlap=False, data_overlap=False, scattered_messages=True,
    head_bytes=10.0,
    parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=12.0, reduce_bytes=2.0, touched_bytes=6.0, stream_bytes=24.0,
)  # fmt: skip
# Transformers' modules in an eager trainer, mixed precision as its published scripts have it: weights in 16 bits, a
# master copy and moments in 32. Norms and rotary positions are single operations in fp32.
HF = SoftwareStack(
    framework="hf", parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=12.0, reduce_bytes=2.0, touched_bytes=6.0,
    stream_bytes=48.0, head_bytes=11.5, step_bytes=4.0, gathers_late=True, reserve=0.06, engine_bytes=0.8e9,
)  # fmt: skip
# The same modules in DeepSpeed's engine, with its buffers as its configuration has them by default: to reduce and to
# gather 5e8 values each.
DEEPSPEED = replace(HF, framework="deepspeed", engine_bytes=2e9)
# Programs compiled as a whole: operations fused, collectives scheduled beside products; parameters in 32 bits.
XLA = SoftwareStack(
    framework="xla", native_attention=True, fused=True, tensor_overlap=True, head_bytes=COMPILED_HEAD_BYTES,
    touched_bytes=4.0, stream_bytes=12.0, launches=0.0,
)  # fmt: skip
# A trainer in C++ and CUDA: Megatron's fusions without its launches; moments in 16 bits; the loss in place, in 16 bits.
NATIVE = replace(
    MEGATRON, framework="native", gradient_bytes=2.0, main_bytes=8.0, reduce_bytes=2.0, launches=0.3, stream_bytes=10.0,
    logit_bytes=6.0, head_bytes=2.0, head_gradient_bytes=0.0,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The work of one optimizer step. global_batch: in sequences; sequence: in tokens. precision: of matrix products.

    trained_fraction: trained share of the parameters (small for LoRA); frozen ones have no gradient and no optimizer
    state, and the backward pass is twice a forward pass minus the gradients of their weights. trained: which weights
    are trained. packed: rows hold several documents, and attention takes a mask.
    loss, optimizer_impl, update: how our worker computes them. widest: of rows of different lengths, whose mean is
    `sequence`, the longest, which takes most memory; None where all are equal.
    """

    architecture: Architecture
    sequence: int
    global_batch: int
    precision: str = "bf16"
    optimizer: str = "adamw"
    trained_fraction: float = 1.0
    trained: TrainedWeights = ALL_WEIGHTS
    packed: bool = False
    loss: str = "plain"
    optimizer_impl: str = "auto"
    update: str = "at-end"
    stack: SoftwareStack = TORCH
    widest: int | None = None
