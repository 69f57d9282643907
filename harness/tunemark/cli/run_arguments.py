"""Reads the runs that a command-line argument names: those of a store or of a report folder, or one run of either."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.errors import BadStore, TunemarkError
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.results import Result

# The default store of `tunemark run`.
_STORE = "runs"
RUNS_HELP = (
    "a store (runs/), a report folder written by -o, one run's folder in a store, or FOLDER:RUN with the beginning of "
    "a run's id (for runs/, the id alone)"
)


def remove_duplicates(results: Sequence[Result]) -> list[Result]:
    """The results without duplicates, which are of the same attempts in several folders."""
    found = {(r.run_id, tuple(row.name for row in r.each_attempt)): r for r in reversed(results)}
    return list(reversed(found.values()))


def read_runs(name: str, catalog: Catalog, *, every_series: bool = False) -> list[Result]:
    """The results that `name` stands for, oldest first. Unreadable ones are named on standard error and skipped; raises
    `BadStore` if there are none. every_series: include a store's series from before a run was measured again."""
    # Heavy, and not needed by --help.
    from tunemark.report.files import RUNS
    from tunemark.results import Store

    def warn_unread(error: TunemarkError) -> None:
        print(f"not read: {error}", file=sys.stderr)

    folder, wanted = _split_name(name)
    if folder.is_file() and folder.name == RUNS:
        folder = folder.parent
    if folder.is_file():
        raise BadStore(
            what=f"{name} is a file", why=f"runs are read from a folder's {RUNS} or its attempts", next=RUNS_HELP
        )
    if (folder / RUNS).exists():
        found = _read_lines(folder / RUNS, warn_unread)
    elif any(folder.glob("*/attempt.json")):
        run = folder.absolute()
        found = Store(run.parent).results(catalog, every_series=every_series, folder=run.name, broken=warn_unread)
    else:
        found = Store(folder).results(catalog, every_series=every_series, broken=warn_unread)
    if not found:
        raise BadStore(
            what=f"{folder} holds no runs",
            why=f"it has neither {RUNS} nor any attempt that could be read",
            next="give the folder of `tunemark run --store` (by default runs) or of its -o",
        )
    if not wanted:
        return found
    matching = [result for result in found if result.run_id.startswith(wanted)]
    if not matching:
        ids = ", ".join(dict.fromkeys(result.run_id for result in found))
        raise BadStore(what=f"{folder} holds no run {wanted}", next=f"its runs: {ids[:400]}")
    return matching


def find_runs_folder(name: str) -> Path:
    """The store or report folder that holds the runs that `name` stands for."""
    from tunemark.report.files import RUNS  # heavy, and not needed by --help

    folder, _ = _split_name(name)
    if folder.is_file():
        return folder.parent
    is_run = not (folder / RUNS).exists() and any(folder.glob("*/attempt.json"))
    return folder.absolute().parent if is_run else folder


def _split_name(name: str) -> tuple[Path, str]:
    """The folder that an argument names, and the beginning of a run's id in it, or ""."""
    if Path(name).exists():
        return Path(name), ""
    parent, colon, run_id = name.rpartition(":")
    if colon and Path(parent).is_dir():
        return Path(parent), run_id
    if _is_run_id(name) and Path(_STORE).is_dir():
        return Path(_STORE), name
    raise BadStore(what=f"there is no folder {name}", next=f"give {RUNS_HELP}")


def _read_lines(path: Path, warn_unread: Callable[[TunemarkError], None]) -> list[Result]:
    from tunemark.report.loading import decode_any_schema

    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        advice = "write it again with `tunemark report`"
        raise BadStore(what=f"cannot read {path}", why=str(error), next=advice) from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(decode_any_schema(line))
            except ValueError as error:
                warn_unread(BadStore(what=f"{path}, line {number} is not a result", why=str(error)))
    return found


def _is_run_id(word: str) -> bool:
    return len(word) >= 4 and set(word) <= set("0123456789abcdef")
