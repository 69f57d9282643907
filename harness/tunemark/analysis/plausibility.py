"""The physical facts a claim is checked against: its model's FLOPs and its chips' peaks. What is missing is named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from tunemark.physics import (
    ALL_WEIGHTS,
    count_parameters,
    hardware_flops_per_token,
    lora_trained_weights,
    train_flops_by_convention,
)
from tunemark.physics.chip_peaks import PRECISIONS, Peak, explain_missing_peak, find_peak
from tunemark.physics.published_models import PublishedModel, find_published_model, make_model_key
from tunemark.plugin.claims import Claim, ClaimScope
from tunemark.plugin.descriptors import Architecture, Model

# Assumed rank of LoRA adapters: up to it, the adapters' own matmuls are under a hundredth of the model's FLOPs.
_LORA_RANK = 16
# Of a model known only by its size: the share that may be embeddings, which are looked up and not multiplied.
_EMBEDDING_SHARE = 0.1
# A model known only by its size may be a mixture of experts. The sparsest published uses a 31st of its parameters for a
# token (Kimi K2: 32 of 1,000 billion).
_SPARSEST = 1 / 40
# Dimensions that make less than this share of the stated parameters are those of one of several experts.
_MIXTURE_FACTOR = 2.5
# The ways to train a few weights of their own beside a frozen model, whatever the frozen weights are stored in.
_ADAPTER_METHODS = ("lora", "qlora", "dora", "qdora", "rslora", "loftq", "adapter", "adapters", "peft")
# `Llama-3.1-8B`, `Mixtral-8x7B`, `Qwen3-30B-A3B`: experts, billions, and billions of active parameters.
_SIZE_IN_NAME = re.compile(
    r"(?<![a-z0-9.])(?:([0-9]{1,3})x)?([0-9]{1,4}(?:\.[0-9]{1,3})?)([bm])(?:-a([0-9]{1,4}(?:\.[0-9]{1,3})?)b)?(?![a-z0-9])"
)

_FLAG_OF_FIELD = {
    "train_s": "--time", "padding_fraction": "--padding or --dataset", "parameters": "--params",
    "active_parameters": "--active-params", "architecture": "--layers and the other dimensions",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class UserFacts:
    """Facts that the user adds to what a source states; None adds nothing. batch: sequences per step, whole job.
    count: packages as sold."""

    model: str | None = None
    device: str | None = None
    count: int | None = None
    batch: int | None = None
    sequence: int | None = None
    precision: str | None = None
    method: str | None = None
    train_s: float | None = None
    padding_fraction: float | None = None
    parameters: float | None = None
    active_parameters: float | None = None
    architecture: Architecture | None = None
    scope: ClaimScope | None = None

    def apply_to(self, claim: Claim) -> Claim:
        """The claim with these facts added; a note records where they override the source."""
        values: dict[str, object] = {}
        origin, notes = dict(claim.origin), list(claim.notes)
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            name = "global_batch" if f.name == "batch" else f.name
            stated = claim.layout.global_batch if f.name == "batch" else getattr(claim, f.name)
            if stated not in (None, value, "unknown"):
                notes.append(f"{name} is {value} as given here, {stated} in the source")
            if f.name == "batch":
                values["layout"] = replace(claim.layout, global_batch=value)
            else:
                values[f.name] = value
            origin[name] = _FLAG_OF_FIELD.get(f.name, f"--{f.name}")
        if self.model is not None and self.architecture is None:
            # The source's dimensions belong to the model that it names, not to this one.
            values["architecture"] = None
        return replace(claim, origin=origin, notes=tuple(notes), **values)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimFacts:
    """A claim, and the limits of its rate.

    flops: model FLOPs per slot, by attention convention ('causal', 'full'), of the method stated, else of full
    training; empty if unknown. min_flops: a lower bound for any training of this model, whatever the method and
    sequence; None if the model is unknown. recompute_factor: FLOPs done over model FLOPs, None if unknown. peak: of one
    package in the stated precision, dense. highest_peak: the highest of one package in any precision that the claim can
    mean. missing: facts needed to compare the rate with the hardware.
    """

    claim: Claim
    architecture: Architecture | None
    flops: Mapping[str, float]
    min_flops: float | None
    recompute_factor: float | None
    peak: Peak | None
    usual_peak: Peak | None
    highest_peak: Peak | None
    is_bound: bool
    missing: tuple[str, ...]
    origin: Mapping[str, str] = field(default_factory=dict)


def look_up_facts(claim: Claim, models: Mapping[str, Model], peak_flops: float | None = None) -> ClaimFacts:
    """Look up the facts of the model and device that a claim names. peak_flops: of one device, where the user gives it
    instead of the table."""
    origin = dict(claim.origin)
    missing: list[str] = []
    if claim.method is not None and claim.method.lower() in _ADAPTER_METHODS:
        claim = replace(claim, method="lora")
    architecture = claim.architecture
    if architecture is None and claim.model is not None:
        name = find_model(claim.model, models.values())
        if name is not None:
            architecture = models[name].architecture
            origin["architecture"] = f"the installed model {name}"
        elif (published := find_published_model(claim.model)) is not None:
            claim, architecture = _apply_published(claim, published, models, origin)
        else:
            claim = _read_size_in_name(claim, origin)
    if architecture is not None and claim.architecture is not None and _is_one_expert(claim, architecture):
        # What the others cost is unknown, and the dimensions alone are a lower bound.
        missing.append("the experts of the model (columns n_experts and experts_per_token)")
        bound: Architecture | None = architecture
        architecture = None
    else:
        bound = architecture
    if architecture is None and claim.parameters is None and claim.active_parameters is None:
        named = f"{claim.model!r} is not installed: " if claim.model else ""
        missing.append(f"the model ({named}--model, or --params)")
    stated = usual = highest = None
    if peak_flops is not None:
        stated = usual = highest = _given_peak(peak_flops, claim)
    elif claim.device is None:
        missing.append("the device (--device)")
    else:
        stated = find_peak(claim.device, claim.precision) if claim.precision else None
        every = [p for name in PRECISIONS if (p := find_peak(claim.device, name)) is not None]
        highest = stated if claim.precision else max(every, key=lambda p: p.flops, default=None)
        usual = stated or next((p for p in every if p.precision in ("bf16", "fp16")), highest)
        if claim.precision and stated is None:
            usual = None
        if highest is None:
            missing.append(
                f"a peak ({explain_missing_peak(claim.device, claim.precision or 'bf16')}; --peak-flops gives one)"
            )
    if claim.count is None:
        missing.append("the count of devices (--count)")
    trained = lora_trained_weights(_LORA_RANK) if claim.method == "lora" else ALL_WEIGHTS
    flops = train_flops_by_convention(architecture, claim.sequence, trained) if architecture and claim.sequence else {}
    checkpointing = claim.layout.checkpointing
    recompute_factor = None
    if architecture is not None and checkpointing is not None:
        done = hardware_flops_per_token(architecture, claim.sequence or 1, "causal", checkpointing, trained)
        recompute_factor = done / train_flops_by_convention(architecture, claim.sequence or 1, trained)["causal"]
    return ClaimFacts(
        claim=claim,
        architecture=architecture,
        flops={str(name): value for name, value in flops.items()},
        min_flops=_min_flops(claim, bound),
        recompute_factor=recompute_factor,
        peak=stated,
        usual_peak=usual,
        highest_peak=highest,
        is_bound=bound is not None or claim.active_parameters is not None,
        missing=tuple(missing),
        origin=origin,
    )


def _apply_published(
    claim: Claim, published: PublishedModel, models: Mapping[str, Model], origin: dict[str, str]
) -> tuple[Claim, Architecture | None]:
    """The claim with what is published of its model, which is not installed, and that model's dimensions if known."""
    where = f"the table of published models ({published.source})"
    if published.same_as is not None:
        twin = models.get(published.same_as)
        origin["architecture"] = f"{where}: as the installed model {published.same_as}"
        return claim, twin.architecture if twin else None
    if published.architecture is not None:
        origin["architecture"] = where
        return claim, published.architecture
    if claim.parameters is None and claim.active_parameters is None:
        origin["parameters"] = where
        claim = replace(claim, parameters=published.parameters, active_parameters=published.active_parameters)
    return claim, None


def sparsest_share() -> float:
    """The least share of a model's parameters that a token is taken to use."""
    return _SPARSEST


def _given_peak(flops: float, claim: Claim) -> Peak:
    return Peak(
        chip=claim.device or "the device", precision=claim.precision or "the precision used", count=1, flops=flops,
        sparse_flops=None, dies=1, is_ceiling=True, source="--peak-flops", checked="",
    )  # fmt: skip


def _is_one_expert(claim: Claim, architecture: Architecture) -> bool:
    """Whether dimensions without experts are those of a mixture, by the parameters that are stated beside them."""
    if architecture.num_local_experts or not claim.parameters:
        return False
    return claim.parameters > _MIXTURE_FACTOR * count_parameters(architecture).total


def _read_size_in_name(claim: Claim, origin: dict[str, str]) -> Claim:
    """The claim with the size that the name of an unknown model states, if no other does."""
    if claim.parameters is not None or claim.model is None:
        return claim
    match = _SIZE_IN_NAME.search(claim.model.lower().replace("_", "-"))
    if match is None:
        return claim
    experts, size, unit, active = match.groups()
    origin["parameters"] = f"the name {claim.model!r}"
    scale = 1e9 if unit == "b" else 1e6
    # `8x7B` shares its attention, so it has less than 56 billion; 8 x 7 is the most.
    whole = float(size) * scale * (int(experts) if experts else 1)
    return replace(
        claim, parameters=whole, active_parameters=float(active) * 1e9 if active else claim.active_parameters
    )


def _min_flops(claim: Claim, architecture: Architecture | None) -> float | None:
    """Lower bound of FLOPs per slot: the stated method and sequence, else rank-1 adapters and the shortest sequence."""
    if architecture is not None:
        trained = ALL_WEIGHTS if claim.method == "full" else lora_trained_weights(1)
        return train_flops_by_convention(architecture, claim.sequence or 1, trained)["causal"]
    parameters = claim.active_parameters or claim.parameters
    if parameters is None:
        return None
    per_weight = 6 if claim.method == "full" else 4
    return per_weight * (1 - _EMBEDDING_SHARE) * parameters


def find_model(stated: str, installed: Iterable[Model]) -> str | None:
    """Find the installed model of a stated name: its name, its hub id, or one that differs only in punctuation and in
    words that say nothing of its dimensions."""
    wanted = make_model_key(stated)
    found = None
    for model in installed:
        names = [model.name, *([model.pretrained] if model.pretrained else [])]
        if stated == model.name:
            return model.name
        # A folder's name says nothing of the model in it.
        if found is None and not os.path.isabs(stated.partition(":")[2]):
            found = model.name if wanted in {make_model_key(name) for name in names} else None
    return found


def parameter_counts(facts: ClaimFacts) -> tuple[int, ...]:
    """The parameter counts that may be stated of a model whose dimensions are known: all; those without a second table
    of embeddings, if it may be tied to the head; and those without any; empty if the dimensions are unknown."""
    if facts.architecture is None:
        return ()
    counts = count_parameters(facts.architecture)
    return (counts.total, counts.total - counts.head, counts.total - counts.head - counts.embedding)
