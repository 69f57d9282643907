"""Checks of GPUs, by what their vendors' programs print. Not run on hardware: tested with outputs as documented.

Sources: `nvidia-smi --help-query-gpu` of the drivers 535 to 580; AMD SMI's documentation, "amd-smi static" and "amd-smi
metric" of ROCm 6 and 7.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.doctor.diagnosis import Diagnosis, fine, minor, severe, unknown
from tunemark.doctor.machine import Machine
from tunemark.number_format import percent_text

# Fields of --query-gpu that all drivers in use have.
_FIELDS = (
    "index", "name", "persistence_mode", "power.limit", "power.default_limit", "ecc.mode.current",
    "ecc.errors.uncorrected.volatile.total", "pcie.link.width.current", "pcie.link.width.max", "utilization.gpu",
    "memory.used",
)  # fmt: skip
# Idle GPUs of a desktop use a few hundred MiB.
_USED_MIB = 1024


def check_gpus(machine: Machine) -> list[Diagnosis]:
    """What each vendor's program says; nothing on a machine without GPUs."""
    answer = machine.ask("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
    if answer is not None and answer.strip():
        return check_nvidia(answer)
    answer = machine.ask("amd-smi", "static", "--json")
    if answer is not None and answer.strip():
        return check_amd(answer, machine.ask("amd-smi", "metric", "--json") or "")
    files = [*machine.find("dev/nvidia[0-9]*"), *machine.find("sys/class/kfd/kfd/topology/nodes/*/gpu_id")]
    if any(path.name != "gpu_id" or machine.number(str(path.relative_to(machine.root))) for path in files):
        return [unknown("GPU", "a GPU is here, and neither nvidia-smi nor amd-smi answers")]
    return [fine("GPU", "none here")]


def check_nvidia(answer: str) -> list[Diagnosis]:
    """answer: of `nvidia-smi --query-gpu`, one line for each GPU."""
    rows = []
    for cells in csv.reader(io.StringIO(answer), skipinitialspace=True):
        if len(cells) == len(_FIELDS):
            rows.append(dict(zip(_FIELDS, (cell.strip() for cell in cells), strict=True)))
    if not rows:
        return [unknown("GPU", f"nvidia-smi's answer is not understood: {answer.strip()[:200]}")]
    return [
        _check_persistence(rows),
        _check_power(rows),
        _check_ecc(rows),
        _check_link(rows),
        _check_use(rows),
    ]


def _check_persistence(rows: Sequence[Mapping[str, str]]) -> Diagnosis:
    off = [row["index"] for row in rows if row["persistence_mode"] == "Disabled"]
    if any(_is_missing(row["persistence_mode"]) for row in rows):
        return unknown("GPU persistence", "nvidia-smi does not say")
    if not off:
        return fine("GPU persistence", f"on for all {len(rows)} GPUs")
    evidence = f"off for GPU {', '.join(off)}: the driver is loaded anew for each process, and set clocks are forgotten"
    return minor("GPU persistence", evidence, "sudo nvidia-smi -pm 1")


def _check_power(rows: Sequence[Mapping[str, str]]) -> Diagnosis:
    known = _pairs(rows, "power.limit", "power.default_limit")
    if not known:
        return unknown("GPU power limit", "nvidia-smi does not say")
    index, limit, usual = min(known, key=lambda each: each[1] / each[2])
    evidence = f"GPU {index} may draw {limit:g} W of {usual:g} W, the least of {len(rows)}"
    if limit >= 0.99 * usual:
        return fine("GPU power limit", evidence)
    return (severe if limit < 0.9 * usual else minor)(
        "GPU power limit", evidence, f"sudo nvidia-smi -i {index} -pl {usual:g}"
    )


def _check_ecc(rows: Sequence[Mapping[str, str]]) -> Diagnosis:
    errors = [(n, row["index"]) for row in rows if (n := _number(row["ecc.errors.uncorrected.volatile.total"]))]
    if errors:
        count, index = max(errors)
        evidence = f"GPU {index} counts {count:g} memory errors that were not corrected: what it computes may be wrong"
        return severe("GPU ECC", evidence, f"sudo nvidia-smi -i {index} -r, and have it replaced if they come back")
    modes = {row["ecc.mode.current"] for row in rows}
    if modes <= {"Enabled"}:
        return fine("GPU ECC", f"on for all {len(rows)} GPUs, no error")
    if modes == {"Disabled"}:
        return minor(
            "GPU ECC", "off: some chips are faster and have more memory than the same with it", "sudo nvidia-smi -e 1"
        )
    if "Disabled" in modes and "Enabled" in modes:
        return severe(
            "GPU ECC", "on for some GPUs and off for others: their speeds and memories differ", "sudo nvidia-smi -e 1"
        )
    return unknown("GPU ECC", "these GPUs do not say, or have none")


def _check_link(rows: Sequence[Mapping[str, str]]) -> Diagnosis:
    known = _pairs(rows, "pcie.link.width.current", "pcie.link.width.max")
    if not known:
        return unknown("GPU PCIe", "nvidia-smi does not say how wide the links are")
    index, width, widest = min(known, key=lambda each: each[1] / each[2])
    evidence = f"GPU {index} has {width:g} of {widest:g} PCIe lanes, the least of {len(rows)}"
    if width >= widest:
        return fine("GPU PCIe", evidence)
    remedy = "seat the card anew, or move it to a slot with all lanes; some slots share them"
    return (severe if width <= widest / 4 else minor)("GPU PCIe", evidence, remedy)


def _check_use(rows: Sequence[Mapping[str, str]]) -> Diagnosis:
    used = [(row["index"], _number(row["utilization.gpu"]), _number(row["memory.used"])) for row in rows]
    if all(use is None and memory is None for _, use, memory in used):
        return unknown("GPU use", "nvidia-smi does not say")
    busy = [f"GPU {i}: {u or 0:g} % busy, {m or 0:g} MiB" for i, u, m in used if (u or 0) > 5 or (m or 0) > _USED_MIB]
    if not busy:
        return fine("GPU use", f"all {len(rows)} GPUs are idle")
    return severe("GPU use", "; ".join(busy), "end what uses it: nvidia-smi --query-compute-apps=pid,name --format=csv")


def check_amd(static: str, metric: str) -> list[Diagnosis]:
    """static, metric: of `amd-smi static --json` and `amd-smi metric --json`; "" where it did not answer."""
    try:
        facts, figures = _amd_rows(static), _amd_rows(metric)
    except (ValueError, TypeError):
        return [unknown("GPU", "amd-smi's answer is not understood")]
    if not facts:
        return [unknown("GPU", "amd-smi names no GPU")]
    found = []
    limits = [(i, _amd_number(row, "limit", "socket_power") or _amd_number(row, "limit", "power_cap"),
               _amd_number(row, "limit", "max_power")) for i, row in enumerate(facts)]  # fmt: skip
    known = [(i, limit, most) for i, limit, most in limits if limit and most]
    if known:
        index, limit, most = min(known, key=lambda each: each[1] / each[2])
        evidence = f"GPU {index} may draw {limit:g} W of {most:g} W, the least of {len(facts)}"
        remedy = f"sudo amd-smi set --gpu {index} --power-cap {most:g}"
        found.append(
            severe("GPU power limit", evidence, remedy) if limit < 0.9 * most else fine("GPU power limit", evidence)
        )
    else:
        found.append(unknown("GPU power limit", "amd-smi does not say"))
    errors = [(n, i) for i, row in enumerate(figures) if (n := _amd_number(row, "ecc", "total_uncorrectable_count"))]
    if errors:
        count, index = max(errors)
        evidence = f"GPU {index} counts {count:g} memory errors that were not corrected: what it computes may be wrong"
        found.append(severe("GPU ECC", evidence, "have it replaced if they come back after a reset"))
    elif any(_amd_number(row, "ecc", "total_uncorrectable_count") is not None for row in figures):
        found.append(fine("GPU ECC", "no error that was not corrected"))
    else:
        found.append(unknown("GPU ECC", "amd-smi does not say"))
    links = [(i, _amd_number(row, "pcie", "width"), _amd_number(facts[i], "bus", "max_pcie_width"))
             for i, row in enumerate(figures[: len(facts)])]  # fmt: skip
    narrow = [(i, width, widest) for i, width, widest in links if width and widest and width < widest]
    if narrow:
        index, width, widest = narrow[0]
        found.append(minor("GPU PCIe", f"GPU {index} has {width:g} of {widest:g} PCIe lanes", "seat the card anew"))
    elif any(width and widest for _, width, widest in links):
        found.append(fine("GPU PCIe", f"all lanes on {len(facts)} GPUs"))
    else:
        found.append(unknown("GPU PCIe", "amd-smi does not say how wide the links are"))
    busy = [(i, use) for i, row in enumerate(figures) if (use := _amd_number(row, "usage", "gfx_activity"))]
    if any(use > 5 for _, use in busy):
        words = "; ".join(f"GPU {i}: {percent_text(use / 100)} busy" for i, use in busy if use > 5)
        found.append(severe("GPU use", words, "end what uses it: amd-smi process"))
    elif figures:
        found.append(fine("GPU use", "no GPU is busy"))
    return found


def _amd_rows(text: str) -> list[dict[str, Any]]:
    """One entry for each GPU: a list, since ROCm 7 in an object."""
    if not text.strip():
        return []
    rows = json.loads(text)
    rows = rows.get("gpu_data", []) if isinstance(rows, dict) else rows
    return [row for row in rows if isinstance(row, dict)]


def _amd_number(row: Mapping[str, Any], part: str, name: str) -> float | None:
    """A figure such as 750, "750 W" or {"value": 750, "unit": "W"}; None where it is "N/A" or missing."""
    section = row.get(part)
    value = section.get(name) if isinstance(section, dict) else None
    if isinstance(value, dict):
        value = value.get("value")
    return _number(str(value).split(" ")[0]) if value is not None and not isinstance(value, bool) else None


def _pairs(rows: Sequence[Mapping[str, str]], part: str, whole: str) -> list[tuple[str, float, float]]:
    """(GPU, its figure, the figure that it could have) where both are known."""
    every = [(row["index"], _number(row[part]), _number(row[whole])) for row in rows]
    return [(index, a, b) for index, a, b in every if a is not None and b]


def _is_missing(text: str) -> bool:
    return text.strip("[] ").upper() in ("N/A", "NOT SUPPORTED", "UNKNOWN ERROR", "")


def _number(text: str) -> float | None:
    try:
        return None if _is_missing(text) else float(text)
    except ValueError:
        return None
