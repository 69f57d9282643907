"""What a word on the command line names: the runs of a store, of a report's folder, or one run in either."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.errors import BadStore, TunemarkError
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.results import Result

# Where `tunemark run` keeps attempts unless it is told otherwise.
_STORE = "runs"
HELP = (
    "a store (runs/), a folder that -o wrote, one run's folder in a store, or FOLDER:RUN with the beginning of a run's "
    "id (of runs/ the id alone)"
)


def once(results: Sequence[Result]) -> list[Result]:
    """The results without those that another folder has of the very same attempts."""
    found = {(r.run_id, tuple(row.name for row in r.each_attempt)): r for r in reversed(results)}
    return list(reversed(found.values()))


def runs_in(name: str, catalog: Catalog, *, every_series: bool = False) -> list[Result]:
    """The results that `name` stands for, the oldest first; `BadStore` where there is none. What cannot be read is said
    on standard error, and the others are given.

    every_series: of a store, what was measured before a run was measured anew, too.
    """
    # Heavy, and not needed by --help.
    from tunemark.report.write import RUNS
    from tunemark.results import Store

    def unread(error: TunemarkError) -> None:
        print(f"not read: {error}", file=sys.stderr)

    folder, wanted = _folder(name)
    if folder.is_file() and folder.name == RUNS:
        folder = folder.parent
    if folder.is_file():
        raise BadStore(what=f"{name} is a file", why=f"runs are read from a folder's {RUNS} or its attempts", next=HELP)
    if (folder / RUNS).exists():
        found = _lines(folder / RUNS, unread)
    elif any(folder.glob("*/attempt.json")):
        run = folder.absolute()
        found = Store(run.parent).results(catalog, every_series=every_series, folder=run.name, broken=unread)
    else:
        found = Store(folder).results(catalog, every_series=every_series, broken=unread)
    if not found:
        raise BadStore(
            what=f"{folder} holds no runs",
            why=f"it has neither {RUNS} nor any attempt that could be read",
            next="give the folder of `tunemark run --store` (by default runs) or of its -o",
        )
    if not wanted:
        return found
    of_id = [result for result in found if result.run_id.startswith(wanted)]
    if not of_id:
        ids = ", ".join(dict.fromkeys(result.run_id for result in found))
        raise BadStore(what=f"{folder} holds no run {wanted}", next=f"its runs: {ids[:400]}")
    return of_id


def home_of(name: str) -> Path:
    """The store or the report's folder that holds the runs that `name` stands for."""
    from tunemark.report.write import RUNS  # heavy, and not needed by --help

    folder, _ = _folder(name)
    if folder.is_file():
        return folder.parent
    is_run = not (folder / RUNS).exists() and any(folder.glob("*/attempt.json"))
    return folder.absolute().parent if is_run else folder


def _folder(name: str) -> tuple[Path, str]:
    """The folder that a word names, and the beginning of a run's id in it."""
    if Path(name).exists():
        return Path(name), ""
    front, colon, back = name.rpartition(":")
    if colon and Path(front).is_dir():
        return Path(front), back
    if _is_id(name) and Path(_STORE).is_dir():
        return Path(_STORE), name
    raise BadStore(what=f"there is no folder {name}", next=f"give {HELP}")


def _lines(path: Path, unread: Callable[[TunemarkError], None]) -> list[Result]:
    from tunemark.report.reading import tolerant

    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadStore(
            what=f"cannot read {path}", why=str(error), next="write it anew with `tunemark report`"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(tolerant(line))
            except ValueError as error:
                unread(BadStore(what=f"{path}, line {number} is no result", why=str(error)))
    return found


def _is_id(word: str) -> bool:
    return len(word) >= 4 and set(word) <= set("0123456789abcdef")
