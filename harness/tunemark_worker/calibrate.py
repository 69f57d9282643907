"""What the machine reaches, measured by all ranks at once: matrix products over shapes, attention, memory, launches,
the optimizer, collectives over sizes and groups; then whole steps of small models, each layout in turn.

`python -m tunemark_worker.calibrate job.json`, under torchrun where there are several ranks. Every measurement is a
line of `kernels.<rank>.jsonl` as soon as it is there; the steps' records are those of any attempt, in folders of
their own.
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
from tunemark_worker.__main__ import Attempt, _runtime
from tunemark_worker.contract import Assignment, records_name
from tunemark_worker.norm import clip
from tunemark_worker.recorder import Recorder

# (m, k, n) of products: rows are tokens. From what fits a cache to what does not, narrow and wide.
SHAPES = (
    (64, 256, 256), (256, 128, 128), (256, 256, 1024), (1024, 128, 384), (1024, 256, 256), (1024, 256, 1024),
    (1024, 1024, 256), (2048, 256, 896), (1024, 1024, 1024), (512, 2048, 2048), (256, 256, 16384),
    (1024, 256, 16384), (2048, 128, 32000), (2048, 2048, 2048), (4096, 4096, 4096),
)  # fmt: skip
# (batch, heads, sequence, head_dim), causal.
ATTENTIONS = ((1, 4, 256, 32), (4, 4, 256, 32), (4, 8, 512, 32), (2, 8, 1024, 64), (1, 16, 2048, 64))
# Elements that an elementwise kernel reads and writes.
STREAMS = (1 << 16, 1 << 20, 1 << 24)
# Bytes that a collective passes.
PAYLOADS = (1 << 10, 1 << 16, 1 << 20, 1 << 23, 1 << 25)
PARAMETERS = 1 << 22
# Repeats of a measurement: at least and at most so many, until so many seconds have passed.
FEWEST, MOST, ENOUGH_S = 3, 30, 0.25
# No kernel that is expected to take longer than this is tried.
LONGEST_S = 0.5


def main(path: str) -> int:
    """The exit code: 1 where something failed; what was written before is good all the same."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    rank = int(os.environ.get("RANK", "0"))
    with open(os.path.join(job["folder"], "pid.{}".format(os.getpid())), "w", encoding="utf-8"):
        pass
    try:
        assignments = [_assignment(folder) for folder in job["folders"]]
        device = _runtime(assignments[0].device_runtime)()
        place = device.open(assignments[0])
        with open(os.path.join(job["folder"], "kernels.{}.jsonl".format(rank)), "w", encoding="utf-8") as out:
            before, since_s = recording.load(), time.monotonic()
            Kernels(job, place, device, out).measure()
            after, seconds = recording.load(), time.monotonic() - since_s
            others = _others(before, after, seconds)
            out.write(json.dumps({"kind": "others", "seconds": seconds, "fraction": others}) + "\n")
        began_s = time.monotonic()
        for folder, assignment in zip(job["folders"], assignments):
            # What comes first matters most; a slow machine measures fewer.
            if _largest(time.monotonic() - began_s, place) > job["probes_s"]:
                break
            _steps(folder, assignment, rank)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        # The other ranks wait for this one and are ended by the agent.
        os._exit(1)
    os._exit(0)  # leaving a process group can abort, and everything is written


def _assignment(folder: str) -> Assignment:
    with open(os.path.join(folder, "plan.json"), encoding="utf-8") as file:
        return Assignment.from_json(file.read())


def _steps(folder: str, assignment: Assignment, rank: int) -> None:
    recorder = Recorder(os.path.join(folder, records_name(rank)), rank, time.monotonic)
    recorder.write("start", pid=os.getpid(), python="", utc="")
    attempt = Attempt()
    reason = attempt.run(assignment, recorder, lambda: False)
    recorder.write("end", reason=reason, status="ok", error=None, **attempt.facts())


def _others(before: Dict[str, Any], after: Dict[str, Any], seconds: float) -> Any:
    """The share of our cores' time that others used; None where the system does not say. Ranks on the same cores take
    each other for others."""
    cores = recording.affinity()
    if not cores or before["busy_s"] is None or after["busy_s"] is None:
        return None
    used = (after["busy_s"] - before["busy_s"]) - (after["own_s"] - before["own_s"])
    return max(0.0, used / (len(cores) * seconds))


def _largest(value: float, place: Any) -> float:
    """The largest of all ranks' values."""
    if place.ranks == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=place.device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return float(told.item())


class Kernels:
    """All kernels on one rank, in the same order on each."""

    def __init__(self, job: Dict[str, Any], place: Any, device: Any, out: Any) -> None:
        self._job, self._place, self._device, self._out = job, place, device, out
        self._deadline = time.monotonic() + job["budget_s"]

    def measure(self) -> None:
        for precision in self._job["precisions"]:
            self._products(precision)
        self._attention(self._job["precisions"][0])
        self._streams()
        self._launches()
        self._optimizer()
        if self._place.ranks > 1:
            self._collectives()

    def _products(self, precision: str) -> None:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        flops = 1e9
        for m, k, n in sorted(SHAPES, key=lambda s: s[0] * s[1] * s[2]):
            if self._together(2.0 * m * k * n / flops) > LONGEST_S:
                break
            a = torch.full((m, k), 0.5, dtype=dtype, device=self._place.device)
            b = torch.full((n, k), 0.25, dtype=dtype, device=self._place.device)
            seconds = self._time(lambda a=a, b=b: torch.nn.functional.linear(a, b))  # type: ignore[misc]
            flops = max(flops, 2.0 * m * k * n / seconds)
            self._write("product", seconds, precision=precision, m=m, k=k, n=n)

    def _attention(self, precision: str) -> None:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        for shape in ATTENTIONS:
            q = torch.full(shape, 0.5, dtype=dtype, device=self._place.device, requires_grad=True)

            def both(q: torch.Tensor = q) -> None:
                torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()  # type: ignore[no-untyped-call]

            def forward(q: torch.Tensor = q) -> None:
                torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)

            names = ("batch", "heads", "sequence", "head_dim")
            self._write("attention", self._time(forward), precision=precision, **dict(zip(names, shape)))
            self._write("attention_both", self._time(both), precision=precision, **dict(zip(names, shape)))

    def _streams(self) -> None:
        for count in STREAMS:
            a = torch.full((count,), 0.5, device=self._place.device)
            b, c = torch.full_like(a, 0.25), torch.empty_like(a)
            seconds = self._time(lambda a=a, b=b, c=c: torch.add(a, b, out=c))  # type: ignore[misc]
            self._write("stream", seconds, bytes=12 * count)

    def _launches(self) -> None:
        """One operation with its autograd, and its backward, of a size that costs nothing: 100 of them in a row."""
        a = torch.ones(8, 8, device=self._place.device, requires_grad=True)

        def many() -> None:
            x = a
            for _ in range(100):
                x = x * 1.0
            x.sum().backward()  # type: ignore[no-untyped-call]

        self._write("launch", self._time(many) / 300, operations=300)

    def _optimizer(self) -> None:
        """The norm of the gradients, their clipping and the update, as after every step."""
        whole = [torch.full((PARAMETERS // 4,), 0.5, device=self._place.device) for _ in range(4)]
        parameters = [torch.nn.Parameter(each) for each in whole]
        for p in parameters:
            p.grad = torch.full_like(p, 0.1)
        update = torch.optim.AdamW(parameters, lr=1e-4)

        def both() -> None:
            clip(parameters, 1.0)
            update.step()

        self._write("optimizer", self._time(both), parameters=PARAMETERS)

    def _collectives(self) -> None:
        """Of all ranks, and of pairs of neighbours where that is another group."""
        ranks = self._place.ranks
        for size in (ranks, 2) if ranks > 2 and ranks % 2 == 0 else (ranks,):
            subgroups: Any = dist.new_subgroups
            group = None if size == ranks else subgroups(group_size=size)[0]
            for payload in PAYLOADS:
                self._collective(group, size, payload)

    def _collective(self, group: Any, size: int, payload: int) -> None:
        count = payload // 4 // size * size
        whole = torch.full((count,), 0.5, device=self._place.device)
        part = torch.empty(count // size, device=self._place.device)
        kinds: List[Tuple[str, Callable[[], Any]]] = [
            ("all_reduce", lambda: dist.all_reduce(whole, group=group)),
            ("all_gather", lambda: dist.all_gather_into_tensor(whole, part, group=group)),
            ("reduce_scatter", lambda: dist.reduce_scatter_tensor(part, whole, group=group)),
            ("there_and_back", lambda: self._pass(whole)),
        ]
        for kind, run in kinds:
            try:
                seconds = self._time(run)
            except RuntimeError as error:
                # Every rank is refused alike what its backend does not have.
                self._write(kind, None, bytes=4 * count, size=size, error=str(error).splitlines()[0])
                continue
            self._write(kind, seconds, bytes=4 * count, size=size)

    def _pass(self, tensor: torch.Tensor) -> None:
        """To the neighbour and back: two messages of one pair of ranks."""
        rank = self._place.rank
        other = rank ^ 1
        if other >= self._place.ranks:
            return
        if rank < other:
            dist.send(tensor, other)
            dist.recv(tensor, other)
        else:
            dist.recv(tensor, other)
            dist.send(tensor, other)

    def _time(self, run: Callable[[], Any]) -> float:
        """The median of some repeats, the same number on every rank, after two for warm-up; the slowest rank's."""
        run()
        self._device.synchronize()
        began_s = time.perf_counter()
        run()
        self._device.synchronize()
        once_s = self._together(time.perf_counter() - began_s)
        late = time.monotonic() > self._deadline
        repeats = FEWEST if self._together(float(late)) else max(FEWEST, min(MOST, int(ENOUGH_S / max(once_s, 1e-9))))
        seconds = []
        for _ in range(repeats):
            if self._place.ranks > 1:
                dist.barrier()
            began_s = time.perf_counter()
            run()
            self._device.synchronize()
            seconds.append(time.perf_counter() - began_s)
        return self._together(statistics.median(seconds))

    def _together(self, value: float) -> float:
        return _largest(value, self._place)

    def _write(self, kind: str, seconds: Any, **facts: Any) -> None:
        self._out.write(json.dumps({"kind": kind, "seconds": seconds, **facts}) + "\n")
        self._out.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
