"""What do seals cost? Measures the chain of records, in microseconds a record, and sealing, as a share of a run.

    python benchmarks/seals.py            # measures a run of the default model for a minute; --budget changes that
    python benchmarks/seals.py --write    # also puts the figures into docs/seals.md

The chain is on the timed path: its cost is that of writing a record with a link less that without one. A seal is made
after the processes have ended: its cost is reading and hashing what the run wrote, and recounting its tokens.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from document import machine, put

from tunemark.results.measurement import read_measurement
from tunemark.results.seal import check_seal, make_seal
from tunemark.results.token_witness import read_documents, recount_all
from tunemark_worker.contract import encode_record
from tunemark_worker.record_chain import add_link, first_link

_RECORDS = 5_000
_STEP = {
    "step": 1234, "slots": 16384, "content": 16000, "trained": 15990, "loss_sum": 123456.789, "gradient_norm": 1.23,
    "learning_rate": 1e-4, "synced": True, "marks": None,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=60, help="seconds of the run that is sealed (default: 60)")
    parser.add_argument("--rounds", type=int, default=21, help="how often each cost is measured (default: 21)")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/seals.md")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tunemark-seals-"))
    try:
        words = _measure(folder, args.budget, args.rounds)
    finally:
        shutil.rmtree(folder)
    print(words)
    if args.write:
        put("docs/seals.md", "costs", words)
    return 0


def _measure(folder: Path, budget_s: int, rounds: int) -> str:
    # In turn, and by processor time: a busy machine falls on both alike.
    pairs = [(_per_record_us(folder, True), _per_record_us(folder, False)) for _ in range(rounds)]
    with_link, without = (statistics.median(each) for each in zip(*pairs, strict=True))
    run = [sys.executable, "-m", "tunemark", "run", "--budget", str(budget_s), "--repeats", "1", "--no-measure-peak"]
    began_s = time.monotonic()
    subprocess.run([*run, "--store", str(folder / "runs"), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    run_s = time.monotonic() - began_s
    (attempt,) = (path.parent for path in folder.glob("runs/*/*/seal.json"))
    records = sum(path.read_bytes().count(b"\n") for path in attempt.glob("records.*.jsonl"))
    seal_s = _median_s(lambda: _seal(attempt), rounds)
    check_s = _median_s(lambda: check_seal(attempt), rounds)
    chain_us = statistics.median(chained - bare for chained, bare in pairs)
    share = (chain_us * 1e-6 * records + seal_s) / run_s
    load = os.getloadavg()[0]
    chain = f"{chain_us:.1f} us a record (medians of {rounds} times {_RECORDS:,}, in turn)"
    sealed = f"sealed in {seal_s * 1e3:.1f} ms and checked in {check_s * 1e3:.1f} ms"
    return (
        f"{machine()}, load {load:.1f} while it was measured. A record with its link took {with_link:.1f} us of "
        f"processor time, without one {without:.1f} us: the chain costs {chain}. A run of {run_s:.0f} s with "
        f"{records:,} records was {sealed}. Chain and seal together are {share:.3%} of it."
    )


def _per_record_us(folder: Path, is_chained: bool) -> float:
    """Microseconds of processor time of encoding and writing a record."""
    descriptor = os.open(folder / "records.jsonl", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    link = first_link(b"", "records.jsonl")
    began_s = time.process_time()
    for number in range(_RECORDS):
        line = encode_record("step", 0, float(number), _STEP)
        if is_chained:
            line, link = add_link(link, line)
        os.fstat(descriptor)
        os.write(descriptor, line)
    taken_s = time.process_time() - began_s
    os.close(descriptor)
    return taken_s / _RECORDS * 1e6


def _seal(attempt: Path) -> None:
    """What sealing does when an attempt has ended."""
    measurement = read_measurement(attempt)
    documents = read_documents(measurement.assignment.token_file)
    recounted = recount_all(measurement, documents) if documents else None
    make_seal(attempt, "{}", run_id="r", code_sha256="c", token_sha256=None, recounted=recounted, may_grow=False,
              journal="j")  # fmt: skip


def _median_s(work: Callable[[], object], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        work()
        found.append(time.perf_counter() - began_s)
    return statistics.median(found)


if __name__ == "__main__":
    sys.exit(main())
