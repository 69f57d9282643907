"""How much memory a dataset larger than memory takes: `python benchmarks/large_text.py [--gigabytes 1.2]`.

A text is made, prepared for a model as a run would, and mapped as a worker would, each in a process of its own whose
peak resident memory is shown. The bound that is stated in docs/datasets.md is held, and the exit code is 1 where it is
not.
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

# Of the preparing process above the same with a text of 1 MB; and of what a worker needs above its imports, also
# for each document. docs/datasets.md states them.
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
    """English words in lines and paragraphs, `size` bytes of them."""
    draw = random.Random(0)
    words = _COMMON.split()
    block: list[str] = []
    for n in range(20000):
        block += draw.choices(words, k=14)
        block.append("\n\n" if n % 6 == 5 else "\n")
    text = " ".join(block).encode()
    with path.open("wb") as file:
        for n in range(size // len(text) + 1):
            # Another beginning each time, so that no two parts are alike.
            file.write(f"{n} ".encode() + text[n % 997 :])


def prepare(path: str, cache: str, model: str) -> None:
    """In a process of its own: the token file, and what it took."""
    from tunemark.data import prepare as prepare_tokens
    from tunemark.plugin import Catalog

    catalog = Catalog()
    began_s = time.monotonic()
    found = prepare_tokens(catalog.dataset("text"), {"path": path}, catalog.model(model), "all", cache=Path(cache))
    file = found.token_file
    print(json.dumps({
        "path": file.path, "sha256": file.sha256, "documents": file.documents, "tokens": file.tokens,
        "pad_id": file.pad_id, "seconds": time.monotonic() - began_s, "peak_bytes": _peak_bytes(),
    }))  # fmt: skip


def read(told: str) -> None:
    """In a process of its own: the file mapped as a worker maps it, its rows formed, a few of them as tensors."""
    from tunemark_worker import documents
    from tunemark_worker.batches import Tokens
    from tunemark_worker.contract import TokenFile

    fields = json.loads(told)
    before = _held_bytes()
    tokens = Tokens(TokenFile(**fields))
    rows = documents.rows(tokens.lengths(), 512, "pack", 0, 1)
    for _, (_, row) in zip(range(256), rows, strict=False):
        tokens.batch([row], 512, True)
    print(json.dumps({"own_bytes": before, "held_bytes": _held_bytes()}))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _held_bytes() -> int:
    """Resident memory that is no file's: pages of the mapped token file can be taken back at any time."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def _alone(*words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.2, help="of the text (1.2)")
    parser.add_argument("--model", default="mistral-tiny", help="whose tokenizer (mistral-tiny)")
    parser.add_argument("--folder", help="for the text and the token file, which takes 2 times as much")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="large-text-") as name:
        folder = Path(name)
        small, large = folder / "small.txt", folder / "large.txt"
        make(small, 1_000_000)
        make(large, int(args.gigabytes * 1e9))
        little = _alone("prepare", str(small), str(folder / "cache"), args.model)
        much = _alone("prepare", str(large), str(folder / "cache"), args.model)
        names = ("path", "sha256", "documents", "tokens", "pad_id")
        worker = _alone("read", json.dumps({name: much[name] for name in names}))
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
