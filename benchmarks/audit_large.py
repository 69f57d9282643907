"""How long does `tunemark audit` take for large and hostile files, in how much memory?
`python benchmarks/audit_large.py [--gigabytes 1] [--only NAME ...]`.

Each file is generated, audited in a fresh process whose memory is shown, and deleted. Bars for the logs: 5 MB per
second of processor time, 300 MB. For the hostile ones: 120 such seconds, 300 MB, and exit code 0, 1, 2 or 3 without a
traceback. The exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_BAR_MB_PER_S = 5.0
_BAR_MEMORY_BYTES = 300e6
_BAR_HOSTILE_S = 120.0
_FLAGS = ("--model", "llama-3.1-8b", "--device", "H100-SXM", "--count", "8", "--batch", "64", "--sequence", "4096")
_CHUNK = 1 << 20


def _nanochat(step: int) -> str:
    return (
        f"step {step:05d}/9000000 ({step / 90000:.2f}%) | loss: 2.{step % 7919:04d} | lrm: 1.00 "
        f"| dt: {488 + step % 9}.21ms | tok/sec: 1,07{step % 10},121 | mfu: 48.{step % 90:02d} "
        f"| total time: {step / 120:.2f}m\n"
    )


def _trainer(step: int) -> str:
    return (
        f"{{'loss': 1.{step % 7919:04d}, 'grad_norm': 0.61, 'learning_rate': 9.9e-05, 'epoch': {step / 1e5:.2f}, "
        f"'train_tokens_per_second': 15{step % 1000:03d}.5}}\n"
    )


def _anybody(step: int) -> str:
    clock = f"11:{step // 60 % 60:02d}:{step % 60:02d}"
    return f"[2025-03-21 {clock}] step {step} loss 2.{step % 7919:04d} tok/s 4{step % 999:03d}\n"


def _chatter(step: int) -> str:
    words = (
        "warning: the tokenizer is slow here",
        "saving a checkpoint to /data/run/checkpoint-",
        "rank joined the group",
    )
    line = f"{words[step % 3]} {step * 7919 % 99991} of 99991 in worker {step % 64}\n"
    return line if step % 50 else _anybody(step // 50)


LOGS: Mapping[str, Callable[[int], str]] = {
    "described": _nanochat,
    "trainer": _trainer,
    "anybody": _anybody,
    "chatter": _chatter,
}


def _noise(step: int) -> str:
    """Lines whose words never repeat."""
    draw = random.Random(step)
    return " ".join(f"{draw.getrandbits(40):x}={draw.random():.6f}" for _ in range(8)) + "\n"


# A file of one line of that many megabytes, of a repeated text; its first characters are what a reader looks for.
HOSTILE: Mapping[str, str] = {
    "one line": "x",
    "one line of figures": "tok/s 4096 loss 2.1 ",
    "one dictionary": "{'loss': 1.2, 'learning_rate': 1e-5, 'epoch': 0.1, ",
    "open brackets": "{[(",
    "nuls": "\x00",
    "bars": "  0%|          | 0/150 [00:00<?, ?it/s]\r",
    "digits": "1234567890",
    "commas and points": "1,234.5,678.",
    "names without values": "step: loss: tok/s: ",
    "prefixes": "[rank0]: [2025-03-21 11:00:00] INFO - ",
    "quotes": "\"a','",
    "csv": '"a","b"\n',
    "json array": "[",
}


def write_log(path: Path, line: Callable[[int], str], size: int) -> None:
    with path.open("wb") as file:
        steps = itertools.count(1)
        while file.tell() < size:
            file.write("".join(line(next(steps)) for _ in range(20000)).encode())


def write_hostile(path: Path, text: str, size: int) -> None:
    block = (text * (_CHUNK // len(text) + 1)).encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)


def audit(source: str, *, stdin: Path | None = None) -> tuple[int, float, float, str]:
    """(exit code, seconds of processor time, peak bytes, what it said) of an audit in a fresh process."""
    script = (
        "import resource, sys; from tunemark.cli.main import main\n"
        "try: code = main(sys.argv[1:])\n"
        "finally:\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(f'\\npeak {used.ru_maxrss} {used.ru_utime + used.ru_stime}', file=sys.stderr)\n"
        "sys.exit(code)"
    )
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(stdin.open("rb")) if stdin is not None else subprocess.DEVNULL
        done = subprocess.run(
            [sys.executable, "-c", script, "audit", source, *_FLAGS],
            stdin=file, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    peak, seconds = next(
        ((int(line.split()[1]), float(line.split()[2])) for line in reversed(said) if line.startswith("peak ")),
        (0, float("inf")),
    )
    shown = next((line for line in said if line.startswith(("read ", "tunemark:"))), said[0] if said else "")
    return (1000 if "Traceback" in done.stderr else done.returncode), seconds, peak * 1024, shown[:110]


def run_logs(folder: Path, names: list[str], size: int) -> Iterator[bool]:
    print("log        |     MB/s | memory, MB | code | what it said")
    for name, line in LOGS.items():
        if names and name not in names:
            continue
        path = folder / f"{name}.log"
        write_log(path, line, size)
        code, seconds, memory, said = audit(str(path))
        speed = path.stat().st_size / 1e6 / seconds
        path.unlink()
        print(f"{name:10} | {speed:8.1f} | {memory / 1e6:10.0f} | {code:4} | {said}", flush=True)
        yield speed >= _BAR_MB_PER_S and memory <= _BAR_MEMORY_BYTES and code in (0, 1, 3)


def run_hostile(folder: Path, names: list[str], size: int) -> Iterator[bool]:
    print(f"\nhostile, {size >> 20} MB       | seconds | memory, MB | code | what it said")
    for name, text in HOSTILE.items():
        if names and name not in names:
            continue
        path = folder / "hostile"
        write_hostile(path, text, size)
        yield _show(name, audit(str(path)))
        path.unlink()
    if not names or "noise" in names:
        path = folder / "noise"
        write_log(path, _noise, size // 4)
        yield _show("noise, a quarter", audit(str(path)))
        path.unlink()
    if not names or "pipes" in names:
        yield _show("a named pipe", _audit_pipe(folder))
        yield _show("/dev/zero, limited", _audit_zeros(folder, size))


def _audit_pipe(folder: Path) -> tuple[int, float, float, str]:
    pipe = folder / "pipe"
    os.mkfifo(pipe)

    def feed() -> None:
        with pipe.open("w") as file:
            file.write("".join(_anybody(step) for step in range(1, 500)))

    feeder = threading.Thread(target=feed)
    feeder.start()
    found = audit(str(pipe))
    feeder.join()
    return found


def _audit_zeros(folder: Path, size: int) -> tuple[int, float, float, str]:
    zeros = folder / "zeros"
    with zeros.open("wb") as file:
        file.truncate(size)
    return audit("-", stdin=zeros)


def _show(name: str, found: tuple[int, float, float, str]) -> bool:
    code, seconds, memory, said = found
    print(f"{name:21} | {seconds:7.1f} | {memory / 1e6:10.0f} | {code:4} | {said}", flush=True)
    return seconds <= _BAR_HOSTILE_S and memory <= _BAR_MEMORY_BYTES and code in (0, 1, 2, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--hostile-megabytes", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        good = list(run_logs(Path(folder), args.only, int(args.gigabytes * 1e9)))
        good += run_hostile(Path(folder), args.only, args.hostile_megabytes << 20)
    print("\nPASS" if all(good) else "\nSHORT")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
