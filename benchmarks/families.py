"""Are the families of causal language models that transformers builds accounted for, and trained right?

    python benchmarks/families.py                     # plan each, and count a shrunken copy's FLOPs with torch
    python benchmarks/families.py --family mamba2,glm4
    python benchmarks/families.py --train             # train the copies in every way that plan accepts, two processes
    python benchmarks/families.py --train --rows FILE --write # continued after an interruption; docs/families.md
    python benchmarks/families.py --verify --method full      # what `tunemark run --verify` says of the copies

Each family is taken at its default configuration: its parameters are compared with those of the module, and the FLOPs
of a shrunken copy with those that torch's counter sees in a forward and backward pass (eager attention, every score).
With --train the copy is trained in full and by LoRA, on padded and on packed rows, in one process and under each
strategy in two, two steps in fp32: losses and gradient norms must be those of one process. With --verify each way that
plan accepts is held by `--verify` itself, in processes of its own, to one process with plain kernels. Nothing is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunemark_worker.precision import PRECISIONS

# Families of transformers 5.23 for language alone that people fine-tune, and older ones that papers compare with.
FAMILIES = (
    "apertus", "arcee", "bamba", "bitnet", "bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5",
    "ernie4_5_moe", "exaone4", "falcon", "falcon_h1", "falcon_mamba", "gemma", "gemma2", "gemma3_text", "gemma3n_text",
    "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe",
    "granitemoehybrid", "helium", "hunyuan_v1_dense", "hyperclovax", "jamba", "lfm2", "llama", "llama4_text", "mamba",
    "mamba2", "minimax", "ministral3", "mistral", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmoe", "opt", "phi",
    "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "recurrent_gemma", "seed_oss",
    "smollm3", "stablelm", "starcoder2", "zamba2",
)  # fmt: skip

# What transformers' defaults leave out, as published checkpoints have it.
MISSING: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "moe_layer_freq": 1},
    "granitemoehybrid": {"layer_types": [*["mamba"] * 5, "attention", "mamba", "mamba"] * 4},
    "hunyuan_v1_dense": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
}

SEQUENCE = 64


def make_default(kind: str) -> Any:
    """transformers' default configuration of the family, with what it leaves out."""
    from transformers import AutoConfig  # heavy

    return AutoConfig.for_model(kind, **MISSING.get(kind, {}))


def make_small(kind: str) -> Any:
    """The family's configuration at dimensions that two cores train in milliseconds."""
    from tunemark_models.shrunken_copy import shrink  # heavy

    return shrink(make_default(kind))


def count_flops(config: Any, sequence: int = SEQUENCE) -> tuple[int, float]:
    """(parameters, FLOPs per slot that torch's counter sees in a forward and backward pass of the real module)"""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM
    for each in (config, *(c for c in vars(config).values() if hasattr(c, "to_dict"))):
        each._experts_implementation = "eager"
    module = model.from_config(config, attn_implementation="eager").train()
    ids = torch.randint(3, 160, (1, sequence))
    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward}
    ) as counter:
        module(input_ids=ids, use_cache=False).logits.float().square().mean().backward()
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() / sequence


def _conv_backward(grad: Any, inputs: Any, weight: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    """FLOPs of a convolution's backward pass: the forward pass's for each gradient. torch 2.13 takes a grouped
    convolution's weight gradient for that of a whole one, as many times more as there are groups."""
    mask = rest[-1]
    forward = 2 * grad[0] * grad[2] * weight[0] * weight[1] * weight[2]
    return int(forward) * (bool(mask[0]) + bool(mask[1]))


def check_family(kind: str) -> dict[str, Any]:
    """What was found of a family: whether parameters are exact, and by how much FLOPs differ from torch's."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunemark.physics import count_parameters, train_flops_per_token
    from tunemark.physics.traced_counts import computed_share
    from tunemark_models.model_trace import trace_config
    from tunemark_models.runtime import prepare_for_training
    from tunemark_models.traced_architecture import architecture_from_trace

    whole = architecture_from_trace(trace_config(prepare_for_training(make_default(kind))), kind)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM
        built = model.from_config(make_default(kind))
    counted = count_parameters(whole)
    small = prepare_for_training(make_small(kind))
    a = architecture_from_trace(trace_config(prepare_for_training(make_small(kind))), f"{kind}, small")
    assert a.traced is not None
    parameters, flops = count_flops(small)
    ours = train_flops_per_token(a, SEQUENCE, "full") * computed_share(a.traced, SEQUENCE)
    return {
        "parameters": counted.total,
        "active": counted.active,
        "is_exact": counted.total == sum(p.numel() for p in built.parameters())
        and count_parameters(a).total == parameters,
        "flops": train_flops_per_token(whole, 512),
        "difference": ours / flops - 1.0,
        "kinds": len(a.traced.kinds),
        "notes": [*a.traced.notes, *(f"not reached: {name}" for name in a.traced.unused[:1])],
    }


DOCUMENT = Path(__file__).resolve().parents[1] / "docs/families.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
METHODS = ("full", "lora:r=4:alpha=8")
BATCHINGS = ("pad", "pack")
# Of every way of training. Sequence: longer than the small copies' windows and chunks.
_SETTINGS: Mapping[str, Any] = {
    "precision": "fp32", "steps": 2, "sequence": 48, "micro_batch": 1, "global_batch": 4, "learning_rate": 1e-3,
    "dataset": "synthetic:mean=20:longest=48",
}  # fmt: skip
STRATEGIES = ("ddp", "fsdp", "tp", "pp")
# Families that are trained in the same processes, and how long these may take besides 5 s for each plan.
GROUP, LIMIT_S = 8, 300.0


def prepare_family(
    kind: str, folder: Path, methods: Sequence[str], batchings: Sequence[str], sizes: Sequence[int]
) -> dict[tuple[int, str], str]:
    """Write the plan of every cell of a family into its folder; returns the refusals by size and name."""
    import parity  # beside this script

    model = folder / "model"
    make_small(kind).save_pretrained(model)
    remember_trace(model)
    refused = {}
    for size in sizes:
        for strategy in ("none",) if size == 1 else STRATEGIES:
            for method in methods:
                for batching in batchings:
                    name = f"{method[:4]} {batching} {strategy}"
                    changes = {**_SETTINGS, "method": method, "batching": batching}
                    places = {strategy: folder / str(size) / name.replace(" ", "-")}
                    for reason in parity.prepare(places, f"hf:{model}", size, changes).values():
                        refused[size, name] = reason
    return refused


def remember_trace(folder: Path) -> None:
    """Put the trace of a folder's model into the cache, without the process that `plan` starts for it."""
    from tunemark.cache import cache_folder
    from tunemark_models import model_trace, traced_architecture

    stated = json.loads((folder / "config.json").read_text())
    digest = traced_architecture._digest(stated, traced_architecture._find_versions(None))
    place = cache_folder() / "models" / f"{digest}.json"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(model_trace.trace_model(str(folder))))


def train_ranks(listed: Path) -> int:
    """In each process: train every plan of a list. A failed one is recorded, and the next one follows."""
    import time
    import traceback

    import torch.distributed as dist

    from tunemark_worker.contract import Assignment, records_file_name
    from tunemark_worker.recorder import Recorder
    from tunemark_worker.worker_attempt import WorkerAttempt

    rank = int(os.environ.get("RANK", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    with quiet():
        for place in json.loads(listed.read_text()):
            assignment = Assignment.from_json(Path(place, "plan.json").read_text())
            recorder = Recorder(str(Path(place, records_file_name(rank))), rank, time.monotonic)
            attempt = WorkerAttempt()
            status, error, reason = "ok", None, "error"
            try:
                reason = attempt.run(assignment, recorder, lambda: False)
            except Exception as caught:
                traceback.print_exc()
                status, error = "error", f"{type(caught).__name__}: {' '.join(str(caught).split())[:200]}"
            recorder.write("end", reason=reason, status=status, error=error, **attempt.facts())
    sys.stderr.flush()
    os._exit(0)  # leaving a process group can abort; everything is written


def read_family(folder: Path, size: int, refused: Mapping[tuple[int, str], str]) -> dict[str, str]:
    """By "method batching strategy": "refused: why", "failed: why", or the largest difference from one process."""
    import parity  # beside this script

    from tunemark.runner.verification import relative_difference

    found = {name: f"refused: {why}" for (ranks, name), why in refused.items() if ranks == size}
    for place in sorted((folder / str(size)).glob("*")):
        name = place.name.replace("-", " ")
        method, batching, _ = name.split()
        try:
            ours = parity.trained(place)
            alone = parity.trained(folder / "1" / f"{method}-{batching}-none")
            pairs = zip(ours, alone, strict=True)
            found[name] = f"{max(relative_difference(a, b) for a, b in pairs):.1e}"
        except (RuntimeError, FileNotFoundError, ValueError) as error:
            found[name] = f"failed: {error}"
    return found


def train(
    families: Sequence[str], methods: Sequence[str], batchings: Sequence[str], rows: Path, *, is_verified: bool
) -> dict[str, TrainedFamily]:
    """Train the families' copies in one process and in two; a line for each is added to `rows` as soon as it is known,
    and what has one is not trained again. Returns what all lines say of these families."""
    wanted = {f"{m[:4]} {b} none" for m in methods for b in batchings}
    known = read_rows(rows)
    left = [kind for kind in families if not wanted <= set(known.get(kind, _NOTHING).found)]
    size = 1 if is_verified else GROUP
    while left:
        group, left = left[:size], left[size:]
        with quiet(), tempfile.TemporaryDirectory(prefix="families-") as root, rows.open("a") as file:
            if is_verified:
                found = {kind: verify_family(kind, Path(root), methods, batchings) for kind in group}
            else:
                found = train_group(group, methods, batchings, Path(root))
            for kind, ways in found.items():
                today = datetime.date.today().isoformat()
                file.write(json.dumps({"family": kind, "date": today, "found": ways}) + "\n")
                print(
                    f"{kind}: {', '.join(f'{k} {v}' for k, v in find_wrong(ways).items()) or 'right'}", file=sys.stderr
                )
    trained = read_rows(rows)
    return {kind: trained[kind] for kind in families if kind in trained}


def verify_family(kind: str, folder: Path, methods: Sequence[str], batchings: Sequence[str]) -> dict[str, str]:
    """What `tunemark run --verify` says of every way of training a family's copy, as `read_family` gives it."""
    from tunemark.errors import TunemarkError
    from tunemark.experiment import make_experiment, make_grid_points, make_plan
    from tunemark.plugin import Catalog
    from tunemark.results import Store
    from tunemark.runner.preparation import prepare_runs
    from tunemark.runner.session import Session
    from tunemark.runner.verification import verify

    try:
        make_small(kind).save_pretrained(folder / "model")
        remember_trace(folder / "model")
    # A family can raise anything; it is a row.
    except Exception as error:
        return {"full pad none": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    found = {}
    for strategy, method, batching in itertools.product(("none", *STRATEGIES), methods, batchings):
        size = 1 if strategy == "none" else 2
        settings = {**_SETTINGS, "model": f"hf:{folder / 'model'}", "device": f"cpu:{size}", "strategy": strategy,
                    "method": method, "batching": batching, "oversubscribe": True}  # fmt: skip
        session = Session(store=Store(folder / "store"), catalog=Catalog(), timeout_s=LIMIT_S)
        name = f"{method[:4]} {batching} {strategy}"
        try:
            (point,) = make_grid_points(make_experiment(settings))
            (ready,) = prepare_runs([make_plan(point, session.catalog)], session)
            said = verify(ready, session)
        except TunemarkError as error:
            found[name] = f"refused: {error.next or error.what}"
            continue
        if said is None:
            found[name] = "0.0e+00"  # the reference itself
        elif said["failure"]:
            found[name] = f"failed: {' '.join(said['failure'].split())[:200]}"
        else:
            found[name] = f"{max(said['loss'], said['gradient_norm']):.1e}"
    return found


class TrainedFamily(NamedTuple):
    """date: of the newest line. found: for each way of training, "refused: why", "failed: why", "random" where a step
    draws random numbers, or the largest relative difference from one process."""

    date: str
    found: Mapping[str, str]


_NOTHING = TrainedFamily("", {})


def read_rows(rows: Path) -> dict[str, TrainedFamily]:
    """What the lines of a file say, by family; of the same way the last one. Nothing if there is no file yet."""
    found: dict[str, TrainedFamily] = {}
    for line in rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []:
        row = json.loads(line)
        before = found.get(row["family"], _NOTHING)
        found[row["family"]] = TrainedFamily(row["date"], {**before.found, **row["found"]})
    return found


def find_wrong(found: Mapping[str, str]) -> dict[str, str]:
    """The ways of training that failed or differ from one process."""
    rest = {name: value for name, value in found.items() if not value.startswith("refused") and value != "random"}
    return {n: v for n, v in rest.items() if v.startswith("failed") or not float(v) <= PRECISIONS["fp32"].tolerance}


def train_group(
    families: Sequence[str], methods: Sequence[str], batchings: Sequence[str], root: Path
) -> dict[str, dict[str, str]]:
    """Train some families' copies in the same processes, one process first, then two."""
    from tunemark_models.packing_probe import draws_at_random
    from tunemark_models.runtime import prepare_for_training

    refused: dict[str, dict[tuple[int, str], str]] = {}
    found: dict[str, dict[str, str]] = {}
    for kind in families:
        try:
            refused[kind] = prepare_family(kind, root / kind, methods, batchings, (1, 2))
        # A family can raise anything; it is a row.
        except Exception as error:
            found[kind] = {"full pad none": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    for size in (1, 2):
        run_ranks(size, [each for kind in refused for each in sorted((root / kind / str(size)).glob("*"))], root)
    for kind, whys in refused.items():
        found[kind] = {**read_family(root / kind, 1, whys), **read_family(root / kind, 2, whys)}
        if draws_at_random(prepare_for_training(make_default(kind))):
            is_figure = {name: value[0].isdigit() for name, value in found[kind].items()}
            found[kind] = {name: "random" if is_figure[name] else value for name, value in found[kind].items()}
    return found


def run_ranks(size: int, places: Sequence[Path], root: Path) -> None:
    """Train the plans of a size one after another in the same processes. Where these end or stand still, the plans
    after the one at which they did follow in new processes."""
    import parity  # beside this script

    listed = root / f"{size}.json"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if size > 1 else []
    paths = [str(parity.ROOT / "harness"), str(parity.ROOT / "plugins")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--rank", str(listed)]
    left = list(places)
    while left:
        listed.write_text(json.dumps([str(place) for place in left]))
        with (root / f"{size}.log").open("a") as log, contextlib.suppress(subprocess.TimeoutExpired):
            limit = LIMIT_S + 5 * len(left)
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=False, timeout=limit)
        ended = [len(list(place.glob("records.*.jsonl"))) == size and _has_ends(place) for place in left]
        left = left[ended.index(False) + 1 :] if False in ended else []


def _has_ends(place: Path) -> bool:
    """Whether every rank that began wrote its end, well or not."""
    return all('"end"' in path.read_text().rpartition("\n{")[2] for path in place.glob("records.*.jsonl"))


def print_trained(rows: Mapping[str, TrainedFamily], *, is_written: bool) -> int:
    """Print what was found of each family, and put it into the document; the exit code says whether nothing was
    wrong."""
    lines = ["| family | day | equal | differs or fails | refused by `plan` |", "|---|---|---:|---|---|"]
    for kind, (date, found) in rows.items():
        by_reason: dict[str, list[str]] = {}
        for name, value in found.items():
            if value.startswith("refused: "):
                by_reason.setdefault(value[9:], []).append(name)
        refusals = "; ".join(filter(None, (_describe_refusal(*item) for item in by_reason.items())))
        wrong = "; ".join(f"{name}: {value}" for name, value in find_wrong(found).items())
        is_random = "random" in found.values()
        equal = sum(value[0].isdigit() for value in found.values()) - len(
            [1 for v in find_wrong(found).values() if v[0].isdigit()]
        )
        lines.append(f"| `{kind}` | {date} | {'random' if is_random else equal} | {wrong or '-'} | {refusals or '-'} |")
    right = sum(not find_wrong(each.found) for each in rows.values())
    lines += ["", f"{right} of {len(rows)} families train as in one process in every way that `plan` accepts."]
    print("\n".join(lines))
    if is_written:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]), encoding="utf-8")
    return 0 if right == len(rows) else 1


def _describe_refusal(why: str, names: Sequence[str]) -> str:
    """What a family's plans refuse for one reason; "" where all families' do."""
    if all(name.startswith("lora") and name.endswith(" tp") for name in names) and "adapters" in why:
        return ""
    if all(" pack " in name for name in names) and "--batching pad" in why:
        return "packing"
    what = dict.fromkeys(name.rpartition(" ")[2] for name in names)
    return f"`{'`, `'.join(what)}`: {why}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    import transformers

    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", default=",".join(FAMILIES), help="names of model types, separated by commas")
    parser.add_argument("--train", action="store_true", help="train small copies instead")
    parser.add_argument("--verify", action="store_true", help="hold each way of training to one process by --verify")
    parser.add_argument("--method", default=",".join(METHODS), help="of these two: methods, separated by commas")
    parser.add_argument("--batching", default=",".join(BATCHINGS), help="of these two: pad, pack or both")
    parser.add_argument("--rows", metavar="FILE", help="of these two: a line for each family that was trained")
    parser.add_argument("--write", action="store_true", help=f"of --train: put the table into docs/{DOCUMENT.name}")
    parser.add_argument("--rank", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.rank:
        return train_ranks(Path(args.rank))
    families = args.family.split(",")
    if args.train or args.verify:
        rows = Path(args.rows or ("families-verified.jsonl" if args.verify else "families.jsonl"))
        trained = train(families, args.method.split(","), args.batching.split(","), rows, is_verified=args.verify)
        return print_trained(trained, is_written=args.write and not args.verify)
    print("| family | parameters | active | exact | GFLOP per token at 512 | small copy against torch | notes |")
    print("|---|---:|---:|---|---:|---:|---|")
    right = 0
    with quiet():
        for kind in families:
            try:
                row = check_family(kind)
            # A family can raise anything; it is a row.
            except Exception as error:
                print(
                    f"| {kind} | | | | | | {type(error).__name__}: {' '.join(str(error).split())[:200]} |", flush=True
                )
                continue
            right += row["is_exact"] and abs(row["difference"]) < 0.01
            print(
                f"| {kind} | {row['parameters']:,} | {row['active']:,} | {'yes' if row['is_exact'] else 'NO'} "
                f"| {row['flops'] / 1e9:.4g} | {100 * row['difference']:+.3f} % | {'; '.join(row['notes'])} |",
                flush=True,
            )
    print(f"\n{right} of {len(families)} families are exact in parameters and within 1 % in FLOPs")
    return 0 if right == len(families) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
