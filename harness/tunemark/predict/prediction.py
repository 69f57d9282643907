"""What a plan is expected to take, with bounds: seconds by part and bytes by category."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Seconds:
    """One step of the slowest rank. communication: what no computation hides."""

    compute: float
    communication: float
    bubble: float
    optimizer: float
    data: float

    @property
    def total(self) -> float:
        return self.compute + self.communication + self.bubble + self.optimizer + self.data


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytes:
    """The fullest rank at its peak. buffers: of collectives. workspace: temporaries, the loss's among them."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float
    workspace: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.activations + self.buffers + self.workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """flops: matrix multiplication of the fullest rank in a step, recomputation included. communicated_bytes: what that
    rank sends in a step by kind of collective. residual: of the logarithm of the step time, one standard deviation,
    as the device states it; memory_residual likewise. Bounds are two of them to either side.
    """

    seconds: Seconds
    bytes: Bytes
    tokens_per_step: int
    ranks: int
    flops: float
    communicated_bytes: dict[str, float] = field(default_factory=dict)
    residual: float = 0.2
    memory_residual: float = 0.1

    @property
    def step_time_s(self) -> float:
        return self.seconds.total

    @property
    def step_time_bounds_s(self) -> tuple[float, float]:
        return self.step_time_s * _factor(-self.residual), self.step_time_s * _factor(self.residual)

    @property
    def tokens_per_s(self) -> float:
        """Slots over seconds, whole job."""
        return self.tokens_per_step / self.step_time_s

    @property
    def tokens_per_s_per_device(self) -> float:
        """Slots over seconds over what ranks occupy."""
        return self.tokens_per_s / self.ranks

    @property
    def memory_bytes(self) -> float:
        """Of the fullest rank."""
        return self.bytes.total

    @property
    def memory_bounds_bytes(self) -> tuple[float, float]:
        return self.bytes.total * _factor(-self.memory_residual), self.bytes.total * _factor(self.memory_residual)


def _factor(residual: float) -> float:
    """Two standard deviations of a logarithm, as a factor."""
    return float(2.718281828459045 ** (2.0 * residual))
