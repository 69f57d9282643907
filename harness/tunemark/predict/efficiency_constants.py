"""Efficiency constants by chip class and precision: the share of data-sheet rates that training reaches. Data.

They are fitted to published rows. Each belongs to a class and precision or to all devices, none to a row, a model or a
publisher. `prior` and `spread` are the prior (median, standard deviation of the logarithm), `value` the posterior:
`benchmarks/published_rows.py` fits and prints them and shows the error on publishers that were left out. Classes
without rows keep priors, from measured matrix products where somebody published these, and have wider bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tunemark.plugin.hardware import Efficiency


class EfficiencyConstant(NamedTuple):
    """One fitted constant. spread: prior standard deviation of its logarithm."""

    name: str
    value: float
    prior: float
    spread: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassEfficiency:
    """Efficiency of one chip class, `kind`. assumptions: sentences."""

    kind: str
    efficiency: Efficiency
    assumptions: tuple[str, ...] = ()


# Achievable matrix products: the best of many shapes, in bf16, over the data sheet's peak.
_MAMF = "stas00/ml-engineering @744d01e, compute/accelerator/README.md, maximum achievable matmul FLOPS"

_FP8 = "pytorch/ao, torchao/float8/README.md: 1.4 of bf16 with casts, so that 8 bits reach 0.92 of the share in 16"
_ATTENTION = "Dao 2023, FlashAttention-2: 25 to 40 % of an A100's peak by its forerunner, 50 to 73 % by itself"
_ATTENTION_HOPPER = "Shah et al. 2024, FlashAttention-3: 500 to 640 TFLOP/s of 989 on H100, long sequences, causal"
_PORTABLE = "Shah et al. 2024, FlashAttention-3: kernels of the class before take 1.5 to 2 times as long on H100"

# After ten thousand products of random numbers, slowed by the power limit: 2.62 to 2.82 PFLOP/s in 8 bits.
_PRODUCTS = "openxla/xla, xla/service/gpu/model/matmul_interpolator_data.h, sm_100: 1417/2500 at 4096 a side, less 3 %"
_SUSTAINED = "Azure/AI-benchmarking-guide, Azure_Results/ND_GB200_v6_results.md: 2750/5000 in 8 bits, sustained"

_ROWWISE = "8 bits scaled by rows over those by tensors: pytorch/ao, torchao/float8/README.md (1.10 and 1.25 of bf16)"

CONSTANTS = (
    EfficiencyConstant("gemm.ampere.16", 0.854, 0.85, 0.03, f"{_MAMF}: 271/312, less 2 %"),
    EfficiencyConstant("gemm.hopper.16", 0.723, 0.74, 0.05, f"{_MAMF}: 794/989, less 8 %"),
    EfficiencyConstant("gemm.blackwell.16", 0.56, 0.55, 0.08, _PRODUCTS),
    EfficiencyConstant("gemm.ada.16", 0.657, 0.65, 0.15, "two thirds, limited by power"),
    EfficiencyConstant(
        "gemm.geforce.16", 1.01, 0.95, 0.07, "GeForce cards add in 32 bits at half rate, short of their power limit"
    ),
    EfficiencyConstant("gemm.cdna3.16", 0.561, 0.5, 0.15, f"{_MAMF}: MI300X 668/1307"),
    EfficiencyConstant("gemm.tpu.16", 0.847, 0.85, 0.1, "AI-Hypercomputer/maxtext, configs/v5e: 56 to 67 %"),
    EfficiencyConstant("gemm.hopper.8", 0.705, 0.68, 0.07, _FP8),
    EfficiencyConstant("gemm.blackwell.8", 0.538, 0.55, 0.08, _SUSTAINED),
    EfficiencyConstant("gemm.rowwise", 0.744, 0.8, 0.1, _ROWWISE),
    EfficiencyConstant("gemm.4", 0.818, 0.9, 0.15, "share of the peak in 4 bits over that in 8"),
    EfficiencyConstant("attention.ampere", 0.397, 0.40, 0.2, _ATTENTION),
    EfficiencyConstant("attention.hopper", 0.435, 0.5, 0.15, _ATTENTION_HOPPER),
    EfficiencyConstant("attention.blackwell", 0.498, 0.5, 0.2, "as on Hopper"),
    EfficiencyConstant("attention.portable", 0.526, 0.57, 0.15, _PORTABLE),
    EfficiencyConstant("tile", 94.9, 96.0, 0.15, "a tile's start and end, in steps of k"),
    EfficiencyConstant("memory", 0.649, 0.8, 0.1, "STREAM-like kernels reach 80 to 90 %"),
    EfficiencyConstant("memory.card", 0.846, 0.8, 0.15, "as above; cards have caches of 32 to 128 MB besides"),
    EfficiencyConstant("intra", 0.891, 0.75, 0.15, "NCCL's bus bandwidth over NVLink's"),
    EfficiencyConstant("inter", 0.594, 0.6, 0.3, "NCCL's bus bandwidth over the adapters'"),
    EfficiencyConstant("host_s", 2.72e-05, 26e-6, 0.1, "an eager operation of PyTorch"),
    EfficiencyConstant("tensor_hidden", 0.524, 0.5, 0.3, "half of a collective"),
    EfficiencyConstant("data_hidden", 0.782, 0.8, 0.1, "most of a collective"),
    EfficiencyConstant("straggle", 0.00462, 0.01, 0.7, "a hundredth for each doubling of nodes"),
    EfficiencyConstant("step_s", 0.00781, 5e-3, 0.7, "loss scale, norm of gradients, one reading back"),
    EfficiencyConstant("dispatch", 9.23, 8.0, 0.4, "a routed token is gathered, sorted, sorted back and summed"),
    EfficiencyConstant("expert_hidden", 0.266, 0.4, 0.4, "less than half of an exchange between experts"),
    EfficiencyConstant("eager", 1.03, 1.2, 0.3, "operations of transformers' decoder layers over 30"),
    EfficiencyConstant("hooks", 25.8, 12.0, 0.5, "operations of DeepSpeed's hooks for each parameter"),
    EfficiencyConstant("power", 0.671, 0.6, 0.25, "clock by power: measured products have exponents of 0.2 to 0.6"),
    EfficiencyConstant("cast", 0.979, 1.0, 0.3, "each operand passes once"),
)

# Chip classes by the beginnings of chip names.
_CHIP_CLASSES: Mapping[str, tuple[str, ...]] = {
    "geforce": ("RTX-30", "RTX-40", "RTX-50"),
    "ampere": ("A100", "A40", "A10", "RTX-A", "A800"),
    "hopper": ("H100", "H200", "GH200", "H800", "H20"),
    "blackwell": ("B200", "GB200", "B300", "GB300"),
    "volta": ("V100", "T4"),
    "ada": ("L40", "L4", "RTX-6000-Ada", "RTX-PRO"),
    "cdna2": ("MI210", "MI250", "MI100"),
    "cdna3": ("MI300", "MI325"),
    "cdna4": ("MI350", "MI355"),
    "gaudi": ("Gaudi",),
    "tpu": ("TPU",),
    "trainium": ("Trainium",),
    "ascend": ("Ascend",),
}
# Watts of the chip on which a class's efficiency was measured.
_REFERENCE_POWERS: Mapping[str, float] = {"ampere": 400.0, "hopper": 700.0, "blackwell": 1200.0}
_FITTED = ("ampere", "hopper", "blackwell", "ada", "geforce", "cdna3", "tpu")
# Classes of cards with memory of the GDDR kind.
_CARDS = ("ada", "geforce")
# Classes without rows: 92 % of the best bf16 matrix product over the peak, as in the other classes' priors.
_UNFITTED_SHARES: Mapping[str, tuple[float, str]] = {
    "cdna4": (0.58, f"{_MAMF}: MI355X 1565/2500, less 8 %"),
    "gaudi": (0.70, f"{_MAMF}: Gaudi 2 419/432, Gaudi 3 1243/1677, less 8 %"),
}
_DEFAULT_SHARE = 0.65
# Share of the bandwidth that copies and additions of long vectors reach: BabelStream on A100 and H100.
_STREAM_SHARE = 0.85


def constant_values() -> dict[str, float]:
    """The shipped constants by name."""
    return {constant.name: constant.value for constant in CONSTANTS}


def find_chip_class(chip: str) -> str:
    """The class of a chip, given its name in the table of peaks."""
    for kind, starts in _CHIP_CLASSES.items():
        if chip.startswith(starts):
            return kind
    return "other"


def find_class_efficiency(
    chip: str, power_w: float | None = None, constants: Mapping[str, float] | None = None
) -> ClassEfficiency:
    """The efficiency of a chip's class. power_w: rated power of a package. constants: by name, in place of the shipped
    ones (to fit or to evaluate them)."""
    kind = find_chip_class(chip)
    known = constants or constant_values()
    if kind in _FITTED:
        return ClassEfficiency(
            kind=kind,
            efficiency=_efficiency(kind, known, power_w),
        )
    share, source = _UNFITTED_SHARES.get(kind, (_DEFAULT_SHARE, "two thirds of the peak"))
    return ClassEfficiency(
        kind=kind,
        efficiency=_efficiency(kind, known, power_w, share),
        assumptions=(f"no published row of {kind} was fitted: matrices at {100 * share:.0f} % of the peak ({source})",),
    )


def _clock_ratio(kind: str, power_w: float | None, exponent: float) -> float:
    """Clock under a power limit relative to the class's reference chip: a power of the ratio between a third (voltage
    follows the clock) and one (voltage at its floor)."""
    reference = _REFERENCE_POWERS.get(kind)
    return 1.0 if power_w is None or reference is None else float((power_w / reference) ** exponent)


def _efficiency(kind: str, known: Mapping[str, float], power_w: float | None, share: float | None = None) -> Efficiency:
    whole = known.get(f"gemm.{kind}.16", share) or _DEFAULT_SHARE
    clock = _clock_ratio(kind, power_w, known["power"])
    # Other classes in 8 bits: the same ratio to 16 bits as on Hopper.
    behind = known["gemm.hopper.8"] / known["gemm.hopper.16"]
    eight = clock * known.get(f"gemm.{kind}.8", whole * behind)
    whole *= clock
    memory = known["memory.card" if kind in _CARDS else "memory"]
    return Efficiency(
        gemm={
            "fp32": whole,
            "tf32": whole,
            "bf16": whole,
            "fp16": whole,
            "fp8": eight,
            "fp8-rowwise": eight * known["gemm.rowwise"],
            "fp4": eight * known["gemm.4"],
        },
        gemm_tile=known["tile"],
        attention=known.get(f"attention.{kind}", 0.6 * whole),
        attention_portable=known["attention.portable"] if kind in ("hopper", "blackwell") else 1.0,
        memory=memory,
        intra=known["intra"],
        inter=known["inter"],
        host_s=known["host_s"],
        tensor_hidden=known["tensor_hidden"],
        data_hidden=known["data_hidden"],
        straggle=known["straggle"],
        # An optimizer step streams memory as copies do, which no other part of a training step does.
        optimizer=memory / _STREAM_SHARE,
        step_s=known["step_s"],
        cast=known["cast"],
        dispatch_bytes=known["dispatch"],
        expert_hidden=known["expert_hidden"],
        eager_launches=known["eager"],
        hook_launches=known["hooks"],
    )
