"""The initial weights of a run, from files that run no code when read: safetensors or GGUF; pickles only if allowed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import GridPoint
from tunemark.plugin.catalog import load_object
from tunemark.plugin.descriptors import Model

# Files that torch.load unpickles.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Files that transformers' trainer saves next to a model and that hold no weights.
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")
_INDEX = "model.safetensors.index.json"


def resolve_weights(point: GridPoint, model: Model) -> tuple[str, str | None]:
    """(the resolved setting; the file or folder of published weights if already on this machine, else None)"""
    kind, colon, path = str(point["weights"]).partition(":")
    source = point.place("weights")
    if kind == "random":
        return kind, None
    if not colon:
        if model.weights is not None:
            return kind, str(load_object(model.weights)())
        if model.pretrained is None:
            raise BadExperiment(
                what=f"{model.name} has no published weights",
                why=source,
                next="use --weights random, or --weights pretrained:FOLDER",
            )
        if not os.path.isabs(model.pretrained):
            return kind, None
        check_weight_files(Path(model.pretrained), model.pretrained, source, allow_pickle=point["allow_pickle"])
        return kind, model.pretrained
    found = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(found) and found.lower().endswith(".gguf"):
        _check_architecture(_gguf_dimensions(found, path, source), model, path, source)
        return f"pretrained:{found}", None
    if not os.path.isdir(found):
        raise BadExperiment(
            what=f"there is no folder {path!r}",
            why=source,
            next="give the folder that has config.json and the weights, or a GGUF file",
        )
    _check_architecture(_read_json(os.path.join(found, "config.json")), model, path, source)
    check_weight_files(Path(found), path, source, allow_pickle=point["allow_pickle"])
    return f"pretrained:{found}", None


def has_weights(folder: Path) -> bool:
    """Whether the folder has weights of a whole model, in any format."""
    names = _file_names(folder)
    return bool(_safetensors(names) or _pickles(names))


def check_weight_files(folder: Path, shown: str, source: str, *, allow_pickle: bool) -> None:
    """Refuse a folder without weights, with some of them missing, or with weights only in pickles."""
    names = _file_names(folder)
    if _safetensors(names):
        missing = _missing_shards(folder, names)
        if missing:
            raise BadExperiment(
                what=f"{len(missing)} weight files are missing in {shown!r}: {', '.join(missing[:3])}",
                why=f"{source}; {_INDEX} lists them",
                next="copy the folder again",
            )
        return
    pickles = _pickles(names)
    if pickles and allow_pickle:
        return
    if pickles:
        raise BadExperiment(
            what=f"the weights in {shown!r} are pickles: {', '.join(pickles[:3])}",
            why=f"{source}; loading a pickle can run arbitrary code",
            next="convert them to safetensors, or add --allow-pickle if you trust their source",
        )
    adapters = [name for name in names if name.startswith("adapter_model")]
    raise BadExperiment(
        what=f"there are no weights in {shown!r}" + (", only adapters" if adapters else ""),
        why=f"{source}; it has no safetensors of a whole model",
        next="merge the adapters into their model first" if adapters else "give the folder that has the weights",
    )


def _file_names(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if each.is_file())
    except OSError:
        return []


def _safetensors(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")]


def _pickles(names: list[str]) -> list[str]:
    return [n for n in names if n.endswith(_PICKLES) and n not in _NO_WEIGHTS and not n.startswith("adapter_")]


def _missing_shards(folder: Path, names: list[str]) -> list[str]:
    if _INDEX not in names or "model.safetensors" in names:
        return []
    shards = _read_json(str(folder / _INDEX)).get("weight_map")
    return sorted(set(map(str, shards.values())) - set(names)) if isinstance(shards, dict) else []


_DIMENSIONS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
)
# The GGUF format's names for them, which follow the name of the architecture.
_GGUF = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}


def _check_architecture(config: Mapping[str, Any], model: Model, shown: str, source: str) -> None:
    """Refuse dimensions that differ from the model's; a dimension that the configuration lacks is not checked."""
    # Where a model was traced, its configuration is exact; the architecture's own fields only approximate it.
    traced = model.architecture.traced is not None
    expected = dict(model.configuration) if traced else model.architecture.as_dict()
    # null means that a dimension is derived, except for the sliding window, where it means that there is none.
    known = {n: config[n] for n in _DIMENSIONS if n in config and (config[n] is not None or n == "sliding_window")}
    if config.get("use_sliding_window") is False:
        known.pop("sliding_window", None)
    known = {name: value for name, value in known.items() if name in expected}
    differing = [f"{name} is {value}, not {expected[name]}" for name, value in known.items() if value != expected[name]]
    if differing:
        raise BadExperiment(
            what=f"the weights in {shown!r} do not have {model.name}'s architecture",
            why=f"{source}; in their configuration {', '.join(differing)}",
            next="FLOPs are computed for one architecture: choose the model that these weights belong to",
        )


def _read_json(path: str) -> Mapping[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _gguf_dimensions(path: str, shown: str, source: str) -> Mapping[str, Any]:
    """The dimensions in a GGUF file's metadata; empty where this interpreter has no GGUF reader."""
    try:
        import gguf  # needed for GGUF files only
    except ImportError:
        return {}
    try:
        fields = gguf.GGUFReader(path).fields
        metadata = {name: field.contents() for name, field in fields.items() if name.count(".") <= 2}
    # On a damaged file the reader can raise anything.
    except Exception as error:
        raise BadExperiment(
            what=f"{shown!r} cannot be read as GGUF",
            why=f"{source}: {type(error).__name__}: {error}",
            next="copy the file again",
        ) from error
    kind = metadata.get("general.architecture")
    found = {ours: metadata[f"{kind}.{theirs}"] for theirs, ours in _GGUF.items() if f"{kind}.{theirs}" in metadata}
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list):
        found["vocab_size"] = len(tokens)
    return found
