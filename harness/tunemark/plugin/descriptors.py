"""What a plugin states of itself: facts alone, imported in milliseconds, without torch.

A field that names code is a string "package.module:Name", imported when it is needed and where it is needed:
a `runtime` in the worker, a `loader` in the parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

Role = Literal["prompt", "response"]
Severity = Literal["invalid", "suspect", "unknown", "note"]
LayerType = Literal["sliding_attention", "full_attention"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The dimensions of a decoder, under the field names of transformers' configuration where it has one.

    The defaults are Llama's: gated MLP, RMSNorm before attention and before the MLP, rotary positions, no biases.

    head_dim: of queries, keys and values alike. sliding_window: tokens that a query sees, itself included; None where
    attention is full. layer_types: for each layer "sliding_attention" or "full_attention"; None where all layers are
    alike. rope_theta: None where positions are not rotary. rms_norm_eps: of every norm, of whichever kind.

    num_local_experts: None where the MLP is dense; else intermediate_size is one expert's, and a router chooses
    num_experts_per_tok of them for each token, in every layer.

    attention_bias: on queries, keys, values and the output; qkv_bias: on the first three alone. gated_mlp: three
    matrices (gate, up, down) instead of two. norm_bias: LayerNorm with a bias, not RMSNorm. norms_per_layer: each of
    hidden_size. qk_norm: norms of queries and of keys, "head": one weight of head_dim for all heads; "projection":
    over the whole projection. learned_positions: a table of max_position_embeddings x hidden_size.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    sliding_window: int | None = None
    rope_theta: float | None = 10000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    layer_types: tuple[LayerType, ...] | None = None
    num_local_experts: int | None = None
    num_experts_per_tok: int | None = None
    attention_bias: bool = False
    qkv_bias: bool = False
    mlp_bias: bool = False
    gated_mlp: bool = True
    norm_bias: bool = False
    norms_per_layer: int = 2
    qk_norm: Literal["head", "projection"] | None = None
    learned_positions: bool = False

    def __post_init__(self) -> None:
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"{len(self.layer_types)} layer types for {self.num_hidden_layers} layers")
        if self.layer_types is not None and "sliding_attention" in self.layer_types and self.sliding_window is None:
            raise ValueError("layers of sliding attention, but no sliding_window")
        if (self.num_local_experts is None) != (self.num_experts_per_tok is None):
            raise ValueError("num_local_experts and num_experts_per_tok are given together or not at all")
        if self.attention_bias and self.qkv_bias:
            raise ValueError("attention_bias holds qkv_bias: only one of them can be true")

    def as_dict(self) -> dict[str, Any]:
        """What a worker and a listing are told. From layer_types on, fields that are as Llama's are left out, so that
        transformers' own configurations of such models take all that is there."""
        names = [f.name for f in fields(self)]
        always = names[: names.index("layer_types")]
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {f.name: values[f.name] for f in fields(self) if f.name in always or values[f.name] != f.default}


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerName:
    """A tokenizer by name; `loader` is a callable that returns a `Tokenizer` (parent, torch-free). It is given
    `argument` where that is not empty, else nothing."""

    name: str
    loader: str
    argument: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One model at one size.

    tokenizer: None where none is installed for it. runtime: a class whose instances build it in the worker
    (`ModelRuntime`); None where only facts are known: it can be planned and audited, not run. pretrained: the hub id,
    or the absolute path of the folder, that `--weights pretrained` loads; None where there is none. requires: modules
    that the worker's interpreter must have. weights: a callable that returns the path of published weights which an
    installed package ships, and raises a `TunemarkError` where that is missing. is_remote: Python code out of its
    repository builds it.
    configuration: values of transformers' configuration that change no count (activation, scaling of positions), told
    to the runtime beside the architecture.
    """

    name: str
    architecture: Architecture
    tokenizer: TokenizerName | None
    runtime: str | None
    description: str = ""
    source: str = ""
    pretrained: str | None = None
    requires: tuple[str, ...] = ("torch", "transformers")
    configuration: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    is_remote: bool = False

    def told(self) -> dict[str, Any]:
        """The architecture as the worker is told it."""
        extra: dict[str, Any] = {"configuration": dict(self.configuration)} if self.configuration else {}
        if self.is_remote:
            extra["remote"] = self.pretrained
        return {**self.architecture.as_dict(), **extra}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Models that are named by where they lie: `NAME:REFERENCE`.

    loader: a callable (reference) -> `Model`, in the parent and torch-free; a `TunemarkError` where there is none.
    """

    name: str
    loader: str
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of an example: text, or ids where the dataset needs no tokenizer (exactly one of them)."""

    role: Role = "response"
    text: str | None = None
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.ids is None):
            raise ValueError("a piece is either text or ids")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One document. Text pieces are joined and encoded as one text, so that ids do not depend on what is trained on;
    the tokenizer's bos and eos are put around them. Ids are taken as they are.

    messages: instead of pieces, a conversation as chat templates know it, each with `role` and `content` and whatever
    else a template reads; `weight` 0 is of an answer that no loss is taken of. Of datasets that say `is_chat`."""

    pieces: tuple[Piece, ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.pieces and self.messages:
            raise ValueError("an example is either pieces or messages")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A source of examples by name.

    loader: a callable (options, vocab_size) -> `DatasetSource`. options: what may follow the name on the command
    line (`name:path=FILE`), each with its meaning. needs_tokenizer: False where it yields ids.
    roles: what its pieces can be, so that `--train-on response` is refused in time where there is no prompt.
    """

    name: str
    loader: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    needs_tokenizer: bool = True
    roles: tuple[Role, ...] = ("prompt", "response")
    learnable: bool = True
    """False where no loss can be expected to fall (random ids): the loss-rising rule is not applied."""
    is_chat: bool = False
    """True where its examples are messages, of which a chat template makes text: the source's own
    (`HasChatTemplate`) or else the tokenizer's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis of the mesh that a strategy spans, `degree` processes long. strategy: whose axis it is, by name."""

    strategy: str
    degree: int
    options: Mapping[str, str] = field(default_factory=dict)


def _one_rank_each(processes: int) -> int:
    return processes


def _one_is_enough(axis: Axis) -> int:
    return 1


def _nothing_refused(axes: Sequence[Axis], architecture: Architecture, settings: Mapping[str, Any]) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """A way to parallelize.

    devices: those it is for, empty where any will do; one for a device goes before one of the same name for any.
    distributed: False is one process whatever the size, True one process per unit of the size.
    data_ranks: from the number of its processes, how many see distinct batches.

    product: a runtime that carries out the product of several strategies, each on its own axis of one mesh; those that
    name the same one can be joined by plus (`fsdp:4+tp:2`). None where it stands alone.
    micro_batches: from its axis, the fewest micro-batches of a step that it is made for; what a global batch of `auto`
    is made of. refusal: from the axes of the run, the model and the settings by name, why it cannot be; None where it
    can. Asked of each strategy of a product, in the plan. needs: the least version of a module that the interpreter
    which trains must have, by its name.
    is_search: it is no layout but stands for one that the harness chooses among the device's other strategies before it
    measures; its runtime is never asked.
    can_evaluate: every process can ask the model for the scores of a batch beside the training steps. can_save: the
    module stays whole in every process, or the runtime has `full_state`.
    """

    name: str
    runtime: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    distributed: bool = True
    data_ranks: Callable[[int], int] = _one_rank_each
    product: str | None = None
    micro_batches: Callable[[Axis], int] = _one_is_enough
    refusal: Callable[[Sequence[Axis], Architecture, Mapping[str, Any]], str | None] = _nothing_refused
    needs: Mapping[str, str] = field(default_factory=dict)
    is_search: bool = False
    can_evaluate: bool = False
    can_save: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """What one size of one device offers.

    name: the size, as the device calls it. chips: physical parts, None where unknown. memory_bytes: usable by the
    job, None where unknown. peak_flops: dense FLOP/s of all chips by precision, empty where unknown; source: whence.
    oversubscribed: more was asked than there is.

    parts: physical memories that memory_bytes is the sum of, where a replica of the model lies in one of them;
    part_memory_bytes: one of these; None where unknown. nodes: hosts that hold them, None where unknown.
    is_present: False where the size is known from documents alone, so that it can be planned but not run.
    is_simulated: figures say how a simulator behaves. can_calibrate: False where its peak cannot be measured.
    """

    name: str
    chip: str
    chips: int | None
    memory_bytes: int | None
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    source: str | None = None
    oversubscribed: bool = False
    parts: int | None = None
    part_memory_bytes: int | None = None
    nodes: int | None = None
    is_present: bool = True
    is_simulated: bool = False
    can_calibrate: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """The shape of a job: its processes, threads in each, variables added to the environment, and what the device's
    runtime is told (JSON values). nodes: hosts that the processes are spread over, as many on each; None where the
    launcher decides."""

    processes: int
    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    nodes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Launcher:
    """A way to start a job's processes.

    loader: "module:callable" (options, export, say) -> `Launching`, in the parent. options: what may follow the name on
    the command line (`name:key=value`), each with its meaning. elsewhere: True where processes may run on other
    machines, so that what this one has says nothing of the sizes there.
    """

    name: str
    loader: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    elsewhere: bool = False


# What every measurement stands on, so that no plugin brings it.
LOCAL = Launcher(
    name="local",
    loader="tunemark.launch.local:Local",
    description="this machine; several processes by torch.distributed.run",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One attempt as a launcher is told of it.

    name: short, of letters, digits and dashes, the same in every life of the command. python: the worker's interpreter.
    processes: of the whole job; threads: of each. gpus: that the whole job needs. environment: variables that every
    process gets. code: a folder for PYTHONPATH. folder: absolute, the processes' working directory, which holds
    plan.json. max_restarts: how often torch's elastic agent may start all processes again. nodes: as `Launch` has it.
    """

    name: str
    python: str
    processes: int
    threads: int
    environment: Mapping[str, str]
    code: Path
    folder: Path
    gpus: int = 0
    max_restarts: int = 0
    nodes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A file format of reports; `render` is "module:callable" (Report) -> bytes. suffix includes the dot.

    folder: for a format of several files, where in the report's folder they lie: `render` then returns a mapping from
    their names to bytes, and files of this suffix that it does not name are removed from there.
    """

    name: str
    suffix: str
    render: str
    description: str = ""
    folder: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Importer:
    """A reader of somebody else's results, recognised by the content alone.

    log: "module:callable" () -> `LogReader`, for output that is read line by line, or None.
    document: "module:callable" (id, source, text) -> Sequence[Claim], for a file that is read as a whole, or None; it
    raises `BadData` where the text is of its kind but broken. is_document: "module:callable" (head) -> bool, told from
    the file's first 64 KiB. meaning: what the tool's figure counts, in a sentence.
    """

    name: str
    meaning: str
    log: str | None = None
    document: str | None = None
    is_document: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if (self.log is None) == (self.document is None) or (self.document is None) != (self.is_document is None):
            raise ValueError("an importer has either a log, or a document with is_document")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing noticed about a run, with what it means for the verdict and the arithmetic that shows it."""

    rule: str
    severity: Severity
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceState:
    """One accelerator as a vendor's tool shows it; None is what the tool does not say.

    default: whether jobs go to it unless they ask for another. memory_used_fraction: only where the tool tells the
    memory as per cent alone. utilization: a fraction.
    """

    id: int
    default: bool | None = None
    name: str | None = None
    flavor: str | None = None
    memory_used_mib: int | None = None
    memory_used_fraction: float | None = None
    memory_total_mib: int | None = None
    utilization: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessState:
    """One process on an accelerator as a vendor's tool shows it; `device` is the accelerator's id."""

    device: int
    job_id: int | None = None
    pid: int | None = None
    command: str | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolReading:
    """What one output of a vendor's tool says of the accelerators of a machine, in the order it shows them."""

    tool: str
    version_current: str | None = None
    version_latest: str | None = None
    devices: tuple[DeviceState, ...] = ()
    processes: tuple[ProcessState, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitor:
    """A vendor's library that tells of devices while a job runs on them, by name.

    loader: a callable without arguments that returns a `MonitorReader` (parent, torch-free)."""

    name: str
    loader: str
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitored:
    """Which monitor tells of a size of a device, and what it calls the devices of that size."""

    monitor: str
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProcess:
    """A process that a vendor's library shows on a device. pid: as the library says it, which in a container may be
    another system's."""

    pid: int
    command: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSample:
    """One device at one moment; None is what cannot be known.

    id: as `Monitored.devices` has it. energy_j: a counter that only rises, from any origin; with `shares_energy_of` the
    id of a device whose counter holds this one's energy too (a die of the same package). energy_reason: why there is no
    counter. throttle: why the device is slowed down right now, by heat or by a failing supply, empty where it is not.
    power_capped: whether its power limit holds it back, which is how many devices work under full load. lost: what the
    library says of a device that answers no more, empty else.
    """

    id: str
    power_w: float | None = None
    energy_j: float | None = None
    shares_energy_of: str | None = None
    energy_reason: str | None = None
    temperature_c: float | None = None
    clock_hz: float | None = None
    utilization: float | None = None
    memory_used_bytes: int | None = None
    throttle: tuple[str, ...] | None = None
    power_capped: bool | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    lost: str = ""
