"""`tunemark scale`: measure an experiment's sizes, or take runs that are there, and say how the rate scales.

Standard output is the result, standard error the progress. The sizes are carried out as `tunemark run` would.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
    from tunemark.analysis.scaling import Scaling
    from tunemark.results import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark scale [EXPERIMENT.toml | --from DIR...] --mode strong|weak [OPTIONS]"
    parser.add_argument(
        "--mode",
        choices=("strong", "weak"),
        help="required. strong: the same global batch at every size; weak: the same batch for each data rank",
    )
    parser.add_argument("--from", dest="folders", nargs="+", metavar="DIR", help=f"measure nothing; take runs: {HELP}")
    parser.add_argument("--predict", metavar="N,...", help="predict these sizes too, where a law is fitted")
    parser.add_argument("--prices", metavar="FILE.toml", help="prices of an hour, for the cheapest size")
    words = "a knee is where more units add less than this share of what the first ones do, each (default: 0.5)"
    parser.add_argument("--knee", metavar="X", help=words)
    experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    mode = _mode(args.mode)
    catalog = Catalog()
    if args.folders is not None:
        if args.experiment is not None:
            raise BadExperiment(
                what="an experiment and --from",
                why="--from takes runs that are there and measures nothing",
                next=f"leave {args.experiment} out, or --from",
            )
        every = [result for name in args.folders for result in runs_in(name, catalog)]
        # A run that two folders have in the very same form is one run.
        results = [result for i, result in enumerate(every) if result not in every[:i]]
        found = _scalings(results, mode, args)
        if not found:
            _refuse(results, mode)
        taken = {point.run_id for scaling in found for point in scaling.points}
        results = [result for result in results if result.breakdown or result.run_id in taken]
        return _shown(results, found, args.output, bool(args.json), catalog, args.folders, args.prices)

    experiment = experiment_from(args)
    _asked(args)
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
    found = _scalings(measured.runs, mode, args)
    code = _shown(measured.runs, found, experiment.output, experiment.json, catalog, [experiment.store], args.prices)
    return 130 if measured.is_interrupted else code


def _scalings(results: Sequence[Result], mode: Mode, args: argparse.Namespace) -> tuple[Scaling, ...]:
    # Heavy, and not needed by --dry-run or --help.
    from tunemark.analysis.prices import read_prices
    from tunemark.analysis.scaling import KNEE, scalings

    predict, knee = _asked(args)
    prices = read_prices(args.prices) if args.prices is not None else None
    return scalings(results, mode, predict=predict, knee=KNEE if knee is None else knee, prices=prices)


def _shown(
    results: Sequence[Result],
    found: Sequence[Scaling],
    output: str | None,
    json: bool,
    catalog: Catalog,
    folders: Sequence[str],
    prices_file: str | None,
) -> int:
    from tunemark.analysis.prices import read_prices
    from tunemark.analysis.scaling import encode_scaling
    from tunemark.report import exit_code, verdict_line, write
    from tunemark.report.reading import traces_in
    from tunemark.report.scaling import SCALING_NOTES, scaling_text
    from tunemark.results import Store

    if output is not None and results:
        Store.prove_folder(Path(output))
        prices = read_prices(prices_file) if prices_file is not None else None
        write(results, Path(output), catalog, traces=traces_in(folders, results), scalings=found, prices=prices)
        _say(f"the report is in {output.rstrip('/')}/")
    if json:
        for scaling in found:
            print(encode_scaling(scaling))
        return exit_code(results)
    for scaling in found:
        print(scaling_text(scaling))
    print("\n".join([*SCALING_NOTES, ""]))
    for result in results:
        print(verdict_line(result))
    return exit_code(results)


def _refuse(results: Sequence[Result], mode: Mode) -> None:
    from tunemark.analysis.scaling import apart

    raise BadStore(
        what=f"no two of these {len(results)} runs show {mode} scaling",
        why=apart(results, mode),
        next="`tunemark scale EXPERIMENT.toml --mode ...` measures sizes that belong together",
    )


def _mode(word: str | None) -> Mode:
    if word is None:
        raise BadExperiment(
            what="strong or weak scaling?",
            why="they answer different questions: strong keeps the global batch at every size (the same problem, "
            "sooner), weak keeps the batch of each data rank (a problem that grows)",
            next="--mode strong, or --mode weak",
        )
    return "strong" if word == "strong" else "weak"


def _asked(args: argparse.Namespace) -> tuple[list[float], float | None]:
    """The sizes to predict, and the share that a knee lies below; what is neither is refused before any work."""
    if args.prices is not None:
        from tunemark.analysis.prices import read_prices  # only where there are some

        read_prices(args.prices)
    predict = []
    for word in args.predict.split(",") if args.predict else []:
        number = _number(word)
        if not 0 < number < 1e9:
            why = "a size to predict is a number of chips, or of devices where chips are not known"
            raise BadExperiment(what=f"--predict cannot be {word!r}", why=why, next="--predict 16,32")
        predict.append(number)
    if args.knee is None:
        return predict, None
    knee = _number(args.knee)
    if not 0 < knee < 1:
        why = "it is a share between 0 and 1"
        raise BadExperiment(what=f"--knee cannot be {args.knee!r}", why=why, next="--knee 0.5")
    return predict, knee


def _number(text: str) -> float:
    """0 where it is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
