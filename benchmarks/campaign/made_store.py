"""A store as the runner and its ranks write it, in milliseconds and without a device: for what reads stores."""

from __future__ import annotations

import functools
from pathlib import Path

from tunemark.experiment import Plan, make_experiment, make_grid_points, make_plans
from tunemark.plugin import Catalog
from tunemark.results import Store
from tunemark_worker.contract import TokenFile
from tunemark_worker.recorder import Recorder

_TOKENS = TokenFile(path="/nowhere/tokens", sha256="ab", documents=3, tokens=24, pad_id=0)
RANKS, STEPS = 2, 8


@functools.cache
def two_plans() -> tuple[Plan, Plan]:
    """The plans of two runs on two ranks, which differ in their micro-batch."""
    flags = {"model": "mistral-tiny", "device": "cpu", "size": "2", "strategy": "ddp", "sequence": 16}
    more = {"micro_batch": [1, 2], "oversubscribe": True, "warmup": 1}
    one, other = make_plans(make_grid_points(make_experiment({**flags, **more})), Catalog())
    return one, other


def write_attempt(
    store: Store,
    plan: Plan,
    name: str,
    *,
    seconds: float = 1.0,
    is_ended: bool = True,
    started: str | None = None,
    **more: object,
) -> Path:
    """Write an attempt as the runner and its two ranks do; its folder. seconds: of each step. is_ended: else its
    command was killed. started: its date, else one by the last digit of its name. more: facts of attempt.json."""
    folder = store.attempt_folder(plan, name)
    assignment = plan.assignment(_TOKENS, name, measure_peak=False)
    started = started or f"2026-11-30T10:00:0{name[-1]}"
    facts = {"started_utc": started, "series": "s", "fingerprint": "f", "code_sha256": "c", **more}
    facts["order"] = store.make_order(plan.run_id, started)
    store.new_attempt(plan, folder, assignment, facts)
    for rank in range(RANKS):
        recorder = Recorder(str(folder / f"records.{rank}.jsonl"), rank, float, (folder / "plan.json").read_bytes())
        recorder.write("start", 100.0, pid=1, python="3", utc="")
        recorder.write("facts", 100.5, data_rank=rank, data_ranks=RANKS, affinity=[0])
        recorder.write("load", 101.0, busy_s=0.0, own_s=0.0, minor_faults=0)
        recorder.write("edge", 101.0, window=0, steps=0, synced=True, second_s=1.0, witness_s=1.0)
        at_s = 101.0
        for step in range(STEPS):
            at_s = 101.0 + (step + 1) * seconds
            slots = plan.spec.global_batch * plan.spec.sequence // RANKS
            recorder.write("step", at_s, step=step, slots=slots, content=slots, trained=slots - 1, loss_sum=9.0 - step,
                           gradient_norm=1.0, learning_rate=1e-4, synced=True, marks=None)  # fmt: skip
            second_s = 1.0 + (step + 1) * seconds
            recorder.write("edge", at_s, window=step + 1, steps=step + 1, synced=True, second_s=second_s,
                           witness_s=second_s)  # fmt: skip
        recorder.write("load", at_s, busy_s=STEPS * seconds, own_s=STEPS * seconds, minor_faults=1)
        recorder.write("end", at_s, reason="steps", status="ok", error=None, weights_changed=True)
    (folder / "stdout.log").write_text("said\n")
    (folder / "telemetry.jsonl").write_text('{"kind": "open", "monitor": "m", "devices": [], "failure": "none"}\n')
    if is_ended:
        store.finish_attempt(plan, folder, {**facts, "status": "ok", "reason": "steps", "evidence": "e"}, assignment)
    return folder
