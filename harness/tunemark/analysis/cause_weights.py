"""How much a difference of two runs can change the rate: computed, bounded, or seen elsewhere, each with its basis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from tunemark.analysis.environment import environment_facts
from tunemark.physics.chip_peaks import find_peak
from tunemark.results.result import Result

# Extra cost of the first access to a 4 KiB page: 2.8 us in a virtual machine on an AMD EPYC (Linux 6.18, November 2026;
# median of nine times 65,536 pages). Hosts without virtualisation pay less.
PAGE_FAULT_S = 2.8e-6

CauseKind = Literal["setting", "data", "hardware", "host", "version", "load"]
CauseWeight = Literal["computed", "bound", "seen elsewhere", "unknown"]


class CauseEstimate(NamedTuple):
    """How a cause is weighed; the fields are those of `Cause`."""

    weight: CauseWeight
    factor: float | None
    expected: float | None
    basis: str


UNKNOWN = CauseEstimate("unknown", None, None, "no bound is known")


def weigh_setting(name: str, a: Result, b: Result) -> CauseEstimate:
    """Weigh the difference of two runs in a field of their comparison."""
    weigh = _SETTING_WEIGHTS.get(name)
    return weigh(a, b) if weigh else UNKNOWN._replace(basis=_BASES.get(name, UNKNOWN.basis))


def weigh_fact(name: str, a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    """Weigh the difference of two runs in a fact of their environment, `one` and `other`."""
    weigh = _FACT_WEIGHTS.get(name)
    return weigh(a, b, one, other) if weigh else UNKNOWN._replace(basis=_BASES.get(name, UNKNOWN.basis))


def setting_kind(name: str) -> CauseKind:
    """The kind of a field of the comparison."""
    return _SETTING_KINDS.get(name, "setting")


def fact_kind(name: str) -> CauseKind:
    """The kind of a fact of the environment."""
    return "version" if name in _VERSION_FACTS else "load" if name in _LOAD_FACTS else "host"


def _computed(expected: float, basis: str) -> CauseEstimate:
    return CauseEstimate("computed", max(expected, 1 / expected), expected, basis)


def _bound(ratio: float, basis: str) -> CauseEstimate:
    return CauseEstimate("bound", max(ratio, 1 / ratio), None, basis)


def _flops(a: Result, b: Result) -> CauseEstimate:
    one, other = a.flops_per_token, b.flops_per_token
    if one == other or not one or not other:
        return UNKNOWN
    words = f"{one / 1e9:.4g} and {other / 1e9:.4g} GFLOP a token, at one rate of FLOP/s"
    return _computed(one / other, words)


def _recomputed(a: Result, b: Result) -> CauseEstimate:
    one, other = a.hardware_flops_per_token, b.hardware_flops_per_token
    if not one or not other or one == other:
        return UNKNOWN
    words = f"{one / 1e9:.4g} and {other / 1e9:.4g} GFLOP a token with what is computed twice, at one rate of FLOP/s"
    return _computed(one / other, words)


def _chips(a: Result, b: Result) -> CauseEstimate:
    if a.peak_flops and b.peak_flops and a.precision == b.precision:
        words = f"peak of {a.peak_flops / 1e12:.4g} and {b.peak_flops / 1e12:.4g} TFLOP/s, used alike"
        return _computed(b.peak_flops / a.peak_flops, words)
    if a.chip == b.chip and a.chips and b.chips and a.chips != b.chips:
        words = f"{a.chips} and {b.chips} chips, at most in proportion"
        ratio = b.chips / a.chips
        return _bound(ratio, words)
    return UNKNOWN


def _precision(a: Result, b: Result) -> CauseEstimate:
    peaks = [find_peak(r.chip, r.precision) for r in (a, b)]
    if peaks[0] and peaks[1] and a.chip == b.chip and peaks[0].flops != peaks[1].flops:
        words = (
            f"{a.chip}: {peaks[0].flops / 1e12:.4g} and {peaks[1].flops / 1e12:.4g} TFLOP/s at most ({peaks[0].source})"
        )
        return _bound(peaks[1].flops / peaks[0].flops, words)
    if a.peak_flops and b.peak_flops and a.peak_flops != b.peak_flops:
        words = f"peak of {a.peak_flops / 1e12:.4g} and {b.peak_flops / 1e12:.4g} TFLOP/s, as each run has it"
        return _bound(b.peak_flops / a.peak_flops, words)
    return UNKNOWN


def _padding(a: Result, b: Result) -> CauseEstimate:
    if a.padding_fraction is None or b.padding_fraction is None or a.padding_fraction == b.padding_fraction:
        return UNKNOWN
    one, other = 1 - a.padding_fraction, 1 - b.padding_fraction
    if not one or not other:
        return UNKNOWN
    return _computed(other / one, f"{100 * one:.1f} and {100 * other:.1f} % of the slots hold content")


_SETTING_WEIGHTS: Mapping[str, Callable[[Result, Result], CauseEstimate]] = {
    **dict.fromkeys(("model", "parameters", "trainable_parameters", "method"), _flops),
    "sequence": _flops,
    **dict.fromkeys(("size", "chips", "processes", "threads", "chip", "processor", "device"), _chips),
    "checkpointing": _recomputed,
    "precision": _precision,
    **dict.fromkeys(("batching", "dataset", "data_sha256"), _padding),
    "weights": lambda a, b: CauseEstimate(
        "seen elsewhere", 1.0, None, "values of weights change no shape, so the work is the same",
    ),
    "seed": lambda a, b: _padding(a, b) if a.padding_fraction != b.padding_fraction else CauseEstimate(
        "bound", 1.0, None, "another order of the same data: no shape changes",
    ),
}  # fmt: skip

_BASES: Mapping[str, str] = {
    "strategy": "no bound is known: it decides what is computed, sent and kept; the parts of a step show where",
    "micro_batch": "no bound is known: larger ones fill a device better, until it is full",
    "global_batch": "no bound is known: its fixed costs are shared by more tokens",
    "oversubscribed": "ranks that take turns on a core measure nothing but that",
    "code": "no bound is known: what ran beside torch, the runtimes of model, device and strategy among it",
    "transformers": "no bound is known: it holds the model's own code, and chooses the kernel of attention",
}

_SETTING_KINDS: Mapping[str, CauseKind] = {
    **dict.fromkeys(("dataset", "data_sha256", "train_on", "batching"), "data"),
    **dict.fromkeys(("device", "size", "chip", "chips", "processor", "oversubscribed"), "hardware"),
    "python": "version",
}


def _load_of_others(a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    words = f"others had {100 * one:.1f} and {100 * other:.1f} % of the cores' time"
    return _computed((1 - other) / (1 - one), words) if max(one, other) < 1 else UNKNOWN


def _page_faults(a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    factors, at_once = [], []
    for result, faults in ((a, one), (b, other)):
        if not result.interval_s or not result.steps_measured:
            return UNKNOWN
        # Processes and threads fault in parallel.
        at_once.append(max(1, result.processes * result.threads))
        share = faults * PAGE_FAULT_S / at_once[-1] * result.steps_measured / result.interval_s
        factors.append(1 / (1 - min(share, 0.99)))
    words = f"{one:,.0f} and {other:,.0f} faults a step, {1e6 * PAGE_FAULT_S:.1f} us each in a virtual machine, "
    return CauseEstimate("bound", max(factors), None, f"{words}{at_once[0]} and {at_once[1]} at once")


def _clock(a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    return (
        _computed(other / one, f"mean clock {one / 1e6:,.0f} and {other / 1e6:,.0f} MHz") if one and other else UNKNOWN
    )


def _max_clock(a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    ratio = other / one if one and other else 1.0
    return _bound(ratio, f"highest clock {one / 1e6:,.0f} and {other / 1e6:,.0f} MHz")


def _governor(a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    for result in (a, b):
        facts = environment_facts(result)
        low, high = facts.get("host clock_min_hz"), facts.get("host clock_max_hz")
        if low and high:
            words = f"it chooses between {low / 1e6:,.0f} and {high / 1e6:,.0f} MHz"
            return CauseEstimate("bound", high / low, None, words)
    words = "MFU of 26.4 and 19.6 % on two hosts that differed in governor, huge pages and IOMMU"
    return CauseEstimate("seen elsewhere", 26.4 / 19.6, None, f"{words} (tenstorrent/tt-metal, issue 54627)")


def _cores(a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    if len(one) != len(other):
        words = f"{len(one)} and {len(other)} cores in rank 0, at most in proportion"
        return _bound(len(other) / len(one) if one and other else 1.0, words)
    return CauseEstimate(
        "bound", 2.0, None, "cores may share their units with a sibling thread, or be of another socket"
    )


def _allocator(a: Result, b: Result, one: Any, other: Any) -> CauseEstimate:
    """Known of glibc's allocator alone: neither another library nor what torch is told of a GPU is weighed by it."""
    if any(word in f"{one} {other}" for word in ("_ALLOC_CONF", "LD_PRELOAD")):
        return UNKNOWN
    words = "keeping freed blocks made a step of 60 M parameters 1.5 to 2.2 times as fast on two cores (docs/why.md)"
    return CauseEstimate("seen elsewhere", 2.2, None, words)


def _published(factor: float, words: str) -> Callable[[Result, Result, Any, Any], CauseEstimate]:
    return lambda a, b, one, other: CauseEstimate("seen elsewhere", factor, None, words)


_VERSION_FACTS = ("python version", "torch", "transformers", "code", "interpreter", "host platform")
_LOAD_FACTS = ("load of others", "minor faults per step", "device clock", "throttled")
_FACT_WEIGHTS: Mapping[str, Callable[[Result, Result, Any, Any], CauseEstimate]] = {
    "allocator": _allocator,
    "torch": _published(
        5500 / 3700, "5,500 and 3,700 tokens/s with torch 2.4 and 2.5 (meta-pytorch/torchtune, issue 1879)"
    ),
    "load of others": _load_of_others,
    "minor faults per step": _page_faults,
    "device clock": _clock,
    "throttled": _published(
        1 / 0.85, "heat took 15 % within 100 iterations (flashinfer-ai/flashinfer, pull request 2899)"
    ),
    "host clock_max_hz": _max_clock,
    "host governor": _governor,
    "host turbo": _governor,
    "cores": _cores,
    "host name": _published(1.0, "a name; what it stands for is in the other rows, as far as the hosts tell it"),
    "host memory_bytes": _published(1.0, "what fits, runs as fast"),
    "interpreter": _published(1.0, "a path; the versions found there are rows of their own"),
}
