"""Peak FLOP/s of a chip by name and precision, with its source; None, with the reason, where it is not confirmed."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tunemark.errors import UnknownName, did_you_mean
from tunemark.fields import read_fields
from tunemark.physics.chips import Chip, read_chip_table

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp4")


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """The peak rate of `count` packages.

    flops: dense FLOP/s of matrix multiplication, all packages. sparse_flops: with structured sparsity, None where the
    vendor publishes none. dies: of one package. is_ceiling: False where the clock can exceed the rated one.
    """

    chip: str
    precision: str
    count: int
    flops: float
    sparse_flops: float | None
    dies: int
    is_ceiling: bool
    source: str
    checked: str
    note: str = ""


def find_peak(chip: str, precision: str, count: int = 1) -> Peak | None:
    """The peak of `count` packages of a chip; None where it is not known (`explain_missing_peak` gives the reason).

    chip: any common spelling; "MI250 GCD" is one die of an MI250, as in ROCm. precision: fp32, tf32, bf16, fp16, fp8 or
    fp4, or a training precision that multiplies in one of them: bf16-autocast, amp_fp16, mxfp8, nvfp4.
    """
    found, name = _find(chip), parse_precision(precision)
    if found is None or name is None or name not in found.flops:
        return None
    sparse = found.sparse_flops.get(name)
    return Peak(
        chip=found.name,
        precision=name,
        count=count,
        flops=count * found.flops[name],
        sparse_flops=None if sparse is None else count * sparse,
        **read_fields(found, "dies", "is_ceiling", "source", "checked", "note"),
    )


def explain_missing_peak(chip: str, precision: str) -> str:
    """Why `find_peak` returns None, in a sentence; empty where it does not."""
    found, name = _find(chip), parse_precision(precision)
    if found is None:
        reason = _unconfirmed().get(make_chip_key(chip))
        if reason is not None:
            return f"the peak of {chip!r} is not confirmed: {reason}"
        near = difflib.get_close_matches(chip, _names(), n=1)
        return f"no chip named {chip!r} in the table of peaks" + (f"; did you mean {near[0]!r}?" if near else "")
    if name is None:
        return f"no precision {precision!r}; {did_you_mean(precision, PRECISIONS)}"
    if name not in found.flops:
        note = f" ({found.note})" if found.note else ""
        return f"no confirmed peak of {found.name} in {name}, only in {', '.join(found.flops)}{note}"
    return ""


def find_chip(name: str) -> Chip:
    """The chip of that name, in any common spelling; `UnknownName` with a suggestion where there is none."""
    found = _find(name)
    if found is None:
        raise UnknownName(
            what=f"no chip named {name!r}",
            why=_unconfirmed().get(
                make_chip_key(name), "the table of peaks only has chips that a vendor's page confirms"
            ),
            next=did_you_mean(name, _names()),
        )
    return found


@functools.lru_cache(maxsize=4096)
def is_chip(name: str) -> bool:
    """Whether `find_chip` knows the name; without the search for similar names, which takes a millisecond."""
    return _find(name) is not None


def parse_precision(stated: str) -> str | None:
    """The precision of matrix multiplication that a user's or log's text means; None where it is not known."""
    word = re.sub(r"[^a-z0-9]+", "-", stated.lower()).strip("-")
    word = re.sub(r"^(amp|pure|native)-|-(autocast|amp|mixed|true|precision)$", "", word)
    return _PRECISIONS.get(word)


_PRECISIONS: Mapping[str, str] = {
    **{name: name for name in PRECISIONS},
    "float32": "fp32", "32": "fp32", "fp32-true": "fp32", "single": "fp32",
    "tensorfloat32": "tf32", "tfloat32": "tf32",
    "bfloat16": "bf16", "bf16-mixed": "bf16",
    "float16": "fp16", "half": "fp16", "16": "fp16",
    "mxfp8": "fp8", "fp8-rowwise": "fp8", "fp8-tensorwise": "fp8", "float8": "fp8", "fp8-cs": "fp8", "fp8-ds": "fp8",
    "nvfp4": "fp4", "mxfp4": "fp4", "float4": "fp4",
}  # fmt: skip

# Words that do not distinguish chips.
_NOISE = frozenset(
    (
        "nvidia", "geforce", "tesla", "quadro", "amd", "instinct", "radeon", "intel", "habana", "google", "cloud",
        "aws", "huawei", "tensor", "core", "gpu", "accelerator", "oam",
    )
)  # fmt: skip


def make_chip_key(name: str) -> frozenset[str]:
    """The distinguishing words of a name, in any order: "NVIDIA A100-SXM4-80GB" and "A100 80 GB SXM" are equal."""
    spaced = re.sub(r"\b(rtx|tpu|gaudi)(?=[\dv])", r"\1 ", re.sub(r"(\d+)\s*(?:gb|gib|g)\b", r"\1gb", name.lower()))
    words = re.findall(r"[a-z0-9.]+", spaced)
    return frozenset(re.sub(r"^sxm\d$", "sxm", word) for word in words if word not in _NOISE)


@functools.cache
def _table() -> Mapping[frozenset[str], Chip]:
    table = {}
    for chip in read_chip_table()[0]:
        for name in (chip.name, *chip.aliases):
            table[make_chip_key(name)] = chip
            if chip.dies > 1:
                for word in _DIES:
                    table[make_chip_key(f"{name} {word}")] = _die(chip)
    # torch's name for one die of either chip.
    table[make_chip_key("AMD Instinct MI250X / MI250")] = table[make_chip_key("MI250X GCD")]
    return table


_DIES = ("GCD", "die")


def _die(chip: Chip) -> Chip:
    """One die of a package, as a chip."""

    def share(values: Mapping[str, float]) -> dict[str, float]:
        return {name: value / chip.dies for name, value in values.items()}

    return replace(
        chip,
        name=f"{chip.name} die",
        dies=1,
        flops=share(chip.flops),
        sparse_flops=share(chip.sparse_flops),
        memory_bytes=None if chip.memory_bytes is None else chip.memory_bytes // chip.dies,
        bandwidth_bytes_per_s=None if chip.bandwidth_bytes_per_s is None else chip.bandwidth_bytes_per_s / chip.dies,
        power_w=None,
    )


# Words that are ignored if a name is not found with them: the kind of memory, the vendor's system, the architecture.
# "H100 HBM2e" is found with them, as a card of its own.
_OPTIONAL_WORDS = frozenset(
    ("hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "dgx", "hgx", "ampere", "grace", "hopper", "blackwell", "superchip")
)


def _find(name: str) -> Chip | None:
    words = make_chip_key(name)
    return _table().get(words) or _table().get(words - _OPTIONAL_WORDS)


def _names() -> list[str]:
    return [chip.name for chip in read_chip_table()[0]]


@functools.cache
def _unconfirmed() -> Mapping[frozenset[str], str]:
    return {make_chip_key(name): reason for name, reason in read_chip_table()[1].items()}
