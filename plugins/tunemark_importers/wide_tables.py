"""Divides tables whose columns are of several chips, counts or models, as their headers name them, so that each
column's figures are read beside what its own header says.

`| model | A100 tok/s | H100 tok/s |` makes two rows of each row; so does `| tokens/s/GPU | 8 GPUs | 16 GPUs |`, whose
unit is that of its corner, of its cells, or of the words around the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tunemark_importers.figure_names import meaning_of
from tunemark_importers.found_tables import FoundTable
from tunemark_importers.named_things import find_chip_words, find_model_words

_FIGURE = re.compile(r"[\s*~\u2248]*[0-9.,]+\s?[kKM]?(?:\s?%|\s?[A-Za-z/]+)?[\s*]*")
_NOTHING = ("", "-", "\u2014", "\u2013", "n/a", "na", "oom", "out of memory", "x")
_COUNT = re.compile(
    r"(?<![\w.])([0-9]{1,6})\s*(?:[xX\u00d7*]\s*)?(?:gpus?|devices?|chips?|npus?|cards?|accelerators?|ranks?)\b"
    r"|(?<![\w.])([0-9]{1,6})\s*[xX\u00d7*](?=[\s)]|$)|(?<![\w.])[xX\u00d7*]\s*([0-9]{1,6})(?![\w.])", re.I,
)  # fmt: skip
_UNIT_AROUND = re.compile(
    r"(?<![A-Za-z])(?:[kKM]\s?)?tok(?:en)?s?\s?(?:/|per)\s?(?:s(?:ec(?:ond)?)?|gpu|device|chip|card)\b"
    r"(?:\s?(?:/|per)\s?(?:s(?:ec(?:ond)?)?|gpu|device|chip|card)\b)?|(?<![A-Za-z])(?:TGS|TPS)(?![A-Za-z])", re.I,
)  # fmt: skip
_MAX_FACETS = 16
_OF_FIGURES = ("tokens_per_s", "samples_per_s", "tflops", "mfu")


@dataclass(frozen=True, slots=True)
class _Facet:
    """What a header says its column is of, by column of the table of claims, and the rest of the header."""

    of: tuple[tuple[str, str], ...]
    rest: str


def divide_by_columns(table: FoundTable, around: str, field_of: Callable[[str], str | None]) -> Sequence[FoundTable]:
    """The tables, one for each chip, count or model that columns of figures are of; the table itself where there are
    not several. around: the text before and after it. field_of: the column of claims that a header means."""
    facets = {
        at: facet
        for at in range(1, len(table.names))
        if not _has_words(table, at) and (facet := _facet(table.names[at])) is not None
    }
    kinds = list(dict.fromkeys(facet.of for facet in facets.values()))
    if not 1 < len(kinds) <= _MAX_FACETS or len({tuple(name for name, _ in of) for of in kinds}) > 1:
        return [table]
    shared = [at for at in range(len(table.names)) if at not in facets]
    if {field_of(table.names[at]) for at in shared} & {name for of in kinds for name, _ in of}:
        return [table]
    names, unit = list(table.names), ""
    if 0 in shared and _has_words(table, 0):
        corner = meaning_of(names[0])
        if corner is not None and corner.quantity in _OF_FIGURES:
            # What stands in the corner is of the figures, and not of the names below it.
            names[0], unit = "", names[0]
        names[0] = names[0] if field_of(names[0]) else "config"
    if not unit and (match := _UNIT_AROUND.search(around)) is not None:
        unit = match[0]
    found = []
    for of in kinds:
        own = {at: facet.rest for at, facet in facets.items() if facet.of == of}
        heads = {at: _head(table, at, rest, unit) for at, rest in own.items()}
        if not all(heads.values()) or len(set(heads.values())) < len(heads):
            return [table]
        kept = [*shared, *own]
        rows = [
            (line, [*("" if at in own and _is_nothing(cells[at]) else cells[at] for at in kept), *(v for _, v in of)])
            for line, cells in table.rows
            if len(cells) == len(table.names)
        ]
        found.append(
            replace(table, names=[*(heads.get(at, names[at]) for at in kept), *(name for name, _ in of)], rows=rows)
        )
    return found


def _head(table: FoundTable, at: int, rest: str, unit: str) -> str:
    """The header of a column without what it is of; '' where nothing says its unit."""
    meaning = meaning_of(rest)
    if meaning is not None and meaning.quantity != "speed":
        return rest
    return (
        rest
        if meaning is not None and _has_units(table, at)
        else unit or ("throughput" if _has_units(table, at) else "")
    )


def _has_units(table: FoundTable, at: int) -> bool:
    return any(re.search(r"[0-9]\s?[kKM]?\s?[A-Za-z]+\s?/", cells[at]) for _, cells in table.rows if at < len(cells))


def _is_nothing(cell: str) -> bool:
    return cell.strip(" *`").lower() in _NOTHING


def _has_words(table: FoundTable, at: int) -> bool:
    """Whether a column has cells that are no figures."""
    cells = (cells[at] for _, cells in table.rows if at < len(cells))
    return any(not _is_nothing(cell) and _FIGURE.fullmatch(cell) is None for cell in cells)


def _facet(name: str) -> _Facet | None:
    text = re.sub(r"[*`_]", " ", name)
    of: list[tuple[str, str]] = []
    chip = find_chip_words(text)
    if chip is not None:
        of.append(("device", chip[2]))
        text = f"{text[: chip[0]]} {text[chip[1] :]}"
    if (match := _COUNT.search(text)) is not None:
        of.append(("n_devices", match[1] or match[2] or match[3]))
        text = f"{text[: match.start()]} {text[match.end() :]}"
    if not of and (model := find_model_words(text)) is not None:
        of.append(("model", model[2]))
        text = f"{text[: model[0]]} {text[model[1] :]}"
    if not of:
        return None
    text = re.sub(r"\(\s*\)|\b(?:on|with|using|at|for)\b", " ", text)
    return _Facet(tuple(of), " ".join(text.split()).strip(" ,:/-()"))
