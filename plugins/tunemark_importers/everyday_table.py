"""Reads tables with everyday headers, and records of named facts, as `found_tables` finds them.

A header is read by its words, as the names in a log are (`figure_names`), and mapped to a column of the table of claims
(`claims_csv`), which reads the rows; the mapping is noted, and the user can change it. A table of the steps of one run
is read as a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tunemark.errors import BadData, BadExperiment
from tunemark.plugin.claims import Claim, LogLine
from tunemark_importers import claims_csv
from tunemark_importers.figure_names import NameMeaning, meaning_of
from tunemark_importers.found_tables import FoundTable, find_tables
from tunemark_importers.generic_log import GenericLogReader
from tunemark_importers.named_things import find_chip_words, find_model_words
from tunemark_importers.numbers import multiply_exactly, parse_number
from tunemark_importers.translated_words import translate_words
from tunemark_importers.wide_tables import divide_by_columns

MEANING = (
    "tokens per second of the job or of each device, as the table's header says; which tokens, and whether warm-up is "
    "inside, the table leaves open"
)

# Columns of the table of claims, by the words that people write above them.
_HEADERS: Mapping[str, str] = {
    **dict.fromkeys(
        ("model", "model name", "network", "llm", "architecture", "base model", "model name or path", "model id",
         "model path", "pretrained model"), "model",
    ),
    **dict.fromkeys(("id", "run", "run name", "config", "configuration", "experiment", "case", "name"), "id"),
    **dict.fromkeys(
        ("gpu", "device", "chip", "hardware", "accelerator", "gpu type", "gpu model", "device type", "npu", "card",
         "hw", "gpu name", "device name", "accelerator type", "chip type"), "device",
    ),
    **dict.fromkeys(
        ("gpus", "num gpus", "n gpus", "ngpus", "gpu count", "devices", "num devices", "n devices", "device count",
         "world size", "chips", "num chips", "cards", "npus", "number of gpus", "# gpus", "of gpus", "accelerators",
         "ranks", "n gpu", "num gpu", "no of gpus", "number of devices", "number of chips", "num accelerators", "n",
         "num cards", "number of accelerators", "count", "num", "qty", "quantity", "gpu num", "gpu number"),
        "n_devices",
    ),
    **dict.fromkeys(
        ("nodes", "num nodes", "n nodes", "nnodes", "number of nodes", "hosts", "num hosts", "machines", "servers"),
        "nodes",
    ),
    **dict.fromkeys(
        ("gpus/node", "gpu/node", "gpus per node", "gpu per node", "devices/node", "devices per node", "chips/node",
         "chips per node", "gpus per host", "gpus/host", "nproc per node", "num gpus per node", "cards per node",
         "n gpus per node"), "per_node",
    ),
    "cluster": "cluster",
    **dict.fromkeys(
        ("seq", "seq len", "seqlen", "sequence length", "sequence", "seq length", "context", "context length", "ctx",
         "ctx len", "block size", "max seq len", "max length", "cutoff len", "max seq length"), "seq_len",
    ),
    **dict.fromkeys(
        ("global batch", "global batch size", "gbs", "total batch size", "effective batch size", "global bs",
         "global batch seqs", "train batch size", "total batch"), "global_batch_seqs",
    ),
    **dict.fromkeys(
        ("micro batch", "micro batch size", "mbs", "per device batch size", "batch size per gpu", "batch per gpu",
         "per gpu batch size", "per device train batch size", "micro bs", "batch size per device", "local batch size",
         "bs/gpu", "batch/gpu", "batch size/gpu", "bs per gpu", "bs/device", "batch/device", "mbs/gpu"),
        "micro_batch",
    ),
    **dict.fromkeys(
        ("grad accum", "gradient accumulation", "gradient accumulation steps", "grad acc", "ga", "accumulation",
         "grad accumulation", "grad accum steps", "accum", "acc steps", "accum steps", "gas"), "grad_accum",
    ),
    **dict.fromkeys(("precision", "dtype", "data type", "amp", "datatype"), "precision"),
    **dict.fromkeys(
        ("task", "method", "mode", "training", "finetuning", "fine tuning", "training type", "stage"), "task",
    ),
    **dict.fromkeys(("tp", "tensor parallel", "tp size", "tensor parallelism"), "tp"),
    **dict.fromkeys(("pp", "pipeline parallel", "pp size", "pipeline parallelism"), "pp"),
    **dict.fromkeys(("dp", "data parallel", "dp size", "data parallelism"), "dp"),
    **dict.fromkeys(("cp", "context parallel", "cp size"), "cp"),
    **dict.fromkeys(("ep", "expert parallel", "ep size"), "ep"),
    **dict.fromkeys(("params", "parameters", "size", "model size", "num params", "params b"), "params_b"),
    **dict.fromkeys(("active params", "active parameters", "active params b"), "active_params_b"),
    **dict.fromkeys(("notes", "note", "comment", "comments", "remarks"), "notes"),
    **dict.fromkeys(("activation checkpointing", "act ckpt", "gradient checkpointing", "recompute", "ac"), "act_ckpt"),
    **dict.fromkeys(("layers", "n layers", "num layers"), "n_layers"),
}  # fmt: skip
_RATES = ("tokens_per_s_total", "tokens_per_s_per_device", "step_time_s", "tflops_per_device_reported", "mfu_reported",
          "samples_per_s")  # fmt: skip
# Columns that are no claim's, but make one of them.
_NOT_OF_CLAIMS = {"nodes": "nodes", "per_node": "devices of a node", "cluster": "nodes x devices"}
_COUNTED_DEVICE = re.compile(r"\s*([0-9][0-9,]*)\s*(?:[x\u00d7*]|of)?\s*([A-Za-z][\w .-]*?)\s*")
_DEVICE_COUNTED = re.compile(r"\s*([A-Za-z][\w .-]*?)\s*[x\u00d7*]\s*([0-9]+)\s*")
_RIVALS = "{} are rates of one kind, and differ"
_NODES_BY_DEVICES = re.compile(r"\s*([0-9]{1,5})\s*(?:nodes?\s*)?[x\u00d7*]\s*([0-9]{1,3})\s*")
# What stands beside a figure in its cell: its spread, and how much more it is than another.
_BESIDE = re.compile(
    r"\s*(?:(?:\u00b1|\+/-|\+-)\s*[0-9][0-9.,]*\s?[kKM%]?|\(\s*[+\u2212-]?[0-9][0-9.,]*\s*[%x\u00d7]\s*\))\s*"
)
_VALUE_AND_UNIT = re.compile(
    r"[~\u2248]?\s*[0-9][0-9.,]*\s*(?P<unit>[kKM]?\s?[A-Za-z\uac00-\ud7a3]+(?: ?/ ?[A-Za-z\uac00-\ud7a3]+){1,2})"
)
_FIGURE = re.compile(r"[\s*~\u2248]*[0-9.]")
_SIZED = re.compile(r"(?<![0-9.])[0-9]{1,4}(?:\.[0-9]{1,3})?[bBmM](?![A-Za-z0-9])")
_SIZE = re.compile(r"\s*([0-9.,]+)\s*([bBmMkKT]?)\s*")


@dataclass(frozen=True, slots=True)
class _ColumnMeaning:
    """A column's place in the table of claims; factor: from its cells to that column's unit; unit: that its cells
    repeat."""

    field: str
    factor: float = 1.0
    is_per_cent: bool = False
    note: str = ""
    unit: str = ""


def is_document(head: str) -> bool:
    """Whether a text has a table whose header names a rate, and what it is a rate of."""
    return next(_our_tables(head, {}), None) is not None


def document(id: str, source: str, text: str, columns: Mapping[str, str] | None = None) -> Sequence[Claim]:
    """One claim per row of each table, or one per table of steps. columns: what the user says of headers: a column of
    the table of claims by its header, or '-' for one that is not to be read. Raises `BadExperiment` for a column that
    does not exist, and `BadData` where two columns differ in one rate."""
    given = _check_columns(columns or {}, text)
    claims: list[Claim] = []
    for table in _our_tables(text, given):
        found = _steps(table, source) if _is_series(table.names) else _rows(table, source, given)
        claims += found
    several = len(claims) > 1
    return [
        replace(claim, id=claim.id or (f"{id}#{number}" if several else id)) for number, claim in enumerate(claims, 1)
    ]


def _check_columns(columns: Mapping[str, str], text: str) -> dict[str, str]:
    given = {_key(name): field for name, field in columns.items()}
    for name, field in columns.items():
        if field not in claims_csv.COLUMNS and field not in ("-", "samples_per_s"):
            raise BadExperiment(
                what=f"--columns {name}={field}: no column {field!r}",
                next=f"one of: {', '.join(claims_csv.COLUMNS)}; or - to leave {name!r} out",
            )
    headers = {_key(name) for table in find_tables(text) for name in table.names}
    for name in columns:
        if _key(name) not in headers:
            raise BadExperiment(
                what=f"--columns {name}: the table has no column {name!r}", next=f"one of: {', '.join(sorted(headers))}"
            )
    return given


def _key(name: str) -> str:
    """A header without case, punctuation and emphasis."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", translate_words(_plain(name)))
    return re.sub(r"[\s_\-.]+", " ", words.lower().replace("#", "num ")).strip()


def _columns(table: FoundTable, given: Mapping[str, str]) -> dict[str, _ColumnMeaning]:
    """What the headers mean, those that mean something. A header such as `throughput` has its unit in the cells."""
    found = {}
    for at, name in enumerate(table.names):
        meaning = meaning_of(_plain(name))
        if meaning is not None and meaning.quantity == "speed" and _key(name) not in given:
            cells = [cells[at].strip() for _, cells in table.rows if at < len(cells) and cells[at].strip()]
            units = {match["unit"] if (match := _VALUE_AND_UNIT.fullmatch(cell)) else None for cell in cells}
            unit = units.pop() if len(units) == 1 else None
            column = _column(f"{name} ({unit})", {}) if unit else None
            column = replace(column, unit=unit) if unit and column is not None else None
        else:
            column = _column(name, given)
        if column is not None:
            found[name] = column
    return _without_rivals(table, found)


def _without_rivals(table: FoundTable, columns: dict[str, _ColumnMeaning]) -> dict[str, _ColumnMeaning]:
    """The columns but for rates of tokens of which there are two that differ: of two chips, or before and after."""
    for field in ("tokens_per_s_total", "tokens_per_s_per_device"):
        rivals = [name for name, column in columns.items() if column.field == field]
        places = [table.names.index(name) for name in rivals]
        if len(rivals) > 1 and any(len({cells[at] for at in places if at < len(cells)}) > 1 for _, cells in table.rows):
            columns |= {
                name: _ColumnMeaning("", note=_RIVALS.format(" and ".join(map(repr, rivals)))) for name in rivals
            }
    return columns


def _plain(name: str) -> str:
    return name.strip().strip("*`_")


def _column(name: str, given: Mapping[str, str]) -> _ColumnMeaning | None:
    """What a header means; None if nothing."""
    key = _key(name)
    if key in given:
        meaning = meaning_of(_plain(name))
        factor = meaning.scale if meaning is not None and meaning.scale and meaning.quantity != "mfu" else 1.0
        return None if given[key] == "-" else _ColumnMeaning(given[key], factor)
    if name.strip().lower() in claims_csv.COLUMNS:
        return _ColumnMeaning(name.strip().lower())
    plain = re.sub(r"\s*[(\[].*?[)\]]", "", key).strip()
    for one in (key, plain):
        if one in _HEADERS:
            return _ColumnMeaning(_HEADERS[one])
    if key in ("batch size", "bs", "batch", "batchsize"):
        return _ColumnMeaning("", note=f"{name!r} may be of a step or of each device's forward pass")
    meaning = meaning_of(_plain(name))
    return None if meaning is None else _figure_column(name, meaning)


def _figure_column(name: str, meaning: NameMeaning) -> _ColumnMeaning | None:
    scale = meaning.scale or 1.0
    if not meaning.is_training:
        return None
    if meaning.quantity == "tokens_per_s":
        if meaning.scope == "device":
            return _ColumnMeaning("tokens_per_s_per_device", scale)
        note = "" if meaning.scope == "job" else f"{name!r} is read as of the job; it does not say so"
        return _ColumnMeaning("tokens_per_s_total", scale, note=note)
    if meaning.quantity in ("duration", "time") and meaning.scale is not None:
        return _ColumnMeaning("step_time_s", scale) if meaning.quantity == "duration" else None
    if meaning.quantity == "tflops":
        return _ColumnMeaning("tflops_per_device_reported", scale)
    if meaning.quantity == "mfu":
        return _ColumnMeaning("mfu_reported", is_per_cent=meaning.is_per_cent)
    if meaning.quantity == "samples_per_s":
        return _ColumnMeaning("samples_per_s", scale)
    if meaning.quantity == "memory":
        return _ColumnMeaning("peak_mem_gb_reported", 1.0 if meaning.scale is None else scale / 1e9)
    return None


def _our_tables(text: str, given: Mapping[str, str]) -> Iterator[FoundTable]:
    """The tables of rates; one is read with its names in the first column only where its first line has none."""
    is_read = False
    for found in find_tables(text):
        if found.is_turned and is_read:
            continue
        is_read = False
        for table in _divided(_with_corner(found) if found.is_turned else found, text, given):
            if _is_ours(table, given):
                is_read = True
                yield table


def _with_corner(table: FoundTable) -> FoundTable:
    """The table with what stood above its columns under the name of what it is, where its corner has no name."""
    if _column(table.names[0], {}) is not None:
        return table
    cells = [row[0] for _, row in table.rows]
    for field, find in (("device", find_chip_words), ("model", find_model_words)):
        if all(find(cell) is not None for cell in cells) and field not in {_key(name) for name in table.names}:
            return replace(table, names=[field, *table.names[1:]])
    return table


def _divided(table: FoundTable, text: str, given: Mapping[str, str]) -> Sequence[FoundTable]:
    """The table by what its columns are of; one whose columns the user explains stays whole."""
    if not table.rows or any(_key(name) in given for name in table.names):
        return [table]
    lines, first, last = text.splitlines(), table.rows[0][0], table.rows[-1][0]
    around = "\n".join([*lines[max(0, first - 9) : max(0, first - 2)], *lines[last : last + 3]])
    return divide_by_columns(table, around, lambda name: column.field if (column := _column(name, {})) else None)


def _is_ours(table: FoundTable, given: Mapping[str, str]) -> bool:
    names = table.names
    if table.is_aligned and _is_series(names):
        # Those who read logs read such lines too, and all that stands between them.
        return False
    columns = _columns(table, given)
    fields = [column.field for column in columns.values()]
    if any(column.note.endswith(_RIVALS[2:]) for column in columns.values()):
        return True
    rates = [at for at, name in enumerate(names) if name in columns and columns[name].field in _RATES]
    # A line of a log has its names in all of its lines, a table has figures under them.
    if not any(_is_figure(cells[at]) for _, cells in table.rows for at in rates if at < len(cells)):
        return False
    # A rate of tokens and nothing else: the other columns say of what.
    is_alone = not table.is_aligned and any(field.startswith("tokens_per_s") for field in fields)
    return len(set(fields)) > 1 or _is_series(names) or is_alone


def _is_figure(cell: str) -> bool:
    """Whether a cell holds a figure, perhaps with its unit and spread, and no line of a log."""
    return _FIGURE.match(cell) is not None and len(re.findall(r"[A-Za-z]+", cell)) <= 3


def _is_series(names: Sequence[str]) -> bool:
    """Whether the rows are the steps of one run."""
    meanings = [meaning.quantity for name in names if (meaning := meaning_of(name)) is not None]
    fields = {column.field for name in names if (column := _column(name, {})) is not None}
    return "step" in meanings and not fields & {"model", "device", "n_devices"}


def _steps(table: FoundTable, source: str) -> list[Claim]:
    """The claim of a table whose rows are steps: each row is read as a line of a log."""
    reader = GenericLogReader()
    for line, cells in table.rows:
        text = " | ".join(f"{name}: {cell}" for name, cell in zip(table.names, cells, strict=False) if cell)
        reader.read(LogLine(line, text))
    return [replace(claim, source=source) for claim in reader.claims()]


def _rows(table: FoundTable, source: str, given: Mapping[str, str]) -> list[Claim]:
    columns = _columns(table, given)
    if rivals := [name for name, column in columns.items() if column.note.endswith(_RIVALS[2:])]:
        raise BadData(
            what=columns[rivals[0]].note,
            why=f"line {table.rows[0][0]} of {source}: of one row only one rate can be claimed",
            next="read the table once for each, and leave the others out: "
            + f"--columns {','.join(f'{name!r}=-' for name in rivals[1:])}",
        )
    if all(column.field != "model" for column in columns.values()):
        columns |= {name: _ColumnMeaning("model") for name in _names_of_models(table, columns, given)}
    rows = [_canonical(table, line, cells, columns) for line, cells in table.rows]
    per_cent = _in_per_cent([row.get("mfu_reported", "") for _, row in rows])
    if per_cent:
        for _, row in rows:
            if (cell := row.get("mfu_reported")) and not cell.endswith("%"):
                row["mfu_reported"] = f"{cell}%"
    comma = claims_csv.uses_decimal_comma([row for _, row in rows], table.delimiter or ",")
    reader = claims_csv.ClaimsTable(source=source, comma=comma, has_semicolons=table.delimiter == ";")
    claims = []
    for line, row in rows:
        if not any(row.get(field) for field in _RATES):
            continue
        samples = reader.read(row.pop("samples_per_s", ""))
        claim = reader.claim("", line, row, list(row), len(row))
        names = {column.field: name for name, column in columns.items() if column.field}
        origin = {field: _with_header(text, names) for field, text in claim.origin.items()}
        claim = replace(claim, tool="everyday-table", meaning=MEANING, origin=origin)
        claims.append(replace(claim, samples_per_s=samples) if samples is not None and samples > 0 else claim)
    if claims:
        claims[0] = replace(claims[0], notes=(_mapping(table.names, columns), *claims[0].notes))
    return claims


def _names_of_models(
    table: FoundTable, columns: Mapping[str, _ColumnMeaning], given: Mapping[str, str]
) -> Sequence[str]:
    """The column of names, where most of them end in a size, as those of models do."""
    for at, name in enumerate(table.names):
        if name in columns and columns[name].field == "id" and _key(name) not in given:
            cells = [cells[at] for _, cells in table.rows if at < len(cells)]
            if 2 * sum(bool(_SIZED.search(cell)) for cell in cells) > len(cells):
                return [name]
    return []


def _with_header(text: str, names: Mapping[str, str]) -> str:
    match = re.search(r"in column (\w+), ", text)
    return text.replace(match[0], f"in column {names[match[1]]!r}, ") if match and match[1] in names else text


def _in_per_cent(cells: Sequence[str]) -> bool:
    """Whether figures without a sign are percentages: no MFU is above 1."""
    values = [value for cell in cells if "%" not in cell and (value := parse_number(cell)) is not None]
    return bool(values) and sorted(values)[len(values) // 2] > 2


def _canonical(
    table: FoundTable, line: int, cells: Sequence[str], columns: Mapping[str, _ColumnMeaning]
) -> tuple[int, dict[str, str]]:
    """A row under the columns of the table of claims."""
    row: dict[str, str] = {}
    for name, cell in zip(table.names, cells, strict=False):
        column = columns.get(name)
        if column is None or not column.field or not cell.strip():
            continue
        cell = cell.strip()
        if column.field in _RATES or column.field == "peak_mem_gb_reported":
            cell = _BESIDE.sub("", cell.lstrip("~\u2248 ")) or cell
            cell = cell.removesuffix(column.unit).strip() if column.unit else cell
        if column.field in ("nodes", "per_node", "cluster"):
            _add_nodes(row, column.field, cell)
            continue
        if column.field in ("n_devices", "device", "model"):
            found = _COUNTED_DEVICE.fullmatch(cell) if column.field != "model" else None
            turned = _DEVICE_COUNTED.fullmatch(cell) if column.field != "model" else None
            if found or turned:
                count, device = (found[1], found[2]) if found else (turned[2], turned[1]) if turned else ("", "")
                if re.fullmatch(r"(?i)gpus?|devices?|chips?|npus?|ranks?", device):
                    row.setdefault("n_devices", count)
                else:
                    row.setdefault("n_devices", count)
                    row.setdefault("device", device)
                continue
        elif column.field == "params_b":
            cell = _in_billions(cell)
        elif column.field == "seq_len" and (match := re.fullmatch(r"([0-9]{1,4})\s?[kK]", cell)):
            cell = str(1024 * int(match[1]))
        elif column.factor != 1.0 and (value := parse_number(cell)) is not None:
            cell = repr(multiply_exactly(value, column.factor))
        elif column.is_per_cent and not cell.endswith("%"):
            cell = f"{cell}%"
        row.setdefault(column.field, cell)
    return line, row


def _add_nodes(row: dict[str, str], field: str, cell: str) -> None:
    """The count of devices, of the nodes and what each of them has."""
    if field == "cluster":
        if match := _NODES_BY_DEVICES.fullmatch(cell):
            row.setdefault("n_devices", str(int(match[1]) * int(match[2])))
        return
    row[field] = cell
    if "nodes" in row and "per_node" in row:
        nodes, devices = (parse_number(row.pop(name)) for name in ("nodes", "per_node"))
        if nodes and devices:
            row.setdefault("n_devices", f"{nodes * devices:g}")


def _in_billions(cell: str) -> str:
    match = _SIZE.fullmatch(cell)
    value = parse_number(match[1]) if match else None
    if match is None or value is None:
        return cell
    factor = {"M": 1e-3, "m": 1e-3, "K": 1e-6, "k": 1e-6, "T": 1e3}.get(match[2], 1.0)
    # Billions, unless it is plainly a count.
    return repr(multiply_exactly(value, 1e-9 if not match[2] and value > 1e5 else factor))


def _mapping(names: Sequence[str], columns: Mapping[str, _ColumnMeaning]) -> str:
    """How the headers were read, in a sentence."""
    read = [
        f"{name} = {_NOT_OF_CLAIMS.get(column.field, column.field)}" for name, column in columns.items() if column.field
    ]
    remarks = list(dict.fromkeys(column.note for column in columns.values() if column.note))
    unread = [name for name in names if name.strip() and (name not in columns or not columns[name].field)]
    text = f"its columns are read as: {', '.join(read)}"
    text += f"; not read: {', '.join(unread)}" if unread else ""
    text += "".join(f"; {remark}" for remark in remarks)
    return f"{text} (--columns NAME=COLUMN,... changes that)"
