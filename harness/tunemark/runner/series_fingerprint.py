"""The fingerprint of a run: attempts that differ in it are of different series, because they may differ in speed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tunemark.data import PreparedData
from tunemark.experiment import Plan
from tunemark.launch import CodeCopy, Interpreter, processor_name
from tunemark.predict.search import SearchLog


def make_fingerprint(
    plan: Plan, code: CodeCopy, data: PreparedData, interpreter: Interpreter, search: SearchLog | None
) -> str:
    """A hash of the code, data, interpreter, model, machine and chosen layout of a run: 16 hexadecimal digits."""
    parts: list[object] = [
        code.sha256,
        data.token_file.sha256,
        interpreter.path,
        interpreter.python,
        interpreter.versions,
        plan.model.worker_architecture(),
        _list_weight_files(plan.weights_path or plan.spec.weights.partition(":")[2]),
    ]
    if plan.launcher.is_remote:
        parts += [plan.launcher.name, dict(plan.launcher_options)]
    else:
        parts += [processor_name(), os.cpu_count()]
    for name in plan.trainer.file_options:
        # A script that was edited is another one.
        parts.append(hashlib.sha256(Path(plan.trainer_options[name]).read_bytes()).hexdigest())
    if search is not None and search.chosen_option is not None:
        # Attempts with another chosen layout are another series.
        parts.append(search.chosen_option.words())
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _list_weight_files(path: str) -> list[object]:
    """Name, size and modification time of each file of weights; empty where there is none."""
    folder = Path(path or os.devnull)
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.is_file() else []
    return [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file()]
