"""Does an experiment have the same rate under every launcher? Compares launchers with `local`, in pairs.

    python benchmarks/launchers.py                       # as root, with Debian's slurm-wlm and munge, and Ray
    python benchmarks/launchers.py --launcher ray        # one of them
    python benchmarks/launchers.py --write               # also puts the table into docs/launchers.md

A real Slurm of two nodes and a real Ray are started on this host and keep running during all runs, those of `local`
too. In every round each launcher runs the same command once, in an order that rotates by round; a round is a pair. A
first round that is not counted fills caches. Bar: the 95 % interval of the ratio contains 1 and is within 10 % of it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from document import ROOT, machine, put

from tunemark.results.ratio import Ratio, RatioTerm, estimate_ratio

# 2 ranks x 4 x 128 = 1024 slots a step take about half a second on two cores: 12 steps are 6 s, in which the
# scheduler's own work and one stall of the host are small.
EXPERIMENT = ["--model", "mistral-tiny", "--dataset", "synthetic", "--device", "cpu:2", "--strategy", "ddp"]
EXPERIMENT += ["--sequence", "128", "--micro-batch", "4", "--warmup", "4", "--steps", "12", "--target-interval", "0"]
EXPERIMENT += ["--no-measure-peak", "--repeats", "1", "--redo", "--json"]
BAR = 0.10
LOCAL = "local"
OTHERS = ("slurm", "ray")
ROUNDS = 14
# Seconds after which no further round begins.
BUDGET_S = 600.0
_READY_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One launcher against local. verdict: PASS; SHORT if the interval is outside the bar or does not contain 1;
    UNDECIDED if it crosses the bar."""

    launcher: str
    ratio: Ratio

    @property
    def verdict(self) -> str:
        low, high = self.ratio.low, self.ratio.high
        if low is None or high is None:
            return "UNDECIDED"
        if low <= 1 <= high and low >= 1 - BAR and high <= 1 + BAR:
            return "PASS"
        if not low <= 1 <= high or high < 1 - BAR or low > 1 + BAR:
            return "SHORT"
        return "UNDECIDED"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launcher", default=",".join(OTHERS), help="compared with local, separated by commas")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds after which no round begins")
    parser.add_argument("--write", action="store_true", help="put the table into docs/launchers.md")
    given = parser.parse_args(words)
    others = given.launcher.split(",")
    for missing in filter(None, map(_missing_requirement, others)):
        print(missing, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="tunemark-launchers-") as folder, ExitStack() as servers:
        started = {LOCAL: ("local", {})}
        for name in others:
            started[name] = servers.enter_context(SERVERS[name](Path(folder)))
        rates = measure(started, Path(folder), rounds=given.rounds, budget_s=given.budget)
    rows = [
        Row(launcher=n, ratio=estimate_ratio([RatioTerm(1, rates[n]), RatioTerm(-1, rates[LOCAL])], in_rounds=True))
        for n in others
    ]
    shown = table(rows, rates)
    print(shown)
    if given.write:
        put("docs/launchers.md", "launchers", f"{shown}\n\n{machine()}.")
    return 0 if all(row.verdict == "PASS" for row in rows) else 1


def measure(
    started: Mapping[str, tuple[str, Mapping[str, str]]], folder: Path, *, rounds: int, budget_s: float
) -> dict[str, list[float]]:
    """Content tokens per second of each launcher by round, without round 0. A failed attempt ends the program."""
    names, rates = list(started), {name: [] for name in started}
    began_s = time.monotonic()
    for number in range(-1, rounds):
        if number > 0 and time.monotonic() - began_s > budget_s:
            print(f"{number} of {rounds} rounds were taken in {budget_s:.0f} s", file=sys.stderr)
            break
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            launcher, variables = started[name]
            rate = _measure_rate(name, launcher, variables, folder)
            print(f"round {number + 1}, {name}: {rate:,.0f} tokens/s", file=sys.stderr, flush=True)
            if number >= 0:
                rates[name].append(rate)
    return rates


def table(rows: Sequence[Row], rates: Mapping[str, Sequence[float]]) -> str:
    """The result as Markdown: median rates for orientation, and ratios computed from the pairs."""
    lines = ["| launcher | pairs | tokens/s, median | rate over local's | 95 % interval | bar 0.90 to 1.10 |"]
    lines.append("|---|---:|---:|---:|---|---|")
    lines.append(f"| {LOCAL} | | {_median(rates[LOCAL]):,.0f} | 1 | | |")
    for row in rows:
        ratio = row.ratio
        interval = "unknown" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
        lines.append(
            f"| {row.launcher} | {ratio.n[0]} | {_median(rates[row.launcher]):,.0f} | {ratio.value:.3f} | {interval} | "
            f"{row.verdict} |"
        )
    return "\n".join(lines)


def _measure_rate(name: str, launcher: str, variables: Mapping[str, str], folder: Path) -> float:
    command = [sys.executable, "-m", "tunemark", "run", *EXPERIMENT, "--launcher", launcher]
    command += ["--store", str(folder / name)]
    environment = {**os.environ, "TUNEMARK_CACHE": str(folder / "cache"), **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    if len(rows) != 1 or rows[0]["status"] != "ok":
        raise SystemExit(f"{name}: {rows[0]['each_attempt'][-1]['evidence'] if rows else ''}\n{done.stderr}")
    return float(rows[0]["each_attempt"][-1]["tokens_per_s"])


def _missing_requirement(launcher: str) -> str | None:
    if launcher not in SERVERS:
        return f"no launcher {launcher!r} here: {', '.join(SERVERS)}"
    if launcher == "ray":
        from importlib.util import find_spec

        return None if find_spec("ray") else "ray needs the package: pip install 'tunemark[ray]'"
    names = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if names or os.geteuid() != 0:
        return f"slurm needs root and Debian's slurm-wlm and munge; {names[0] if names else 'root'} is missing"
    return None


@contextmanager
def _start_slurm(folder: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    conf = folder / "slurm-conf"
    conf.mkdir()
    script = ["sh", str(ROOT / "tests/slurm.sh")]
    try:
        subprocess.run([*script, "start", str(conf)], check=True)
        yield "slurm:nodes=2", {"SLURM_CONF": str(conf / "slurm.conf")}
    finally:
        subprocess.run([*script, "stop", str(conf)], check=False)


@contextmanager
def _start_ray(folder: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A token, so that no other user of this host can use this Ray.
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--head", f"--port={port}"]
    command += [f"--num-cpus={cores}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    environment = {**os.environ, **variables, "RAY_worker_niceness": "0"}
    with open(folder / "ray.log", "wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        ready = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"
        until_s = time.monotonic() + _READY_S
        words = [sys.executable, "-c", ready, f"127.0.0.1:{port}"]
        while subprocess.run(words, env=environment, capture_output=True).returncode:
            if time.monotonic() > until_s or head.poll() is not None:
                raise SystemExit(f"Ray did not start: {(folder / 'ray.log').read_text()[-2000:]}")
        yield f"ray:address=127.0.0.1:port={port}", variables
    finally:
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()


SERVERS = {"slurm": _start_slurm, "ray": _start_ray}


def _median(values: Sequence[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


if __name__ == "__main__":
    sys.exit(main())
