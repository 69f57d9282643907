"""A claim beside what physics knows of its model and its chips. What is not known stays unknown, and has a name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from tunemark.physics import EVERYTHING, hardware_flops_per_token, lora, parameters, train_flops_by_convention
from tunemark.physics.peaks import PRECISIONS, Peak, peak, why_no_peak
from tunemark.plugin.claims import Claim
from tunemark.plugin.descriptors import Architecture, Model

# Of adapters whose rank is not stated: their own products are under a hundredth of the model's up to here.
_LORA_RANK = 16
# Of a model that is known by its size alone: what may be an embedding, which is looked up and not multiplied.
_EMBEDDING_SHARE = 0.1


_FLAGS = {"train_s": "--time", "padding_fraction": "--padding or --dataset"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Facts that the auditor adds to what a source states; None adds nothing. batch: sequences per step, whole job.
    count: packages as they are sold."""

    model: str | None = None
    device: str | None = None
    count: int | None = None
    batch: int | None = None
    sequence: int | None = None
    precision: str | None = None
    method: str | None = None
    train_s: float | None = None
    padding_fraction: float | None = None

    def added_to(self, claim: Claim) -> Claim:
        """The claim with these facts in it; where the source says otherwise, a note keeps its word."""
        values: dict[str, object] = {}
        origin, notes = dict(claim.origin), list(claim.notes)
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            name = "global_batch" if f.name == "batch" else f.name
            stated = claim.layout.global_batch if f.name == "batch" else getattr(claim, f.name)
            if stated is not None and stated != value:
                notes.append(f"{name} is {value} as given here, {stated} in the source")
            if f.name == "batch":
                values["layout"] = replace(claim.layout, global_batch=value)
            else:
                values[f.name] = value
            origin[name] = _FLAGS.get(f.name, f"--{f.name}")
        if self.model is not None:
            # The dimensions in the source are those of the model it names.
            values["architecture"] = None
        return replace(claim, origin=origin, notes=tuple(notes), **values)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A claim, and what its rate has to obey.

    flops: model FLOPs for a slot of a sequence, by convention of attention ('causal', 'full'), of the method stated,
    else of full training; empty where unknown. flops_least: what no training of this model can do without, whatever is
    unknown of method and sequence; None where the model is. recomputed: FLOPs done over FLOPs needed, None where
    unknown. peak: of one package in the stated precision, dense. peak_most: of one package in any precision that the
    claim can mean. missing: what it would take to hold the rate against the hardware.
    """

    claim: Claim
    architecture: Architecture | None
    flops: Mapping[str, float]
    flops_least: float | None
    recomputed: float | None
    peak: Peak | None
    peak_most: Peak | None
    missing: tuple[str, ...]
    origin: Mapping[str, str] = field(default_factory=dict)


def known(claim: Claim, models: Mapping[str, Model]) -> Known:
    """Look up what the claim names."""
    origin = dict(claim.origin)
    missing: list[str] = []
    architecture = claim.architecture
    if architecture is None and claim.model is not None:
        name = find_model(claim.model, models.values())
        if name is not None:
            architecture = models[name].architecture
            origin["architecture"] = f"the installed model {name}"
    if architecture is None and claim.parameters is None:
        named = f"{claim.model!r} is not installed: " if claim.model else ""
        missing.append(f"the model ({named}--model)")
    stated = most = None
    if claim.device is None:
        missing.append("the device (--device)")
    else:
        stated = peak(claim.device, claim.precision) if claim.precision else None
        every = [p for name in PRECISIONS if (p := peak(claim.device, name)) is not None]
        most = stated if claim.precision else max(every, key=lambda p: p.flops, default=None)
        if most is None:
            missing.append(f"a peak: {why_no_peak(claim.device, claim.precision or 'bf16')}")
    if claim.count is None:
        missing.append("the count of devices (--count)")
    trained = lora(_LORA_RANK) if claim.method == "lora" else EVERYTHING
    flops = train_flops_by_convention(architecture, claim.sequence, trained) if architecture and claim.sequence else {}
    checkpointing = claim.layout.checkpointing
    recomputed = None
    if architecture is not None and checkpointing is not None:
        done = hardware_flops_per_token(architecture, claim.sequence or 1, "causal", checkpointing, trained)
        recomputed = done / train_flops_by_convention(architecture, claim.sequence or 1, trained)["causal"]
    return Known(
        claim=claim,
        architecture=architecture,
        flops={str(name): value for name, value in flops.items()},
        flops_least=_least(claim, architecture),
        recomputed=recomputed,
        peak=stated,
        peak_most=most,
        missing=tuple(missing),
        origin=origin,
    )


def _least(claim: Claim, architecture: Architecture | None) -> float | None:
    """Full training of what is stated; adapters of the least rank and the shortest sequence where it is not."""
    if architecture is not None:
        trained = EVERYTHING if claim.method == "full" else lora(1)
        return train_flops_by_convention(architecture, claim.sequence or 1, trained)["causal"]
    if claim.parameters is None:
        return None
    per_weight = 6 if claim.method == "full" else 4
    return per_weight * (1 - _EMBEDDING_SHARE) * claim.parameters


def find_model(stated: str, installed: Iterable[Model]) -> str | None:
    """The installed model that a stated name means: its own name, its hub id, or one that differs by punctuation."""
    wanted = _key(stated)
    for model in installed:
        names = [model.name, *([model.pretrained] if model.pretrained else [])]
        if wanted in {_key(name) for name in names}:
            return model.name
    return None


def _key(name: str) -> str:
    """A name without its owner, case and punctuation, and without what does not alter a model's dimensions."""
    short = re.sub(r"[^a-z0-9.]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-")
    short = re.sub(r"-(hf|base|instruct|chat|it|v0\.1)(?=-|$)", "", f"-{short}").strip("-")
    return re.sub(r"^meta-llama", "llama", short).replace("-", "")


def parameters_of(facts: Known) -> int | None:
    """Of the model that is known by its dimensions."""
    return parameters(facts.architecture).total if facts.architecture else None
