"""Protocols: the objects with behaviour that a plugin implements in the parent process, which must be torch-free.

What a plugin implements in the worker is in `tunemark_worker.capabilities`: a `runtime.py` imports torch, uses Python
3.8 syntax only, and imports `tunemark_worker` but never `tunemark`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tunemark.plugin.descriptors import (
    Accelerator,
    DeviceSample,
    Example,
    JobSpec,
    LaunchConfig,
    MonitorTarget,
    Strategy,
    ToolStatus,
)
from tunemark.plugin.hardware import DeviceFacts


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
        """The size used where the user names none; only called where `accelerators()` is not empty."""

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        """Switch the device to that size, check that it is idle, and restore the former size on exit.

        Yields environment variables that the job needs besides those of `launch`. store: a folder for state that must
        outlive this process, so that a later one can restore the device after a crash. A `TunemarkError` on entry ends
        the attempt, on exit it becomes a finding."""

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """Processes, threads and environment of a job on that accelerator."""


@runtime_checkable
class ReadsToolOutput(Protocol):
    """Optional for a `Device`: parses the saved output of its vendor's tool, on any machine. The first line of the
    method's docstring names the tools, and is shown to users."""

    def read_output(self, text: str) -> ToolStatus:
        """The accelerators in a saved output. Called in the parent by `tunemark list devices --from`; raises a
        `TunemarkError` that shows the line where the text cannot be parsed, or has no table of accelerators."""


@runtime_checkable
class ChoosesAllocator(Protocol):
    """Optional for a `Device`: jobs on it can use other allocators of host memory than that of `launch`."""

    def allocator_environment(self, name: str) -> Mapping[str, str]:
        """Environment variables that replace those of `launch`, for a value of `--allocator` other than the default.
        Raises `BadExperiment` where it is not on this machine."""


@runtime_checkable
class ChecksRuns(Protocol):
    """Optional for a `Device`: refuses, at planning time, runs that it does not support."""

    def refusal(self, accelerator: Accelerator, strategy: str, settings: Mapping[str, Any]) -> str | None:
        """Why the run is not supported; None where it is. strategy: with its options. settings: values by name."""


@runtime_checkable
class ChecksInterpreter(Protocol):
    """Optional for a `Device`: needs packages in the interpreter that trains, which may be another than tunemark's.

    packages: names of the modules that decide."""

    packages: Sequence[str]

    def interpreter_problem(self, versions: Mapping[str, str | None]) -> str | None:
        """How to get an interpreter that can use the device; None where this one can. versions: by module, of those in
        `packages` that it has, None where unknown. Called at planning time, where the accelerator is present."""


@runtime_checkable
class ExplainsAbsence(Protocol):
    """Optional for a `Device`: says why this machine has none."""

    def absence(self) -> str:
        """Why, and what to do about it. Called where `accelerators()` is empty and a size is needed."""


@runtime_checkable
class ListsDocumentedSizes(Protocol):
    """Optional for a `Device`: lists the sizes that its vendor documents, for plans on any machine."""

    def documented_sizes(self) -> Sequence[Accelerator]:
        """Smallest first, `is_present` False."""


@runtime_checkable
class ReportsUnrestoredState(Protocol):
    """Optional for a `Device`: reports state that an interrupted run changed and did not restore."""

    def unrestored_state(self, store: Path) -> str | None:
        """A sentence for the user, shown before the next run; None where everything is restored. store: as `occupy`."""


@runtime_checkable
class WatchesJobs(Protocol):
    """Optional for a `Device`: observes a job from outside its processes while it runs."""

    def watch(
        self, accelerator: Accelerator, attempt: Path, say: Callable[[str], None]
    ) -> AbstractContextManager[JobWatch]:
        """Observe the job whose working directory is `attempt`, and write samples to files there. say: prints a message
        to the user."""


class JobWatch(Protocol):
    """The observation of one job."""

    def is_waiting(self) -> bool:
        """Whether the job is queued for the device, in which case it does not time out."""

    def facts(self) -> Mapping[str, Any]:
        """Observations as JSON values, after the job's end. Keys that results use, each omitted where unknown:
        `strategy_selected`, `queue_s` (time in the queue), `search_s` (choosing the parallel configuration),
        `requested_bytes` and `available_bytes` (of a failed allocation), `peak_memory_bytes` (whole job),
        `failure` (the platform's message on how the job ended)."""


@runtime_checkable
class RunsRemotely(Protocol):
    """Optional for a `Device`: jobs on other machines, for example by Slurm."""

    def remote_accelerator(self, size: str) -> Accelerator | None:
        """That size on another machine, of which only the size is known; None where there can be none."""

    def remote_launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """Processes, threads and environment of a job there, independent of this machine's cores."""


@runtime_checkable
class LimitsMemory(Protocol):
    """Optional for a `Device`: can hold a job to less memory than there is, so that an allocation beyond it fails."""

    def limit_memory(self, launch: LaunchConfig, limit_bytes: int) -> LaunchConfig:
        """The launch of a job that may use so many bytes, all processes together."""


@runtime_checkable
class DrivesChips(Protocol):
    """Optional for a `Device`: says which chips it is for, so that these can be planned by name on any machine."""

    def drives(self, chip: str) -> bool:
        """Whether it is the device for this chip. chip: its name in the table of chips (`tunemark.physics.chips`)."""


@runtime_checkable
class StatesDeviceFacts(Protocol):
    """Optional for a `Device` whose chips are in no table: states what predictions assume until it is calibrated."""

    def assumed_facts(self, launch: LaunchConfig) -> DeviceFacts:
        """The facts of what one process of such a job occupies; `source` says in words where they are from."""


class LauncherSession(Protocol):
    """A launcher opened with its options, which starts and follows jobs. Runs in the parent.

    max_jobs: maximum number of jobs that run at the same time.
    """

    max_jobs: int

    def check(self, launch: LaunchConfig, store: Path) -> None:
        """Raise a `TunemarkError` where such a job cannot be started; called for every run before any is started."""

    def start(self, job: JobSpec) -> StartedJob:
        """Start a job and return immediately; a `TunemarkError` ends the attempt."""

    def adopt(self, job: JobSpec, facts: Mapping[str, Any]) -> StartedJob | None:
        """The job that an earlier, interrupted process of this command started, from that job's `facts`; None where it
        cannot be followed any more, or never could."""

    def close(self) -> None:
        """Called once, when no job is left."""


class StartedJob(Protocol):
    """A job that was started. Its processes write their records to the job's folder."""

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the job runs. Called often, so it must be cheap."""

    def is_waiting(self) -> bool:
        """Whether the job is queued, in which case it does not time out."""

    def interrupt(self) -> None:
        """Ask the ranks to end after the current window (SIGTERM), without waiting for them."""

    def stacks(self, pids: Mapping[int, int]) -> str:
        """Make every rank write its stacks (SIGUSR1), also a stopped one, and describe the ranks' process states.
        pids: by rank, on the rank's own host."""

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        """End the job and all its processes. graceful: give the ranks time to end after the current window."""

    def facts(self) -> Mapping[str, Any]:
        """JSON values, stored with the attempt and passed to `adopt`. Keys that results use, omitted where unknown:
        `queue_s` (time in the queue), `hosts` (names), `failure` and `failure_status` (the platform's message on how
        the job ended; and killed, oom, timeout or error)."""


@runtime_checkable
class HasMonitor(Protocol):
    """Optional for a `Device`: names the monitor that samples it while a job runs."""

    def monitor_target(self, accelerator: Accelerator) -> MonitorTarget | None:
        """The monitor of that size and the ids of its devices; None where there is none. Called before each attempt."""


class MonitorReader(Protocol):
    """A vendor's library, opened for the devices of one job. Runs in a thread of the parent while the job runs:
    exceptions are stored with the samples and never affect the job."""

    def open(self, devices: Sequence[str]) -> Mapping[str, Any]:
        """Initialise the library and return static facts of the devices as JSON values: names, versions, memory, links
        between them. Raises a `TunemarkError` where the library or a device is missing."""

    def sample(self) -> Sequence[DeviceSample]:
        """One sample of each device now. A device that no longer responds is a sample with `lost`."""

    def close(self) -> None:
        """Shut the library down."""


class DatasetSource(Protocol):
    """An opened dataset. Opening checks that it can be read; `fingerprint` changes whenever any example does."""

    def fingerprint(self) -> str:
        """A short text that identifies the content; it must be much cheaper than reading the examples."""

    def facts(self) -> Mapping[str, Any]:
        """The dataset's origin, for reports: paths, versions, revisions."""

    def examples(self) -> Iterator[Example]:
        """All examples, in a fixed order."""


@runtime_checkable
class HasChatTemplate(Protocol):
    """Optional for a `DatasetSource` of messages: has its own chat template."""

    def chat_template(self) -> str | None:
        """A Jinja template in the format of tokenizers; None to use the tokenizer's."""


@runtime_checkable
class HasRemarks(Protocol):
    """Optional for a `DatasetSource`: has something to say to the user once its examples have been read."""

    def remarks(self) -> Sequence[str]:
        """Sentences for the plan and the report, such as which columns of text are not used."""


class Tokenizer(Protocol):
    """Text to ids. bos_id and eos_id go around each document; pad_id fills slots and is never trained on."""

    name: str
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int

    def fingerprint(self) -> str:
        """A hash of everything that determines the ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without bos and eos."""

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """The ids of each text, and for each id the end of its text as a character index."""


@runtime_checkable
class DecodesIds(Protocol):
    """Optional for a `Tokenizer`: ids to text, for `--sample`."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""


@runtime_checkable
class HasTokenizerFiles(Protocol):
    """Optional for a `Tokenizer`: the files from which transformers loads it, for `--save`."""

    def files(self) -> Mapping[str, bytes]:
        """File contents by file name."""


@runtime_checkable
class TokenizesChats(Protocol):
    """Optional for a `Tokenizer`: has a chat template, for datasets of messages."""

    chat_template: str | None
    """A Jinja template; None where there is none."""


@runtime_checkable
class NamesSpecialTexts(Protocol):
    """Optional for a `Tokenizer`: encodes special tokens that a chat template writes."""

    def special_texts(self) -> Mapping[str, str]:
        """By their names in templates (`bos_token`, `eos_token`), the texts that `encode` reads as those tokens. Text
        from a template is then encoded as it is, without adding bos and eos."""


# By protocol: its capabilities, which tunemark looks for by the names of their methods.
CAPABILITIES: Mapping[type, Sequence[type]] = {
    Device: (
        ReadsToolOutput,
        ChecksRuns,
        ChecksInterpreter,
        ExplainsAbsence,
        ListsDocumentedSizes,
        ReportsUnrestoredState,
        WatchesJobs,
        RunsRemotely,
        HasMonitor,
        LimitsMemory,
        DrivesChips,
        StatesDeviceFacts,
    ),
    DatasetSource: (HasChatTemplate, HasRemarks),
    Tokenizer: (DecodesIds, HasTokenizerFiles, TokenizesChats, NamesSpecialTexts),
}
