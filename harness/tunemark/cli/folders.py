"""What a word on the command line names: the runs of a store, of a report's folder, or one run in either."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.errors import BadStore
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.results import Result

HELP = "a store (runs/), a folder that -o wrote, one run's folder in a store, or FOLDER:RUN with a run's id"


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
        if not colon or not Path(front).is_dir():
            raise BadStore(what=f"there is no folder {name}", next=f"give {HELP}")
        folder, wanted = Path(front), back
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
