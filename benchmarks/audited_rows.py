"""`python benchmarks/audited_rows.py ROWS.csv ...`: does the audit accept published rows, and find them when spoilt?

ROWS.csv has the columns of docs/audit.md. Each row is audited as it is, and then with one of its rates multiplied or
divided by 2 to 8, once in all figures of throughput and once in the rates alone. A row whose rate is wrong in every
figure alike, and still possible, cannot be found: such rows are counted apart. The exit code is 1 if a row as published
is invalid, or more than 3 % are suspect.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunemark.analysis import AuditedClaim, audit_claims, read_claims
from tunemark.plugin import Catalog
from tunemark.plugin.claims import Claim
from tunemark.plugin.descriptors import Model

_MAX_SUSPECT = 0.03
_FACTORS = (2, 3, 4, 5, 6, 7, 8)


def read_rows(path: Path, catalog: Catalog) -> Sequence[Claim]:
    found = read_claims([(path.read_bytes(), None)], path.name, str(path), list(catalog.importers().values()))
    return found.claims


def spoil_rates(claim: Claim, factor: float) -> Claim:
    """The claim with its rates alone times a factor; what is derived from the step time, FLOP/s or MFU stays."""
    rates = ("tokens_per_s", "tokens_per_s_per_device")
    return replace(claim, **{name: value * factor for name in rates if (value := getattr(claim, name)) is not None})


def spoil_all(claim: Claim, factor: float) -> Claim:
    """The claim as if the whole measurement were wrong by a factor, every figure alike."""
    names = ("tokens_per_s", "tokens_per_s_per_device", "tflops_per_device", "mfu", "samples_per_s")
    changed = {name: value * factor for name in names if (value := getattr(claim, name)) is not None}
    seconds = None if claim.step_time_s is None else claim.step_time_s / factor
    return replace(claim, step_time_s=seconds, **changed)


def has_another_figure(claim: Claim) -> bool:
    """Whether a figure stands beside the rate that it can be held to: a step time with its batch, FLOP/s or MFU."""
    is_timed = claim.step_time_s is not None and claim.layout.global_batch is not None and claim.sequence is not None
    return is_timed or claim.tflops_per_device is not None or claim.mfu is not None


def accused(found: Sequence[AuditedClaim]) -> int:
    return sum(one.verdict in ("invalid", "suspect") for one in found)


def show_spoilt(rows: Sequence[Claim], models: Mapping[str, Model]) -> None:
    held = [row for row in rows if has_another_figure(row)]
    print(f"\n{len(held)} of {len(rows)} rows have a figure beside the rate. Found when spoilt:")
    print("\n| factor | rate alone, of those with another figure | rate alone, of all | every figure alike, of all |")
    print("|---|---:|---:|---:|")
    for factor in (*_FACTORS, *(1 / factor for factor in _FACTORS)):
        alone = accused(audit_claims([spoil_rates(row, factor) for row in held], models))
        of_all = accused(audit_claims([spoil_rates(row, factor) for row in rows], models))
        alike = accused(audit_claims([spoil_all(row, factor) for row in rows], models))
        words = f"x {factor:g}" if factor > 1 else f"/ {1 / factor:g}"
        print(f"| {words} | {alone} of {len(held)} | {of_all} of {len(rows)} | {alike} of {len(rows)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=Path)
    args = parser.parse_args()
    catalog = Catalog()
    models = catalog.models()
    every: list[Claim] = []
    is_good = True
    for path in args.rows:
        rows = read_rows(path, catalog)
        found = audit_claims(rows, models)
        counts = Counter(one.verdict for one in found)
        print(f"{path.name}: {', '.join(f'{count} {verdict}' for verdict, count in counts.most_common())}")
        for one in found:
            reasons = [f for f in one.findings if f.severity in ("invalid", "suspect")]
            if reasons:
                print(f"  {one.claim.id}: {one.verdict}: {reasons[0].rule}: {reasons[0].message}")
        is_good &= not counts["invalid"] and counts["suspect"] <= _MAX_SUSPECT * len(rows)
        every += rows
    show_spoilt(every, models)
    print("\nPASS" if is_good else "\nSHORT")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
