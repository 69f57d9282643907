"""Do the two engines of `predict` agree with each other, and with the memory of real processes?

    python benchmarks/engines.py --plans 200         # random plans of four architectures, both engines
    python benchmarks/engines.py --plans 60 --wide   # of other families, with every schedule, optimizer and method
    python benchmarks/engines.py --real              # real processes on this host against the simulated engine
    python benchmarks/engines.py --plans 200 --real --write    # also put both tables into docs/auto.md

Plans have their architecture's widths but only 2 to 6 layers, since layers are alike. Simulating a step takes seconds
of one core; results are cached. The real processes' memory is what the C library has allocated and not freed, over all
threads, read after each torch operator, less what is not a tensor between two steps (buffers and kernels that MKL and
oneDNN keep). A rank's figure is the peak of a step; the table shows the median of six steps. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunemark.experiment.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/auto.md"
BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"
WIDE_BEGIN, WIDE_END = "<!-- engines, wide: begin -->", "<!-- engines, wide: end -->"
REAL_BEGIN, REAL_END = "<!-- engines, real: begin -->", "<!-- engines, real: end -->"

ARCHITECTURES = ("mistral-7b", "llama-2-7b", "gpt2-xl", "qwen2.5-1.5b")
# Families whose layers are built differently.
WIDE = (
    "llama-3.2-1b", "qwen3-0.6b", "tinyllama-1.1b", "phi-3-mini-4k", "olmo-2-1b", "smollm2-1.7b", "mistral-7b",
    "gpt2-xl",
)  # fmt: skip
SCHEDULES = ("1f1b", "gpipe", "interleaved", "zb", "zbv")
# Largest relative differences that count as agreement: of FLOPs, communicated bytes and memory.
WITHIN = (0.03, 0.05, 0.06)
REAL_WITHIN = 0.06
REAL = (("none", 1), ("ddp", 2), ("fsdp", 2), ("tp", 2), ("fsdp:2+tp:2", 4), ("pp", 2))
REAL_MODELS = ("mistral-tiny", "llama-2-tiny")
# Steps of a real run, and how many of the first are ignored.
STEPS, FIRST_STEPS = 8, 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=0, help="how many random plans to compare both engines on")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument(
        "--wide", action="store_true", help="plans of other families and with every schedule, optimizer and method"
    )
    parser.add_argument("--real", action="store_true", help="compare the simulated memory with real processes")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--rank", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        return hold(Path(args.rank))
    good = True
    if args.plans:
        rows = compare(random_plans(args.plans, args.seed, wide=args.wide))
        words, agreed = table(rows)
        words = f"{len(rows)} plans of seed {args.seed}.\n\n{words}"
        good &= agreed
        print(words)
        if args.write:
            put(words, *((WIDE_BEGIN, WIDE_END) if args.wide else (BEGIN, END)))
    if args.real:
        found = [(model, *one) for model in REAL_MODELS for one in against_real(model)]
        words = real_table(found)
        good &= all(abs(simulated / statistics.median(steps) - 1) <= REAL_WITHIN for *_, simulated, steps in found)
        print(words)
        if args.write:
            put(words, REAL_BEGIN, REAL_END)
    return 0 if good else 1


def random_plans(count: int, seed: int, *, wide: bool = False) -> list[Plan]:
    """Random plans that `tunemark plan` accepts, determined by the seed.

    wide: use other families, and every schedule, optimizer and method."""
    from tunemark.errors import TunemarkError
    from tunemark.experiment import make_experiment, make_grid_points, make_plan
    from tunemark.plugin import Catalog

    catalog, chance = Catalog(), random.Random(seed)
    models = WIDE if wide else ARCHITECTURES
    found: list[Plan] = []
    while len(found) < count:
        model = models[len(found) % len(models)]
        data = chance.choice((1, 1, 2, 4, 8, 16))
        tensor, pipeline = chance.choice((1, 1, 1, 2, 4)), chance.choice((1, 1, 2, 4) if wide else (1, 1, 1, 2))
        axes = []
        if pipeline > 1:
            axes.append(f"pp:{pipeline}:schedule=" + chance.choice(SCHEDULES if wide else SCHEDULES[:2]))
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
        if wide:
            flags["optimizer"] = chance.choice(("adamw", "adamw", "sgd", "adafactor"))
            if flags["optimizer"] == "adafactor" and size > pipeline:
                flags["optimizer"] = "adamw"  # torch's Adafactor refuses distributed tensors
            flags["method"] = chance.choice(("full", "full", "full", "lora:r=8", "lora:r=16:targets=q_proj+v_proj"))
            layers = chance.choice((2, 4, 6, 8))
        try:
            (point,) = make_grid_points(make_experiment(flags))
            plan = make_plan(point, catalog)
            found.append(with_layers(plan, layers))
        except TunemarkError:
            continue  # heads that do not divide, more stages than layers, and the like
    return found


def with_layers(plan: Plan, layers: int) -> Plan:
    """The plan with fewer layers; BadExperiment if the strategy refuses them."""
    from tunemark.errors import BadExperiment
    from tunemark_torch.layout_checks import refusal

    a = plan.model.architecture
    kinds = None if a.layer_types is None else tuple(a.layer_types[:layers])
    cut = replace(a, num_hidden_layers=layers, layer_types=kinds)
    settings = {**asdict(plan.spec), "gradient_accumulation": plan.gradient_accumulation}
    if why := refusal(plan.axes, cut, settings):
        raise BadExperiment(what=f"{layers} layers", why=why, next="draw again")
    return replace(plan, model=replace(plan.model, architecture=cut))


def compare(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Both engines' figures of each plan, or `failure` if an engine gives none."""
    from tunemark.predict import convert_plan
    from tunemark.predict.simulation import Simulation, simulate_all
    from tunemark.predict.worker_step_costs import compute_step_costs

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
            step = convert_plan(plan)
            if isinstance(step, str):
                row["failure"] = step
            elif not isinstance(one, Simulation):
                row["failure"] = str(one.why)
            else:
                analytic = compute_step_costs(*step)
                row["pairs"] = (
                    (analytic.flops, one.flops),
                    (sum(analytic.sent_bytes.values()), one.sent_bytes),
                    (analytic.bytes.total, one.bytes.total),
                )
                row["differences"] = [_difference(*pair) for pair in row["pairs"]]
            rows.append(row)
            print(f"{len(rows)} {words}: {row.get('failure') or _percent(row['differences'])}", file=sys.stderr)
    return rows


def _difference(analytic: float, simulated: float) -> float:
    # The formulas ignore the few scalars that ranks sum.
    if max(analytic, simulated) < 4096:
        return 0.0
    return analytic / simulated - 1 if simulated else float("inf")


def _percent(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:+.2f} %" for value in values)


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """(table of differences between the engines by architecture, with the plans that disagree; whether all agree)."""
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


def against_real(model: str) -> list[tuple[str, str, float, list[float]]]:
    """(strategy, precision, simulated bytes, real bytes per step) of the rank with the most memory."""
    from tunemark.experiment import make_experiment, make_grid_points, make_plan
    from tunemark.plugin import Catalog
    from tunemark.predict.simulation import SimulationFailed, simulate_all
    from tunemark_worker.contract import TokenFile

    found = []
    nothing = TokenFile(path="", sha256="", documents=0, tokens=0, pad_id=0)
    for precision in ("fp32", "bf16-autocast"):
        for strategy, size in REAL:
            flags = {
                "model": model, "device": f"cpu:{size}", "strategy": strategy, "precision": precision,
                "sequence": 128, "micro_batch": 2, "batching": "pad", "oversubscribe": True,
            }  # fmt: skip
            (point,) = make_grid_points(make_experiment(flags))
            plan = make_plan(point, Catalog())
            with tempfile.TemporaryDirectory() as folder:
                assignment = replace(
                    plan.assignment(nothing, "engines", measure_peak=False), threads=1, device_options={}, clip_norm=1.0
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
            # The rank whose median step has the most memory.
            steps = max(held, key=statistics.median) if len(held) == size else [float("nan")]
            (simulation,) = simulate_all([plan])
            if isinstance(simulation, SimulationFailed):
                raise simulation
            simulated = simulation.bytes.total
            found.append((strategy, precision, simulated, steps))
            words = ", ".join(f"{each / 1e6:.2f}" for each in steps)
            print(f"{model} {precision} {strategy}: {simulated / 1e6:.2f} simulated; {words} MB", file=sys.stderr)
    return found


def hold(folder: Path) -> int:
    """Run in each process: takes some steps of the plan and writes the peak memory of each but the first ones."""
    import torch

    from tunemark_worker import activation_checkpointing, lora_adapters, optimizer, training_loop
    from tunemark_worker.batches import Batch, TokenCounts
    from tunemark_worker.capabilities import load_device, load_model, load_strategy
    from tunemark_worker.contract import Assignment
    from tunemark_worker.simulation import PRELOADED_MODULES

    for name in PRELOADED_MODULES:
        importlib.import_module(name)
    a = Assignment.from_json((folder / "plan.json").read_text())
    model, device, strategy = (
        load_model(a.model_runtime),
        load_device(a.device_runtime),
        load_strategy(a.strategy_runtime, a),
    )
    place = device.open(a)
    strategy.prepare()
    place = getattr(strategy, "place", lambda found: found)(place)
    # Build once on the meta device, so that memory of imports does not count for the step.
    model.build(a, place._replace(device="meta"))
    watch = watcher()
    with watch:
        built = model.build(a, place)
        lora_adapters.apply_method(a.method, a.method_options, built)
        built.train()
        activation_checkpointing.checkpoint_layers(built, a.checkpointing)
        module = strategy.apply(built, place)
        del built
        updater = optimizer.make_optimizer(
            a.optimizer, [p for p in module.parameters() if p.requires_grad], a.learning_rate
        )
        job = training_loop.TrainingJob(
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
        most = []
        for _ in range(STEPS):
            # Memory between two steps that is not in tensors: buffers and kernels that libraries keep.
            kept = watch.handed() - tensors()
            watch.most = 0
            training_loop.take_step(
                job, training_loop.SAMPLED_STEPS, batches, TokenCounts(slots, slots, slots - len(batches) * shape[0])
            )
            most.append(watch.most - kept)
    rank = int(os.environ.get("RANK", "0"))
    (folder / f"held.{rank}.json").write_text(json.dumps(most[FIRST_STEPS:]))
    sys.stdout.flush()
    os._exit(0)


def tensors() -> int:
    """Bytes of all existing tensors."""
    import torch

    gc.collect()
    with warnings.catch_warnings():
        # Inspecting some objects raises deprecation warnings.
        warnings.simplefilter("ignore")
        found = [
            each for each in gc.get_objects() if isinstance(each, torch.Tensor) and not hasattr(each, "placements")
        ]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}
    return sum(storages.values())


def watcher() -> Any:
    """A dispatch mode that asks the C library after every torch operator how much memory it has allocated."""
    import ctypes

    from torch.utils._python_dispatch import TorchDispatchMode

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")

    class Handed(ctypes.Structure):
        """glibc's `struct mallinfo2`: uordblks and hblkhd are the bytes in use, of all threads."""

        _fields_ = [(name, ctypes.c_size_t) for name in names]

    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        raise SystemExit("the C library has no mallinfo2: glibc 2.33 or newer has")
    library.mallinfo2.restype = Handed

    def handed() -> int:
        found = library.mallinfo2()
        return int(found.uordblks + found.hblkhd)

    class Watch(TorchDispatchMode):
        most = 0

        @staticmethod
        def handed() -> int:
            return handed()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            from torch.distributed.tensor import DTensor

            if any(issubclass(kind, DTensor) for kind in types):
                return NotImplemented
            found = func(*args, **(kwargs or {}))
            self.most = max(self.most, handed())
            return found

    return Watch()


def real_table(found: Sequence[tuple[str, str, str, float, list[float]]]) -> str:
    lines = [
        "| model | precision | strategy | simulated (MB) | real: middle step (MB) | least and most of "
        f"{STEPS - FIRST_STEPS} steps (MB) | difference |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for model, strategy, precision, simulated, steps in found:
        real = statistics.median(steps)
        lines.append(
            f"| {model} | {precision} | `{strategy}` | {simulated / 1e6:.2f} | {real / 1e6:.2f} | "
            f"{min(steps) / 1e6:.2f} to {max(steps) / 1e6:.2f} | {100 * (simulated / real - 1):+.2f} % |"
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
