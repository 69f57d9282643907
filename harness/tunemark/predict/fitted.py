"""What share of data-sheet rates training reaches, by class of device and precision: fitted to published rows. Data.

Each constant belongs to a class and precision, or to all devices: none to a row, a model or a publisher. `prior` and
`spread` are what is believed without any row (a logarithm's mean and standard deviation), `value` what the rows make
of it: `benchmarks/published.py` fits them, prints them, and shows the error on publishers that were left out.
Classes without rows keep priors, from measured matrix products where somebody published these, and have wider bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunemark.predict.machine import Efficiency


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """One fitted number. spread: of its logarithm, before any row is seen."""

    name: str
    value: float
    prior: float
    spread: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """kind: the class. residual, memory_residual: of the logarithm of a prediction, one standard deviation, over
    publishers that were left out. assumptions: sentences."""

    kind: str
    efficiency: Efficiency
    residual: float
    memory_residual: float
    assumptions: tuple[str, ...] = ()


# Achievable matrix products: the best of many shapes, in bf16, over the data sheet's peak.
_MAMF = "stas00/ml-engineering @744d01e, compute/accelerator/README.md, maximum achievable matmul FLOPS"

CONSTANTS: tuple[Constant, ...] = (
    Constant(name="gemm.ampere.16", value=0.85, prior=0.85, spread=0.03, source=f"{_MAMF}: 271/312, less 2 %"),
    Constant(name="gemm.hopper.16", value=0.77, prior=0.77, spread=0.06, source=f"{_MAMF}: 794/989, less 4 %"),
    Constant(name="gemm.hopper.8", value=0.62, prior=0.62, spread=0.10, source="of 16 bits, 5/6"),
    Constant(name="gemm.blackwell.16", value=0.71, prior=0.71, spread=0.08, source=f"{_MAMF}: 1745/2250, less 8 %"),
    Constant(name="gemm.blackwell.8", value=0.60, prior=0.60, spread=0.10, source="of 16 bits, 5/6"),
    Constant(name="gemm.blackwell.4", value=0.48, prior=0.48, spread=0.15, source="of 16 bits, 2/3"),
    Constant(name="attention.ampere", value=0.55, prior=0.55, spread=0.15, source="Dao 2023, FlashAttention-2, fig. 5"),
    Constant(name="attention.hopper", value=0.45, prior=0.45, spread=0.2, source="Shah et al. 2024, FlashAttention-3"),
    Constant(name="attention.blackwell", value=0.45, prior=0.45, spread=0.2, source="assumed as Hopper's"),
    Constant(name="tile", value=64.0, prior=64.0, spread=0.5, source="half a tile of 128"),
    Constant(name="memory", value=0.8, prior=0.8, spread=0.1, source="STREAM-like kernels reach 80 to 90 %"),
    Constant(name="intra", value=0.75, prior=0.75, spread=0.15, source="NCCL's bus bandwidth over NVLink's"),
    Constant(name="inter", value=0.6, prior=0.6, spread=0.3, source="NCCL's bus bandwidth over the adapters'"),
    Constant(name="host_s", value=25e-6, prior=25e-6, spread=0.3, source="an eager operation of PyTorch"),
    Constant(name="tensor_hidden", value=0.5, prior=0.5, spread=0.3, source="half of a collective"),
    Constant(name="data_hidden", value=0.8, prior=0.8, spread=0.1, source="most of a collective"),
    Constant(name="straggle", value=0.01, prior=0.01, spread=0.7, source="a hundredth for each doubling of nodes"),
    Constant(
        name="step_s", value=5e-3, prior=5e-3, spread=0.7, source="loss scale, norm of gradients, one reading back"
    ),
    Constant(name="cast", value=1.0, prior=1.0, spread=0.3, source="each operand passes once"),
)

# Classes of chips, by what their names begin with.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "ampere": ("A100", "A40", "A10", "RTX-A6000"),
    "hopper": ("H100", "H200", "GH200"),
    "blackwell": ("B200", "GB200", "B300", "GB300"),
    "volta": ("V100", "T4"),
    "ada": ("L40S", "L4", "RTX-4090"),
    "cdna2": ("MI210", "MI250", "MI100"),
    "cdna3": ("MI300", "MI325"),
    "cdna4": ("MI350", "MI355"),
    "gaudi": ("Gaudi",),
    "tpu": ("TPU",),
    "trainium": ("Trainium",),
}
_FITTED_KINDS = ("ampere", "hopper", "blackwell")
# Of classes without rows: 92 % of the best matrix product in bf16, over the peak, as with the others' priors.
_SHARES: Mapping[str, tuple[float, str]] = {
    "cdna3": (0.47, f"{_MAMF}: MI300X 668/1307, less 8 %"),
    "cdna4": (0.58, f"{_MAMF}: MI355X 1565/2500, less 8 %"),
    "gaudi": (0.70, f"{_MAMF}: Gaudi 2 419/432, Gaudi 3 1243/1677, less 8 %"),
}
_ANY_SHARE = 0.65
# One standard deviation of a prediction's logarithm for a class that no row was held against.
_UNSEEN_RESIDUAL = 0.25
_RESIDUAL, _MEMORY_RESIDUAL = 0.10, 0.05


def values() -> dict[str, float]:
    """The constants by name."""
    return {constant.name: constant.value for constant in CONSTANTS}


def kind_of(chip: str) -> str:
    """The class of a chip, by the name that the table of peaks gives it."""
    for kind, starts in _KINDS.items():
        if chip.startswith(starts):
            return kind
    return "other"


def fitted(chip: str, constants: Mapping[str, float] | None = None) -> Fitted:
    """What a chip's class reaches. constants: by name, in place of those shipped (to fit or to judge them)."""
    kind = kind_of(chip)
    known = constants or values()
    if kind in _FITTED_KINDS:
        return Fitted(
            kind=kind, efficiency=_efficiency(kind, known), residual=_RESIDUAL, memory_residual=_MEMORY_RESIDUAL
        )
    share, source = _SHARES.get(kind, (_ANY_SHARE, "two thirds of the peak"))
    return Fitted(
        kind=kind,
        efficiency=_efficiency(kind, known, share),
        residual=_UNSEEN_RESIDUAL,
        memory_residual=2 * _MEMORY_RESIDUAL,
        assumptions=(f"no published row of {kind} was fitted: matrices at {100 * share:.0f} % of the peak ({source})",),
    )


def _efficiency(kind: str, known: Mapping[str, float], share: float | None = None) -> Efficiency:
    whole = known.get(f"gemm.{kind}.16", share) or _ANY_SHARE
    eighth = known.get(f"gemm.{kind}.8", whole * 5 / 6)
    fourth = known.get(f"gemm.{kind}.4", whole * 2 / 3)
    return Efficiency(
        gemm={"fp32": whole, "tf32": whole, "bf16": whole, "fp16": whole, "fp8": eighth, "fp4": fourth},
        gemm_tile=known["tile"],
        attention=known.get(f"attention.{kind}", 0.6 * whole),
        memory=known["memory"],
        intra=known["intra"],
        inter=known["inter"],
        host_s=known["host_s"],
        tensor_hidden=known["tensor_hidden"],
        data_hidden=known["data_hidden"],
        straggle=known["straggle"],
        step_s=known["step_s"],
        cast=known["cast"],
    )
