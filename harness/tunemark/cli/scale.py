"""`tunemark scale`: measure an experiment at several sizes, or take finished runs, and print how the rate scales.

Results go to standard output, progress to standard error. Sizes are measured as by `tunemark run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.experiment_arguments import add_experiment_arguments, parse_experiment
from tunemark.cli.messages import print_json, print_message, print_remarks
from tunemark.cli.plan import print_plans_and_searches
from tunemark.cli.run import add_quiet, add_verbose, measure_with_progress
from tunemark.cli.run_arguments import RUNS_HELP, read_runs_or_claims
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment, BadStore, TunemarkError
from tunemark.exit_codes import ExitCode, exit_code_of_results
from tunemark.experiment import SETTINGS, Experiment, assign_scaling_batches, make_grid_points, make_plans
from tunemark.experiment.scaling_batches import ScalingMode
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.analysis.prices import Prices
    from tunemark.analysis.scaling_types import Scaling
    from tunemark.results import ImportedClaim, Result

EXAMPLES = (
    (
        "tunemark scale --mode strong --device cuda:1,2,4,8 --strategy fsdp",
        "the same global batch at every size",
    ),
    ("tunemark scale --mode weak --from runs", "of runs that are finished"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark scale [EXPERIMENT | --from DIR...] --mode strong|weak [OPTIONS]"
    parser.add_argument(
        "--mode",
        choices=("strong", "weak"),
        help="required. strong: the same global batch at every size; weak: the same batch for each data rank",
    )
    parser.add_argument("--from", dest="folders", nargs="+", metavar="DIR", help=f"take finished runs: {RUNS_HELP}")
    parser.add_argument("--predict", metavar="N,...", help="also predict these sizes, if a law is fitted")
    words = "the knee is where an added unit brings less than this fraction of what a first one does (default: 0.5)"
    parser.add_argument("--knee", metavar="X", help=words)
    add_experiment_arguments(parser)
    add_quiet(parser)
    add_verbose(parser)


def execute(args: argparse.Namespace) -> int:
    mode = _parse_mode(args.mode)
    catalog = Catalog()
    if args.folders is not None and args.experiment is not None:
        raise BadExperiment(
            what="an experiment and --from",
            why="--from takes finished runs and measures nothing",
            next=f"leave {args.experiment} out, or --from",
        )
    experiment = parse_experiment(args)
    if args.folders is not None:
        _check_from(args)
        results, claims = read_runs_or_claims(args.folders, catalog)
        found = _compute_scalings(results, mode, args, experiment)
        is_published = _print_claims(claims, mode, experiment)
        if not found and is_published:
            return ExitCode.SUCCESS
        if not found:
            _raise_no_scaling(results, mode)
        used = {point.run_id for scaling in found for point in scaling.points}
        results = [result for result in results if result.breakdown or result.run_id in used]
        return _print_scalings(results, found, experiment, catalog, args.folders)

    _parse_predict_and_knee(args, experiment)
    scaled, notes = assign_scaling_batches(make_grid_points(experiment), catalog, mode)
    plans = make_plans(scaled, catalog)
    from tunemark.launch.interpreter import check_plans  # starts processes, not needed by --help

    print_remarks(catalog, plans, [*notes, *(check_plans(plans) if experiment.dry_run else ())])
    if experiment.dry_run:
        if not experiment.json:
            print(f"{mode.capitalize()} scaling\n")
        return print_plans_and_searches(plans, catalog, experiment, verbose=args.verbose)
    measured = measure_with_progress(experiment, plans, catalog, quiet=args.quiet, verbose=args.verbose)
    found = _compute_scalings(measured.runs, mode, args, experiment)
    code = _print_scalings(measured.runs, found, experiment, catalog, [experiment.store])
    if measured.is_interrupted:
        return ExitCode.INTERRUPTED
    if measured.refused is not None:
        return ExitCode.USAGE
    if not found:
        from tunemark.analysis.scaling import describe_nearest_difference

        # For example, the sizes turned out to be on different machines.
        why = describe_nearest_difference(measured.runs, mode)
        print_message(f"tunemark: no two of these runs show {mode} scaling: {why}")
        return code or ExitCode.UNKNOWN
    return code


def _print_claims(claims: Sequence[ImportedClaim], mode: ScalingMode, experiment: Experiment) -> bool:
    """Print how published figures scale; False if no two of them show it."""
    from tunemark.analysis.claim_scaling import scale_claims
    from tunemark.report.claim_scaling_text import claim_scaling_text

    found = scale_claims(claims, mode)
    if found and experiment.json:
        import msgspec

        print_json(msgspec.json.encode(found).decode())
    elif found:
        print_result(claim_scaling_text(found, mode))
    return bool(found)


def _compute_scalings(
    results: Sequence[Result], mode: ScalingMode, args: argparse.Namespace, experiment: Experiment
) -> tuple[Scaling, ...]:
    # Heavy, and not needed by --dry-run or --help.
    from tunemark.analysis.scaling import KNEE, compute_scalings

    predict, knee = _parse_predict_and_knee(args, experiment)
    prices = _prices(experiment)
    found = compute_scalings(results, mode, predict=predict, knee=KNEE if knee is None else knee, prices=prices)
    for scaling in found if predict else ():
        predicted = {p.units for p in scaling.fitted.predictions} if scaling.fitted else set()
        if missing := [f"{n:g}" for n in predict if n not in predicted]:
            why = "within the sizes that were measured" if scaling.fitted else "no law is fitted"
            print_message(f"{scaling.title}: not predicted: {', '.join(missing)} ({why})")
    return found


def _print_scalings(
    results: Sequence[Result],
    found: Sequence[Scaling],
    experiment: Experiment,
    catalog: Catalog,
    folders: Sequence[str],
) -> int:
    from tunemark.analysis.scaling_types import encode_scaling
    from tunemark.loading import load_traces
    from tunemark.report import verdict_lines, write_report
    from tunemark.report.scaling_text import SCALING_NOTES, scaling_text
    from tunemark.report.translation import parse_language
    from tunemark.results import Store

    output, code = experiment.output, exit_code_of_results(results)
    if output is not None and results:
        try:
            Store.prove_folder(Path(output))
            write_report(
                results,
                Path(output),
                catalog,
                traces=load_traces([Path(name) for name in folders], results),
                scalings=found,
                prices=_prices(experiment),
                language=parse_language(experiment.language),
                is_redacted=not experiment.no_redact,
            )
            print_message(f"the report is in {output.rstrip('/')}/")
        except TunemarkError as error:
            # What was measured is printed all the same.
            print_message(f"tunemark: {error}")
            code = ExitCode.USAGE
    if experiment.json:
        for scaling in found:
            print_json(encode_scaling(scaling))
        return code
    for scaling in found:
        print_result(scaling_text(scaling))
    print_result("\n".join([*SCALING_NOTES, "", *verdict_lines(results)]))
    return code


# Settings of the output; all others decide what is measured.
_OUTPUT_SETTINGS = ("json", "output", "language", "no_redact", "prices")


def _check_from(args: argparse.Namespace) -> None:
    given = [s.flag for s in SETTINGS if s.name not in _OUTPUT_SETTINGS and getattr(args, s.name) is not None]
    if given:
        raise BadExperiment(
            what=f"{given[0]} and --from",
            why="--from takes runs as they are: all of a store's, or FOLDER:RUN for one of them",
            next=f"leave {given[0]} out, or --from",
        )


def _raise_no_scaling(results: Sequence[Result], mode: ScalingMode) -> None:
    from tunemark.analysis.scaling import describe_nearest_difference

    raise BadStore(
        what=f"no two of these {len(results)} runs show {mode} scaling",
        why=describe_nearest_difference(results, mode),
        next="`tunemark scale EXPERIMENT --mode ...` measures sizes that can be compared",
    )


def _parse_mode(word: str | None) -> ScalingMode:
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
    from tunemark.analysis.prices import read_prices  # only needed with prices

    return read_prices(experiment.prices)


def _parse_predict_and_knee(args: argparse.Namespace, experiment: Experiment) -> tuple[list[float], float | None]:
    """Parse --predict and --knee, and prove that the prices can be read, before any work."""
    _prices(experiment)
    predict = []
    for word in args.predict.split(",") if args.predict else []:
        number = _parse_number(word)
        if not 0 < number < 1e9:
            why = "a size to predict is a number of chips, or of devices where chips are not known"
            raise BadExperiment(what=f"--predict cannot be {word!r}", why=why, next="--predict 16,32")
        predict.append(number)
    if args.knee is None:
        return predict, None
    knee = _parse_number(args.knee)
    if not 0 < knee < 1:
        why = "it is a fraction between 0 and 1"
        raise BadExperiment(what=f"--knee cannot be {args.knee!r}", why=why, next="--knee 0.5")
    return predict, knee


def _parse_number(text: str) -> float:
    """0 if the text is not a number."""
    try:
        return float(text)
    except ValueError:
        return 0.0
