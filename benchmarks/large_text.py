"""How much memory does a dataset larger than memory take? `python benchmarks/large_text.py [--gigabytes 1.2]`.

Generates a text, prepares it for a model as a run does, and maps it as a worker does, in separate processes whose
memory is shown. The exit code is 1 if a bound of docs/datasets.md is exceeded.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Bounds in docs/datasets.md: of the preparing process beyond the same with a 1 MB text, and of a worker beyond its
# imports, where each document may take some more.
_BOUND_BYTES = 128 << 20
_WORKER_BYTES_PER_DOCUMENT = 150


_COMMON = """the of and to in is was that for it with as his on be at by had not are but from or have an they which one
you were all her she there would their we him been has when who will no more if out so up said what its about than into
them can only other time new some could these two may first then do any like my now over such our man me even most made
after also did many off before must well back through years much where your way down should because long each just
people how too good small large number water called world house place school never same last left school still state
night under while high every near country between city together feet along important often began mountain family
general river measure horse science language figure morning voice system pattern during"""


def make(path: Path, size: int) -> None:
    """Write at least `size` bytes of English words in lines and paragraphs."""
    draw = random.Random(0)
    words = _COMMON.split()
    block: list[str] = []
    for n in range(20000):
        block += draw.choices(words, k=14)
        block.append("\n\n" if n % 6 == 5 else "\n")
    text = " ".join(block).encode()
    with path.open("wb") as file:
        for n in range(size // len(text) + 1):
            # A different start each time, so that no two parts are equal.
            file.write(f"{n} ".encode() + text[n % 997 :])


def prepare(path: str, cache: str, model: str) -> None:
    """Run in a separate process: prepares the token file and prints it with its time and memory."""
    from tunemark.data import prepare_data as prepare_tokens
    from tunemark.plugin import Catalog

    catalog = Catalog()
    began_s = time.monotonic()
    found = prepare_tokens(catalog.dataset("text"), {"path": path}, catalog.model(model), "all", cache=Path(cache))
    file = found.token_file
    print(json.dumps({
        "path": file.path, "sha256": file.sha256, "documents": file.documents, "tokens": file.tokens,
        "pad_id": file.pad_id, "seconds": time.monotonic() - began_s, "peak_bytes": _peak_bytes(),
    }))  # fmt: skip


def read(token_file_json: str) -> None:
    """Run in a separate process: maps the file as a worker does, forms its rows and makes tensors of a few."""
    from tunemark_worker import row_packing
    from tunemark_worker.batches import MappedTokens
    from tunemark_worker.contract import TokenFile

    fields = json.loads(token_file_json)
    before = _held_bytes()
    tokens = MappedTokens(TokenFile(**fields))
    rows = row_packing.make_batch_rows(tokens.lengths(), 512, "pack", 0, 1)
    for _, (_, row) in zip(range(256), rows, strict=False):
        tokens.batch([row], 512, True)
    print(json.dumps({"own_bytes": before, "held_bytes": _held_bytes()}))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _held_bytes() -> int:
    """Resident anonymous memory: pages of the mapped token file do not count, as the kernel can reclaim them."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def _run_alone(*words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.2, help="size of the text (1.2)")
    parser.add_argument("--model", default="mistral-tiny", help="model whose tokenizer is used (mistral-tiny)")
    parser.add_argument("--folder", help="folder for the text and the token file, which is twice as large")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="large-text-") as name:
        folder = Path(name)
        small, large = folder / "small.txt", folder / "large.txt"
        make(small, 1_000_000)
        make(large, int(args.gigabytes * 1e9))
        little = _run_alone("prepare", str(small), str(folder / "cache"), args.model)
        much = _run_alone("prepare", str(large), str(folder / "cache"), args.model)
        names = ("path", "sha256", "documents", "tokens", "pad_id")
        worker = _run_alone("read", json.dumps({name: much[name] for name in names}))
        size = large.stat().st_size
    mib = 1 << 20
    more = (much["peak_bytes"] - little["peak_bytes"]) / mib
    own = (worker["held_bytes"] - worker["own_bytes"]) / mib
    bound = _BOUND_BYTES / mib
    own_bound = (_BOUND_BYTES + _WORKER_BYTES_PER_DOCUMENT * much["documents"]) / mib
    print(f"a text of {size / 1e6:,.0f} MB: {much['documents']:,} documents, {much['tokens']:,} tokens, "
          f"{much['seconds']:.0f} s")  # fmt: skip
    print("| process | MiB | of it above | MiB | bound (MiB) |\n|---|---:|---|---:|---:|")
    print(f"| preparing, peak | {much['peak_bytes'] / mib:.0f} | the same of 1 MB | {more:.0f} | {bound:.0f} |")
    print(f"| worker, held | {worker['held_bytes'] / mib:.0f} | its imports | {own:.0f} | {own_bound:.0f} |")
    is_good = more <= bound and own <= own_bound
    print("PASS" if is_good else "SHORT")
    return int(not is_good)


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(*sys.argv[2:])
    elif sys.argv[1:2] == ["read"]:
        read(*sys.argv[2:])
    else:
        sys.exit(main())
