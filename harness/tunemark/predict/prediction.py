"""The result of a prediction: step time by part and memory by category, with bounds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSeconds:
    """Seconds of one step of the slowest rank. communication: exposed, not hidden by computation. data: once a step."""

    compute: float
    communication: float
    bubble: float
    optimizer: float
    data: float

    @property
    def total(self) -> float:
        return self.compute + self.communication + self.bubble + self.optimizer + self.data


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBytes:
    """Peak memory of the rank that needs most. buffers: of collectives. workspace: temporaries, also the loss's."""

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
class Spread:
    """Standard deviations of the logarithm of measured over predicted, below and above: of step time and of memory."""

    low: float
    high: float
    memory_low: float
    memory_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A predicted step. flops: matrix FLOPs of the busiest rank, recomputation included. communicated_bytes: what that
    rank sends, by kind of collective. Bounds are two standard deviations of `spread` to either side.
    """

    seconds: StepSeconds
    bytes: MemoryBytes
    tokens_per_step: int
    ranks: int
    flops: float
    spread: Spread
    communicated_bytes: dict[str, float] = field(default_factory=dict)

    @property
    def step_time_s(self) -> float:
        return self.seconds.total

    @property
    def step_time_bounds_s(self) -> tuple[float, float]:
        return self.step_time_s * _factor(-self.spread.low), self.step_time_s * _factor(self.spread.high)

    @property
    def tokens_per_s(self) -> float:
        """Slot tokens per second of the whole job."""
        return self.tokens_per_step / self.step_time_s

    @property
    def tokens_per_s_per_device(self) -> float:
        """Slot tokens per second of one rank's device."""
        return self.tokens_per_s / self.ranks

    @property
    def memory_bytes(self) -> float:
        """Peak memory of the rank that needs most."""
        return self.bytes.total

    @property
    def memory_bounds_bytes(self) -> tuple[float, float]:
        low, high = self.spread.memory_low, self.spread.memory_high
        return self.bytes.total * _factor(-low), self.bytes.total * _factor(high)


def _factor(residual: float) -> float:
    """Two standard deviations of a logarithm as a factor."""
    return float(2.718281828459045 ** (2.0 * residual))
