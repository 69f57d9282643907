"""The architecture of a family without a formula, from a step of the model itself (`tunemark_models.model_trace`).

The step is made in a process of the interpreter that trains and kept in the cache, under the hash of the configuration,
of the versions of torch and transformers, and of the tracing code.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import tunemark_models
import tunemark_torch
import tunemark_worker
from tunemark.atomic_write import write_atomically
from tunemark.cache import cache_folder
from tunemark.physics.traced_counts import computed_share
from tunemark.plugin.descriptors import Architecture
from tunemark.plugin.traced_model import TracedLayer, TracedModel, TracedParameter, TracedProduct
from tunemark.temporary import temporary_folder

_TIMEOUT_S = 300
_PACKAGES = ("torch", "transformers")
# The packages whose code traces a model.
_TRACING_FOLDERS = (
    Path(tunemark_models.__file__).parent,
    Path(tunemark_torch.__file__).parent,
    Path(tunemark_worker.__file__).parent,
)


class UntraceableModelError(ValueError):
    """The message says why the model's step could not be followed."""


def trace_architecture(folder: Path, stated: Mapping[str, Any], python: str | None) -> Architecture:
    """The architecture of the `config.json` in a folder, whose content is `stated`; `UntraceableModelError` if the
    model cannot be built or followed. python: the interpreter that trains, None for this one."""
    versions = _find_versions(python)
    digest = _digest(stated, versions)
    place = cache_folder() / "models" / f"{digest}.json"
    found = _read_cache(place)
    if found is None:
        found = _run_trace(folder, python)
        if "error" in found:
            raise UntraceableModelError(found["error"])
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(found))
    return architecture_from_trace(found, digest)


def architecture_from_trace(found: Mapping[str, Any], digest: str) -> Architecture:
    """The architecture of a trace's output. Its dimensions are those of a plain decoder of the same width and depth
    whose MLP has as many columns per token as this model's, on average; they only rank layouts."""
    kinds = [msgspec.convert(each, TracedLayer) for each in found["kinds"]]
    if found["config"]["model_type"] in _WITHOUT_ADAPTED_OUTPUT:
        kinds = [replace(each, matrices=tuple(m for m in each.matrices if m.name != "out_proj")) for each in kinds]
    traced = TracedModel(
        kinds=tuple(kinds),
        order=tuple(found["order"]),
        parameters=msgspec.convert(found["parameters"], tuple[TracedParameter, ...]),
        before=msgspec.convert(found["before"], tuple[TracedProduct, ...]),
        after=msgspec.convert(found["after"], tuple[TracedProduct, ...]),
        unused=tuple(found["unused"]),
        packing=found["packing"],
        packing_obstacle=found["packing_obstacle"],
        ends_obstacle=found["ends_obstacle"],
        pipeline_obstacle=found["pipeline_obstacle"],
        notes=tuple(found["notes"]),
        versions=tuple(sorted(found["versions"].items())),
        digest=digest,
        is_random=bool(found.get("is_random")),
        takes_documents=bool(found.get("takes_documents")),
    )
    config, hidden, depth = found["config"], found["hidden_size"], len(traced.order)
    heads = config["num_attention_heads"] or max(1, hidden // 128)
    active = sum(p.active for layer in traced.layers for p in layer.parameters if p.role == "mlp")
    return Architecture(
        model_type=config["model_type"],
        vocab_size=found["vocab_size"],
        hidden_size=hidden,
        intermediate_size=max(1, round(active / (3 * hidden * depth))),
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=config["num_key_value_heads"] or heads,
        head_dim=config["head_dim"] or max(1, hidden // heads),
        max_position_embeddings=found["longest"] or _UNLIMITED,
        sliding_window=None,
        tie_word_embeddings=found["is_tied"],
        traced=traced,
    )


# In these peft refuses to adapt `out_proj`, whose weight the kernels of state-space models read themselves.
# huggingface/peft @00073fe, src/peft/tuners/tuners_utils.py, _check_lora_target_modules_mamba.
_WITHOUT_ADAPTED_OUTPUT = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")

# The longest sequence of models whose configuration has no limit, such as state-space models.
_UNLIMITED = 1 << 20


def describe_trace(a: Architecture) -> tuple[str, ...]:
    """What every plan of the model has to say about its trace; empty for a formula."""
    traced = a.traced
    if traced is None:
        return ()
    versions = " and ".join(f"{name} {version}" for name, version in reversed(traced.versions))
    notes = [f"{a.model_type}: parameters and FLOPs are those of the model's own code, stepped under {versions}"]
    share = computed_share(traced, 1024)
    if share > 1.01:
        notes.append(
            f"{a.model_type}: transformers computes every expert for every token, {share:.3g} times the FLOPs that are "
            "counted"
        )
    if traced.is_random:
        notes.append(
            f"{a.model_type}: it draws experts at random while it is trained, so losses of two layouts differ, and "
            "--verify cannot hold"
        )
    if traced.unused:
        notes.append(
            f"{a.model_type}: {len(traced.unused)} parameters are not reached by text, such as {traced.unused[0]}"
        )
    return (*notes, *(f"{a.model_type}: {note}" for note in traced.notes))


def _find_versions(python: str | None) -> dict[str, str | None]:
    if python is not None:
        from tunemark.launch import query_interpreter  # starts processes, and few plans trace

        return query_interpreter(python, _PACKAGES).versions
    missing = []
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise UntraceableModelError(f"its family has no formula here, and stepping it needs {' and '.join(missing)}")
    return versions


def _digest(stated: Mapping[str, Any], versions: Mapping[str, str | None]) -> str:
    digest = hashlib.sha256(json.dumps([stated, versions], sort_keys=True).encode())
    for folder in _TRACING_FOLDERS:
        for name in (
            "document_attention.py",
            "model_trace.py",
            "packed_mask.py",
            "packing_probe.py",
            "parameter_roles.py",
            "parallel/pipeline_parallel.py",
            "parallel/stage_check.py",
            "pipeline_probe.py",
            "runtime.py",
            "shrunken_copy.py",
            "decoder.py",
            "lora_adapters.py",
        ):
            path = folder / name
            digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()[:24]


def _read_cache(place: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _run_trace(folder: Path, python: str | None) -> dict[str, Any]:
    """The output of `tunemark_models.model_trace`."""
    with temporary_folder("trace") as code:
        # Another interpreter sees these packages and none of this one's.
        for package in _TRACING_FOLDERS:
            os.symlink(package.resolve(), Path(code, package.name))
        command = [python or sys.executable, "-m", "tunemark_models.model_trace", str(folder.absolute())]
        environment = {**os.environ, "PYTHONPATH": str(code), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True, env=environment, cwd=code
            )
            found = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired as error:
            raise UntraceableModelError(f"transformers did not build and step it in {_TIMEOUT_S} s") from error
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise UntraceableModelError(f"it could not be stepped: {lines[-1] if lines else error}") from error
    return found if isinstance(found, dict) else {"error": "it printed no facts"}
