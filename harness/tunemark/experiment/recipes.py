"""Recipes: named, versioned sets of settings for a class of devices, from the plainest loop to what people train with.

A recipe is a list of rungs, each a setting with its value, in the order in which a ladder climbs them. It gives a value
to a setting only where the user gave none. No rung changes the mathematics: the same parameters are updated with the
same loss, up to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

from tunemark.errors import UnknownName, did_you_mean


class RecipeRung(NamedTuple):
    """A setting and its value. plain: the value without this rung. why: what the value is for, in a sentence."""

    setting: str
    value: str
    plain: str
    why: str


class Recipe(NamedTuple):
    """A set of settings for the devices of a class. version: rises with each change of its rungs, so that a name with
    its version always means the same settings. rungs: in the order of a ladder."""

    name: str
    version: int
    device_class: str
    rungs: tuple[RecipeRung, ...]

    @property
    def title(self) -> str:
        """Such as "tuned-cpu-1"."""
        return f"{self.name}-{self.device_class}-{self.version}"


_PACKING = RecipeRung("batching", "pack", "pad", "several documents in a row: no slot is spent on padding")
_LOSS = RecipeRung("loss", "chunked", "plain", "the scores of all tokens never exist together")
_CPU_ATTENTION = RecipeRung("attention", "varlen", "sdpa", "a row costs the sum of its documents' squares")
_GPU_ATTENTION = RecipeRung("attention", "flash", "sdpa", "a row costs the sum of its documents' squares")
_ALLOCATOR = RecipeRung("allocator", "tuned", "system", "freed blocks are kept instead of faulted in at every step")
_CPU_UPDATE = RecipeRung("optimizer_impl", "fused", "loop", "the update is one pass over each tensor")
_GPU_UPDATE = RecipeRung("optimizer_impl", "fused", "foreach", "the update is one kernel for many tensors")

# Classes of devices; those that are not named are "other".
CPU, GPU = "cpu", "gpu"
_CLASSES = {"cpu": CPU, "cuda": GPU, "rocm": GPU}
_RUNGS: dict[str, tuple[RecipeRung, ...]] = {
    CPU: (_ALLOCATOR, _PACKING, _CPU_ATTENTION, _LOSS, _CPU_UPDATE),
    # Not run on hardware.
    GPU: (_PACKING, _GPU_ATTENTION, _LOSS, _GPU_UPDATE),
    "other": (_PACKING,),
}
_VERSION = 3
RECIPE_NAMES = ("plain", "tuned")


def device_class(device: str) -> str:
    """The class of a device: cpu, gpu or other."""
    return _CLASSES.get(device, "other")


def find_recipe(name: str, device: str) -> Recipe:
    """The recipe of this name for a device; `UnknownName` if there is none."""
    if name not in RECIPE_NAMES:
        raise UnknownName(what=f"no recipe named {name!r}", next=did_you_mean(name, RECIPE_NAMES))
    kind = device_class(device)
    rungs = _RUNGS[kind]
    if name == "plain":
        rungs = tuple(each._replace(value=each.plain) for each in rungs)
    return Recipe(name, _VERSION, kind, rungs)
