"""The table of chips with their vendors' figures and links, read from `chips.toml`, which says where each is from."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunemark.number_format import GIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Interconnect:
    """The links of a chip.

    node: packages that the fast links connect, which is a rack of GB200s and a whole pod of TPUs. intra_bytes_per_s,
    inter_bytes_per_s: of one package, one direction, as vendors rate the links, within and between nodes. Where the
    product has no network of its own, that of the vendor's reference system is assumed, and `note` says so: other
    clusters may be slower.
    """

    node: int
    intra_bytes_per_s: float
    inter_bytes_per_s: float
    source: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One package as it is sold.

    name: its shortest unambiguous name. aliases: other spellings, compared without case, punctuation and vendor names.
    vendor: NVIDIA unless stated. dies: parts that software may show as separate devices; figures are of the package.
    flops: dense FLOP/s by precision. sparse_flops: with structured sparsity, where the vendor publishes it.
    memory_bytes: the vendor's GB are taken as GiB, which is what these parts have. It, bandwidth and power are None
    where they were not confirmed or differ between variants. is_ceiling: False where the clock can exceed the rated
    one, so that a rate above the peak is possible. checked: the day (ISO) on which the source was compared.
    interconnect: None where its links are unknown.
    """

    name: str
    vendor: str = "NVIDIA"
    aliases: tuple[str, ...] = ()
    dies: int = 1
    flops: Mapping[str, float]
    sparse_flops: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    power_w: float | None = None
    is_ceiling: bool = True
    interconnect: Interconnect | None = None
    source: str
    checked: str = "2026-11-24"
    note: str = ""


@functools.cache
def read_chip_table() -> tuple[tuple[Chip, ...], Mapping[str, str]]:
    """All chips; and chips without an entry, with the reason."""
    if sys.version_info >= (3, 11):
        import tomllib  # only where a chip is looked up
    else:
        import tomli as tomllib
    table = tomllib.loads(Path(__file__).with_name("chips.toml").read_text(encoding="utf-8"))
    # A text may name another one: {name}.
    texts: dict[str, str] = {}
    for name, text in table["texts"].items():
        texts[name] = text.format_map(texts)
    links = {name: Interconnect(**_fill(each, texts)) for name, each in table["interconnects"].items()}
    return tuple(_make_chip(_fill(each, texts), links) for each in table["chips"]), table["unconfirmed"]


def _make_chip(entry: dict[str, Any], links: Mapping[str, Interconnect]) -> Chip:
    memory_gib, link = entry.pop("memory_gib", None), entry.pop("interconnect", None)
    entry["aliases"] = tuple(entry.get("aliases", ()))
    memory_bytes = None if memory_gib is None else memory_gib * GIB
    return Chip(**entry, memory_bytes=memory_bytes, interconnect=None if link is None else links[link])


def _fill(entry: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    return {key: value.format_map(texts) if isinstance(value, str) else value for key, value in entry.items()}


def find_interconnect(chip: str) -> Interconnect | None:
    """The links of a chip, by its name in the table of chips; None where they are unknown. One die of a package of two
    has half of the package's bandwidth."""
    name = chip.removesuffix(" die")
    package = next((each.interconnect for each in read_chip_table()[0] if each.name == name), None)
    if package is None or name == chip:
        return package
    return Interconnect(
        node=package.node * 2,
        intra_bytes_per_s=package.intra_bytes_per_s / 2,
        inter_bytes_per_s=package.inter_bytes_per_s / 2,
        source=package.source,
        note=f"half of a package's; {package.note}",
    )
