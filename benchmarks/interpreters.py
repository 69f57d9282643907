"""Which strategies train in which interpreter? Loss and gradient norm of five steps, in real environments.

    python benchmarks/interpreters.py                    # everything; prints the table of docs/strategies.md
    python benchmarks/interpreters.py --write            # also puts it there, and into docs/moai.md
    python benchmarks/interpreters.py --torch 2.6 --strategy fsdp,pp --all     # tries what a plan refuses, too

Each cell is held to one process of the same interpreter, which is held to one process of the newest torch. The
interpreters are those of benchmarks/real_interpreters.py, which makes them where they are missing; a Mistral of a few
thousand parameters trains in each precision and with each batching.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import parity
from real_interpreters import INTERPRETERS, NotAvailableError, real_interpreter

from tunemark_worker.precision import PRECISIONS

if TYPE_CHECKING:
    from tunemark.experiment import Plan
    from tunemark_worker.contract import Assignment

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "docs/strategies.md", ROOT / "docs/moai.md")
BEGIN, END = "<!-- interpreters: begin -->", "<!-- interpreters: end -->"
NEWEST = list(INTERPRETERS)[-1]
# The interpreter that one process of the others is held to. Random weights of bf16 are other numbers from the same seed
# after torch 2.9, so those of the newest are held to nothing.
REFERENCE = {"fp32": NEWEST, "bf16-autocast": NEWEST, "bf16": "2.9"}
MODEL = "mistral-tiny"
VARIANTS = tuple(itertools.product(REFERENCE, ("pack", "pad")))
# Of products of strategies, on four processes, one variant of each precision.
PRODUCT_VARIANTS = (("fp32", "pack"), ("bf16-autocast", "pad"), ("bf16", "pack"))
# Seconds without a record of any rank; one that waits for another that is gone would wait for long.
STALL_S = 600.0

Variant = tuple[str, str]
Trained = tuple[tuple[float, ...], tuple[float, ...]]


class Key(NamedTuple):
    """One run of the matrix. torch: the interpreter's name. variant: precision and batching."""

    torch: str
    size: int
    strategy: str
    variant: Variant


@dataclass(kw_only=True)
class Matrix:
    """What came of each run: why the plan refused it, what it trained, or why it failed."""

    refused: dict[Key, str] = field(default_factory=dict)
    trained: dict[Key, Trained] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)

    def difference(self, key: Key) -> float | None:
        """The larger relative difference of losses and gradient norms of several processes from one; for one process
        that of losses from another interpreter, whose kernels round otherwise. None where one of the two is missing."""
        from tunemark.runner.verification import relative_difference

        one = Key(key.torch if key.size > 1 else REFERENCE[key.variant[0]], 1, "none", key.variant)
        if key not in self.trained or one not in self.trained:
            return None
        pairs = list(zip(self.trained[key], self.trained[one], strict=True))
        found = [relative_difference(ours, theirs) for ours, theirs in (pairs if key.size > 1 else pairs[:1])]
        return None if None in found else max(each for each in found if each is not None)

    def is_equal(self, key: Key) -> bool:
        if key.size == 1 and key.torch == NEWEST:
            return True
        difference = self.difference(key)
        return difference is not None and difference <= PRECISIONS[key.variant[0]].tolerance


def fill(matrix: Matrix, torch: str, strategies: Sequence[str] | None, folder: Path, *, is_all: bool) -> None:
    """Run one interpreter's part of the matrix. strategies: None for all. is_all: tries what the plan refuses."""
    from tunemark.launch import check_interpreter, query_interpreter

    python = real_interpreter(torch)
    asked = query_interpreter(python, ["torch", "transformers"])

    def check(plan: Plan) -> None:
        if not is_all:
            check_interpreter(asked, plan)

    folder.mkdir(parents=True)
    tokens = parity.write_tokens(folder / "tokens")

    def small(a: Assignment) -> Assignment:
        # A low rate: what one rounding changes must not grow over the steps.
        found: Assignment = replace(parity.shrink(a, tokens), learning_rate=1e-3)
        return found

    wanted: Mapping[int, tuple[Sequence[str], Sequence[Variant]]] = {
        1: (["none"], VARIANTS),
        2: ([s for s in parity.ALONE if strategies is None or s in strategies], VARIANTS),
        4: ([s for s in parity.PRODUCTS if strategies is None or s in strategies], PRODUCT_VARIANTS),
    }
    for size, (names, variants) in wanted.items():
        for variant in variants:
            folders = {
                Key(torch, size, name, variant): folder / f"{size}-{'-'.join(variant)}-{i}"
                for i, name in enumerate(names)
            }
            # Of the interpreter's own releases: how attention is computed depends on them.
            changes = {"precision": variant[0], "batching": variant[1], "micro_batch": 2, "python": python}
            where = {key.strategy: path for key, path in folders.items()}
            refused = parity.prepare(where, MODEL, size, changes, small, check)
            matrix.refused.update({key: refused[key.strategy] for key in folders if key.strategy in refused})
            tried = {key: path for key, path in folders.items() if key.strategy not in refused}
            # Each variant in processes of its own: in torch 2.6 DTensor keeps what it knows of one model for the next.
            parity.run(size, list(tried.values()), python, STALL_S)
            for key, path in tried.items():
                try:
                    matrix.trained[key] = parity.trained(path)
                except RuntimeError as error:
                    matrix.failed[key] = str(error)
                print(describe(matrix, key), file=sys.stderr, flush=True)


def describe(matrix: Matrix, key: Key) -> str:
    words = f"torch {key.torch} x {key.size} {key.strategy} {' '.join(key.variant)}: "
    if key in matrix.refused or key in matrix.failed:
        return words + (f"refused: {matrix.refused[key]}" if key in matrix.refused else f"FAILED: {matrix.failed[key]}")
    difference = matrix.difference(key)
    return words + ("nothing to compare with" if difference is None else f"{difference:.1e}")


def table(matrix: Matrix) -> str:
    """One row per strategy, one column per interpreter; a cell has the largest difference of fp32, and of the rest."""
    keys = [*matrix.refused, *matrix.trained, *matrix.failed]
    columns = [name for name in INTERPRETERS if any(key.torch == name for key in keys)]
    rows = [name for name in ("none", *parity.ALONE, *parity.PRODUCTS) if any(key.strategy == name for key in keys)]
    heads = [f"torch {INTERPRETERS[name].torch}" for name in columns]
    second = [f"Python {i.python}, transformers {i.transformers}" for i in (INTERPRETERS[name] for name in columns)]
    lines = [f"| strategy | {' | '.join(heads)} |", "|---|" + "---|" * len(heads), f"| | {' | '.join(second)} |"]
    for row in rows:
        cells = [_cell(matrix, [key for key in keys if (key.torch, key.strategy) == (name, row)]) for name in columns]
        lines.append(f"| `{row}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(matrix: Matrix, keys: Sequence[Key]) -> str:
    """The differences in fp32 and in bf16, and for what the plan refused what it needs."""
    if any(key in matrix.failed for key in keys):
        return "FAILED"
    ran = [key for key in keys if key not in matrix.refused]
    words = []
    for precisions in (("fp32",), tuple(p for p in REFERENCE if p != "fp32")):
        found = [d for key in ran if key.variant[0] in precisions and (d := matrix.difference(key)) is not None]
        words += [f"{max(found):.0e}"] if found else []
    if not all(matrix.is_equal(key) for key in ran):
        words.insert(0, "DIFFERS")
    for reason in dict.fromkeys(matrix.refused[key] for key in keys if key in matrix.refused):
        which = dict.fromkeys(key.variant[0] for key in keys if matrix.refused.get(key) == reason)
        needs = f"needs {reason.partition(' needs ')[2]}" if " needs " in reason else reason
        words.append(f"{', '.join(which)} {needs}" if ran else needs)
    return ", ".join(words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=",".join(INTERPRETERS))
    parser.add_argument("--strategy", default=None, help="strategies instead of all")
    parser.add_argument("--all", action="store_true", help="try what the plan refuses, too")
    parser.add_argument("--write", action="store_true", help="put the table into the documents")
    args = parser.parse_args()
    matrix = Matrix()
    with tempfile.TemporaryDirectory() as folder:
        # First those that the others are held to.
        held_to = (*REFERENCE.values(), NEWEST)
        for name in sorted({*args.torch.split(","), *held_to}, key=lambda name: (name not in held_to, name)):
            some = args.strategy.split(",") if args.strategy else None
            try:
                fill(matrix, name, some if name in args.torch.split(",") else [], Path(folder) / name, is_all=args.all)
            except NotAvailableError as error:
                print(f"torch {name}: {error}", file=sys.stderr)
    words = table(matrix)
    print(words)
    for document in DOCUMENTS if args.write else ():
        before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        document.write_text(f"{before}{BEGIN}\n{words}\n{END}{after}", encoding="utf-8")
    return 0 if not matrix.failed and all(matrix.is_equal(key) for key in matrix.trained) else 1


if __name__ == "__main__":
    sys.exit(main())
