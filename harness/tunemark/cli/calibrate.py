"""`tunemark calibrate`: measure the constants of a device and store them for predictions on this machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.plugin import Catalog
from tunemark_worker.precision import PRECISIONS

if TYPE_CHECKING:
    from tunemark.predict.calibration import Calibration
    from tunemark.predict.learned_constants import LearnedConstants

EXAMPLES = (("tunemark calibrate --device cuda:2", "measure what predictions for this device rest on"),)


# Runs of one chip and trainer with which a step time can be held out.
MIN_LEARNED_RUNS = 3

# Those whose products are measured alone, which fp8's are not.
_PRECISIONS = [name for name, each in PRECISIONS.items() if not each.float8]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or rocm; a size may follow: cpu:2")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="RUNS",
        help="instead of measuring, learn from runs: a store, a report, or a CSV of rows with their step times",
    )
    parser.add_argument("--size", metavar="N", help="size of the accelerator (default: the device's default)")
    words = f"precision of the training steps: {', '.join(_PRECISIONS)}"
    parser.add_argument("--precision", default="bf16-autocast", metavar="NAME", help=words)
    parser.add_argument("--oversubscribe", action="store_true", help="allow a size larger than this machine has")
    parser.add_argument("--json", action="store_true", help="print one JSON object per job shape")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.runner.calibration import calibrate
    from tunemark.runner.interruption import sigterm_as_interrupt

    if args.source is not None:
        return _learn(args)
    if args.device is None:
        raise BadExperiment(
            what="nothing to calibrate", next="give --device to measure one, or --from runs to learn from"
        )
    if args.precision not in _PRECISIONS:
        raise BadExperiment(what=f"precision cannot be {args.precision!r}", next=f"one of: {', '.join(_PRECISIONS)}")
    device, colon, size = str(args.device).partition(":")
    if colon and args.size is not None:
        raise BadExperiment(what=f"the size is given twice: {args.device!r} and {args.size!r}", next="give it once")
    with sigterm_as_interrupt():
        calibrations = calibrate(
            device,
            size or args.size,
            Catalog(),
            precision=args.precision,
            oversubscribe=args.oversubscribe,
            say=print_message,
        )
    for one in calibrations:
        if args.json:
            print_json(json.dumps(asdict(one)))
        else:
            print_result(_text(one))
    return 0


def _learn(args: argparse.Namespace) -> int:
    """Learn each chip's constants from its runs; keep them where runs that were left out are predicted better."""
    from tunemark.predict.learned_constants import MeasuredStep, learn, store_learned
    from tunemark.runner.measured_steps import read_measured_steps

    given = [f"--{name}" for name in ("device", "size") if getattr(args, name) is not None]
    if given:
        raise BadExperiment(what=f"{given[0]} and --from exclude each other", next="leave one of them out")
    steps, left = read_measured_steps(Path(args.source), Catalog())
    for words in left[:10]:
        print_message(f"left out: {words}")
    if len(left) > 10:
        print_message(f"and {len(left) - 10} more")
    groups: dict[tuple[str, str], list[MeasuredStep]] = {}
    for each in steps:
        groups.setdefault(each.key, []).append(each)
    found: list[LearnedConstants] = []
    for (chip, framework), members in groups.items():
        if len(members) < MIN_LEARNED_RUNS:
            print_message(f"{chip}, {framework}: {len(members)} runs are too few to learn from: {MIN_LEARNED_RUNS}")
            continue
        one = learn(members)
        found.append(one)
        if one.is_gain:
            print_message(f"{chip}, {framework}: kept as {store_learned(one)}")
        else:
            print_message(f"{chip}, {framework}: not kept, because it predicts runs that were left out no better")
    if not found:
        raise BadExperiment(
            what=f"nothing to learn from in {args.source}",
            why=left[0] if left else f"{len(steps)} runs",
            next=f"{MIN_LEARNED_RUNS} measured runs of one chip and one trainer, or more",
        )
    for one in found:
        print_json(json.dumps(asdict(one)) if args.json else _learned_text(one))
    return 0


def _learned_text(one: LearnedConstants) -> str:
    from tunemark.markdown import markdown_table
    from tunemark.number_format import format_percent, format_significant

    rows = [
        ("error of a step time with the shipped constants (%)", format_percent(one.shipped, ".1f")),
        ("error of runs that were left out, learned from the others (%)", format_percent(one.held_out, ".1f")),
        ("residual, one standard deviation (%)", format_significant(100 * one.residual, 2)),
        *((f"factor on {name}", format_significant(factor, 3)) for name, factor in one.moves.items()),
    ]
    title = f"{one.chip}, trainer {one.framework}: learned from {one.runs} runs"
    return f"{title}\n\n{markdown_table(['figure', 'value'], rows, '<>')}\n"


def _text(one: Calibration) -> str:
    """The fitted constants, and the prediction error of each probe."""
    from tunemark.markdown import markdown_table
    from tunemark.number_format import format_giga, format_percent, format_significant
    from tunemark.predict.calibration import SELECTIVE

    f, e = one.facts, one.facts.efficiency
    products = [
        (f"matrix products, {n} (GFLOP/s)", format_giga(p * e.gemm.get(n, 1.0))) for n, p in f.peak_flops.items()
    ]
    figures = [
        *products,
        ("lost at matrix edges (rows)", format_significant(e.gemm_tile, 2)),
        ("attention (share of the 16-bit peak)", format_significant(e.attention, 2)),
        ("memory (GB/s)", format_giga(f.bandwidth_bytes_per_s * e.memory)),
        ("launch of one operation (us)", format_significant(1e6 * e.host_s, 2)),
        ("fixed cost of a step (ms)", format_significant(1e3 * e.step_s, 2)),
    ]
    if one.fingerprint.processes > 1:
        figures += [
            ("collectives (GB/s)", format_giga(f.intra_bytes_per_s * e.intra)),
            ("latency of collectives (us)", format_significant(1e6 * f.intra_s, 2)),
        ]
    for name, each in one.mechanisms.items():
        if name != SELECTIVE:
            figures.append(
                (f"{name}: factor on the predicted communication", format_significant(each.communication, 2))
            )
        figures.append((f"{name}: extra time per unit (ms)", format_significant(1e3 * each.unit_s, 2)))
    figures.append(("residual of the step time (%, one standard deviation)", format_significant(100 * f.residual, 2)))
    key = one.fingerprint
    title = f"{key.device}, {key.chip}: {key.processes} process(es) of {key.threads} thread(s), torch {key.torch}"
    probes = []
    for p in one.probes:
        error = format_percent(p.predicted_s / p.measured_s - 1, "+.0f")
        probes.append([p.name, format_significant(p.measured_s, 3), format_significant(p.predicted_s, 3), error])
    return "\n".join(
        [
            title,
            "",
            markdown_table(["constant", "value"], figures, "<>"),
            "",
            markdown_table(["probe", "measured (s)", "fitted (s)", "error (%)"], probes, "<>"),
            "",
            f"measured in {one.seconds:.0f} s; valid for this device, chip, processes, threads, torch, "
            "allocator and formulas",
            "",
        ]
    )
