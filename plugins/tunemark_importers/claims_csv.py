"""Reads a table of claims about published throughput, one per row, in the columns documented below.

Cells are separated by commas, semicolons or tabs; numbers may have thousands separators or a decimal comma if the table
is unambiguous about it. An unreadable cell leaves a note, never a zero.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunemark.errors import BadData
from tunemark.physics.parameters import make_architecture
from tunemark.plugin.claims import Claim
from tunemark.plugin.descriptors import Architecture
from tunemark_importers.figure_names import meaning_of
from tunemark_importers.json_documents import pop_layout
from tunemark_importers.numbers import multiply_exactly, parse_bytes, parse_count, parse_number, parse_seconds

COLUMNS: Mapping[str, str] = {
    "id": "name of the row",
    "source": "publisher",
    "url_or_repo_path": "where it was published",
    "date_or_version": "date, or version of the source",
    "model": "name of the model",
    "params_b": "parameters, 10^9",
    "active_params_b": "parameters that a token uses, of a mixture of experts, 10^9",
    "n_layers": "layers",
    "hidden": "hidden size",
    "intermediate": "inner size of the MLP",
    "mlp_gated": "1 if the MLP has three matrices, 0 if two",
    "n_heads": "attention heads",
    "n_kv_heads": "heads of keys and values",
    "head_dim": "size of an attention head, where it is not hidden / n_heads",
    "n_experts": "experts of a layer",
    "experts_per_token": "experts that a token uses",
    "vocab": "entries of the vocabulary",
    "task": "pretrain, full, sft, lora or qlora",
    "device": "name of the chip",
    "n_devices": "packages as sold",
    "precision": "precision of the matrix products, such as bf16 or fp8",
    "seq_len": "slots of a sequence",
    "global_batch_seqs": "sequences per step, whole job",
    "micro_batch": "sequences per forward pass and data-parallel rank",
    "grad_accum": "micro-batches per step and data-parallel rank",
    "dp": "data-parallel degree",
    "fsdp": "sharding stage, 0 to 3",
    "tp": "tensor-parallel degree",
    "pp": "pipeline-parallel degree",
    "vp": "virtual stages per pipeline rank",
    "cp": "context-parallel degree",
    "ep": "expert-parallel degree",
    "act_ckpt": "activation checkpointing: none, selective or full",
    "compile": "Y or N",
    "tokens_per_s_total": "tokens per second, whole job",
    "tokens_per_s_per_device": "tokens per second of one device, as the source defines a device",
    "step_time_s": "mean seconds per step",
    "peak_mem_gb_reported": "peak memory per device, 10^9 bytes",
    "tflops_per_device_reported": "TFLOP/s per device",
    "mfu_reported": "a fraction, or a percentage with its sign",
    "notes": "free text",
}
"""Every column and its content. Judging a row needs a rate, a device, and a model or its dimensions; everything else
may be blank or missing."""

MEANING = (
    "tokens of the whole job, and of one device, per second as the row's source states them; which tokens, and whether "
    "warm-up is inside, the table leaves open (most published figures count slots)."
)

_RATES = ("tokens_per_s_total", "tokens_per_s_per_device", "step_time_s", "tflops_per_device_reported", "mfu_reported")
_NUMBERS = (
    "params_b", "active_params_b", "n_layers", "hidden", "intermediate", "n_heads", "n_kv_heads", "head_dim",
    "n_experts", "experts_per_token", "vocab", "n_devices", "seq_len",
    "global_batch_seqs", "micro_batch", "grad_accum", "dp", "tp", "pp", "vp", "cp", "ep", *_RATES,
    "peak_mem_gb_reported",
)  # fmt: skip
_COUNTS = {
    "n_devices": "count",
    "seq_len": "sequence",
    "global_batch_seqs": "global_batch",
    "micro_batch": "micro_batch",
    "grad_accum": "gradient_accumulation",
    "dp": "dp",
    "tp": "tp",
    "pp": "pp",
    "vp": "virtual_stages",
    "cp": "cp",
    "ep": "ep",
}
_METHODS = {
    "pretrain": "full",
    "pretraining": "full",
    "full": "full",
    "sft": "full",
    "lora": "lora",
    "qlora": "lora",
    "peft": "lora",
}
_BLANK = frozenset(("", "-", "n/a", "na", "none", "null", "unknown", "?"))
_SPEED = re.compile(
    r"(?P<number>.*?[0-9.])\s*(?P<scale>[kKMG]?)\s*(?:(?:tokens?|tok|t)(?:/s|/sec|/second| per second)?)?"
)
_UNIT = re.compile(r"(?P<number>.*?[0-9.])\s*(?P<unit>[^\W0-9]+)")
# An MFU above this is a percentage without its sign, or unreadable; below it may be a wrong claim worth judging.
_MAX_MFU = 10.0
_MAX_NOTE = 2000


def is_document(head: str) -> bool:
    """Whether the first line has columns of this table for a rate and for what it is a rate of."""
    header = _parse_header(head)
    if header is None:
        return False
    names = set(header[0])
    if any(_is_figure(name) for name in names - COLUMNS.keys()):
        # A figure under another name than this table's is read by the reader of everyday headers.
        return False
    return bool(names & set(_RATES)) and bool(names & {"model", "n_layers", "device"}) and len(names & set(COLUMNS)) > 2


def _is_figure(name: str) -> bool:
    meaning = meaning_of(name)
    return meaning is not None and meaning.quantity in ("tokens_per_s", "samples_per_s", "duration", "count")


def document(id: str, source: str, text: str) -> Sequence[Claim]:
    """One claim per row that is not blank. Raises `BadData` if a quote is not closed or a column appears twice."""
    header = _parse_header(text)
    if header is None:
        raise BadData(what=f"{source} is not a table", why="its first line names no columns", next="see docs/audit.md")
    names, delimiter = header
    twice = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
    if twice:
        raise BadData(
            what=f"{source} has two columns {twice[0]!r}",
            why="it is ambiguous which of them counts",
            next="rename or remove one of them",
        )
    rows = list(_parse_rows(text, delimiter, source))
    if rows and len(rows[-1][1]) < len(names) and not text.endswith(("\n", "\r")):
        # The file ends within this row, so its last cell may be cut off.
        rows[-1][1].pop()
    table = [(line, dict(zip(names, cells, strict=False)), cells) for line, cells in rows]
    reader = ClaimsTable(source=source, comma=uses_decimal_comma([row for _, row, _ in table], delimiter))
    reader.has_semicolons = delimiter == ";"
    per_cent = [value for _, row, _ in table if (value := reader.read(row.get("mfu_reported", ""))) is not None]
    reader.is_per_cent = sum(value > 1 for value in per_cent) > len(per_cent) / 2
    return [
        reader.claim(f"{id}#{at}" if len(table) > 1 else id, line, row, cells, len(names))
        for at, (line, row, cells) in enumerate(table, 1)
    ]


def _parse_header(text: str) -> tuple[list[str], str] | None:
    """The column names in lower case and the delimiter; None if the first line is not a header."""
    first = next((line for line in text.lstrip("\ufeff").splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    if delimiter not in first or len(first) > 1 << 16:
        return None
    try:
        cells = next(csv.reader([first], delimiter=delimiter, strict=True))
    except (csv.Error, StopIteration):
        return None
    return [cell.strip().strip("\ufeff").lower() for cell in cells], delimiter


def _parse_rows(text: str, delimiter: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """The first line's number and the cells of each row, without the header and blank rows."""
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=delimiter, strict=True)
    began, is_header = 1, True
    try:
        for cells in reader:
            line, began = began, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not is_header:
                yield line, cells
            is_header = False
    except csv.Error as error:
        raise BadData(
            what=f"{source} is a broken or truncated table",
            why=f"the row that begins in line {began}: {error}",
            next="close its quotes, or copy the file again",
        ) from error


def uses_decimal_comma(rows: Sequence[Mapping[str, str]], delimiter: str) -> bool | None:
    """Whether the table uses a decimal comma; None if that is ambiguous. A comma-separated table uses none unless it
    shows one."""
    comma = point = False
    for row in rows:
        for name in _NUMBERS:
            cell = row.get(name, "").strip()
            comma = comma or bool(re.search(r",(?:[0-9]{1,2}|[0-9]{4,})(?![0-9,])", cell))
            point = point or bool(
                re.search(r"\.(?:[0-9]{1,2}|[0-9]{4,})(?![0-9.])|,[0-9]{3},[0-9]{3}|,[0-9]{3}\.", cell)
            )
    if not comma and not point:
        return False if delimiter == "," else None
    return None if comma and point else comma


@dataclasses.dataclass(kw_only=True, slots=True)
class ClaimsTable:
    """What all rows share. comma: result of `uses_decimal_comma`. has_semicolons: whether these divide the cells, as
    where a comma stands before decimals. is_per_cent: MFU is in per cent without a sign."""

    source: str
    comma: bool | None
    has_semicolons: bool = False
    is_per_cent: bool = False

    def read(self, cell: str) -> float | None:
        """The number in a cell; None if it is blank, not a number, or ambiguous."""
        cell = cell.strip().removesuffix("%").strip()
        lone_point = re.fullmatch(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+", cell)
        if self.comma and lone_point:
            return parse_number(cell.replace(".", ""))
        if self.comma is None and self.has_semicolons and lone_point:
            # 390.000 may be a number of thousands, or of three decimals.
            return None
        three: Any = None if self.comma is None else ("decimals" if self.comma else "thousands")
        return parse_number(cell, three)

    def claim(self, id: str, line: int, row: Mapping[str, str], cells: Sequence[str], width: int) -> Claim:
        facts: dict[str, Any] = {}
        origin: dict[str, str] = {}
        notes: list[str] = []

        def take(field: str, value: Any, column: str) -> None:
            facts[field] = value
            origin[field] = f"{row[column].strip()[:120]!r} in column {column}, line {line}"

        def unread(column: str, why: str) -> None:
            notes.append(f"{column} is {row[column].strip()[:80]!r} in line {line}, {why}")

        if len(cells) != width:
            notes.append(f"line {line} has {len(cells)} cells under {width} columns; it may be cut off or shifted")
        stated = {name: cell for name, cell in row.items() if cell.strip().lower() not in _BLANK}
        for column, cell in stated.items():
            self._cell(column, cell.strip(), take, unread, notes)
        architecture = self._architecture(stated, notes)
        if architecture:
            facts["architecture"] = architecture
            origin["architecture"] = f"the dimensions in line {line}"
        if "date_or_version" in stated:
            origin["version"] = stated["date_or_version"].strip()[:200]
        layout = pop_layout(facts)
        where = next((stated[c].strip()[:300] for c in ("url_or_repo_path", "source") if c in stated), "")
        return Claim(
            id=stated["id"].strip()[:200] if "id" in stated else id, source=where or f"{self.source}, line {line}",
            tool="claims", meaning=MEANING, counts=None, scope="job", layout=layout, origin=origin,
            notes=tuple(notes), **facts,
        )  # fmt: skip

    def _cell(self, column: str, cell: str, take: Any, unread: Any, notes: list[str]) -> None:
        if column in ("model", "device", "precision"):
            take(column, cell[:200], column)
        elif column == "task":
            take("method", _METHODS.get(cell.lower(), cell.lower()[:40]), column)
        elif column == "act_ckpt":
            if cell.lower() in ("none", "selective", "full", "no", "n"):
                take("checkpointing", {"no": "none", "n": "none"}.get(cell.lower(), cell.lower()), column)
            else:
                unread(column, "which is not none, selective or full")
        elif column in _COUNTS:
            value = self.read(cell)
            if value is not None and value.is_integer() and 0 < value < 1e15:
                take(_COUNTS[column], int(value), column)
            else:
                unread(column, "which is not a count")
        elif column in ("params_b", "active_params_b"):
            field = "parameters" if column == "params_b" else "active_parameters"
            self._positive(field, column, self.read(cell.removesuffix("B")), 1e9, take, unread)
        elif column == "peak_mem_gb_reported":
            match = _UNIT.fullmatch(cell)
            if match:
                self._positive("memory_bytes", column, parse_bytes(match["number"], match["unit"]), 1.0, take, unread)
            else:
                self._positive("memory_bytes", column, self.read(cell), 1e9, take, unread)
        elif column in _RATES:
            self._rate(column, cell, take, unread)
        elif column not in COLUMNS or column in ("notes", "fsdp", "compile"):
            notes.append(f"{column[:80]}: {cell[:_MAX_NOTE]}" if column != "notes" else cell[:_MAX_NOTE])

    def _rate(self, column: str, cell: str, take: Any, unread: Any) -> None:
        value, scale = self.read(cell), 1.0
        field = {
            "tokens_per_s_total": "tokens_per_s",
            "tokens_per_s_per_device": "tokens_per_s_per_device",
            "step_time_s": "step_time_s",
            "tflops_per_device_reported": "tflops_per_device",
            "mfu_reported": "mfu",
        }[column]
        if column == "mfu_reported":
            if cell.endswith("%"):
                scale = 0.01
            elif value is not None and (value > _MAX_MFU or self.is_per_cent):
                unread(column, "which is not a fraction; percentages need their sign")
                return
        elif cell.endswith("%"):
            value = None
        elif value is None and column == "step_time_s" and (match := _UNIT.fullmatch(cell)):
            read = self.read(match["number"])
            value = None if read is None else parse_seconds(str(read), match["unit"])
        elif value is None and column.startswith("tokens") and (match := _SPEED.fullmatch(cell)):
            read = self.read(match["number"])
            value = None if read is None else parse_count(str(read), match["scale"])
        self._positive(field, column, value, scale, take, unread)

    def _positive(self, field: str, column: str, value: float | None, scale: float, take: Any, unread: Any) -> None:
        if value is None:
            unread(column, "which cannot be read as one number")
        elif not 0 < multiply_exactly(value, scale) < math.inf:
            unread(column, "which is outside its possible range")
        else:
            take(field, multiply_exactly(value, scale), column)

    def _architecture(self, stated: Mapping[str, str], notes: list[str]) -> Architecture | None:
        """The decoder with the row's dimensions; None if one is missing."""
        names = ("n_layers", "hidden", "intermediate", "n_heads", "n_kv_heads", "vocab")
        further = ("head_dim", "n_experts", "experts_per_token")
        sizes = {name: self.read(stated.get(name, "")) for name in (*names, *further)}
        for name in (*names, *further):
            if name in stated and (sizes[name] is None or not float(sizes[name] or 0.5).is_integer()):
                notes.append(f"{name} is {stated[name][:80]!r}, which is not a count")
                sizes[name] = None
        gated = {"1": True, "1.0": True, "true": True, "y": True, "0": False, "0.0": False, "false": False, "n": False}
        is_gated = gated.get(stated.get("mlp_gated", "").strip().lower())
        values = [sizes[name] for name in (*names, *(name for name in further if name in stated))]
        if is_gated is None or any(value is None or not 0 < value < 1e9 for value in values):
            return None
        whole = {name: int(value or 0) for name, value in sizes.items()}
        if ("n_experts" in stated) != ("experts_per_token" in stated):
            notes.append("of n_experts and experts_per_token one is missing: what a token needs is unknown")
            return None
        sequence = self.read(stated.get("seq_len", ""))
        try:
            return make_architecture(
                layers=whole["n_layers"], hidden=whole["hidden"], intermediate=whole["intermediate"],
                is_gated=is_gated, heads=whole["n_heads"], kv_heads=whole["n_kv_heads"], vocab=whole["vocab"],
                head_dim=whole["head_dim"] or None, experts=whole["n_experts"] or None,
                experts_per_token=whole["experts_per_token"] or None,
                sequence=int(sequence) if sequence and 0 < sequence < 1e9 else 1,
            )  # fmt: skip
        except ValueError as error:
            notes.append(f"the dimensions make no valid model: {error}")
            return None
