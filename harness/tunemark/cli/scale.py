"""`tunemark scale`: measure an experiment's sizes, or take runs that are there, and say how the rate scales.

Standard output is the result, standard error the progress. The sizes are carried out as `tunemark run` would.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.folders import HELP, once, runs_in
from tunemark.cli.plan import experiment_arguments, experiment_from, print_resolved
from tunemark.cli.run import carried_out
from tunemark.errors import BadExperiment, BadStore, TunemarkError
from tunemark.experiment import SETTINGS, Experiment, points, resolve_all, scale_points
from tunemark.experiment.scale import Mode
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.analysis.prices import Prices
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
    words = "a knee is where more units add less than this share of what the first ones do, each (default: 0.5)"
    parser.add_argument("--knee", metavar="X", help=words)
    experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    mode = _mode(args.mode)
    catalog = Catalog()
    if args.folders is not None and args.experiment is not None:
        raise BadExperiment(
            what="an experiment and --from",
            why="--from takes runs that are there and measures nothing",
            next=f"leave {args.experiment} out, or --from",
        )
    experiment = experiment_from(args)
    if args.folders is not None:
        _check_from(args)
        results = once([result for name in args.folders for result in runs_in(name, catalog)])
        found = _scalings(results, mode, args, experiment)
        if not found:
            _refuse(results, mode)
        taken = {point.run_id for scaling in found for point in scaling.points}
        results = [result for result in results if result.breakdown or result.run_id in taken]
        return _shown(results, found, experiment, catalog, args.folders)

    _asked(args, experiment)
    chosen, notes = scale_points(points(experiment), catalog, mode)
    plans = resolve_all(chosen, catalog)
    for words in dict.fromkeys([*catalog.remarks(), *notes, *(note for plan in plans for note in plan.notes)]):
        _say(words)
    if experiment.dry_run:
        if not experiment.json:
            print(f"{mode.capitalize()} scaling\n")
        return print_resolved(plans, catalog, json=experiment.json)
    measured = carried_out(experiment, plans, catalog)
    found = _scalings(measured.runs, mode, args, experiment)
    code = _shown(measured.runs, found, experiment, catalog, [experiment.store])
    if measured.is_interrupted:
        return 130
    if not found:
        # Sizes that turned out to be of unlike machines, say.
        _say(f"tunemark: no two of these runs show {mode} scaling: {_apart(measured.runs, mode)}")
        return code or 3
    return code


def _scalings(
    results: Sequence[Result], mode: Mode, args: argparse.Namespace, experiment: Experiment
) -> tuple[Scaling, ...]:
    # Heavy, and not needed by --dry-run or --help.
    from tunemark.analysis.scaling import KNEE, scalings

    predict, knee = _asked(args, experiment)
    prices = _prices(experiment)
    found = scalings(results, mode, predict=predict, knee=KNEE if knee is None else knee, prices=prices)
    for scaling in found if predict else ():
        told = {p.units for p in scaling.fitted.predictions} if scaling.fitted else set()
        if not_told := [f"{n:g}" for n in predict if n not in told]:
            why = "within the sizes that were measured" if scaling.fitted else "no law is fitted"
            _say(f"{scaling.title}: not predicted: {', '.join(not_told)} ({why})")
    return found


def _shown(
    results: Sequence[Result],
    found: Sequence[Scaling],
    experiment: Experiment,
    catalog: Catalog,
    folders: Sequence[str],
) -> int:
    from tunemark.analysis.scaling import encode_scaling
    from tunemark.report import exit_code, verdict_lines, write
    from tunemark.report.reading import traces_in
    from tunemark.report.scaling import SCALING_NOTES, scaling_text
    from tunemark.report.words import language
    from tunemark.results import Store

    output, code = experiment.output, exit_code(results)
    if output is not None and results:
        try:
            Store.prove_folder(Path(output))
            write(
                results,
                Path(output),
                catalog,
                traces=traces_in(folders, results),
                scalings=found,
                prices=_prices(experiment),
                language=language(experiment.language),
            )
            _say(f"the report is in {output.rstrip('/')}/")
        except TunemarkError as error:
            # What was measured is told all the same.
            _say(f"tunemark: {error}")
            code = 2
    if experiment.json:
        for scaling in found:
            print(encode_scaling(scaling))
        return code
    for scaling in found:
        print(scaling_text(scaling))
    print("\n".join([*SCALING_NOTES, ""]))
    for line in verdict_lines(results):
        print(line)
    return code


# Settings that say how runs are shown; all others say what is measured.
_SHOWING = ("json", "output", "language", "prices")


def _check_from(args: argparse.Namespace) -> None:
    given = [s.flag for s in SETTINGS if s.name not in _SHOWING and getattr(args, s.name) is not None]
    if given:
        raise BadExperiment(
            what=f"{given[0]} and --from",
            why="--from takes runs as they are: all of a store's, or FOLDER:RUN for one of them",
            next=f"leave {given[0]} out, or --from",
        )


def _refuse(results: Sequence[Result], mode: Mode) -> None:
    raise BadStore(
        what=f"no two of these {len(results)} runs show {mode} scaling",
        why=_apart(results, mode),
        next="`tunemark scale EXPERIMENT.toml --mode ...` measures sizes that belong together",
    )


def _apart(results: Sequence[Result], mode: Mode) -> str:
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


def _prices(experiment: Experiment) -> Prices | None:
    if experiment.prices is None:
        return None
    from tunemark.analysis.prices import read_prices  # only where there are some

    return read_prices(experiment.prices)


def _asked(args: argparse.Namespace, experiment: Experiment) -> tuple[list[float], float | None]:
    """The sizes to predict, and the share that a knee lies below; what is neither is refused before any work."""
    _prices(experiment)
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
