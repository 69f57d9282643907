"""What a plugin states of itself: facts alone, imported in milliseconds, without torch.

A field that names code is a string "package.module:Name", imported when it is needed and where it is needed:
a `runtime` in the worker, a `loader` in the parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["prompt", "response"]
Severity = Literal["invalid", "suspect", "unknown", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The dimensions of a decoder, under the field names of transformers' configuration.

    head_dim: None means hidden_size // num_attention_heads. sliding_window: tokens that a query sees, itself
    included; None where attention is full.
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
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerName:
    """A tokenizer by name; `loader` is a callable without arguments that returns a `Tokenizer` (parent, torch-free)."""

    name: str
    loader: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One model at one size.

    runtime: a class whose instances build it in the worker (`ModelRuntime`). pretrained: the hub id that
    `--weights pretrained` loads, None where there is none. requires: modules that the worker's interpreter must have.
    """

    name: str
    architecture: Architecture
    tokenizer: TokenizerName
    runtime: str
    description: str = ""
    source: str = ""
    pretrained: str | None = None
    requires: tuple[str, ...] = ("torch", "transformers")


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
    the tokenizer's bos and eos are put around them. Ids are taken as they are."""

    pieces: tuple[Piece, ...]


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


def _one_rank_each(processes: int) -> int:
    return processes


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """A way to parallelize.

    distributed: False is one process whatever the size, True one process per unit of the size.
    data_ranks: from the number of processes, how many see distinct batches.
    """

    name: str
    runtime: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    distributed: bool = True
    data_ranks: Callable[[int], int] = _one_rank_each


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """What one size of one device offers.

    name: the size, as the device calls it. chips: physical parts, None where unknown. memory_bytes: usable by the
    job, None where unknown. peak_flops: dense FLOP/s of all chips by precision, empty where unknown; source: whence.
    oversubscribed: more was asked than there is.
    """

    name: str
    chip: str
    chips: int | None
    memory_bytes: int | None
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    source: str | None = None
    oversubscribed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """The shape of a job: processes on this host, threads in each, variables added to the environment,
    and what the device's runtime is told (JSON values)."""

    processes: int
    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launcher:
    """A way to start a job's processes; `loader` is a callable that returns one."""

    name: str
    loader: str
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A file format of reports; `render` is "module:callable" (Report) -> bytes. suffix includes the dot."""

    name: str
    suffix: str
    render: str
    description: str = ""


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
