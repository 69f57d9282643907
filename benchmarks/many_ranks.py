"""How does the parent's cost of following a run grow with the number of ranks? It should stay flat.

    python benchmarks/many_ranks.py            # 1 to 64 ranks; prints the table
    python benchmarks/many_ranks.py --write    # also puts it into docs/scaling.md

The ranks are fake: one process writes the records of all of them, at the rate of real ones. Everything else is what
`tunemark run` does: the sweep, reading the records as they come, and the result. Each size has a separate parent
process, whose CPU time and memory are measured from before the launch to the row.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from document import machine, put

if TYPE_CHECKING:
    from tunemark.plugin import JobSpec, LaunchConfig, StartedJob

RANKS = (1, 2, 4, 8, 16, 32, 64)
STEPS, STEPS_PER_S = 200, 20.0
# At the most ranks: share of one core; CPU time and memory relative to the fewest ranks, and extra seconds to the row.
CORE_BAR, TIMES_BAR, MEMORY_BAR, ROW_BAR_S = 0.05, 1.75, 1.25, 0.5


class Simulated:
    """A launcher whose jobs are one process that writes the records of all ranks."""

    max_jobs = 1

    def check(self, launch: LaunchConfig, store: Path) -> None:
        pass

    def start(self, job: JobSpec) -> StartedJob:
        return SimulatedJob(job)

    def adopt(self, job: JobSpec, facts: Mapping[str, Any]) -> StartedJob | None:
        return None

    def close(self) -> None:
        pass


class SimulatedJob:
    def __init__(self, job: JobSpec) -> None:
        words = [sys.executable, __file__, "--job", str(job.folder), "--ranks", str(job.processes)]
        self._process = subprocess.Popen(words)

    def exit_code(self) -> int | None:
        return self._process.poll()

    def is_waiting(self) -> bool:
        return False

    def interrupt(self) -> None:
        self._process.terminate()

    def stacks(self, pids: Mapping[int, int]) -> str:
        return ""

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        self._process.kill()
        self._process.wait()

    def facts(self) -> Mapping[str, Any]:
        return {}


def write_records(folder: Path, ranks: int) -> None:
    """Write what real ranks write, each into its own file, with the token counts of these steps."""
    from tunemark.results.token_recount import recount_tokens
    from tunemark.results.token_witness import read_documents
    from tunemark_worker.contract import Assignment, encode_record, records_file_name

    a = Assignment.from_json((folder / "plan.json").read_text())
    documents = read_documents(a.token_file)
    assert documents is not None, "the data was prepared before"
    counts = [recount_tokens(documents, a, step, step + 1) for step in range(4)]
    files = [open(folder / records_file_name(rank), "ab", buffering=0) for rank in range(ranks)]  # noqa: SIM115 - all at once

    def write(kind: str, **fields: Any) -> None:
        for rank, file in enumerate(files):
            file.write(
                encode_record(
                    kind, rank, time.monotonic(), {k: v(rank) if callable(v) else v for k, v in fields.items()}
                )
            )

    write("start", pid=os.getpid(), python="3", utc="")
    for name in ("imported", "opened", "built", "data"):
        write("phase", name=name)
    write("facts", data_rank=lambda rank: rank, data_ranks=ranks, device={}, affinity=[0])
    began_s = time.monotonic()
    write("edge", window=0, steps=0, synced=True, second_s=began_s, witness_s=began_s)
    for step in range(STEPS + 1):
        slots, content, trained = (n // ranks for n in counts[step % len(counts)])
        time.sleep(max(0.0, began_s + (step + 1) / STEPS_PER_S - time.monotonic()))
        fields = {"slots": slots, "content": content, "trained": trained, "loss_sum": 4.0 * trained}
        write("step", step=step, **fields, gradient_norm=1.0, learning_rate=1e-4, synced=True, marks=None)
        now_s = time.monotonic()
        write("edge", window=step + 1, steps=step + 1, synced=True, second_s=now_s, witness_s=now_s)
        if step % int(STEPS_PER_S) == 0:
            write("load", busy_s=now_s, own_s=now_s, minor_faults=0)
    write("end", reason="steps", status="ok", error=None, weights_changed=True, peak_memory_bytes=1 << 30)


def follow(ranks: int) -> dict[str, float]:
    """Follow one run of this many ranks in this process, and return the costs."""
    from tunemark.experiment import make_experiment, make_grid_points, make_plans
    from tunemark.plugin import Catalog
    from tunemark.results import Store
    from tunemark.runner.observer import RunObserver
    from tunemark.runner.preparation import prepare_runs
    from tunemark.runner.session import Session
    from tunemark.runner.sweep import run_sweep

    catalog = Catalog()
    with tempfile.TemporaryDirectory() as folder:
        flags = {"model": "mistral-tiny", "device": f"cpu:{ranks}", "strategy": "ddp", "oversubscribe": True}
        flags.update(sequence=128, micro_batch=1, steps=STEPS, warmup=1, no_measure_peak=True, target_interval=0.0)
        plans = make_plans(make_grid_points(make_experiment(flags)), catalog)
        store = Store(Path(folder))
        ends: list[float] = []

        def record(ready: Any, row: Mapping[str, Any]) -> None:
            if row["kind"] == "end":
                ends.append(float(row["instant_s"]))

        session = Session(
            store=store, catalog=catalog, timeout_s=60.0, launching=Simulated(), observer=RunObserver(record=record),
            redo=False,
        )  # fmt: skip
        ready = prepare_runs(plans, session)
        before = resource.getrusage(resource.RUSAGE_SELF)
        began_s = time.monotonic()
        (result,) = run_sweep(ready, session)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert result.status == "ok", result.findings
        return {
            "ranks": ranks,
            "wall_s": time.monotonic() - began_s,
            "row_s": time.monotonic() - max(ends),
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "memory_bytes": after.ru_maxrss * 1024,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)))
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--follow", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        write_records(Path(args.job), int(args.ranks))
        return 0
    if args.follow:
        print(json.dumps(follow(args.follow)))
        return 0
    rows = []
    for ranks in args.ranks.split(","):
        done = subprocess.run(
            [sys.executable, __file__, "--follow", ranks], stdout=subprocess.PIPE, text=True, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], file=sys.stderr, flush=True)
    text, is_good = table(rows)
    print(text)
    if args.write:
        put("docs/scaling.md", "ranks", text)
    return 0 if is_good else 1


def table(rows: Sequence[Mapping[str, float]]) -> tuple[str, bool]:
    first, last = rows[0], rows[-1]
    lines = [f"{machine()}; {STEPS} steps at {STEPS_PER_S:.0f} a second.", ""]
    lines += [
        "| ranks | the run (s) | parent's processor time (s) | of one core (%) | to the row (s) | memory (MB) |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['ranks']:.0f} | {row['wall_s']:.1f} | {row['cpu_s']:.2f} | "
            f"{100 * row['cpu_s'] / row['wall_s']:.1f} | {row['row_s']:.2f} | {row['memory_bytes'] / 1e6:.0f} |"
        )
    is_good = last["cpu_s"] / last["wall_s"] <= CORE_BAR and last["row_s"] - first["row_s"] <= ROW_BAR_S
    is_good = is_good and last["memory_bytes"] <= MEMORY_BAR * first["memory_bytes"]
    is_good = is_good and last["cpu_s"] <= TIMES_BAR * first["cpu_s"]
    bars = f"at the most ranks {100 * CORE_BAR:.0f} % of one core and {ROW_BAR_S} s more to the row, "
    bars += f"{TIMES_BAR} x the processor time and {MEMORY_BAR} x the memory of the fewest"
    return "\n".join([*lines, "", f"{'PASS' if is_good else 'SHORT'} (bars: {bars})"]), is_good


if __name__ == "__main__":
    sys.exit(main())
