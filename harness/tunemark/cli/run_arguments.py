"""Reads the runs that a command-line argument names: those of a store or of a report folder, or one run of either."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_message
from tunemark.errors import BadStore
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.loading import LoadedRuns
    from tunemark.results import ImportedClaim, Result

# The default store of `tunemark run`.
_STORE = "runs"
RUNS_HELP = (
    "a store (runs/), a report folder written by -o, one run's folder in a store, or FOLDER:RUN with the beginning of "
    "a run's id (for runs/, the id alone)"
)


def add_seal_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag --despite-seal, for commands that refuse touched runs."""
    words = "use runs whose files were touched after they were measured, which are otherwise refused"
    parser.add_argument("--despite-seal", action="store_true", help=words)


def refuse_touched(results: Sequence[Result]) -> None:
    """Raise `BadStore` where the files of a run are not what was measured."""
    touched = {r.run_id: f.message for r in results if r.seal == "touched" for f in r.findings if f.rule == "touched"}
    if touched:
        raise BadStore(
            what=f"{len(touched)} of {len({r.run_id for r in results})} runs were touched after they were measured",
            why="; ".join(f"{run_id}: {message}" for run_id, message in list(touched.items())[:3]),
            next="`tunemark verify` lists them; measure them again, or use them all the same by --despite-seal",
        )


def read_all_runs(names: Sequence[str], catalog: Catalog, *, every_series: bool = False) -> list[Result]:
    """The results that several names stand for, each once."""
    from tunemark.loading import remove_duplicates

    return remove_duplicates([r for name in names for r in read_runs(name, catalog, every_series=every_series)])


def read_runs_or_claims(names: Sequence[str], catalog: Catalog) -> tuple[list[Result], list[ImportedClaim]]:
    """The results and the imported claims that several names stand for; raises `BadStore` if there are neither."""
    claims = _read_imported_claims(names)
    try:
        return read_all_runs(names, catalog), claims
    except BadStore:
        if not claims:
            raise
        return [], claims


def _read_imported_claims(names: Sequence[str]) -> list[ImportedClaim]:
    """The imported claims that stores, reports and their folders hold, each once."""
    from tunemark.results import read_stored_claims

    found: list[ImportedClaim] = []
    for name in names:
        folder, _ = _split_name(name)
        folder = folder if folder.is_dir() else folder.parent
        found += [row for row in read_stored_claims(folder) if row not in found]
    return found


def read_runs(name: str, catalog: Catalog, *, every_series: bool = False) -> list[Result]:
    """The results that `name` stands for, oldest first. Unreadable ones are named on standard error and skipped; raises
    `BadStore` if there are none. every_series: include a store's series from before a run was measured again."""
    # Heavy, and not needed by --help.
    from tunemark.analysis import judge
    from tunemark.loading import RESULTS_FILE, load_results

    folder, wanted = _split_name(name)
    if folder.is_file() and folder.name == RESULTS_FILE:
        folder = folder.parent
    if folder.is_file():
        raise BadStore(
            what=f"{name} is a file",
            why=f"runs are read from a folder's {RESULTS_FILE} or its attempts",
            next=RUNS_HELP,
        )
    by, warn = partial(judge, catalog=catalog), lambda error: print_message(f"not read: {error}")
    found = load_results(folder, by, every_series=every_series, unread=warn)
    if not found:
        raise BadStore(
            what=f"{folder} holds no runs",
            why=f"it has neither {RESULTS_FILE} nor any attempt that could be read",
            next="give the folder of `tunemark run --store` (by default runs) or of its -o",
        )
    if not wanted:
        return found
    matching = [result for result in found if result.run_id.startswith(wanted)]
    if not matching:
        ids = ", ".join(dict.fromkeys(result.run_id for result in found))
        raise BadStore(what=f"{folder} holds no run {wanted}", next=f"its runs: {ids[:400]}")
    return matching


def load_folders(names: Sequence[str], catalog: Catalog) -> LoadedRuns:
    """All runs of stores and report folders with the raw steps of the first of them; what cannot be read is named on
    standard error. Raises `BadStore` for a path that is no folder."""
    # Heavy, and not needed by --help.
    from tunemark.analysis import judge
    from tunemark.loading import load_runs

    found = load_runs([Path(name) for name in names], partial(judge, catalog=catalog))
    for each in found.unread:
        print_message(f"not read: {each.place}: {each.why}")
    return found


def find_runs_folder(name: str) -> Path:
    """The store or report folder that holds the runs that `name` stands for."""
    from tunemark.loading import find_store_folder  # heavy, and not needed by --help

    folder, _ = _split_name(name)
    return folder.parent if folder.is_file() else find_store_folder(folder)


def _split_name(name: str) -> tuple[Path, str]:
    """The folder that an argument names, and the beginning of a run's id in it, or ""."""
    if Path(name).exists():
        return Path(name), ""
    parent, colon, run_id = name.rpartition(":")
    if colon and Path(parent).is_dir():
        return Path(parent), run_id
    if re.fullmatch("[0-9a-f]{4,}", name) and Path(_STORE).is_dir():
        return Path(_STORE), name
    raise BadStore(what=f"there is no folder {name}", next=f"give {RUNS_HELP}")
