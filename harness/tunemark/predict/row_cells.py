"""Cells of a table of published rows: the file, and single values as text, number, count or flag."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tunemark.errors import BadData

# Required columns; a model by dimensions or by name is checked row by row.
_REQUIRED_COLUMNS = ("device",)
# Every column that a prediction reads.
COLUMNS = frozenset(
    ("id", "source", "url_or_repo_path", "model", "params_b", "n_layers", "hidden", "intermediate", "mlp_gated",
     "n_heads", "n_kv_heads", "vocab", "task", "device", "n_devices", "precision", "seq_len", "global_batch_seqs",
     "micro_batch", "grad_accum", "dp", "fsdp", "tp", "pp", "vp", "cp", "ep", "etp", "act_ckpt", "compile", "notes",
     "tags", "head_dim", "n_experts", "experts_per_token", "date_or_version", "framework", "framework_version", "year",
     "cluster", "node_devices", "intra_gb_s", "inter_gb_s", "shard_group", "lora_rank", "lora_targets", "base_bits",
     "optimizer", "optimizer_bits", "offload", "loss", "optimizer_in_backward"),
)  # fmt: skip

_FLAGS = {
    "true": "1", "yes": "1", "y": "1", "false": "0", "no": "0", "n": "0", "swiglu": "1", "geglu": "1", "gated": "1",
    "gelu": "0", "relu": "0", "relu2": "0", "squared-relu": "0",
}  # fmt: skip
# Words for a number that is not known.
_UNKNOWN = frozenset(("-", "--", "—", "?", "n/a", "na", "none", "null", "unknown", "auto", "tbd"))
_POWERS = {"k": 1024.0, "m": 1024.0**2}
# Largest plausible counts: of anything, and of layers, stages and virtual stages.
_MAX_COUNT, _MAX_LAYERS = 1e12, 1e5


class RowError(Exception):
    """Why a row cannot be converted."""


def read_published_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, cells stripped. Raises `BadData` where it cannot be read as such."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            _check_header(names, path)
            reader.fieldnames = names
            return list(_read_cells(reader, path))
    except OSError as error:
        raise BadData(
            what=f"cannot read {str(path)!r}", why=error.strerror or str(error), next="give a file of rows in CSV"
        ) from error
    except UnicodeDecodeError as error:
        raise BadData(
            what=f"{path} is no text in UTF-8", why=f"byte {error.start}: {error.reason}", next="save it as CSV, UTF-8"
        ) from error
    except csv.Error as error:
        raise BadData(what=f"{path} is no CSV", why=str(error), next="give rows with a header, in CSV") from error


def _check_header(names: Sequence[str], path: str | Path) -> None:
    if not names:
        raise BadData(what=f"{path} is empty", next="give rows with a header, in CSV")
    missing = [name for name in _REQUIRED_COLUMNS if name not in names]
    if missing:
        found = ", ".join(name for name in names if name in COLUMNS) or "none that is known"
        other = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
        raise BadData(
            what=f"{path} has no column {missing[0]!r}",
            why=f"its header is separated by {other!r}" if other else f"its header: {found}",
            next="separate cells by commas" if other else f"columns are: {', '.join(sorted(COLUMNS))}",
        )
    twice = [name for name in names if name in COLUMNS and names.count(name) > 1]
    if twice:
        raise BadData(what=f"{path} has the column {twice[0]!r} twice", next="leave one of them out")


def _read_cells(reader: csv.DictReader[str], path: str | Path) -> Iterator[dict[str, str]]:
    for row in reader:
        if None in row or None in row.values():
            there = "more" if None in row else "fewer"
            what = f"{path}, line {reader.line_num} has {there} cells than the header"
            raise BadData(what=what, next="mend the line")
        cells = {name: (value or "").strip() for name, value in row.items()}
        cells.setdefault("id", "")
        cells["id"] = cells["id"] or f"line {reader.line_num}"
        yield cells


def read_text(row: Mapping[str, str], key: str) -> str | None:
    return (row.get(key) or "").strip() or None


def read_number(row: Mapping[str, str], key: str) -> float | None:
    """A number; None where the cell is empty or says that it is not known. "4,096" and "8x8" are 4096 and 64, a
    sequence of "8k" has 8,192 tokens."""
    word = read_text(row, key)
    if word is None or word.lower() in _UNKNOWN:
        return None
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", word)
    try:
        if key == "seq_len" and (match := re.fullmatch(r"([\d.]+) ?([km])", plain.lower())):
            value = float(match[1]) * _POWERS[match[2]]
        elif key == "n_devices" and (match := re.fullmatch(r"(\d+) ?[x*] ?(\d+)", plain.lower())):
            value = float(match[1]) * float(match[2])
        else:
            value = float(plain.lower().removesuffix("b") if key == "params_b" else plain)
    except ValueError:
        raise RowError(f"{key} is no number: {word!r}") from None
    if not math.isfinite(value):
        raise RowError(f"{key} is no number: {word!r}")
    return value


def read_positive(row: Mapping[str, str], key: str) -> float | None:
    """A number above zero."""
    value = read_number(row, key)
    if value is not None and value <= 0:
        raise RowError(f"{key} is {value:g}, which must be above zero")
    return value


def read_flag(row: Mapping[str, str], key: str) -> bool | None:
    """A flag, which a spreadsheet may write as 1 or 0, true or false, yes or no."""
    value = read_number({key: _FLAGS.get((row.get(key) or "").lower(), row.get(key) or "")}, key)
    return None if value is None else bool(value)


def read_count(row: Mapping[str, str], key: str, least: int = 1) -> int | None:
    value = read_number(row, key)
    if value is None:
        return None
    most = _MAX_LAYERS if key in ("n_layers", "pp", "vp") else _MAX_COUNT
    if not least <= value <= most or value != int(value):
        raise RowError(f"{key} is {value:g}, not a whole number of at least {least} and at most {most:,.0f}")
    return int(value)


def read_required_text(row: Mapping[str, str], key: str) -> str:
    word = read_text(row, key)
    if word is None:
        raise RowError(f"{key} is not stated")
    return word
