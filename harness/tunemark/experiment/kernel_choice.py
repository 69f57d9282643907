"""How a run computes attention: what `auto` means for it, and what cannot be, with the way on."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.recipes import CPU, GPU, device_class
from tunemark.plugin.descriptors import Model
from tunemark.version_order import is_older

# The first release of transformers whose models pass a mask of any kind to attention.
PASSES_MASKS = "4.53"
# Of which attentions which precisions are computed in half, as their kernels need on a GPU.
_HALF_ONLY = ("flash", "varlen")


def choose_attention(point: GridPoint, model: Model, device: str, python: str | None) -> str:
    """The attention of a run; raises `BadExperiment` for one that the model or the device does not have."""
    asked, kind = point["attention"], device_class(device)
    known = model.supports.get("attention", ())
    if asked == "auto":
        is_better = kind == CPU and point["batching"] == "pack" and "varlen" in known
        return "varlen" if is_better and _passes_masks(python) else "auto"
    if asked not in known:
        raise _refuse(point, f"{model.name} cannot compute attention by {asked}", "", known)
    if kind == CPU and asked in ("flash", "flex"):
        needs = {"flash": "flash-attn has no kernel", "flex": "FlexAttention has no backward pass"}
        others = [each for each in known if each not in needs]
        raise _refuse(point, f"{device} cannot compute attention by {asked}", f"{needs[asked]} for CPUs", others)
    if kind not in (CPU, GPU) and asked in ("varlen", "flash", "flex"):
        why = "its runtime compiles what transformers computes by itself"
        raise _refuse(point, f"{device} cannot compute attention by {asked}", why, ("eager", "sdpa"))
    if kind == GPU and asked in _HALF_ONLY and point["precision"] == "fp32":
        why = f"the kernels are for bf16, and the precision is fp32 ({point.place('precision')})"
        raise _refuse(point, f"{device} cannot compute attention by {asked} in fp32", why, ("sdpa", "eager"))
    return str(asked)


def _refuse(point: GridPoint, what: str, why: str, others: Any) -> BadExperiment:
    words = [f"--attention {each}" for each in ("auto", *others) if each != point["attention"]]
    return BadExperiment(
        what=what, why="; ".join(part for part in (point.place("attention"), why) if part), next=" or ".join(words)
    )


def _passes_masks(python: str | None) -> bool:
    """Whether the training interpreter's transformers is new enough. Unknown is no: the run is then as before."""
    if python is None:
        try:
            version = metadata.version("transformers")
        except metadata.PackageNotFoundError:
            return False
        return not is_older(version, PASSES_MASKS)
    folders = Path(python).parent.parent.glob("lib*/python*/site-packages/transformers-*.dist-info")
    versions = [each.name.removesuffix(".dist-info").partition("-")[2] for each in folders]
    return bool(versions) and not any(is_older(version, PASSES_MASKS) for version in versions)
