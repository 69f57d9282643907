"""One rank of one attempt: `python -m tunemark_worker plan.json`, in the attempt's folder.

Takes the device, builds the model, maps the tokens, and hands all to `loop.train`. Whatever happens, the `end` record
is written before the process group is left: leaving can abort the process.
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

from tunemark_worker import documents
from tunemark_worker.contract import PARENT, Assignment, records_name, split_runtime, stacks_name
from tunemark_worker.recorder import Recorder, affinity

# Elements of each tensor that are compared with the start's.
SAMPLES = 64
# Spellings, in torch 1.13 to 2.13, of memory that could not be had. An illegal access to memory is none of them.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|memory not enough|can't allocate memory|not enough memory|DefaultCPUAllocator.*alloc",
    re.I,
)
_REQUESTED = re.compile(r"(?:allocate|Memory requested *:) *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_AVAILABLE = re.compile(r"Memory available *: *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def main(plan: str) -> int:
    """The exit code: 1 where the attempt has failed, and then the traceback is on standard error."""
    rank = int(os.environ.get("RANK", "0"))
    recorder = Recorder(records_name(rank, _life(rank)), rank, time.monotonic)
    recorder.write(
        "start", pid=os.getpid(), python=platform.python_version(), utc=datetime.now(timezone.utc).isoformat()
    )
    _hear_of_stacks(rank)
    interrupts: List[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: interrupts.append(received))
    attempt = Attempt()
    try:
        with open(plan, encoding="utf-8") as file:
            assignment = Assignment.from_json(file.read())
        is_orphaned = _orphaned(os.environ.get(PARENT))
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
            requested_bytes=requested_bytes(message),
            available_bytes=available_bytes(message),
            **attempt.facts(),
        )
        # A peer may be gone, and a group that is left in order waits for it.
        return _ended(1)
    recorder.write("end", reason=reason, status="ok", error=None, **attempt.facts())
    attempt.leave()
    return _ended(0)


def _ended(code: int) -> int:
    """The exit code; where there are several ranks it is given to the system at once. What the interpreter would still
    take down of their group can hang or abort (gloo, torch 2.13), and everything is written."""
    if "WORLD_SIZE" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _life(rank: int) -> int:
    """How often this job's processes were started before. The elastic agent counts those of its own host alone, and
    one that was cut off before it wrote anything has left no file; so whichever of both says more."""
    life = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    while os.path.exists(records_name(rank, life)):
        life += 1
    return life


def _orphaned(parent: Optional[str], every_s: float = 1.0) -> Callable[[], bool]:
    """Asks whether the process that follows this job is gone, so that the job ends too. It looks once a second, and
    never where there is no such process here, or no /proc."""
    path = "/proc/{}/stat".format(parent)
    if not parent or not os.path.exists(path):
        return lambda: False
    looked_s = [time.monotonic()]

    def is_orphaned() -> bool:
        if time.monotonic() - looked_s[0] < every_s:
            return False
        looked_s[0] = time.monotonic()
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                # pid (command) state: of a dead one that nobody has waited for, Z.
                return file.read().rpartition(")")[2].split()[0] in "ZX"
        except (OSError, IndexError):
            return True

    return is_orphaned


def _hear_of_stacks(rank: int) -> None:
    """Write every thread's stack where it is when SIGUSR1 comes, whatever holds the interpreter."""
    if hasattr(faulthandler, "register"):  # absent on Windows
        # Open for the life of the process: the handler may not open a file.
        descriptor = os.open(stacks_name(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)


class Attempt:
    """What has been set up so far, so that an attempt that fails half-way can still say what it knows."""

    def __init__(self) -> None:
        self._device: Any = None
        self._strategy: Any = None
        self._module: Any = None
        self._counts: Tuple[Optional[int], Optional[int]] = (None, None)
        self._samples: List[Any] = []
        self._ended: Optional[Dict[str, Any]] = None

    def run(self, assignment: Assignment, recorder: Recorder, is_interrupted: Callable[[], bool]) -> str:
        """Set up, train, and return why the training stopped."""
        # Heavy: the record `start` is written before torch is imported, which can take many seconds or fail.
        import torch

        from tunemark_worker import checkpointing, loop, method, optimizer, outside, peak
        from tunemark_worker.batches import Tokens

        a = assignment
        model = _runtime(a.model_runtime)()
        if a.save and not hasattr(model, "save"):
            raise ValueError("{} cannot save a model: it has no method for it".format(a.model_runtime))
        device = _runtime(a.device_runtime)()
        self._strategy = _runtime(a.strategy_runtime)(a)
        recorder.write("phase", name="imported")

        place = device.open(a)
        self._device = device
        self._strategy.prepare()
        # Where a strategy orders the ranks, it says which of them share a batch.
        place = getattr(self._strategy, "place", lambda found: found)(place)
        recorder.write("phase", name="opened")
        recorder.write(
            "facts", **_versions(), data_rank=place.data_rank, data_ranks=place.data_ranks, device=dict(device.facts())
        )

        torch.manual_seed(a.seed)
        built = model.build(a, place)
        method.apply(a.method, a.method_options, built)
        whole = _counts(built)
        origin = getattr(model, "weights_origin", None)
        recorder.write(
            "model",
            parameters=whole[0],
            trainable_parameters=whole[1],
            weights=dict(origin()) if origin else None,
        )
        built.train()
        checkpointing.apply(built, a.checkpointing)
        self._module = self._strategy.apply(built, place)
        # Of a pipeline only a part stays here.
        self._counts = whole if getattr(self._strategy, "gradients", None) else _counts(self._module)
        del built
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        updater = optimizer.make(a.optimizer, parameters, a.learning_rate)
        self._samples = _samples(self._module)
        recorder.write("phase", name="built")

        tokens = Tokens(a.token_file)
        lengths = documents.training_lengths(tokens.lengths(), a.evaluate)
        factor = optimizer.schedule(a.schedule, None if a.schedule == "constant" else horizon(a, lengths))
        recorder.write("phase", name="data")

        if a.calibrate:
            dtype = optimizer.compute_dtype(a.precision)
            recorder.write("peak", **peak.measure(a.precision, dtype, place.device, device.synchronize))
            recorder.write("phase", name="calibrated")

        beside = outside.Outside(a, place, model, self._strategy, self._module, tokens, recorder)
        outside.look(beside, "before")

        steps = (
            [tokens.batch(rows, a.sequence, a.batching == "pack") for rows in micro_batches]
            for micro_batches in steps_of(a, lengths, place.data_rank)
        )
        job = loop.Job(
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
            second=second_clock,
            is_interrupted=is_interrupted,
        )
        reason = loop.train(job)
        # Of the training alone: what follows may need more memory, and merges adapters into the weights.
        self._ended = self.facts()
        if reason != "interrupted":
            outside.look(beside, "after")
            outside.save(beside)
        return reason

    def facts(self) -> Dict[str, Any]:
        """Fields of the record `end` that describe what was trained; None where it did not come so far."""
        if self._ended is not None:
            return self._ended
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
                changed = [bool((a != b).any()) for a, b in zip(self._samples, _samples(self._module))]
                found["weights_changed"] = any(changed)
                found["tensors_changed"], found["tensors_sampled"] = sum(changed), len(changed)
        except Exception:
            # After a failure the device may answer nothing any more; the record of the failure matters more.
            traceback.print_exc()
        return found

    def leave(self) -> None:
        """Leave the process group, where there is one."""
        import torch.distributed as dist  # heavy, and long imported

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def steps_of(a: Assignment, lengths: List[int], data_rank: int) -> Iterator[List[List[documents.Row]]]:
    """Each step's rows on a data rank, one list for each micro-batch. What is left of the last epoch and does not
    fill a global batch is not trained on."""
    pending: List[documents.Row] = []
    for _, row in documents.rows(lengths, a.sequence, a.batching, a.seed, a.epochs):
        pending.append(row)
        if len(pending) == a.global_batch:
            spans = [
                documents.micro_batch_rows(
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


def horizon(a: Assignment, lengths: List[int]) -> Optional[int]:
    """Steps that the run takes, as far as it is known beforehand: where a warm-up is found by statistics, the last of
    them keep the schedule's end."""
    steps = None if a.steps is None else a.steps + (a.warmup or 0)
    if a.epochs is not None:
        rows = sum(1 for _ in documents.rows(lengths, a.sequence, a.batching, a.seed, a.epochs))
        steps = rows // a.global_batch if steps is None else min(steps, rows // a.global_batch)
    return steps


def is_out_of_memory(error: BaseException) -> bool:
    """True where memory was asked for and could not be had."""
    # torch.cuda.OutOfMemoryError, by its name: it is a RuntimeError, and absent from torch before 1.13.
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def requested_bytes(message: str) -> Optional[int]:
    """The allocation that failed, where the message names it."""
    return _bytes(_REQUESTED.search(message))


def available_bytes(message: str) -> Optional[int]:
    """The memory that there was, where the message names it."""
    return _bytes(_AVAILABLE.search(message))


def _bytes(found: Optional[re.Match[str]]) -> Optional[int]:
    return int(float(found.group(1)) * _UNITS[found.group(2).lower()]) if found else None


def second_clock() -> float:
    """Another clock than CLOCK_MONOTONIC: the hardware's, which NTP does not slew, or else the wall's."""
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.time() if raw is None else time.clock_gettime(raw)


def _runtime(name: str) -> Any:
    module, attribute = split_runtime(name)
    return getattr(importlib.import_module(module), attribute)


def _counts(module: Any) -> Tuple[int, int]:
    """All parameters of a model, sharded ones in full, and those that train."""
    every = list(module.parameters())
    return sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)


def _samples(module: Any) -> List[Any]:
    """Up to SAMPLES elements of what lies here of each trainable tensor, copied."""
    from tunemark_worker.norm import local  # heavy, and imported by now

    tensors = [local(p).flatten() for p in module.parameters() if p.requires_grad]
    return [t[:: max(1, t.numel() // SAMPLES)].clone() for t in tensors]


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
        "affinity": affinity(),
        "allocator": {name: os.environ[name] for name in variables if name in os.environ},
    }


def _processor() -> str:
    """The processor's name, of the host that trains; empty where it does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
