"""Do all strategies train the same? Compares loss and gradient norm over five steps with one process.

    python benchmarks/parity.py                  # everything; prints the table of docs/strategies.md
    python benchmarks/parity.py --write          # also puts it there
    python benchmarks/parity.py --model mistral-tiny --size 1,2 --strategy fsdp,tp

Every attempt is a complete attempt of the worker, on the same samples. The attempts of one size run one after another
in the same processes, which saves start-up time. Nothing is timed, so processes may share cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemark_worker.precision import PRECISIONS

if TYPE_CHECKING:
    from tunemark.experiment import Plan
    from tunemark_worker.contract import Assignment, TokenFile

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/strategies.md"
BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"

MODELS = ("mistral-tiny", "llama-2-tiny", "gpt2-tiny")
SIZES = (1, 2, 4)
# Strategies with one axis, and products of two for 4 ranks.
ALONE = (
    "ddp",
    "fsdp",
    "fsdp:reshard=false",
    "tp",
    "tp:sequence_parallel=true",
    "pp",
    "pp:schedule=gpipe",
    "pp:schedule=interleaved",
    "pp:schedule=zb",
    "pp:schedule=zbv",
)
PRODUCTS = (
    "ddp:2+fsdp:2",
    "ddp:2+tp:2",
    "fsdp:2+tp:2",
    "fsdp:2+tp:2:sequence_parallel=true",
    "pp:2+ddp:2",
    "pp:2+fsdp:2",
    "pp:2+tp:2",
    "fsdp:2+pp:2:schedule=interleaved",
    "pp:2+tp:2:sequence_parallel=true",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the table. refused: why the plan refuses it. loss, norm: largest relative differences from one
    process; None if the run failed, with the reason in `failure`."""

    model: str
    precision: str
    size: int
    strategy: str
    refused: str = ""
    failure: str = ""
    loss: float | None = None
    norm: float | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=",".join(MODELS))
    parser.add_argument("--size", default=",".join(map(str, SIZES)))
    parser.add_argument("--strategy", default=None, help="strategies to run instead of all that fit a size")
    parser.add_argument("--precision", default="fp32", help=f"any of {', '.join(PRECISIONS)}")
    parser.add_argument("--checkpointing", default="none")
    parser.add_argument("--batching", default="pack")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    args = parser.parse_args()
    sizes = [int(size) for size in args.size.split(",")]
    given = args.strategy.split(",") if args.strategy else None
    cells: list[Cell] = []
    for precision in args.precision.split(","):
        for model in args.model.split(","):
            print(f"{model} {precision} ...", file=sys.stderr, flush=True)
            changes = {"precision": precision, "batching": args.batching, "checkpointing": args.checkpointing}
            with tempfile.TemporaryDirectory() as folder:
                cells += compare(model, sizes, given, Path(folder), changes)
    words = table(cells)
    print(words)
    if args.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{words}\n{END}{after}", encoding="utf-8")
    return 0 if all(is_equal(cell) for cell in cells) else 1


def compare(
    model: str, sizes: Sequence[int], strategies: Sequence[str] | None, folder: Path, changes: Mapping[str, Any]
) -> list[Cell]:
    """Train a model with each strategy at each size, and compare with one process."""
    from tunemark.runner.verification import relative_difference

    folder.mkdir(parents=True, exist_ok=True)
    precision = str(changes["precision"])
    reference = folder / "reference"
    prepare({"none": reference}, model, 1, {**changes, "checkpointing": "none"})
    run(1, [reference])
    losses, norms = trained(reference)
    cells = []
    for size in sizes:
        wanted = strategies or (ALONE if size < 4 else (*ALONE, *PRODUCTS))
        folders = {strategy: folder / f"{size}-{i}" for i, strategy in enumerate(wanted)}
        refused = prepare(folders, model, size, changes)
        run(size, [folders[strategy] for strategy in wanted if strategy not in refused])
        for strategy, where in folders.items():
            facts: dict[str, Any] = {"refused": refused.get(strategy, "")}
            if strategy not in refused:
                try:
                    ours = trained(where)
                    facts = {"loss": relative_difference(ours[0], losses), "norm": relative_difference(ours[1], norms)}
                except RuntimeError as error:
                    facts = {"failure": str(error)}
            cells.append(Cell(model=model, precision=precision, size=size, strategy=strategy, **facts))
            print(_describe(cells[-1]), file=sys.stderr, flush=True)
    return cells


def prepare(
    folders: Mapping[str, Path],
    model: str,
    size: int,
    changes: Mapping[str, Any],
    edit: Callable[[Assignment], Assignment] | None = None,
    check: Callable[[Plan], object] = lambda plan: None,
) -> dict[str, str]:
    """Write the plan of each strategy into its folder; returns the refusals by strategy. edit: changes the assignment
    and supplies the token file; without it the dataset's tokens are used. check: raises another refusal."""
    from tunemark.data import prepare_data as tokens
    from tunemark.errors import TunemarkError
    from tunemark.experiment import make_experiment, make_grid_points, make_plan
    from tunemark.plugin import Catalog
    from tunemark_worker.contract import TokenFile

    catalog, refused = Catalog(), {}
    flags = {"model": model, "device": f"cpu:{size}", "sequence": 64, "micro_batch": 1, "global_batch": 8}
    flags.update(learning_rate=1e-3, warmup=0, steps=5, budget=3600.0, target_interval=0.0, oversubscribe=True)
    flags.update(changes)
    for strategy, folder in folders.items():
        try:
            (point,) = make_grid_points(make_experiment({**flags, "strategy": strategy}))
            plan = make_plan(point, catalog)
        except TunemarkError as error:
            refused[strategy] = error.next or error.what
            continue
        try:
            check(plan)
        except TunemarkError as error:
            refused[strategy] = error.what
            continue
        if edit is None:
            file = tokens(plan.dataset, plan.dataset_options, plan.model, plan.spec.train_on).token_file
        else:
            file = TokenFile(path="", sha256="", documents=0, tokens=0, pad_id=0)
        # No pinning to cores: there may be more processes than cores.
        assignment = replace(plan.assignment(file, "parity", measure_peak=False), threads=1, device_options={})
        if edit is not None:
            assignment = edit(assignment)
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(assignment.to_json())
    return refused


VOCABULARY = 61


def write_tokens(path: Path) -> TokenFile:
    """A file of documents of up to 20 tokens that count upwards, which can be learnt. Some are not trained on."""
    from tunemark_worker.contract import HEADER_BYTES, TokenFile, token_file_offsets

    rng = random.Random(0)
    firsts = [rng.randrange(1, VOCABULARY - 20) for _ in range(200)]
    documents = [list(range(first, first + rng.randrange(2, 20))) for first in firsts]
    ids = [token for document in documents for token in document]
    layout = token_file_offsets(len(documents), len(ids))
    content = bytearray(layout.end)
    content[:HEADER_BYTES] = json.dumps({}).encode().ljust(HEADER_BYTES)
    struct.pack_into(f"<{len(ids)}i", content, layout.ids, *ids)
    content[layout.trained : layout.trained + len(ids)] = bytes(rng.random() < 0.8 for _ in ids)
    offsets = [sum(map(len, documents[:i])) for i in range(len(documents) + 1)]
    struct.pack_into(f"<{len(offsets)}q", content, layout.offsets, *offsets)
    path.write_bytes(content)
    return TokenFile(path=str(path), sha256="", documents=len(documents), tokens=len(ids), pad_id=0)


def shrink(a: Assignment, tokens: TokenFile) -> Assignment:
    """The same on a model of a few thousand parameters and these tokens. A window is shorter than a sequence."""
    changes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4 if a.model == "gpt2-tiny" else 2}
    window = {"sliding_window": 16} if a.model in ("mistral-tiny", "gemma-2-tiny") else {}
    architecture = {**a.architecture, **changes, **heads, **window, "max_position_embeddings": 64}
    return replace(a, architecture=architecture, token_file=tokens, sequence=32, learning_rate=3e-3)


def run(size: int, folders: Sequence[Path], python: str = sys.executable, stall_s: float | None = None) -> None:
    """Train all plans of a size, one after another in the same processes of an interpreter. Where one fails, or no rank
    has written a record for `stall_s`, those after it are trained in new processes."""
    from tunemark_worker.rank_supervisor import HostShape

    if not folders:
        return
    paths = [str(ROOT / "harness"), str(ROOT / "plugins")]
    shape = HostShape(nodes=1, node=0, processes=size, max_restarts=0)
    environment = {**os.environ, **shape.variables(), "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    where, left = folders[0].parent, list(folders)
    listed = where / f"{size}.json"
    command = shape.command(python, [str(ROOT / "benchmarks/parity_ranks.py"), str(listed)])
    while left:
        listed.write_text(json.dumps([str(folder) for folder in left]))
        with (where / f"{size}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=where, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                _wait(process, left, stall_s)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        # The first one without an end is the one at which the processes ended.
        done = [folder for folder in left if has_ended(folder, size)]
        left = left[len(done) + 1 :]


def _wait(process: subprocess.Popen[bytes], folders: Sequence[Path], stall_s: float | None) -> None:
    """Wait until the processes end, and end them if no rank writes a record for `stall_s`: a busy machine makes them
    slow, and a rank that waits for one that is gone writes nothing."""
    written, since_s = -1, time.monotonic()
    while process.poll() is None:
        now = sum(path.stat().st_size for folder in folders for path in folder.glob("records.*.jsonl"))
        if now != written:
            written, since_s = now, time.monotonic()
        elif stall_s is not None and time.monotonic() - since_s > stall_s:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)


def has_ended(folder: Path, size: int) -> bool:
    """Whether all ranks of an attempt have ended well."""
    found = list(folder.glob("records.*.jsonl"))
    return len(found) == size and all('"status":"ok"' in path.read_text().replace(" ", "") for path in found)


def trained(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(losses, gradient norms) of the steps; RuntimeError if the attempt failed."""
    from tunemark.results.measurement import read_measurement

    found = read_measurement(folder)
    ends = [rank.end for rank in found.ranks]
    wrong = [str(end["error"]) for end in ends if end is not None and end["status"] != "ok"]
    if wrong or len(ends) < found.assignment.processes or not all(ends):
        raise RuntimeError(wrong[0] if wrong else "it ended without a record")
    return found.losses, found.gradient_norms


def is_equal(cell: Cell) -> bool:

    if cell.refused:
        return True
    return (
        cell.loss is not None
        and cell.norm is not None
        and max(cell.loss, cell.norm) <= PRECISIONS[cell.precision].tolerance
    )


def table(cells: Sequence[Cell]) -> str:
    """One row per strategy and one column per model, precision and size; a cell has the larger difference."""
    columns = list(dict.fromkeys((cell.model, cell.precision, cell.size) for cell in cells))
    by = {(cell.strategy, cell.model, cell.precision, cell.size): cell for cell in cells}
    heads = [f"{model} {'' if precision == 'fp32' else precision + ' '}x {size}" for model, precision, size in columns]
    lines = [f"| strategy | {' | '.join(heads)} |", "|---|" + "---:|" * len(columns)]
    for strategy in dict.fromkeys(cell.strategy for cell in cells):
        row = [by.get((strategy, *column)) for column in columns]
        lines.append(f"| `{strategy}` | {' | '.join(_format_cell(cell) for cell in row)} |")
    reasons = dict.fromkeys(f"- `{c.strategy}` x {c.size}, {c.model}: {c.refused}" for c in cells if c.refused)
    return "\n".join([*lines, *(["", "Refused by `plan`:", "", *reasons] if reasons else [])])


def _format_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.refused:
        return "refused"
    if cell.loss is None or cell.norm is None:
        return "FAILED"
    worst = f"{max(cell.loss, cell.norm):.0e}"
    return worst if is_equal(cell) else f"DIFFERS {worst}"


def _describe(cell: Cell) -> str:
    words = f"{cell.model} {cell.precision} x {cell.size} {cell.strategy}: "
    if cell.refused or cell.failure:
        return words + (f"refused: {cell.refused}" if cell.refused else f"FAILED: {cell.failure}")
    return words + f"loss {cell.loss:.1e}, gradient norm {cell.norm:.1e}"


if __name__ == "__main__":
    sys.exit(main())
