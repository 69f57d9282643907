"""Which weights a run begins with, and that reading them runs no code: safetensors or GGUF, pickles only if allowed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import Point
from tunemark.plugin.catalog import load
from tunemark.plugin.descriptors import Model

# What torch.load reads by unpickling.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# What transformers' own trainer leaves beside a model: no weights.
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")
_INDEX = "model.safetensors.index.json"


def choose_weights(point: Point, model: Model) -> tuple[str, str | None]:
    """What the setting means, and the file or folder of published weights where these are on this machine already."""
    kind, colon, path = str(point["weights"]).partition(":")
    place = point.place("weights")
    if kind == "random":
        return kind, None
    if not colon:
        if model.weights is not None:
            return kind, str(load(model.weights)())
        if model.pretrained is None:
            raise BadExperiment(
                what=f"{model.name} has no published weights",
                why=place,
                next="use --weights random, or --weights pretrained:FOLDER",
            )
        if not os.path.isabs(model.pretrained):
            return kind, None
        check_safe(Path(model.pretrained), model.pretrained, place, allow_pickle=point["allow_pickle"])
        return kind, model.pretrained
    found = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(found) and found.lower().endswith(".gguf"):
        _check_architecture(_gguf(found, path, place), model, path, place)
        return f"pretrained:{found}", None
    if not os.path.isdir(found):
        raise BadExperiment(
            what=f"there is no folder {path!r}",
            why=place,
            next="give the folder that holds config.json and the weights, or a GGUF file",
        )
    _check_architecture(_configuration(os.path.join(found, "config.json")), model, path, place)
    check_safe(Path(found), path, place, allow_pickle=point["allow_pickle"])
    return f"pretrained:{found}", None


def holds_weights(folder: Path) -> bool:
    """Whether the folder has weights of a whole model, of any form."""
    names = _names(folder)
    return bool(_safe(names) or _pickles(names))


def check_safe(folder: Path, shown: str, place: str, *, allow_pickle: bool) -> None:
    """Refuse a folder without weights, with some of them missing, or whose weights only a pickle holds."""
    names = _names(folder)
    if _safe(names):
        missing = _missing_parts(folder, names)
        if missing:
            raise BadExperiment(
                what=f"{len(missing)} files of the weights in {shown!r} are missing: {', '.join(missing[:3])}",
                why=f"{place}; {_INDEX} names them",
                next="copy the folder again",
            )
        return
    pickles = _pickles(names)
    if pickles and allow_pickle:
        return
    if pickles:
        raise BadExperiment(
            what=f"the weights in {shown!r} are pickles: {', '.join(pickles[:3])}",
            why=f"{place}; reading a pickle can run any code that it holds",
            next="convert them to safetensors, or add --allow-pickle if you trust where they come from",
        )
    adapters = [name for name in names if name.startswith("adapter_model")]
    raise BadExperiment(
        what=f"there are no weights in {shown!r}" + (", only adapters" if adapters else ""),
        why=f"{place}; it holds no safetensors of a whole model",
        next="merge the adapters into their model first" if adapters else "give the folder that holds the weights",
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if each.is_file())
    except OSError:
        return []


def _safe(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")]


def _pickles(names: list[str]) -> list[str]:
    return [n for n in names if n.endswith(_PICKLES) and n not in _NO_WEIGHTS and not n.startswith("adapter_")]


def _missing_parts(folder: Path, names: list[str]) -> list[str]:
    if _INDEX not in names or "model.safetensors" in names:
        return []
    parts = _configuration(str(folder / _INDEX)).get("weight_map")
    return sorted(set(map(str, parts.values())) - set(names)) if isinstance(parts, dict) else []


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
# The GGUF format's names of them, behind the architecture's own.
_GGUF = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}


def _check_architecture(stated: Mapping[str, Any], model: Model, shown: str, place: str) -> None:
    """Refuse dimensions that are stated otherwise than the model's; what is not stated is not refused."""
    ours = model.architecture.as_dict()
    # null leaves a dimension to be derived, but of the window it says that there is none.
    known = {n: stated[n] for n in _DIMENSIONS if n in stated and (stated[n] is not None or n == "sliding_window")}
    if stated.get("use_sliding_window") is False:
        known.pop("sliding_window", None)
    differing = [f"{name} is {value}, not {ours[name]}" for name, value in known.items() if value != ours[name]]
    if differing:
        raise BadExperiment(
            what=f"the weights in {shown!r} are not of {model.name}'s architecture",
            why=f"{place}; they say that {', '.join(differing)}",
            next="a rate and its FLOPs belong to one architecture: choose the model that these weights are of",
        )


def _configuration(path: str) -> Mapping[str, Any]:
    """A JSON object out of a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            stated = json.load(file)
    except (OSError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _gguf(path: str, shown: str, place: str) -> Mapping[str, Any]:
    """The dimensions that a GGUF file states; none where this interpreter has no reader of it."""
    try:
        import gguf  # needed for such a file alone
    except ImportError:
        return {}
    try:
        fields = gguf.GGUFReader(path).fields
        stated = {name: field.contents() for name, field in fields.items() if name.count(".") <= 2}
    # The format's reader raises whatever a damaged file makes it meet.
    except Exception as error:
        raise BadExperiment(
            what=f"{shown!r} cannot be read as GGUF",
            why=f"{place}: {type(error).__name__}: {error}",
            next="copy the file again",
        ) from error
    kind = stated.get("general.architecture")
    found = {ours: stated[f"{kind}.{theirs}"] for theirs, ours in _GGUF.items() if f"{kind}.{theirs}" in stated}
    texts = stated.get("tokenizer.ggml.tokens")
    if isinstance(texts, list):
        found["vocab_size"] = len(texts)
    return found
