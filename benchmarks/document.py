"""Writes a script's tables into a document, between two marks, and describes the machine and the date."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def put(document: str, name: str, words: str) -> None:
    """Replace the text between `<!-- NAME: begin -->` and `<!-- NAME: end -->` in a document of this project."""
    path = ROOT / document
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    if not found:
        raise SystemExit(f"{path} has no {begin}")
    after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}\n{words.strip()}\n{end}{after}", encoding="utf-8")


def machine() -> str:
    """The machine, the torch version and today's date."""
    import torch  # heavy, and only needed for its version

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {name}, Linux {platform.release()}, torch {torch.__version__}, {date.today():%d %B %Y}"
