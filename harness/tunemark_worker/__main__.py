"""One rank of one attempt: `python -m tunemark_worker plan.json`, in the attempt's folder.

Opens the device, builds the model, memory-maps the tokens and calls `loop.train`. The `end` record is always written
before the process group is destroyed, because destroying it can abort the process.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import platform
import re
import signal
import sys
import time
import traceback
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from tunemark_worker import row_packing
from tunemark_worker.contract import PARENT_PID_VARIABLE, Assignment, records_file_name, split_runtime, stacks_file_name
from tunemark_worker.recorder import Recorder, cpu_affinity

# Elements sampled from each trainable tensor, to see whether training changed it.
SAMPLED_ELEMENTS = 64
# Out-of-memory messages of torch 1.13 to 2.13. An illegal memory access does not match.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|memory not enough|can't allocate memory|not enough memory|DefaultCPUAllocator.*alloc",
    re.I,
)
_REQUESTED = re.compile(r"(?:allocate|Memory requested *:) *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_AVAILABLE = re.compile(r"Memory available *: *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def main(plan: str) -> int:
    """Run one rank and return the exit code: 1 if the attempt failed, with the traceback on standard error."""
    rank = int(os.environ.get("RANK", "0"))
    recorder = Recorder(records_file_name(rank, _restart_count(rank)), rank, time.monotonic)
    recorder.write(
        "start", pid=os.getpid(), python=platform.python_version(), utc=datetime.now(timezone.utc).isoformat()
    )
    _dump_stacks_on_signal(rank)
    interrupts: List[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: interrupts.append(received))
    attempt = WorkerAttempt()
    try:
        with open(plan, encoding="utf-8") as file:
            assignment = Assignment.from_json(file.read())
        is_orphaned = _make_orphan_check(os.environ.get(PARENT_PID_VARIABLE))
        reason = attempt.run(assignment, recorder, lambda: bool(interrupts) or is_orphaned())
    except (Exception, MemoryError) as error:
        traceback.print_exc()
        status = "oom" if is_out_of_memory(error) else "error"
        message = "{}: {}".format(type(error).__name__, error)
        recorder.write(
            "end",
            reason=status,
            status=status,
            error=message,
            requested_bytes=parse_requested_bytes(message),
            available_bytes=parse_available_bytes(message),
            **attempt.facts(),
        )
        # A peer rank may be dead, and an orderly destroy of the process group would wait for it.
        return _exit(1)
    recorder.write("end", reason=reason, status="ok", error=None, **attempt.facts())
    attempt.leave()
    return _exit(0)


def _exit(code: int) -> int:
    """Return the exit code, or with several ranks exit at once: the interpreter's teardown of the process group can
    hang or abort (gloo, torch 2.13), and everything is already written."""
    if "WORLD_SIZE" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _restart_count(rank: int) -> int:
    """How often this rank was started before: the larger of the elastic agent's count, which covers only its own host,
    and the count of record files, which misses a process killed before it wrote anything."""
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    while os.path.exists(records_file_name(rank, restarts)):
        restarts += 1
    return restarts


def _make_orphan_check(parent: Optional[str], every_s: float = 1.0) -> Callable[[], bool]:
    """A function that says whether the parent process has died, so that the job ends too. It checks once per `every_s`
    seconds, and always says False if the parent is not on this host or there is no /proc."""
    path = "/proc/{}/stat".format(parent)
    if not parent or not os.path.exists(path):
        return lambda: False
    checked_s = [time.monotonic()]

    def is_orphaned() -> bool:
        if time.monotonic() - checked_s[0] < every_s:
            return False
        checked_s[0] = time.monotonic()
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                # Fields: pid (command) state. Z is a zombie.
                return file.read().rpartition(")")[2].split()[0] in "ZX"
        except (OSError, IndexError):
            return True

    return is_orphaned


def _dump_stacks_on_signal(rank: int) -> None:
    """On SIGUSR1, write the stack of every thread to a file, even if the GIL is held."""
    if hasattr(faulthandler, "register"):  # absent on Windows
        # Stays open: the signal handler must not open files.
        descriptor = os.open(stacks_file_name(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)


class WorkerAttempt:
    """One attempt of this rank. It keeps what was set up so far, so that `facts` can report it after a failure."""

    def __init__(self) -> None:
        self._device: Any = None
        self._strategy: Any = None
        self._module: Any = None
        self._counts: Tuple[Optional[int], Optional[int]] = (None, None)
        self._weight_samples: List[Any] = []
        self._facts_after_training: Optional[Dict[str, Any]] = None

    def run(self, assignment: Assignment, recorder: Recorder, is_interrupted: Callable[[], bool]) -> str:
        """Set up, train, evaluate and save; return why the training stopped."""
        # Imported late: torch can take many seconds or fail, and the `start` record must be written before.
        import torch

        from tunemark_worker import (
            activation_checkpointing,
            evaluation,
            finetuning_method,
            matmul_peak,
            optimizer,
            training_loop,
        )
        from tunemark_worker.batches import MappedTokens

        a = assignment
        model = _load_runtime(a.model_runtime)()
        if a.save and not hasattr(model, "save"):
            raise ValueError("{} cannot save a model: it has no `save` method".format(a.model_runtime))
        device = _load_runtime(a.device_runtime)()
        self._strategy = _load_runtime(a.strategy_runtime)(a)
        recorder.write("phase", name="imported")

        place = device.open(a)
        self._device = device
        self._strategy.prepare()
        # A strategy that arranges the ranks in a mesh decides which of them share a batch.
        place = getattr(self._strategy, "place", lambda unchanged: unchanged)(place)
        recorder.write("phase", name="opened")
        recorder.write(
            "facts", **_versions(), data_rank=place.data_rank, data_ranks=place.data_ranks, device=dict(device.facts())
        )

        torch.manual_seed(a.seed)
        built = model.build(a, place)
        finetuning_method.apply_method(a.method, a.method_options, built)
        full_counts = _count_parameters(built)
        origin = getattr(model, "weights_origin", None)
        recorder.write(
            "model",
            parameters=full_counts[0],
            trainable_parameters=full_counts[1],
            weights=dict(origin()) if origin else None,
        )
        built.train()
        activation_checkpointing.checkpoint_layers(built, a.checkpointing)
        self._module = self._strategy.apply(built, place)
        # With pipeline parallelism only one stage remains in this rank, so the full counts are kept.
        self._counts = full_counts if getattr(self._strategy, "gradients", None) else _count_parameters(self._module)
        del built
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        updater = optimizer.make_optimizer(a.optimizer, parameters, a.learning_rate)
        self._weight_samples = _sample_weights(self._module)
        recorder.write("phase", name="built")

        tokens = MappedTokens(a.token_file)
        lengths = row_packing.training_lengths(tokens.lengths(), a.evaluate)
        factor = optimizer.make_schedule(a.schedule, None if a.schedule == "constant" else schedule_steps(a, lengths))
        recorder.write("phase", name="data")

        if a.calibrate:
            dtype = optimizer.compute_dtype(a.precision)
            recorder.write("peak", **matmul_peak.measure_peak(a.precision, dtype, place.device, device.synchronize))
            recorder.write("phase", name="calibrated")

        evaluated = evaluation.EvaluationContext(a, place, model, self._strategy, self._module, tokens, recorder)
        evaluation.evaluate(evaluated, "before")

        steps = (
            [tokens.batch(rows, a.sequence, a.batching == "pack") for rows in micro_batches]
            for micro_batches in make_step_rows(a, lengths, place.data_rank)
        )
        job = training_loop.TrainingJob(
            assignment=a,
            place=place,
            device=device,
            strategy=self._strategy,
            model=model,
            module=self._module,
            optimizer=updater,
            factor=factor,
            steps=steps,
            recorder=recorder,
            clock=time.monotonic,
            second=read_second_clock,
            is_interrupted=is_interrupted,
        )
        reason = training_loop.train(job)
        # Taken now: evaluation and saving may need more memory, and saving merges adapters into the weights.
        self._facts_after_training = self.facts()
        if reason != "interrupted":
            evaluation.evaluate(evaluated, "after")
            evaluation.save_model(evaluated)
        return reason

    def facts(self) -> Dict[str, Any]:
        """Fields of the `end` record that describe what was trained; None if the attempt did not get that far."""
        if self._facts_after_training is not None:
            return self._facts_after_training
        found: Dict[str, Any] = dict.fromkeys(
            ("weights_changed", "peak_memory_bytes", "strategy_selected", "parameters", "trainable_parameters")
        )
        try:
            if self._device is not None:
                found["peak_memory_bytes"] = self._device.peak_memory_bytes()
            if self._module is not None:
                selected = self._strategy.selected()
                found["strategy_selected"] = None if selected is None else dict(selected)
                found["parameters"], found["trainable_parameters"] = self._counts
                changed = [bool((a != b).any()) for a, b in zip(self._weight_samples, _sample_weights(self._module))]
                found["weights_changed"] = any(changed)
                found["tensors_changed"], found["tensors_sampled"] = sum(changed), len(changed)
        except Exception:
            # After a failure the device may be unusable; the `end` record must be written all the same.
            traceback.print_exc()
        return found

    def leave(self) -> None:
        """Destroy the process group, if there is one."""
        import torch.distributed as dist  # heavy, but imported by now

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def make_step_rows(a: Assignment, lengths: List[int], data_rank: int) -> Iterator[List[List[row_packing.BatchRow]]]:
    """The rows of each step on one data rank, one list per micro-batch. Rows at the end of the last epoch that do not
    fill a global batch are dropped."""
    pending: List[row_packing.BatchRow] = []
    for _, row in row_packing.make_batch_rows(lengths, a.sequence, a.batching, a.seed, a.epochs):
        pending.append(row)
        if len(pending) == a.global_batch:
            spans = [
                row_packing.micro_batch_rows(
                    m,
                    data_rank,
                    micro_batch=a.micro_batch,
                    data_ranks=a.data_ranks,
                    global_batch=a.global_batch,
                )
                for m in range(a.gradient_accumulation)
            ]
            yield [pending[first:last] for first, last in spans]
            pending = []


def schedule_steps(a: Assignment, lengths: List[int]) -> Optional[int]:
    """Steps of the learning-rate schedule; None if unknown. A warm-up whose length is found by statistics is not
    included: the last steps of such a run keep the schedule's final learning rate."""
    steps = None if a.steps is None else a.steps + (a.warmup or 0)
    if a.epochs is not None:
        rows = sum(1 for _ in row_packing.make_batch_rows(lengths, a.sequence, a.batching, a.seed, a.epochs))
        steps = rows // a.global_batch if steps is None else min(steps, rows // a.global_batch)
    return steps


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that an allocation failed, on the host or on a device."""
    # torch.cuda.OutOfMemoryError is matched by name: torch before 1.13 does not have it.
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def parse_requested_bytes(message: str) -> Optional[int]:
    """Bytes of the allocation that failed; None if the message does not say."""
    return _parse_bytes(_REQUESTED.search(message))


def parse_available_bytes(message: str) -> Optional[int]:
    """Bytes that were available; None if the message does not say."""
    return _parse_bytes(_AVAILABLE.search(message))


def _parse_bytes(match: Optional[re.Match[str]]) -> Optional[int]:
    return int(float(match.group(1)) * _UNITS[match.group(2).lower()]) if match else None


def read_second_clock() -> float:
    """Seconds of another clock than CLOCK_MONOTONIC: CLOCK_MONOTONIC_RAW, which NTP does not slew, else wall time."""
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.time() if raw is None else time.clock_gettime(raw)


def _load_runtime(name: str) -> Any:
    module, attribute = split_runtime(name)
    return getattr(importlib.import_module(module), attribute)


def _count_parameters(module: Any) -> Tuple[int, int]:
    """(all parameters, trainable parameters) of a model; a sharded parameter counts in full."""
    every = list(module.parameters())
    return sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)


def _sample_weights(module: Any) -> List[Any]:
    """Copies of about SAMPLES elements of this rank's part of each trainable tensor."""
    from tunemark_worker.gradient_norm import local_part  # heavy, but imported by now

    tensors = [local_part(p).flatten() for p in module.parameters() if p.requires_grad]
    return [t[:: max(1, t.numel() // SAMPLED_ELEMENTS)].clone() for t in tensors]


def _versions() -> Dict[str, Any]:
    from importlib import metadata

    def version(package: str) -> Optional[str]:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    variables = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "platform": platform.platform(),
        "node": platform.node(),
        "processor": _processor(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "affinity": cpu_affinity(),
        "allocator": {name: os.environ[name] for name in variables if name in os.environ},
    }


def _processor() -> str:
    """CPU model name of this host; empty if unknown."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
