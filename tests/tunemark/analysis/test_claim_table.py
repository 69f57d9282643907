"""How much of what is wrong in a table of claims is found, by kind, and how often a right row is accused.

The rows are made: models, chips and layouts as they are published, with a utilization drawn from the range that
published rows have, and every other figure derived from it and rounded as people round. Then each is spoilt.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tunemark.analysis import AuditedClaim, audit_claims
from tunemark.analysis.claim_rules import CLAIM_RULES
from tunemark.physics import train_flops_per_token
from tunemark.physics.chip_peaks import find_peak
from tunemark.plugin.claims import Claim, ClaimedLayout
from tunemark.plugin.descriptors import Architecture

_ROWS = 400

# Public dimensions: layers, hidden, intermediate, heads, key heads, vocabulary.
_MODELS = {
    "mistral-7b": (32, 4096, 14336, 32, 8, 32000),
    "llama-2-13b": (40, 5120, 13824, 40, 40, 32000),
    "llama-3-8b": (32, 4096, 14336, 32, 8, 128256),
    "llama-3-70b": (80, 8192, 28672, 64, 8, 128256),
}
_CHIPS = ("A100-SXM-80GB", "H100-SXM-80GB", "MI250", "MI300X", "B200")


def _architecture(name: str) -> Architecture:
    layers, hidden, intermediate, heads, keys, vocabulary = _MODELS[name]
    return Architecture(
        model_type="llama", vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=keys, head_dim=hidden // heads,
        max_position_embeddings=1 << 17,
    )  # fmt: skip


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _row(chance: random.Random, number: int) -> Claim:
    """A row that could be published. Its utilization is between 5 % and 50 %, as that of most published rows."""
    name, chip = chance.choice(list(_MODELS)), chance.choice(_CHIPS)
    architecture = _architecture(name)
    tp, pp = chance.choice((1, 2, 4, 8)), chance.choice((1, 2, 4))
    dp = chance.choice((1, 2, 4, 8, 16))
    micro, accumulation = chance.choice((1, 2, 4)), chance.choice((1, 2, 4, 8, 16))
    sequence = chance.choice((1024, 2048, 4096, 8192))
    count, batch = dp * tp * pp, micro * accumulation * dp
    top = find_peak(chip, "bf16")
    assert top is not None
    mfu = chance.uniform(0.05, 0.5)
    conventions = {kind: train_flops_per_token(architecture, sequence, kind) for kind in ("causal", "full")}
    per_device = mfu * top.flops / conventions["causal"]
    checkpointing = chance.choice((None, "none", "selective", "full"))
    counted = conventions[chance.choice(("causal", "full"))] * (
        chance.choice((1, 4 / 3)) if checkpointing == "full" else 1
    )
    return Claim(
        id=f"row {number}", source=f"source {number}", tool="table", counts="slots", model=name,
        architecture=architecture, method="full", device=chip, count=count, precision="bf16", sequence=sequence,
        layout=ClaimedLayout(
            dp=dp, tp=tp, pp=pp, cp=1, global_batch=batch, micro_batch=micro, gradient_accumulation=accumulation,
            checkpointing=checkpointing,
        ),
        tokens_per_s=_rounded(per_device * count, 6),
        tokens_per_s_per_device=_rounded(per_device, 5),
        step_time_s=_rounded(batch * sequence / per_device / count, 4) if chance.random() < 0.65 else None,
        tflops_per_device=_rounded(per_device * counted / 1e12, 3) if chance.random() < 0.33 else None,
        mfu=_rounded(per_device * counted / top.flops, 3) if chance.random() < 0.2 else None,
    )  # fmt: skip


def _times(factor: Callable[[Claim, random.Random], float], *fields: str) -> Callable[[Claim, random.Random], Claim]:
    def spoil(claim: Claim, chance: random.Random) -> Claim:
        by = factor(claim, chance)
        values = {name: value * by for name in fields if (value := getattr(claim, name)) is not None}
        return replace(claim, **values)

    return spoil


_BOTH = ("tokens_per_s", "tokens_per_s_per_device")


def _sparse(claim: Claim, chance: random.Random) -> Claim:
    """The MFU is taken of the peak with sparsity."""
    top, flops = find_peak(claim.device or "", "bf16"), train_flops_per_token(claim.architecture, claim.sequence or 1)
    mfu = (claim.tokens_per_s_per_device or 0) * flops / (2 * top.flops)
    return replace(claim, mfu=_rounded(mfu, 3), tflops_per_device=None)


def _accumulation(claim: Claim, chance: random.Random) -> Claim:
    """Tokens are counted as if each micro-batch were a batch: rates and batch are too high by the accumulation."""
    by = claim.layout.gradient_accumulation or 1
    rates = {name: (getattr(claim, name) or 0) * by for name in _BOTH}
    return replace(claim, **rates, layout=replace(claim.layout, global_batch=(claim.layout.global_batch or 0) * by))


def _unknown_tokens(spoil: Callable[[Claim, random.Random], Claim]) -> Callable[[Claim, random.Random], Claim]:
    """The same of a row that does not say which tokens it counts."""
    return lambda claim, chance: replace(spoil(claim, chance), counts=None)


# kind: what is done to the row, and the least share that must be found of those where something is left to find.
_FAULTS: dict[str, tuple[Callable[[Claim, random.Random], Claim], float]] = {
    "rate x 4": (_times(lambda c, r: 4, *_BOTH), 0.85),
    "rate x 2": (_times(lambda c, r: 2, *_BOTH), 0.75),
    "rate / 2": (_times(lambda c, r: 1 / 2, *_BOTH), 0.75),
    "rate / 3 to 8": (_times(lambda c, r: 1 / r.randint(3, 8), *_BOTH), 0.75),
    "rate / 2 to 8, counted tokens unknown": (_unknown_tokens(_times(lambda c, r: 1 / r.randint(2, 8), *_BOTH)), 0.65),
    "total x 4 alone": (_times(lambda c, r: 4, "tokens_per_s"), 1.0),
    "per device taken as total": (_times(lambda c, r: 1 / (c.count or 1), "tokens_per_s"), 0.9),
    "total taken as per device": (_times(lambda c, r: c.count or 1, *_BOTH), 0.8),
    "milliseconds taken as seconds": (_times(lambda c, r: 1000, "step_time_s"), 0.6),
    "padding counted": (_times(lambda c, r: 1 / (1 - r.uniform(0.2, 0.6)), *_BOTH), 0.65),
    "accumulation miscounted": (_accumulation, 0.8),
    "sparse peak": (_sparse, 0.95),
}


@pytest.fixture(scope="module")
def rows() -> list[Claim]:
    chance = random.Random(11)
    return [_row(chance, number) for number in range(_ROWS)]


def test_a_right_row_is_not_accused(rows: list[Claim]) -> None:
    accused = [one for one in audit_claims(rows, {}) if one.verdict != "valid"]
    assert len(accused) <= 0.01 * _ROWS, [one.findings for one in accused[:3]]


@pytest.mark.parametrize("kind", _FAULTS)
def test_a_spoilt_row_is_found(kind: str, rows: list[Claim], capsys: pytest.CaptureFixture[str]) -> None:
    spoil, least = _FAULTS[kind]
    chance = random.Random(12)
    spoilt = [replace(spoil(claim, chance), source=claim.source) for claim in rows]
    changed = [claim for claim, was in zip(spoilt, rows, strict=True) if claim != was]
    found = audit_claims(changed, {})
    # Half a per cent is left to the rounding of data sheets.
    above = [one for one in found if (one.mfu_implied or 0) > 1.005]
    below = [one for one in found if one not in above]

    def share(group: list[AuditedClaim]) -> str:
        caught = sum(one.verdict in ("invalid", "suspect") for one in group)
        return f"{caught} of {len(group)}" + (f" ({100 * caught / len(group):.0f} %)" if group else "")

    caught = sum(one.verdict in ("invalid", "suspect") for one in found)
    with capsys.disabled():
        print(f"\n{kind}: above 100 % of peak {share(above)}, below {share(below)}")
    assert all(one.verdict == "invalid" for one in above)
    assert caught >= least * len(found)


def test_the_guide_states_every_rule_as_the_code_does() -> None:
    guide = (Path(__file__).parents[3] / "docs/audit.md").read_text()
    for rule in CLAIM_RULES:
        assert f"| `{rule.id}` | {rule.worst} | {rule.sentence} | {rule.threshold} |" in guide
