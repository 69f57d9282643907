"""Which weights a run begins with, and that reading them runs no code: safetensors or GGUF, pickles only if allowed."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import Point
from tunemark.plugin.catalog import load
from tunemark.plugin.descriptors import Model

# What torch.load reads by unpickling.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SAFE = (".safetensors", ".gguf")


def choose_weights(point: Point, model: Model) -> tuple[str, str | None]:
    """What the setting means, and the file of published weights where an installed package ships it."""
    kind, colon, path = str(point["weights"]).partition(":")
    if kind == "random":
        return kind, None
    if not colon:
        if model.pretrained is None and model.weights is None:
            raise BadExperiment(
                what=f"{model.name} has no published weights",
                why=point.place("weights"),
                next="use --weights random, or --weights pretrained:FOLDER",
            )
        return kind, None if model.weights is None else str(load(model.weights)())
    found = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(found) and found.endswith(".gguf"):
        return f"pretrained:{found}", None
    if not os.path.isdir(found):
        raise BadExperiment(
            what=f"there is no folder {path!r}",
            why=point.place("weights"),
            next="give the folder that holds config.json and the weights, or a GGUF file",
        )
    differing = _differing(os.path.join(found, "config.json"), model)
    if differing:
        raise BadExperiment(
            what=f"the weights in {path!r} are not of {model.name}'s architecture",
            why=f"{point.place('weights')}; config.json: {', '.join(differing)}",
            next="a rate and its FLOPs belong to one architecture: choose the model that these weights are of",
        )
    check_safe(Path(found), path, point.place("weights"), allow_pickle=point["allow_pickle"])
    return f"pretrained:{found}", None


def check_safe(folder: Path, shown: str, place: str, *, allow_pickle: bool) -> None:
    """Refuse a folder whose weights only a pickle holds."""
    names = sorted(each.name for each in folder.iterdir() if each.is_file())
    if any(name.endswith(_SAFE) for name in names) or allow_pickle:
        return
    pickles = [name for name in names if name.endswith(_PICKLES) and name != "training_args.bin"]
    if pickles:
        raise BadExperiment(
            what=f"the weights in {shown!r} are pickles: {', '.join(pickles[:3])}",
            why=f"{place}; reading a pickle can run any code that it holds",
            next="convert them to safetensors, or add --allow-pickle if you trust where they come from",
        )
    raise BadExperiment(
        what=f"there are no weights in {shown!r}",
        why=f"{place}; it holds no safetensors and no GGUF file",
        next="give the folder that holds config.json and the weights",
    )


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


def _differing(config: str, model: Model) -> list[str]:
    """Dimensions that a configuration states otherwise than the model; none where there is no configuration."""
    try:
        with open(config, encoding="utf-8") as file:
            stated = json.load(file)
    except (OSError, ValueError):
        return []
    if not isinstance(stated, dict):
        return []
    ours = model.architecture.as_dict()
    # null leaves a dimension to be derived, but of the window it says that there is none.
    known = {n: stated[n] for n in _DIMENSIONS if n in stated and (stated[n] is not None or n == "sliding_window")}
    if stated.get("use_sliding_window") is False:
        known.pop("sliding_window", None)
    return [f"{name} is {value}, not {ours[name]}" for name, value in known.items() if value != ours[name]]
