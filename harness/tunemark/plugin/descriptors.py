"""Descriptors: the static facts that a plugin states, importable in milliseconds and without torch.

A field that names code is a string "package.module:Name", imported only when needed: a `runtime` in the worker, a
`loader` in the parent process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tunemark.plugin.log_formats import FormatDescription
from tunemark.plugin.traced_model import TracedModel

PieceRole = Literal["prompt", "response"]
Severity = Literal["invalid", "suspect", "unknown", "note"]
LayerType = Literal["sliding_attention", "full_attention"]
MeshDegree = Literal["single", "data", "shard", "tensor", "pipeline"]
Schedule = Literal["1f1b", "gpipe", "interleaved", "zb", "zbv"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The dimensions of a decoder, under transformers' configuration field names where these exist.

    The defaults are Llama's: gated MLP, RMSNorm before attention and before the MLP, rotary positions, no biases.

    head_dim: of queries, keys and values alike. sliding_window: tokens that a query attends to, itself included; None
    for full attention. layer_types: for each layer "sliding_attention" or "full_attention"; None where all layers are
    alike. rope_theta: None where positions are not rotary. rms_norm_eps: of every norm, LayerNorm included.

    num_local_experts: None for a dense MLP; else intermediate_size is one expert's, and a router chooses
    num_experts_per_tok of them for each token, in every layer.

    attention_bias: on queries, keys, values and the output; qkv_bias: only on the first three. gated_mlp: three
    matrices (gate, up, down) instead of two. norm_bias: LayerNorm with a bias, not RMSNorm. norms_per_layer: each of
    hidden_size. qk_norm: norms of queries and of keys, "head": one weight of head_dim for all heads; "projection":
    over the whole projection. learned_positions: a table of max_position_embeddings x hidden_size.

    The last five are not passed to the worker. fused_projections: queries, keys and values are one matrix product, gate
    and up another. eager_attention: attention is several of torch's operators, not one. post_norm: blocks end in a
    norm, whose output is scaled before it is cast down. adaptable_matrices: the matrices of a layer that LoRA can adapt
    by the module's names; None where these are Llama's. traced: what the model's own code does, for families that these
    dimensions do not describe; parameters and FLOPs are then counted from it, and the dimensions are those of a plain
    decoder of about the same size.
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
    fused_projections: bool = False
    eager_attention: bool = False
    post_norm: bool = False
    adaptable_matrices: tuple[str, ...] | None = None
    traced: TracedModel | None = None

    def __post_init__(self) -> None:
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"{len(self.layer_types)} layer types for {self.num_hidden_layers} layers")
        if self.layer_types is not None and "sliding_attention" in self.layer_types and self.sliding_window is None:
            raise ValueError("layers with sliding attention, but no sliding_window")
        if (self.num_local_experts is None) != (self.num_experts_per_tok is None):
            raise ValueError("num_local_experts and num_experts_per_tok must be given together or not at all")
        if self.attention_bias and self.qkv_bias:
            raise ValueError("attention_bias includes qkv_bias: only one of them can be true")

    def as_dict(self) -> dict[str, Any]:
        """The fields for the worker and for listings. From layer_types on, fields with Llama's values are omitted, as
        not every transformers configuration class accepts them."""
        names = [f.name for f in fields(self)]
        names = names[: names.index("fused_projections")]
        always = names[: names.index("layer_types")]
        defaults = {f.name: f.default for f in fields(self)}
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if name in always or value != defaults[name]}


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSpec:
    """A tokenizer. loader: a callable that returns a `Tokenizer` (parent, torch-free); it is called with `argument`
    where that is not empty, else without arguments."""

    name: str
    loader: str
    argument: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One model of one size.

    tokenizer: None where none is installed for it. runtime: a class whose instances build it in the worker
    (`ModelRuntime`); None where only its dimensions are known: it can be planned and audited, not run. pretrained: the
    hub id, or the absolute path of the folder, that `--weights pretrained` loads; None where there is none. requires:
    modules that the worker's interpreter must have. weights: a callable that returns the path of published weights
    shipped by an installed package, and raises a `TunemarkError` where they are missing. is_remote: it is built by
    Python code from its repository. configuration: values of transformers' configuration that do not change any
    parameter count (activation, position scaling), passed to the runtime with the architecture. transformers_type: the
    model type that the interpreter's transformers must have as a causal language model; None if the runtime needs none.
    supports: by setting, such as `attention`, the values beyond its default that the runtime carries out. notes:
    sentences on the model for every plan of it.
    """

    name: str
    architecture: Architecture
    tokenizer: TokenizerSpec | None
    runtime: str | None
    description: str = ""
    source: str = ""
    pretrained: str | None = None
    requires: tuple[str, ...] = ("torch", "transformers")
    configuration: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    is_remote: bool = False
    transformers_type: str | None = None
    supports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def worker_architecture(self) -> dict[str, Any]:
        """The architecture and configuration for the worker (`Assignment.architecture`)."""
        extra: dict[str, Any] = {"configuration": dict(self.configuration)} if self.configuration else {}
        if self.is_remote:
            extra["remote"] = self.pretrained
        traced = self.architecture.traced
        if traced is not None and traced.packing is not None:
            extra["packing"] = traced.packing
        if traced is not None and any(layer.idle for layer in traced.kinds):
            extra["idle_modules"] = [f"{n}.{path}" for n, layer in enumerate(traced.layers) for path in layer.idle]
        return {**self.architecture.as_dict(), **extra}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Models that are named by a reference, such as a folder or repository: `NAME:REFERENCE`.

    loader: a callable (reference) -> `Model`, in the parent and torch-free; raises a `TunemarkError` if there is none.
    takes_python: it is called (reference, python) with the interpreter that trains, None for the parent's own.
    """

    name: str
    loader: str
    description: str = ""
    takes_python: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamplePiece:
    """A part of an example: either text, or ids where the dataset needs no tokenizer."""

    role: PieceRole = "response"
    text: str | None = None
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.ids is None):
            raise ValueError("a piece is either text or ids")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One document. Text pieces are joined and encoded as one text, so that ids do not depend on `--train-on`; the
    tokenizer's bos and eos are added around them. Ids are used unchanged.

    messages: instead of pieces, a conversation in the format of chat templates, each message with `role`, `content` and
    whatever else the template reads; `weight` 0 excludes an answer from the loss. Only where `Dataset.is_chat`. tools:
    descriptions of the tools that a conversation may call, as templates read them. where: the example's origin for
    error messages, such as "rows.jsonl, row 3"."""

    pieces: tuple[ExamplePiece, ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    where: str = ""

    def __post_init__(self) -> None:
        if self.pieces and self.messages:
            raise ValueError("an example is either pieces or messages")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A dataset.

    loader: a callable (options, vocab_size) -> `DatasetSource`. options: options on the command line
    (`name:path=FILE`), each with its meaning. needs_tokenizer: False where it yields ids. roles: of its pieces, so that
    `--train-on response` is refused early where there are no prompts.
    """

    name: str
    loader: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    needs_tokenizer: bool = True
    roles: tuple[PieceRole, ...] = ("prompt", "response")
    learnable: bool = True
    """False where the loss cannot be expected to fall (random ids): the loss-rising rule is not applied."""
    is_chat: bool = False
    """True where its examples are messages, which a chat template turns into text: the source's own
    (`HasChatTemplate`) or else the tokenizer's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyAxis:
    """One axis of the device mesh. strategy: name of the strategy that spans it. degree: its length in processes."""

    strategy: str
    degree: int
    options: Mapping[str, str] = field(default_factory=dict)


def _one_rank_each(processes: int) -> int:
    return processes


def _one_is_enough(axis: StrategyAxis) -> int:
    return 1


def _no_versions(axes: Sequence[StrategyAxis], settings: Mapping[str, Any]) -> Mapping[str, str]:
    return {}


def _nothing_refused(
    axes: Sequence[StrategyAxis], architecture: Architecture, settings: Mapping[str, Any]
) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutSettings:
    """The settings of a layout that a strategy's options change; each is read from the strategy of one degree.

    reshard ("shard"): gathered parameters are freed after the forward pass. sequence_parallel ("tensor"): ranks also
    divide the tokens between matrices. schedule, virtual ("pipeline"): the order of passes, and each rank's stages.
    """

    reshard: bool = True
    sequence_parallel: bool = False
    schedule: Schedule = "1f1b"
    virtual: int = 1


def _no_settings(options: Mapping[str, str]) -> LayoutSettings:
    return LayoutSettings()


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyLayout:
    """How a strategy shares a model and a batch among processes, for predictions and for the layout search.

    degree: what the processes of its axis do. "data": each holds the whole model and has a share of the batch; "shard":
    the same, but they shard parameters, gradients and optimizer states; "tensor": they divide every matrix; "pipeline":
    each holds some of the layers; "single": one process does everything, and there is no axis.
    order: place of the axis in a combination, the lowest outermost; processes that communicate most are innermost.
    search_options: the sets of options that the search tries, in order; calibration_options: further sets, besides its
    defaults, that a calibration measures. settings: from its options, the settings of the layout.
    """

    degree: MeshDegree
    order: int = 0
    search_options: tuple[Mapping[str, str], ...] = ({},)
    calibration_options: tuple[Mapping[str, str], ...] = ()
    settings: Callable[[Mapping[str, str]], LayoutSettings] = _no_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """A parallelization strategy.

    devices: those it is for, empty for any; a strategy for one device takes precedence over one of the same name for
    any. distributed: False is one process whatever the size, True one process per unit of the size.
    data_ranks: from the number of its processes, how many process distinct batches (data-parallel ranks).

    combined_runtime: the runtime of combinations of strategies, each on its own axis of one mesh; strategies that name
    the same one can be combined by plus (`fsdp:4+tp:2`). None where it cannot be combined.
    micro_batches: from its axis, the minimum number of micro-batches per step, which a global batch of `auto` uses.
    refusal: from the axes of the run, the model and the settings by name, the reason why the strategy does not support
    them; None where it does. Called at planning time, for each strategy of a combination.
    minimum_versions: by module name, the oldest version that the training interpreter may have. layout_versions:
    likewise, from the axes of the run and the settings by name, for what only some layouts or settings need.
    is_search: stands for a layout that the harness chooses among the device's other strategies before measuring; its
    runtime is never loaded. layout: what predictions and the search need; None where it is neither predicted nor tried.
    can_evaluate: every process can compute a batch's logits between training steps. can_save: every process has the
    whole module, or the runtime has `full_state`.
    """

    name: str
    runtime: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    distributed: bool = True
    data_ranks: Callable[[int], int] = _one_rank_each
    combined_runtime: str | None = None
    micro_batches: Callable[[StrategyAxis], int] = _one_is_enough
    refusal: Callable[[Sequence[StrategyAxis], Architecture, Mapping[str, Any]], str | None] = _nothing_refused
    minimum_versions: Mapping[str, str] = field(default_factory=dict)
    layout_versions: Callable[[Sequence[StrategyAxis], Mapping[str, Any]], Mapping[str, str]] = _no_versions
    is_search: bool = False
    layout: StrategyLayout | None = None
    can_evaluate: bool = False
    can_save: bool = False

    def __post_init__(self) -> None:
        layout = self.layout
        if layout is None:
            return
        if layout.degree not in get_args(MeshDegree) or (layout.degree == "single") is self.distributed:
            raise ValueError(f"a layout of degree {layout.degree!r} for a strategy with distributed={self.distributed}")
        for option in {key for each in (*layout.search_options, *layout.calibration_options) for key in each}:
            if option not in self.options:
                raise ValueError(f"its layout has the option {option!r}, which is not among its options")


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One size of a device.

    name: the size, as the device names it. chip: the chip's name. chips: number of chips, None where unknown.
    memory_bytes: usable by the job, None where unknown. peak_flops: dense FLOP/s of all chips by precision, empty where
    unknown; source: where the peak was published. oversubscribed: the size is larger than this machine.

    parts: number of physical memories that memory_bytes is the sum of, where one of them must fit a replica of the
    model; part_memory_bytes: the size of one; None where unknown. nodes: hosts that the size spans, None where unknown.
    is_present: False where the size is only known from documentation, so that it can be planned but not run.
    is_simulated: measurements describe a simulator. can_calibrate: False where its peak cannot be measured.
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
class LaunchConfig:
    """How a device's jobs are launched. processes: of the whole job. threads: of each process. environment: variables
    to add. options: JSON values for the device's runtime (`Assignment.device_options`). nodes: hosts over which the
    processes are spread evenly; None where the launcher decides."""

    processes: int
    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    nodes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Launcher:
    """Starts a job's processes.

    loader: "module:callable" (options, export, say) -> `LauncherSession`, in the parent. options: on the command line
    (`name:key=value`), each with its meaning. is_remote: True where processes may run on other machines, whose
    sizes cannot be detected from this one.
    """

    name: str
    loader: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    is_remote: bool = False


# Built in, so that runs on this machine need no launcher plugin.
LOCAL_LAUNCHER = Launcher(
    name="local",
    loader="tunemark.launch.local_launcher:LocalLauncher",
    description="this machine; its processes open no port but on the loopback",
)


def _nothing_refused_by_trainer(architecture: Architecture, settings: Mapping[str, Any]) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerEnvironment:
    """The packages of the interpreter that `tunemark trainers install` makes for a trainer.

    requirements: as for pip, pinned. without_dependencies: installed after them, whatever they ask for: a package that
    pins what it need not. as_here: distributions of which tunemark's own version is installed, so that both compute
    with the same kernels. bytes: what it takes on disk, with torch for CPUs; measured.
    """

    requirements: tuple[str, ...]
    bytes: int
    without_dependencies: tuple[str, ...] = ()
    as_here: tuple[str, ...] = ("torch", "transformers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainer:
    """A program whose own training loop is measured, under tunemark's witnesses.

    runtime: a class whose instances run the loop in the worker (`TrainerRuntime`); empty for tunemark's own. package:
    the distribution that the loop is from. requires: modules that the worker's interpreter must have;
    minimum_versions: by module name, the oldest version of each. options: on the command line (`name:key=value`), each
    with its meaning; file_options: those of them that name a file, which must be given and be there.

    honours: settings that the loop takes, each with the values that it takes, none for all. Of the settings of training
    that are not named here, those that the worker itself carries out (model, data, batches, weights, seed, learning
    rate) hold for every trainer; any other must have its default. refusal: from the model and the settings by name, why
    the loop does not take them together; None where it does. What it does otherwise though a setting says the same, its
    runtime says (`facts`): shown with each result, never approximated silently. environment: the packages of an
    interpreter of its own; None where tunemark's own will do. absent: of a program that is known and has no runtime,
    why: what was tried and what it said. Runs with it are refused.
    """

    name: str
    runtime: str
    description: str = ""
    license: str = ""
    package: str = ""
    requires: tuple[str, ...] = ("torch",)
    minimum_versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    file_options: tuple[str, ...] = ()
    honours: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    refusal: Callable[[Architecture, Mapping[str, Any]], str | None] = _nothing_refused_by_trainer
    environment: TrainerEnvironment | None = None
    absent: str = ""


# Built in: the worker's own loop, which takes every setting.
OWN_TRAINER = Trainer(name="tunemark", runtime="", description="tunemark's own loop", license="Apache-2.0")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """One attempt, as passed to a launcher.

    name: short, of letters, digits and dashes, the same if the command is started again. python: the worker's
    interpreter. processes: of the whole job; threads: of each. gpus: of the whole job. environment: variables for every
    process. code: a folder for PYTHONPATH. folder: absolute, the processes' working directory, which contains
    plan.json. max_restarts: how often all processes may be restarted after a failure. nodes: as in `LaunchConfig`.
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

    folder: for a format of several files, their subfolder of the report's folder: `render` then returns a mapping from
    file names to bytes, and other files of this suffix are removed from the subfolder.
    """

    name: str
    suffix: str
    render: str
    description: str = ""
    folder: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Importer:
    """A reader of other tools' results, whose files are recognised by content only.

    log: "module:callable" () -> `LogReader`, for output that is read line by line, or None.
    document: "module:callable" (id, source, text) -> Sequence[Claim], for a file that is read as a whole, or None; it
    raises `BadData` where the text has its format but is broken. is_document: "module:callable" (head) -> bool, called
    with the file's first 64 KiB. is_binary: whether both get bytes instead of text. takes_columns: whether `document`
    takes a fourth argument, what the user says of a table's headers (--columns), by header. meaning: what the tool's
    figure counts, in a sentence. priority: the importer that is asked first has the highest; one that reads lines of
    any program has less than 0. formats: what it reads, figure by figure, for the page that compares the programs.
    """

    name: str
    meaning: str
    log: str | None = None
    document: str | None = None
    is_document: str | None = None
    description: str = ""
    priority: int = 0
    is_binary: bool = False
    takes_columns: bool = False
    formats: tuple[FormatDescription, ...] = ()

    def __post_init__(self) -> None:
        if (self.log is None) == (self.document is None) or (self.document is None) != (self.is_document is None):
            raise ValueError("an importer has either a log, or a document with is_document")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A rule's result for one run: its severity for the verdict, and a message with the arithmetic behind it."""

    rule: str
    severity: Severity
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceState:
    """One accelerator as shown by a vendor's tool; None where the tool does not say.

    default: whether jobs use it unless they request another. memory_used_fraction: only where the tool shows memory as
    a percentage alone. utilization: a fraction.
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
    """One process on an accelerator as shown by a vendor's tool; `device` is the accelerator's id."""

    device: int
    job_id: int | None = None
    pid: int | None = None
    command: str | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolStatus:
    """The accelerators of a machine in one output of a vendor's tool, in its order."""

    tool: str
    version_current: str | None = None
    version_latest: str | None = None
    devices: tuple[DeviceState, ...] = ()
    processes: tuple[ProcessState, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitor:
    """A vendor's library that samples devices while a job runs on them.

    loader: a callable without arguments that returns a `MonitorReader` (parent, torch-free)."""

    name: str
    loader: str
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class MonitorTarget:
    """The name of the monitor that samples a size of a device, and the monitor's ids of that size's devices."""

    monitor: str
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProcess:
    """A process on a device, as reported by a vendor's library. pid: as reported; seen from a container it may be of
    another PID namespace."""

    pid: int
    command: str | None = None
    memory_bytes: int | None = None


# The samples of an attempt's devices, in its folder: one JSON object per line.
TELEMETRY_FILE = "telemetry.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSample:
    """One device at one moment; None where a value is not available.

    id: as in `MonitorTarget.devices`. energy_j: a monotonic counter of any origin. shares_energy_of: the id of a device
    whose counter includes this one's energy (a die of the same package). energy_reason: why there is no counter.
    throttle: reasons for the current slowdown, thermal or a failing supply; empty where there is none. power_capped:
    whether the power limit reduces its clock, which is normal for many devices under full load. lost: what the library
    says of a device that no longer responds, else empty.
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
