"""Measurements for calibrating the predictor to this machine, taken by all ranks at once: matrix products over shapes,
attention, memory bandwidth, launch overhead, the optimizer, collectives over sizes and groups; then whole steps of
small models, one layout after the other.

`python -m tunemark_worker.calibration job.json`, under a supervisor if there are several ranks. Every measurement is
written at once as a line of `kernels.<rank>.jsonl`; the steps' records are those of any attempt, each in a folder
of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, Tuple

import torch
import torch.distributed as dist

from tunemark_worker import recorder as recording
from tunemark_worker.capabilities import DeviceRuntime, load_device
from tunemark_worker.contract import Assignment, Place, records_file_name
from tunemark_worker.gradient_norm import clip_gradients
from tunemark_worker.linux_proc import cpu_affinity
from tunemark_worker.precision import compute_dtype
from tunemark_worker.recorder import Recorder
from tunemark_worker.worker_attempt import WorkerAttempt

# (m, k, n) of matrix products; m is tokens. From shapes that fit a cache to those that do not, narrow and wide.
MATMUL_SHAPES = (
    (64, 256, 256), (256, 128, 128), (256, 256, 1024), (1024, 128, 384), (1024, 256, 256), (1024, 256, 1024),
    (1024, 1024, 256), (2048, 256, 896), (1024, 1024, 1024), (512, 2048, 2048), (256, 256, 16384),
    (1024, 256, 16384), (2048, 128, 32000), (2048, 2048, 2048), (4096, 4096, 4096),
)  # fmt: skip
# (batch, heads, sequence, head_dim), causal.
ATTENTION_SHAPES = ((1, 4, 256, 32), (4, 4, 256, 32), (4, 8, 512, 32), (2, 8, 1024, 64), (1, 16, 2048, 64))
# Elements of the memory-bound elementwise kernel.
STREAM_ELEMENTS = (1 << 16, 1 << 20, 1 << 24)
# Payload bytes of the collectives.
PAYLOAD_BYTES = (1 << 10, 1 << 16, 1 << 20, 1 << 23, 1 << 25)
# Parameters of the optimizer measurement.
OPTIMIZER_PARAMETERS = 1 << 22
# Fewest and most repeats of a measurement, and the seconds after which there are enough.
MIN_REPEATS, MAX_REPEATS, MEASUREMENT_S = 3, 30, 0.25
# Kernels that are expected to take longer, in seconds, are skipped.
MAX_KERNEL_S = 0.5


def main(path: str) -> int:
    """Take all measurements and return the exit code: 1 after a failure, which leaves what was written before valid."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    rank = int(os.environ.get("RANK", "0"))
    with open(os.path.join(job["folder"], "pid.{}".format(os.getpid())), "w", encoding="utf-8"):
        pass
    try:
        assignments = [_read_assignment(folder) for folder in job["folders"]]
        device = load_device(assignments[0].device_runtime)
        place = device.open(assignments[0])
        with open(os.path.join(job["folder"], "kernels.{}.jsonl".format(rank)), "w", encoding="utf-8") as out:
            before, since_s = recording.read_load(), time.monotonic()
            KernelMeasurements(job, place, device, out).measure()
            after, seconds = recording.read_load(), time.monotonic() - since_s
            others = _other_load(before, after, seconds)
            out.write(json.dumps({"kind": "others", "seconds": seconds, "fraction": others}) + "\n")
        began_s = time.monotonic()
        for folder, assignment in zip(job["folders"], assignments):
            # Ordered by importance; a slow machine measures fewer.
            if _max_over_ranks(time.monotonic() - began_s, place) > job["probes_s"]:
                break
            _measure_steps(folder, assignment, rank)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        # The other ranks wait for this one; their supervisor ends them.
        os._exit(1)
    os._exit(0)  # destroying the process group can abort, and everything is written


def _read_assignment(folder: str) -> Assignment:
    with open(os.path.join(folder, "plan.json"), encoding="utf-8") as file:
        return Assignment.from_json(file.read())


def _measure_steps(folder: str, assignment: Assignment, rank: int) -> None:
    recorder = Recorder(os.path.join(folder, records_file_name(rank)), rank, time.monotonic)
    recorder.write("start", pid=os.getpid(), python="", utc="")
    attempt = WorkerAttempt()
    reason = attempt.run(assignment, recorder, lambda: False)
    recorder.write("end", reason=reason, status="ok", error=None, **attempt.facts())


def _other_load(before: Dict[str, Any], after: Dict[str, Any], seconds: float) -> Any:
    """Share of this process's cores that other processes used; None if unknown. Ranks on the same cores count each
    other as others."""
    cores = cpu_affinity()
    if not cores or before["busy_s"] is None or after["busy_s"] is None:
        return None
    used = (after["busy_s"] - before["busy_s"]) - (after["own_s"] - before["own_s"])
    return max(0.0, used / (len(cores) * seconds))


def _max_over_ranks(value: float, place: Place) -> float:
    """The maximum of `value` over all ranks."""
    if place.ranks == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=place.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return float(tensor.item())


class KernelMeasurements:
    """Measures all kernels on one rank, in the same order on every rank."""

    def __init__(self, job: Dict[str, Any], place: Place, device: DeviceRuntime, out: Any) -> None:
        self._job, self._place, self._device, self._out = job, place, device, out
        self._deadline = time.monotonic() + job["budget_s"]

    def measure(self) -> None:
        for precision in self._job["precisions"]:
            self._measure_products(precision)
        self._measure_attention(self._job["precisions"][0])
        self._measure_streams()
        self._measure_launches()
        self._measure_optimizer()
        if self._place.ranks > 1:
            self._measure_collectives()

    def _measure_products(self, precision: str) -> None:
        dtype = compute_dtype(precision)
        flops = 1e9
        for m, k, n in sorted(MATMUL_SHAPES, key=lambda s: s[0] * s[1] * s[2]):
            if self._slowest(2.0 * m * k * n / flops) > MAX_KERNEL_S:
                break
            a = torch.full((m, k), 0.5, dtype=dtype, device=self._place.device)
            b = torch.full((n, k), 0.25, dtype=dtype, device=self._place.device)
            seconds = self._time(lambda a=a, b=b: torch.nn.functional.linear(a, b))  # type: ignore[misc]
            flops = max(flops, 2.0 * m * k * n / seconds)
            self._write("product", seconds, precision=precision, m=m, k=k, n=n)

    def _measure_attention(self, precision: str) -> None:
        dtype = compute_dtype(precision)
        for shape in ATTENTION_SHAPES:
            q = torch.full(shape, 0.5, dtype=dtype, device=self._place.device, requires_grad=True)

            def both(q: torch.Tensor = q) -> None:
                torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()  # type: ignore[no-untyped-call]

            def forward(q: torch.Tensor = q) -> None:
                torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)

            names = ("batch", "heads", "sequence", "head_dim")
            self._write("attention", self._time(forward), precision=precision, **dict(zip(names, shape)))
            self._write("attention_both", self._time(both), precision=precision, **dict(zip(names, shape)))

    def _measure_streams(self) -> None:
        for count in STREAM_ELEMENTS:
            a = torch.full((count,), 0.5, device=self._place.device)
            b, c = torch.full_like(a, 0.25), torch.empty_like(a)
            seconds = self._time(lambda a=a, b=b, c=c: torch.add(a, b, out=c))  # type: ignore[misc]
            self._write("stream", seconds, bytes=12 * count)

    def _measure_launches(self) -> None:
        """Launch overhead of one operator: 100 tiny operations with autograd and their backward, as 300 operators."""
        a = torch.ones(8, 8, device=self._place.device, requires_grad=True)

        def many() -> None:
            x = a
            for _ in range(100):
                x = x * 1.0
            x.sum().backward()  # type: ignore[no-untyped-call]

        self._write("launch", self._time(many) / 300, operations=300)

    def _measure_optimizer(self) -> None:
        """Gradient norm, clipping and update, as in every step."""
        whole = [torch.full((OPTIMIZER_PARAMETERS // 4,), 0.5, device=self._place.device) for _ in range(4)]
        parameters = [torch.nn.Parameter(each) for each in whole]
        for p in parameters:
            p.grad = torch.full_like(p, 0.1)
        update = torch.optim.AdamW(parameters, lr=1e-4)

        def both() -> None:
            clip_gradients(parameters, 1.0)
            update.step()

        self._write("optimizer", self._time(both), parameters=OPTIMIZER_PARAMETERS)

    def _measure_collectives(self) -> None:
        """Collectives of all ranks, and of pairs of neighbours if there are more than two ranks."""
        ranks = self._place.ranks
        for size in (ranks, 2) if ranks > 2 and ranks % 2 == 0 else (ranks,):
            subgroups: Any = dist.new_subgroups
            group = None if size == ranks else subgroups(group_size=size)[0]
            for payload in PAYLOAD_BYTES:
                self._measure_collective(group, size, payload)

    def _measure_collective(self, group: Any, size: int, payload: int) -> None:
        count = payload // 4 // size * size
        whole = torch.full((count,), 0.5, device=self._place.device)
        part = torch.empty(count // size, device=self._place.device)
        kinds: List[Tuple[str, Callable[[], Any]]] = [
            ("all_reduce", lambda: dist.all_reduce(whole, group=group)),
            ("all_gather", lambda: dist.all_gather_into_tensor(whole, part, group=group)),
            ("reduce_scatter", lambda: dist.reduce_scatter_tensor(part, whole, group=group)),
            ("there_and_back", lambda: self._send_and_return(whole)),
        ]
        for kind, run in kinds:
            try:
                seconds = self._time(run)
            except RuntimeError as error:
                # The backend does not support it; it fails on every rank alike.
                self._write(kind, None, bytes=4 * count, size=size, error=str(error).splitlines()[0])
                continue
            self._write(kind, seconds, bytes=4 * count, size=size)

    def _send_and_return(self, tensor: torch.Tensor) -> None:
        """Send to the neighbour and back: two messages between one pair of ranks."""
        rank = self._place.rank
        neighbour = rank ^ 1
        if neighbour >= self._place.ranks:
            return
        if rank < neighbour:
            dist.send(tensor, neighbour)
            dist.recv(tensor, neighbour)
        else:
            dist.recv(tensor, neighbour)
            dist.send(tensor, neighbour)

    def _time(self, run: Callable[[], Any]) -> float:
        """Median seconds of the repeats on the slowest rank, after two warm-up calls. All ranks repeat alike."""
        run()
        self._device.synchronize()
        began_s = time.perf_counter()
        run()
        self._device.synchronize()
        once_s = self._slowest(time.perf_counter() - began_s)
        is_late = self._slowest(float(time.monotonic() > self._deadline))
        most = MIN_REPEATS if is_late else MAX_REPEATS
        repeats = max(MIN_REPEATS, min(most, int(MEASUREMENT_S / max(once_s, 1e-9))))
        seconds = []
        for _ in range(repeats):
            if self._place.ranks > 1:
                dist.barrier()
            began_s = time.perf_counter()
            run()
            self._device.synchronize()
            seconds.append(time.perf_counter() - began_s)
        return self._slowest(statistics.median(seconds))

    def _slowest(self, value: float) -> float:
        return _max_over_ranks(value, self._place)

    def _write(self, kind: str, seconds: Any, **facts: Any) -> None:
        self._out.write(json.dumps({"kind": kind, "seconds": seconds, **facts}) + "\n")
        self._out.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
