"""What a plugin does, once it has been chosen by name.

`Device`, `DatasetSource` and `Tokenizer` live in the parent and are torch-free. The runtimes live in the worker:
a `runtime.py` imports torch, keeps to Python 3.8 syntax, and imports `tunemark_worker` but never `tunemark`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tunemark.plugin.descriptors import (
    Accelerator,
    DeviceSample,
    Example,
    Job,
    Launch,
    Monitored,
    Strategy,
    ToolReading,
)

if TYPE_CHECKING:
    import torch

    from tunemark_worker.batches import Batch
    from tunemark_worker.contract import Assignment, Place


@runtime_checkable
class Device(Protocol):
    """A kind of accelerator. Nothing here may allocate on it or import torch."""

    name: str
    runtime: str

    def accelerators(self) -> Sequence[Accelerator]:
        """The sizes that this machine offers, smallest first; empty where the device is not present."""

    def accelerator(self, size: str) -> Accelerator | None:
        """The accelerator of that size, oversubscribed ones included; None where there can be none."""

    def default_size(self) -> str:
        """The size taken where the user names none; only asked where `accelerators()` is not empty."""

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        """Make that size current, prove it idle, and put the former one back on leaving.

        Yields variables that the job needs besides those of `launch`. store: a folder for what must outlive this
        process, so that a later one can put back what a crash left. A `TunemarkError` on entering is the end of the
        attempt, on leaving a finding of it."""

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        """Processes, threads and environment of a job on it."""


@runtime_checkable
class ReadsOutput(Protocol):
    """What a `Device` may offer besides: reading what its vendor's tool printed, on any machine."""

    def read_output(self, text: str) -> ToolReading:
        """The accelerators that a saved output shows. Called in the parent by `tunemark list devices --from`; raises a
        `TunemarkError` that shows the line where the text is not understood, or holds no table of accelerators."""


@runtime_checkable
class ChecksRuns(Protocol):
    """What a `Device` may offer besides: refusing, in the plan, what it cannot run."""

    def refusal(self, accelerator: Accelerator, strategy: str, settings: Mapping[str, Any]) -> str | None:
        """Why such a run cannot be; None where it can. strategy: with its options. settings: values by their names."""


@runtime_checkable
class KnowsSizes(Protocol):
    """What a `Device` may offer besides: the sizes that its vendor documents, for plans on any machine."""

    def documented(self) -> Sequence[Accelerator]:
        """Smallest first, `is_present` False."""


@runtime_checkable
class PutsBack(Protocol):
    """What a `Device` may offer besides: saying what an interrupted run has left changed."""

    def left_over(self, store: Path) -> str | None:
        """A sentence to a person, shown before the next run; None where all is as it was."""


@runtime_checkable
class WatchesJobs(Protocol):
    """What a `Device` may offer besides: following a job from outside while it runs."""

    def watch(
        self, accelerator: Accelerator, attempt: Path, say: Callable[[str], None]
    ) -> AbstractContextManager[JobWatch]:
        """Follow the job whose working directory is `attempt`; what is sampled goes into files there. say: to the
        person who waits."""


class JobWatch(Protocol):
    """A job that is being followed."""

    def is_waiting(self) -> bool:
        """Whether the job waits for its turn on the device, so that its silence is none."""

    def facts(self) -> Mapping[str, Any]:
        """What was seen, JSON values, after the job's end. Keys that results are made of, each left out where unknown:
        `strategy_selected`, `queue_s` (waiting for a turn), `search_s` (choosing the parallel configuration),
        `requested_bytes` and `available_bytes` (of memory that could not be had), `peak_memory_bytes` (whole job),
        `failure` (what the platform said of its end)."""


@runtime_checkable
class RunsElsewhere(Protocol):
    """What a `Device` may offer besides: jobs on machines that this one knows nothing of, by Slurm for one."""

    def elsewhere(self, size: str) -> Accelerator | None:
        """That size on some other machine, of which nothing is known but what the size says."""

    def launch_elsewhere(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        """Processes, threads and environment of a job there: nothing of this machine's cores in it."""


class Launching(Protocol):
    """A launcher, opened with its options: it starts jobs and lets them be followed. Lives in the parent.

    at_once: how many jobs it may have started and not seen ended.
    """

    at_once: int

    def check(self, launch: Launch, store: Path) -> None:
        """Raise a `TunemarkError` where such a job cannot be started; called for every run before any is started."""

    def start(self, job: Job) -> StartedJob:
        """Start a job and return at once; a `TunemarkError` is the end of the attempt."""

    def adopt(self, job: Job, facts: Mapping[str, Any]) -> StartedJob | None:
        """The job that an earlier life of this command has started, by the facts that it said then; None where it
        cannot be followed any more, or never could be."""

    def close(self) -> None:
        """Called once, when no job is left."""


class StartedJob(Protocol):
    """A job that was started. Its processes write their records into the job's folder."""

    def exit_code(self) -> int | None:
        """How it ended; None while it has not. A negative number is a signal's. Asked often: it must not cost."""

    def is_waiting(self) -> bool:
        """Whether it stands in a queue, so that its silence is none."""

    def interrupt(self) -> None:
        """Ask the ranks to end at a window's edge (SIGTERM), and wait for nothing."""

    def stacks(self, pids: Mapping[int, int]) -> str:
        """Make every rank write its stacks (SIGUSR1), also a stopped one, and say what state the ranks were found in.
        pids: by rank, on the rank's own host."""

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        """End it and leave no process behind. graceful: with time for the ranks to end at a window's edge."""

    def facts(self) -> Mapping[str, Any]:
        """JSON values, kept with the attempt and handed to `adopt`. Keys that results are made of, each left out where
        unknown: `queue_s` (waiting for its turn), `hosts` (names), `failure` and `failure_status` (what the platform
        said of its end: words, and killed, oom, timeout or error)."""


@runtime_checkable
class HasMonitor(Protocol):
    """What a `Device` may offer besides: naming the library that tells of it, so that a job on it is sampled."""

    def monitored(self, accelerator: Accelerator) -> Monitored | None:
        """Whom to ask about that size, and by which names; None where nobody tells. Called before each attempt."""


class MonitorReader(Protocol):
    """A vendor's library, opened for the devices of one job. In the parent, in a thread of its own while the job runs:
    what it raises is kept with the samples and never touches the job."""

    def open(self, devices: Sequence[str]) -> Mapping[str, Any]:
        """Take the library up, and say of the devices what does not change, JSON values: names, versions, memory,
        links between them. A `TunemarkError` where the library or a device is not there."""

    def sample(self) -> Sequence[DeviceSample]:
        """Each device now. A device that answers no more is a sample that says so."""

    def close(self) -> None:
        """Put the library down."""


class DeviceRuntime(Protocol):
    """The device inside the worker.

    waits_free: True where `synchronize` costs nothing (work is synchronous), so that every step is a window.
    It may have a method `follow(read)`, called before the first step: `read` brings a value to the host that depends
    on all that was queued, for platforms where there is no other way to wait.
    """

    waits_free: bool

    def open(self, assignment: Assignment) -> Place:
        """Take the device, set threads and affinity, join the process group where there is one."""

    def synchronize(self) -> None:
        """Return when all queued work is done."""

    def peak_memory_bytes(self) -> int | None:
        """The most memory this process held on the device; None where it cannot be known."""

    def facts(self) -> Mapping[str, Any]:
        """What the device says of itself, JSON values."""


class ModelRuntime(Protocol):
    """The model inside the worker."""

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        """The module, on the place's device, in the parameters' dtype, weights initialised or loaded."""

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Scores [micro_batch, sequence, vocab_size] of a batch that lies on the device."""


@runtime_checkable
class TellsWeights(Protocol):
    """What a `ModelRuntime` may offer besides, asked after `build`."""

    def weights_origin(self) -> Mapping[str, Any]:
        """JSON values for the record: where the weights were read from."""


@runtime_checkable
class SavesModel(Protocol):
    """What a `ModelRuntime` may offer besides: `--save`."""

    def save(self, module: torch.nn.Module, folder: str) -> None:
        """Write the model into an empty folder, in rank 0. module: as `build` gave it, adapters merged."""


class StrategyRuntime(Protocol):
    """Parallelization inside the worker; constructed with the assignment.

    It may also have:
    `place(place) -> Place`, called after `prepare`: where this rank stands, if the strategy orders data ranks itself;
    `clip(parameters, largest) -> norm`: scale the gradients so that the norm over the whole job is at most `largest`,
    and return the norm before; without it, gradients are this rank's own or DTensors;
    `gradients(logits, loss, batches, scale) -> loss_sum`: forward and backward of all a step's micro-batches, of
    `loss(logits(module, batch), labels) * scale`; returns the unscaled losses' sum over the data rank, on every rank;
    `watch(waits)`, called before the first step of a breakdown of several ranks: `waits.until_taken()` then says that
    there is nothing left to compute in this part of a step, where the wait for other ranks is hidden in torch's C++.
    """

    def prepare(self) -> None:
        """Before the model exists."""

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        """After it exists."""

    def selected(self) -> Mapping[str, Any] | None:
        """What was truly used; None where it cannot be known."""


@runtime_checkable
class GathersWeights(Protocol):
    """What a `StrategyRuntime` may offer besides, where it shards: the whole weights, for `--save`."""

    def full_state(self, module: torch.nn.Module) -> Mapping[str, torch.Tensor] | None:
        """Called in every rank after training; rank 0 answers with all weights on the host, under the names of the
        module that `apply` was given."""


class DatasetSource(Protocol):
    """An opened dataset. Opening checks that it can be read; `fingerprint` changes when any example would."""

    def fingerprint(self) -> str:
        """A short text that stands for the content; reading it must be much cheaper than reading the examples."""

    def facts(self) -> Mapping[str, Any]:
        """What a report should say of its origin: paths, versions, revisions."""

    def examples(self) -> Iterator[Example]:
        """All examples, in a fixed order."""


@runtime_checkable
class HasChatTemplate(Protocol):
    """What a `DatasetSource` of messages may offer besides: a template of its own."""

    def chat_template(self) -> str | None:
        """Jinja, as tokenizers carry it; None for the tokenizer's own."""


class Tokenizer(Protocol):
    """Text to ids. bos_id and eos_id go around each document; pad_id fills slots and is never trained on.

    It may also have `chat_template`, Jinja or None, for datasets of messages; and `special_texts()`, by the name in a
    template (`bos_token`, `eos_token`) the texts that `encode` takes for those tokens: what such a template makes is
    encoded as it is, with nothing around it.
    """

    name: str
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int

    def fingerprint(self) -> str:
        """A hash of all that determines the ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without bos and eos."""

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """The ids of each text, and for each id the index (in characters) where its text ends."""


@runtime_checkable
class Decodes(Protocol):
    """What a `Tokenizer` may offer besides: ids to text, for `--sample`."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special ones left out."""


@runtime_checkable
class HasFiles(Protocol):
    """What a `Tokenizer` may offer besides: what transformers loads it from, for `--save`."""

    def files(self) -> Mapping[str, bytes]:
        """Contents by the name of the file."""
