"""What a run trains: all parameters, or low-rank adapters beside frozen matrices; and what the plan makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.experiment.values import named_options
from tunemark.physics import EVERYTHING, Trained, linear_names, lora, lora_parameters, parameters
from tunemark.plugin.descriptors import Architecture

METHODS = ("full", "lora")

# What `lora` is where nothing follows it: every linear matrix of a layer, as Dettmers et al. 2023, "QLoRA", section 4,
# found to be needed, at a rank and scale in common use.
RANK = 16
ALPHA = 32
ALL = "all-linear"

_OPTIONS = {
    "r": f"rank of the adapters ({RANK})",
    "alpha": f"their product is scaled by alpha / r ({ALPHA})",
    "targets": f"matrices that have one, joined by plus: q_proj+v_proj ({ALL}: every one but a mixture's experts)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """name: one of METHODS. rank: 0 where there are no adapters. targets: as they were written."""

    name: str
    rank: int = 0
    alpha: int = 0
    targets: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As it would be written with nothing left out."""
        if self.name == "full":
            return self.name
        return f"{self.name}:alpha={self.alpha}:r={self.rank}:targets={'+'.join(self.targets)}"

    def names(self, a: Architecture) -> tuple[str, ...]:
        """The adapted matrices, as the model's module calls them; `BadExperiment` where it has none of a name."""
        known = linear_names(a)
        if self.targets == (ALL,):
            return known
        for name in self.targets:
            if name not in known:
                raise BadExperiment(
                    what=f"{a.model_type} has no matrix {name!r} that an adapter can stand beside",
                    why=f"it has {', '.join(known) or 'none'}",
                    next=did_you_mean(name, (*known, ALL)),
                )
        return self.targets

    def trained(self, a: Architecture) -> Trained:
        """What has gradients: FLOPs follow from it."""
        return lora(self.rank, self.names(a)) if self.rank else EVERYTHING

    def parameters(self, a: Architecture) -> tuple[int, int]:
        """All that the model then has, and how many of them are trained."""
        total = parameters(a).total
        if not self.rank:
            return total, total
        added = lora_parameters(a, self.rank, self.names(a))
        return total + added, added

    def options(self, a: Architecture) -> dict[str, Any]:
        """What the worker is told."""
        return {"r": self.rank, "alpha": self.alpha, "targets": list(self.names(a))} if self.rank else {}

    @property
    def requires(self) -> tuple[str, ...]:
        """Modules that the worker's interpreter must have for it."""
        return ("peft",) if self.rank else ()


def parse_method(text: str) -> Method:
    """The method of "full" or "lora:r=16:alpha=32:targets=all-linear"; `BadExperiment` says what is wrong."""
    try:
        name, options = named_options(text)
    except ValueError as error:
        raise BadExperiment(
            what=f"method cannot be {text!r}", why=str(error), next=f"write for example lora:r={RANK}:alpha={ALPHA}"
        ) from error
    if name not in METHODS:
        raise BadExperiment(what=f"no method named {name!r}", next=did_you_mean(name, METHODS))
    known = _OPTIONS if name == "lora" else {}
    for key in options:
        if key not in known:
            words = "; ".join(f"{k}: {v}" for k, v in known.items())
            raise BadExperiment(
                what=f"the method {name!r} has no option {key!r}",
                why=f"its options: {words}" if words else "it has none",
                next=did_you_mean(key, known) if known else f"--method {name}",
            )
    if name == "full":
        return Method(name=name)
    targets = tuple(dict.fromkeys(options.get("targets", ALL).split("+")))
    if "" in targets or (ALL in targets and len(targets) > 1):
        raise BadExperiment(
            what=f"targets cannot be {options['targets']!r}", next=f"targets={ALL}, or names: targets=q_proj+v_proj"
        )
    rank, alpha = (_positive(key, options.get(key), other) for key, other in (("r", RANK), ("alpha", ALPHA)))
    return Method(name=name, rank=rank, alpha=alpha, targets=targets)


def _positive(key: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= 65536:
        raise BadExperiment(what=f"{key} cannot be {text!r}", why="it is a whole number from 1 to 65536")
    return int(text)
