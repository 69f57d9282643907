"""`tunemark scale`: measure an experiment's sizes, or take runs that are there, and say how the rate scales.

Standard output is the result, standard error the progress. The sizes are carried out as `tunemark run` would.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.folders import HELP, runs_in
from tunemark.cli.plan import experiment_arguments, experiment_from, print_plans
from tunemark.cli.run import carried_out
from tunemark.errors import BadExperiment, BadStore
from tunemark.experiment import points, resolve_all, scale_points
from tunemark.experiment.scale import Mode
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.results import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        choices=("strong", "weak"),
        help="required. strong: the same global batch at every size. weak: the same batch for each data rank",
    )
    parser.add_argument("--from", dest="folders", nargs="+", metavar="DIR", help=f"measure nothing; take runs: {HELP}")
    parser.add_argument("--predict", metavar="N,...", help="predict these sizes too, where a law is fitted")
    parser.add_argument(
        "--knee",
        metavar="X",
        help="a knee is where more units add less than this share of the first ones' (default: 0.5)",
    )
    experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    mode = _mode(args.mode)
    predict, knee = _sizes(args.predict), _share(args.knee)
    if args.folders is not None:
        if args.experiment is not None:
            raise BadExperiment(
                what="an experiment and --from",
                why="--from takes runs that are there and measures nothing",
                next=f"leave {args.experiment} out, or --from",
            )
        catalog = Catalog()
        every = [result for name in args.folders for result in runs_in(name, catalog)]
        # A run that two folders have in the very same form is one run.
        results = [result for i, result in enumerate(every) if result not in every[:i]]
        return _shown(results, mode, predict, knee, args.output, bool(args.json), catalog, from_folders=True)

    catalog = Catalog()
    experiment = experiment_from(args)
    chosen, notes = scale_points(points(experiment), catalog, mode)
    plans = resolve_all(chosen, catalog)
    for words in dict.fromkeys([*notes, *(note for plan in plans for note in plan.notes)]):
        _say(words)
    if experiment.dry_run:
        if not experiment.json:
            print(f"{mode.capitalize()} scaling\n")
        print_plans(plans, json=experiment.json)
        return 0
    measured = carried_out(experiment, plans, catalog)
    code = _shown(measured.runs, mode, predict, knee, experiment.output, experiment.json, catalog, from_folders=False)
    return 130 if measured.is_interrupted else code


def _shown(
    results: list[Result] | tuple[Result, ...],
    mode: Mode,
    predict: list[float],
    knee: float,
    output: str | None,
    json: bool,
    catalog: Catalog,
    *,
    from_folders: bool,
) -> int:
    # Heavy, and not needed by --dry-run or --help.
    from tunemark.analysis.scaling import encode_scaling, scalings
    from tunemark.report import exit_code, verdict_line, write
    from tunemark.report.scaling import SCALING_NOTES, scaling_text
    from tunemark.results import Store

    found = scalings(results, mode, predict=predict, knee=knee)
    if from_folders:
        if not found:
            raise BadStore(
                what=f"no two of these {len(results)} runs show {mode} scaling",
                why=_nearest(results, mode),
                next="`tunemark scale EXPERIMENT --mode ...` measures sizes that belong together",
            )
        taken = {point.run_id for scaling in found for point in scaling.points}
        results = [result for result in results if result.run_id in taken]
    if output is not None and results:
        folder = Path(output)
        Store.prove_folder(folder)
        write(results, folder, catalog, scalings=found)
        _say(f"the report is in {output.rstrip('/')}/")
    if json:
        for scaling in found:
            print(encode_scaling(scaling))
    else:
        for scaling in found:
            print(scaling_text(scaling))
        for note in SCALING_NOTES:
            print(note)
        print()
        for result in results:
            print(verdict_line(result))
    return exit_code(results)


def _nearest(results: list[Result] | tuple[Result, ...], mode: Mode) -> str:
    from tunemark.analysis.scaling import apart

    return apart(results, mode)


def _mode(word: str | None) -> Mode:
    if word is None:
        raise BadExperiment(
            what="strong or weak scaling?",
            why="they answer different questions: strong keeps the global batch at every size (the same problem, "
            "sooner), weak keeps the batch of each data rank (a problem that grows)",
            next="--mode strong, or --mode weak",
        )
    return "strong" if word == "strong" else "weak"


def _sizes(text: str | None) -> list[float]:
    found = []
    for word in text.split(",") if text else []:
        try:
            number = float(word)
        except ValueError:
            number = 0.0
        if not 0 < number < 1e9:
            raise BadExperiment(
                what=f"--predict cannot be {word!r}", why="a size is a number of chips", next="--predict 16,32"
            )
        found.append(number)
    return found


def _share(text: str | None) -> float:
    if text is None:
        return 0.5
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise BadExperiment(what=f"--knee cannot be {text!r}", why="it is a share between 0 and 1", next="--knee 0.5")
    return number


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
