"""What comes of faults and hostile inputs? Injects each, and prints one row with its verdict.

    python benchmarks/faults.py                           # all that this host permits; some need root. About an hour
    python benchmarks/faults.py --only 'ranks-*,toml-*'   # some of them, by name; --list says which there are
    python benchmarks/faults.py --sample 25               # so many of the cheap ones, as `make test` does
    python benchmarks/faults.py --write                   # also puts the tables into docs/faults.md

A fault ends well if it ends in a row or in a clear error, nothing that was finished is lost or measured twice, and no
process and no file is left behind.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from campaign.cases import CASES, Case, NeverCame, NotHere, Trial
from campaign.leftovers import end_processes
from document import ROOT, machine, put

from tunemark.temporary import temporary_folder

_MODULES = ("stores", "inputs", "plugins", "commands", "runs", "users", "ranks", "hosts")
_LONGEST = 220
_DOCUMENT = "docs/faults.md"


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """A fault and what came of it. unfit: why this host does not permit it."""

    case: Case
    tries: int
    seen: str
    problems: tuple[str, ...]
    seconds: float
    unfit: str = ""

    @property
    def verdict(self) -> str:
        return "not here" if self.unfit else "BAD" if self.problems else "good"


def load_cases() -> dict[str, Case]:
    """All faults by name."""
    for name in _MODULES:
        importlib.import_module(f"campaign.{name}")
    return CASES


def sample_cases(count: int) -> list[Case]:
    """So many cheap faults, spread over all kinds: the same ones each time."""
    by_kind: dict[str, list[Case]] = {}
    for case in load_cases().values():
        if case.is_cheap:
            by_kind.setdefault(case.kind, []).append(case)
    # The largest kinds first, each spread over its own order.
    found: list[Case] = []
    total = sum(map(len, by_kind.values()))
    for cases in by_kind.values():
        share = max(1, round(count * len(cases) / total))
        found += [cases[at * len(cases) // share] for at in range(share)]
    return found[:count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="NAMES", help="names or patterns, separated by commas")
    parser.add_argument("--kind", help="only faults of this kind")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of the cheap ones, spread over their kinds")
    parser.add_argument("--list", action="store_true", help="print the names and inject nothing")
    parser.add_argument("--tries", type=int, default=1, help="injections of each fault at a random moment (default: 1)")
    parser.add_argument("--seed", type=int, default=None, help="seed of ranks, steps and moments (default: random)")
    words = f"put each row into {_DOCUMENT}, or this copy of it, as it comes, in place of an earlier one"
    parser.add_argument("--write", nargs="?", const=_DOCUMENT, metavar="FILE", help=words)
    parser.add_argument("--ranks", type=int, default=4, help="ranks of jobs with several (default: 4)")
    words = "allowed seconds of silence (default: 40): ranks that share cores are silent while they import torch"
    parser.add_argument("--silence", type=int, default=40, help=words)
    args = parser.parse_args()
    patterns = args.only.split(",")
    cases = sample_cases(args.sample) if args.sample is not None else list(load_cases().values())
    cases = [c for c in cases if any(fnmatch.fnmatchcase(c.name, p) for p in patterns) and args.kind in (None, c.kind)]
    if args.list or not cases:
        print("\n".join(f"{case.name:24} {case.kind}: {case.what}" for case in cases) or "no such fault")
        return 0 if cases else 2
    seed = random.SystemRandom().randrange(10_000) if args.seed is None else args.seed
    rows = []
    with temporary_folder("locks") as locks:
        # How fast anything runs does not matter here, so nobody waits for other measurements of this machine.
        os.environ["TUNEMARK_LOCKS"] = str(locks)
        for case in cases:
            tries = args.tries if case.is_random else 1
            rows.append(inject(case, tries, seed, ranks=args.ranks, silence_s=args.silence))
            print(f"{case.name}: {in_words(rows[-1])}", file=sys.stderr, flush=True)
            if args.write:
                write_row(rows[-1], args.write)
    kinds = dict.fromkeys(case.kind for case in cases)
    text = "\n\n".join(table(kind, [row for row in rows if row.case.kind == kind]) for kind in kinds)
    print(f"{machine()}; `--seed {seed} --ranks {args.ranks}`.\n\n{text}\n\n{summary(rows)}")
    return 0 if all(not row.problems for row in rows) else 1


def write_row(row: CaseRow, document: str) -> None:
    """Put a row into the table of its kind in a document, in place of an earlier one of the same fault."""
    begin, end = f"<!-- {row.case.kind}: begin -->", f"<!-- {row.case.kind}: end -->"
    known = (ROOT / document).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    lines = {name: line for line in known.splitlines() for name in re.findall(r"^\| .*? \| `([\w-]+)` \|", line)}
    lines[row.case.name] = _table_line(row)
    ordered = [lines[name] for name in load_cases() if name in lines]
    put(document, row.case.kind, "\n".join([*_TABLE_HEAD, *ordered]))


def inject(
    case: Case, tries: int, seed: int, *, ranks: int = 4, silence_s: int = 40, is_brief: bool = False
) -> CaseRow:
    """Inject a fault so many times; what came of the first that did not end well, else of the last."""
    began_s = time.monotonic()
    seen, problems = "", ()
    for number in range(tries):
        folder = Path(tempfile.mkdtemp(prefix="campaign-"))
        # Each has its own generator, so that it can be repeated alone.
        chance = random.Random(f"{seed} {case.name} {number}")
        try:
            trial = Trial(folder=folder, chance=chance, ranks=ranks, silence_s=silence_s, is_brief=is_brief)
            outcome = case.run(trial)
            seen, problems = outcome.seen, outcome.problems
        except NotHere as error:
            return CaseRow(case=case, tries=0, seen="", problems=(), seconds=0.0, unfit=str(error))
        except NeverCame as error:
            problems = (str(error),)
        finally:
            end_processes(folder)
            shutil.rmtree(folder, ignore_errors=True)
        if problems:
            break
    seconds = time.monotonic() - began_s
    return CaseRow(
        case=case, tries=number + 1, seen=seen.replace(str(folder), "..."), problems=problems, seconds=seconds
    )


def in_words(row: CaseRow) -> str:
    if row.unfit:
        return f"not here: {row.unfit}"
    return f"{row.verdict} in {row.seconds:.1f} s: {'; '.join(row.problems) or row.seen}"


_TABLE_HEAD = ("| fault | name | what came of it | tries | date | verdict |", "|---|---|---|---:|---|---|")


def table(kind: str, rows: Sequence[CaseRow]) -> str:
    return "\n".join([f"{kind}:", "", *_TABLE_HEAD, *map(_table_line, rows)])


def _table_line(row: CaseRow) -> str:
    words = _cell(row.unfit or "; ".join(row.problems) or row.seen)
    return f"| {row.case.what} | `{row.case.name}` | {words} | {row.tries} | {date.today()} | {row.verdict} |"


def summary(rows: Sequence[CaseRow]) -> str:
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("good", "BAD", "not here")}
    return f"{len(rows)} faults: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def _cell(words: str) -> str:
    words = "".join(c if c.isprintable() else "?" for c in " ".join(words.split()))
    words = words if len(words) <= _LONGEST else words[: _LONGEST - 3] + "..."
    for mark in "\\|<>[]*_`":
        words = words.replace(mark, f"\\{mark}")
    return words


if __name__ == "__main__":
    sys.exit(main())
