"""Do the two engines of `predict` agree with each other, and with what real processes hold?

    python benchmarks/engines.py --plans 200         # random plans of four architectures, both engines
    python benchmarks/engines.py --real              # real processes on the host, against steps without data
    python benchmarks/engines.py --plans 200 --real --write    # and put both tables into docs/auto.md

Plans have the widths of their architectures, and 2 to 6 layers: a layer is like the next one. A step without data is
seconds of one core; those that were simulated before are kept. The real processes' bytes are those that torch's own
allocator for the CPU has handed out and not got back, all threads, by the profiler's record of every allocation since
before the model was built; the figure of a rank is the largest during its third step. What libraries take by
themselves (gloo's buffers, oneDNN's scratch) is not in it, nor in the simulation. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunemark.experiment.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/auto.md"
BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"
REAL_BEGIN, REAL_END = "<!-- engines, real: begin -->", "<!-- engines, real: end -->"

ARCHITECTURES = ("mistral-7b", "llama-2-7b", "gpt2-xl", "qwen2.5-1.5b")
# Largest differences of the engines that are called agreement, of FLOPs, communicated bytes and memory.
WITHIN = (0.03, 0.05, 0.06)
REAL_WITHIN = 0.06
REAL = (("none", 1), ("ddp", 2), ("fsdp", 2), ("tp", 2), ("fsdp:2+tp:2", 4), ("pp", 2))
REAL_MODELS = ("mistral-tiny", "llama-2-tiny")
STEPS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=0, help="random plans that both engines are asked of")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--real", action="store_true", help="hold the simulated memory to real processes")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--rank", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        return hold(Path(args.rank))
    good = True
    if args.plans:
        rows = compare(random_plans(args.plans, args.seed))
        words, agreed = table(rows)
        good &= agreed
        print(words)
        if args.write:
            put(words, BEGIN, END)
    if args.real:
        found = [(model, *one) for model in REAL_MODELS for one in against_real(model)]
        words = real_table(found)
        good &= all(simulated and abs(simulated / real - 1) <= REAL_WITHIN for *_, simulated, real in found)
        print(words)
        if args.write:
            put(words, REAL_BEGIN, REAL_END)
    return 0 if good else 1


def random_plans(count: int, seed: int) -> list[Plan]:
    """Plans that `tunemark plan` allows, drawn at random; the same ones for a seed."""
    from tunemark.errors import TunemarkError
    from tunemark.experiment import make_experiment, points, resolve
    from tunemark.plugin import Catalog

    catalog, chance = Catalog(), random.Random(seed)
    found: list[Plan] = []
    while len(found) < count:
        model = ARCHITECTURES[len(found) % len(ARCHITECTURES)]
        data = chance.choice((1, 1, 2, 4, 8, 16))
        tensor, pipeline = chance.choice((1, 1, 1, 2, 4)), chance.choice((1, 1, 1, 2))
        axes = []
        if pipeline > 1:
            axes.append(f"pp:{pipeline}:schedule=" + chance.choice(("1f1b", "gpipe")))
        if data > 1:
            kind = chance.choice(("ddp", "fsdp", "fsdp", "fsdp:reshard=false", "hsdp"))
            if kind == "hsdp" and data > 2:
                axes.append(f"ddp:2+fsdp:{data // 2}")
            else:
                name, _, rest = kind.replace("hsdp", "fsdp").partition(":")
                axes.append(f"{name}:{data}" + (f":{rest}" if rest else ""))
        if tensor > 1:
            axes.append(f"tp:{tensor}" + chance.choice(("", ":sequence_parallel=true")))
        size, micro = data * tensor * pipeline, chance.choice((1, 2, 4))
        passes = chance.choice((1, 1, 2, 4)) * pipeline
        flags = {
            "model": model, "device": f"cpu:{size}", "strategy": "+".join(axes) or "none", "oversubscribe": True,
            "precision": chance.choice(("fp32", "bf16-autocast", "bf16")),
            "checkpointing": chance.choice(("none", "none", "selective", "full")),
            "batching": chance.choice(("pack", "pad")), "optimizer": chance.choice(("adamw", "adamw", "sgd")),
            "sequence": chance.choice((512, 1024)), "micro_batch": micro, "global_batch": data * micro * passes,
        }  # fmt: skip
        layers = chance.choice((2, 4, 6))
        try:
            (point,) = points(make_experiment(flags))
            plan = resolve(point, catalog)
        except TunemarkError:
            continue  # heads that do not divide, and the like
        architecture = replace(plan.model.architecture, num_hidden_layers=layers)
        found.append(replace(plan, model=replace(plan.model, architecture=architecture)))
    return found


def compare(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Both engines' figures of each plan; `failure` where one has none."""
    from tunemark.predict import of_plan
    from tunemark.predict.footprint import footprint
    from tunemark.predict.simulated import Simulation, simulate_all

    rows = []
    for start in range(0, len(plans), 20):
        some = plans[start : start + 20]
        for plan, one in zip(some, simulate_all(some), strict=True):
            spec, a = plan.spec, plan.model.architecture
            words = (
                f"{spec.model} {a.num_hidden_layers} layers {spec.strategy} {spec.precision} {spec.checkpointing} "
                f"{spec.batching} {spec.optimizer} {spec.sequence} x {spec.micro_batch} x {plan.gradient_accumulation}"
            )
            row: dict[str, Any] = {"plan": words, "model": spec.model}
            told = of_plan(plan)
            if isinstance(told, str):
                row["failure"] = told
            elif not isinstance(one, Simulation):
                row["failure"] = str(one.why)
            else:
                own = footprint(*told)
                row["pairs"] = (
                    (own.flops, one.flops),
                    (sum(own.sent_bytes.values()), one.sent_bytes),
                    (own.bytes.total, one.bytes.total),
                )
                row["differences"] = [_difference(*pair) for pair in row["pairs"]]
            rows.append(row)
            print(f"{len(rows)} {words}: {row.get('failure') or _percent(row['differences'])}", file=sys.stderr)
    return rows


def _difference(analytic: float, simulated: float) -> float:
    # A scalar or two that ranks add up is no traffic that a formula tells of.
    if max(analytic, simulated) < 4096:
        return 0.0
    return analytic / simulated - 1 if simulated else float("inf")


def _percent(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:+.2f} %" for value in values)


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Differences of the analytic engine from the simulated one, by architecture, and the plans that disagree."""
    heads = ("FLOPs", "communicated bytes", "memory")
    lines = [
        "| architecture | plans | " + " | ".join(f"{h}: within {100 * w:.0f} %, median, largest" for h, w in
                                                 zip(heads, WITHIN, strict=True)) + " |",
        "|---|---:|" + "---|" * 3,
    ]  # fmt: skip
    good = [row for row in rows if "differences" in row]
    wrong = [row for row in rows if "differences" not in row]
    for model in (*dict.fromkeys(row["model"] for row in rows), ""):
        some = [row["differences"] for row in good if not model or row["model"] == model]
        cells = []
        for i, within in enumerate(WITHIN):
            sizes = [abs(each[i]) for each in some]
            if sizes:
                inside = sum(size <= within for size in sizes)
                cells.append(
                    f"{inside} of {len(sizes)}, {100 * statistics.median(sizes):.2g} %, {100 * max(sizes):.2g} %"
                )
        lines.append(f"| {model or 'all'} | {len(some)} | {' | '.join(cells)} |")
    apart = [
        row for row in good if any(abs(d) > w for d, w in zip(row["differences"], WITHIN, strict=True))
    ]  # fmt: skip
    lines += ["", f"Not simulated: {len(wrong)}. Apart by more than that: {len(apart)}."]
    lines += [f"- {row['plan']}: {_percent(row['differences'])}" for row in apart]
    lines += [f"- {row['plan']}: {row['failure']}" for row in wrong]
    return "\n".join(lines), not apart and not wrong


def against_real(model: str) -> list[tuple[str, str, float, float]]:
    """(strategy, precision, simulated, real) bytes of the fullest rank."""
    from tunemark.experiment import make_experiment, points, resolve
    from tunemark.plugin import Catalog
    from tunemark.predict.simulated import simulate
    from tunemark_worker.contract import TokenFile

    found = []
    nothing = TokenFile(path="", sha256="", documents=0, tokens=0, pad_id=0)
    for precision in ("fp32", "bf16-autocast"):
        for strategy, size in REAL:
            flags = {
                "model": model, "device": f"cpu:{size}", "strategy": strategy, "precision": precision,
                "sequence": 128, "micro_batch": 2, "batching": "pad", "oversubscribe": True,
            }  # fmt: skip
            (point,) = points(make_experiment(flags))
            plan = resolve(point, Catalog())
            with tempfile.TemporaryDirectory() as folder:
                assignment = replace(
                    plan.assignment(nothing, "engines", calibrate=False), threads=1, device_options={}, clip_norm=1.0
                )
                Path(folder, "plan.json").write_text(assignment.to_json())
                launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
                command = [sys.executable, *(launcher if size > 1 else []), str(Path(__file__).resolve())]
                paths = [str(ROOT / "harness"), str(ROOT / "plugins")]
                environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
                done = subprocess.run(
                    [*command, "--rank", folder], env=environment, capture_output=True, text=True, check=False
                )
                held = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("held.*.json"))]
            if len(held) != size:
                print(done.stderr[-3000:], file=sys.stderr)
            real = max(held) if len(held) == size else float("nan")
            simulated = simulate(plan).bytes.total
            found.append((strategy, precision, simulated, real))
            print(f"{model} {precision} {strategy}: {simulated / 1e6:.2f} {real / 1e6:.2f} MB", file=sys.stderr)
    return found


def hold(folder: Path) -> int:
    """In each process: three steps of the plan, and the most that torch's allocator held during the last of them."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    from tunemark_worker import checkpointing, loop, method, optimizer
    from tunemark_worker.batches import Batch, Counts
    from tunemark_worker.contract import Assignment
    from tunemark_worker.simulation import runtime

    a = Assignment.from_json((folder / "plan.json").read_text())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model, device, strategy = (
            runtime(a.model_runtime)(),
            runtime(a.device_runtime)(),
            runtime(a.strategy_runtime)(a),
        )
        place = device.open(a)
        strategy.prepare()
        place = getattr(strategy, "place", lambda found: found)(place)
        built = model.build(a, place)
        method.apply(a.method, a.method_options, built)
        built.train()
        checkpointing.apply(built, a.checkpointing)
        module = strategy.apply(built, place)
        del built
        updater = optimizer.make(a.optimizer, [p for p in module.parameters() if p.requires_grad], a.learning_rate)
        job = loop.Job(
            assignment=a, place=place, device=device, strategy=strategy, model=model, module=module,
            optimizer=updater, factor=lambda number: 1.0, steps=iter(()), recorder=None,  # type: ignore[arg-type]
            clock=lambda: 0.0, second=lambda: 0.0, is_interrupted=lambda: False,
        )  # fmt: skip
        shape = (a.micro_batch, a.sequence)
        slots = a.gradient_accumulation * a.micro_batch * a.sequence
        batches = []
        for _ in range(a.gradient_accumulation):
            ids = torch.randint(0, a.architecture["vocab_size"], shape)
            batches.append(Batch(ids, ids.clone(), torch.zeros_like(ids), torch.arange(shape[1]).repeat(shape[0], 1),
                                 a.batching == "pack"))  # fmt: skip
        for step in range(STEPS):
            with record_function(f"tunemark step {step}"):
                loop.advance(job, loop.SAMPLED_STEPS, batches, Counts(slots, slots, slots - len(batches) * shape[0]))
    events = profiler.profiler.kineto_results.events()
    span = next(e for e in events if e.name() == f"tunemark step {STEPS - 1}")
    now = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        if span.start_ns() <= event.start_ns() <= span.start_ns() + span.duration_ns():
            most = max(most, now)
    rank = int(os.environ.get("RANK", "0"))
    (folder / f"held.{rank}.json").write_text(json.dumps(most))
    sys.stdout.flush()
    os._exit(0)


def real_table(found: Sequence[tuple[str, str, str, float, float]]) -> str:
    lines = [
        "| model | precision | strategy | simulated (MB) | real (MB) | difference |",
        "|---|---|---|---:|---:|---:|",
    ]
    for model, strategy, precision, simulated, real in found:
        difference = f"{100 * (simulated / real - 1):+.2f} %"
        lines.append(
            f"| {model} | {precision} | `{strategy}` | {simulated / 1e6:.2f} | {real / 1e6:.2f} | {difference} |"
        )
    return "\n".join(lines)


def put(words: str, begin: str, end: str) -> None:
    before, found, rest = DOCUMENT.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{DOCUMENT} has no {begin}")
    DOCUMENT.write_text(f"{before}{begin}\n{words}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
