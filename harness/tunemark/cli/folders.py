"""What a word on the command line names: the runs of a store, of a report's folder, or one run in either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.errors import BadStore
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
    """The results that `name` stands for, the oldest first; `BadStore` where there is none.

    every_series: of a store, what was measured before a run was measured anew, too.
    """
    # Heavy, and not needed by --help.
    from tunemark.report import read
    from tunemark.report.write import RUNS
    from tunemark.results import Store

    folder, wanted = Path(name), ""
    if not folder.exists():
        front, colon, back = name.rpartition(":")
        if colon and Path(front).is_dir():
            folder, wanted = Path(front), back
        elif _is_id(name) and Path(_STORE).is_dir():
            folder, wanted = Path(_STORE), name
        else:
            raise BadStore(what=f"there is no folder {name}", next=f"give {HELP}")
    if folder.is_file() and folder.name == RUNS:
        folder = folder.parent
    if folder.is_file():
        raise BadStore(what=f"{name} is a file", why=f"runs are read from a folder's {RUNS} or its attempts", next=HELP)
    if (folder / RUNS).exists():
        found = read(folder)
    elif any(folder.glob("*/attempt.json")):
        run = folder.absolute()
        found = Store(run.parent).results(catalog, every_series=every_series, folder=run.name)
    else:
        found = Store(folder).results(catalog, every_series=every_series)
    if not found:
        raise BadStore(
            what=f"{folder} holds no runs",
            why=f"it has neither {RUNS} nor any attempt",
            next="give the folder of `tunemark run --store` (by default runs) or of its -o",
        )
    if not wanted:
        return found
    of_id = [result for result in found if result.run_id.startswith(wanted)]
    if not of_id:
        ids = ", ".join(dict.fromkeys(result.run_id for result in found))
        raise BadStore(what=f"{folder} holds no run {wanted}", next=f"its runs: {ids[:400]}")
    return of_id


def _is_id(word: str) -> bool:
    return len(word) >= 4 and set(word) <= set("0123456789abcdef")
