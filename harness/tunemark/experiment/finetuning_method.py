"""The fine-tuning method: all parameters, or LoRA adapters on frozen matrices, with the parameter counts of each.

Sources: Hu et al. 2021, "LoRA"; Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA"
(rslora); Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation" (dora); Dettmers et al. 2023, "QLoRA" (qlora).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.experiment.value_parsing import parse_named_options
from tunemark.physics import (
    ALL_WEIGHTS,
    TrainedWeights,
    adaptable_matrices,
    count_layer_matrices,
    count_lora_parameters,
    count_parameters,
    lora_trained_weights,
)
from tunemark.plugin.descriptors import Architecture

METHODS = ("full", "lora", "qlora")

# Defaults of `lora`: adapters on every linear matrix of a layer, which Dettmers et al. 2023, "QLoRA", section 4, found
# to be needed, at a rank and scale in common use.
DEFAULT_RANK = 16
DEFAULT_ALPHA = 32
ALL_LINEAR = "all-linear"

_OPTIONS = {
    "r": f"rank of the adapters ({DEFAULT_RANK})",
    "alpha": f"adapter outputs are scaled by alpha / r ({DEFAULT_ALPHA})",
    "targets": f"matrices to adapt, joined by plus: q_proj+v_proj ({ALL_LINEAR}: all except a mixture's experts)",
    "rslora": "true: adapter outputs are scaled by alpha / sqrt(r) (false)",
    "dora": "true: the adapted matrices' rows also have trained magnitudes (false)",
}
_OPTIONS_OF = {
    "full": {},
    "lora": _OPTIONS,
    # peft's norms of quantized matrices are tried by nobody here.
    "qlora": {name: words for name, words in _OPTIONS.items() if name != "dora"},
}
# Names under which others know an option of `lora`.
_NAMES_OF_OPTIONS = {"dora": "lora:dora=true", "rslora": "lora:rslora=true"}
# The first release of peft that computes DoRA from the frozen matrix's output, instead of multiplying once more.
PEFT_WITH_DORA = "0.14"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """name: one of METHODS. rank: 0 without adapters. targets: as the user wrote them. rslora: adapter outputs are
    scaled by alpha / sqrt(rank) instead of alpha / rank. dora: with magnitudes."""

    name: str
    rank: int = 0
    alpha: int = 0
    targets: tuple[str, ...] = ()
    rslora: bool = False
    dora: bool = False

    def __str__(self) -> str:
        """The setting's text with every option spelled out; what is false is left out, as before it existed."""
        if self.name == "full":
            return self.name
        options = {"alpha": self.alpha, "r": self.rank, "targets": "+".join(self.targets)}
        options |= {name: "true" for name in ("dora", "rslora") if getattr(self, name)}
        return ":".join([self.name, *(f"{name}={options[name]}" for name in sorted(options))])

    def names(self, a: Architecture) -> tuple[str, ...]:
        """The adapted matrices, under the module's own names; `BadExperiment` for a name that the model lacks."""
        known = adaptable_matrices(a)
        if self.targets == (ALL_LINEAR,):
            return known
        for name in self.targets:
            if name not in known:
                raise BadExperiment(
                    what=f"{a.model_type} has no matrix {name!r} that can be adapted",
                    why=f"it has {', '.join(known) or 'none'}",
                    next=did_you_mean(name, (*known, ALL_LINEAR)),
                )
        return self.targets

    def trained(self, a: Architecture) -> TrainedWeights:
        """The weights that have gradients, which the FLOPs depend on."""
        return lora_trained_weights(self.rank, self.names(a), magnitudes=self.dora) if self.rank else ALL_WEIGHTS

    def parameters(self, a: Architecture) -> tuple[int, int]:
        """(all parameters, adapters included; trained parameters)"""
        total = count_parameters(a).total
        if not self.rank:
            return total, total
        trained = count_lora_parameters(a, self.rank, self.names(a), magnitudes=self.dora)
        return total + trained, trained

    @property
    def is_quantized(self) -> bool:
        """Whether the matrices of the layers are frozen in 4 bits, adapted or not."""
        return self.name == "qlora"

    def quantized_parameters(self, a: Architecture) -> int:
        """How many of the parameters are kept in 4 bits."""
        return count_layer_matrices(a) if self.is_quantized else 0

    def options(self, a: Architecture) -> dict[str, Any]:
        """The method's options for the worker."""
        if not self.rank:
            return {}
        said = {"r": self.rank, "alpha": self.alpha, "targets": list(self.names(a))}
        if self.is_quantized:
            said["quantized"] = list(adaptable_matrices(a))
        return {**said, **{name: True for name in ("rslora", "dora") if getattr(self, name)}}

    @property
    def requires(self) -> tuple[str, ...]:
        """Modules that the worker's interpreter must have for this method."""
        if not self.rank:
            return ()
        return ("peft", "bitsandbytes") if self.is_quantized else ("peft",)


def parse_method(text: str) -> Method:
    """The method of "full" or "lora:r=16:alpha=32:targets=all-linear"; `BadExperiment` where it is malformed."""
    try:
        name, options = parse_named_options(text)
    except ValueError as error:
        raise BadExperiment(
            what=f"method cannot be {text!r}",
            why=str(error),
            next=f"write for example lora:r={DEFAULT_RANK}:alpha={DEFAULT_ALPHA}",
        ) from error
    if name not in METHODS:
        meant = _NAMES_OF_OPTIONS.get(name.lower())
        raise BadExperiment(
            what=f"no method named {name!r}", next=f"--method {meant}" if meant else did_you_mean(name, METHODS)
        )
    known = _OPTIONS_OF[name]
    for key in options:
        if key not in known:
            described = "; ".join(f"{k}: {v}" for k, v in known.items())
            raise BadExperiment(
                what=f"the method {name!r} has no option {key!r}",
                why=f"its options: {described}" if described else "it has none",
                next=did_you_mean(key, known) if known else f"--method {name}",
            )
    if name == "full":
        return Method(name=name)
    targets = tuple(dict.fromkeys(options.get("targets", ALL_LINEAR).split("+")))
    if "" in targets or (ALL_LINEAR in targets and len(targets) > 1):
        raise BadExperiment(
            what=f"targets cannot be {options['targets']!r}",
            next=f"targets={ALL_LINEAR}, or names: targets=q_proj+v_proj",
        )
    rank, alpha = (
        _positive(key, options.get(key), default) for key, default in (("r", DEFAULT_RANK), ("alpha", DEFAULT_ALPHA))
    )
    rslora, dora = (_flag(key, options.get(key, "false")) for key in ("rslora", "dora"))
    return Method(name=name, rank=rank, alpha=alpha, targets=targets, rslora=rslora, dora=dora)


def _flag(key: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise BadExperiment(what=f"{key} cannot be {text!r}", next=f"{key}=true, or leave it out")
    return text == "true"


def _positive(key: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= 65536:
        raise BadExperiment(what=f"{key} cannot be {text!r}", why="it must be a whole number from 1 to 65536")
    return int(text)
