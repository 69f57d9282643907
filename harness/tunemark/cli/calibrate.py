"""`tunemark calibrate`: measure the constants of a device and store them for predictions on this machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_message
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.plugin import Catalog
from tunemark_worker.precision import PRECISIONS

if TYPE_CHECKING:
    from tunemark.predict.calibration import Calibration

EXAMPLES = (("tunemark calibrate --device cuda:2", "measure what predictions for this device rest on"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", required=True, metavar="NAME", help="cpu, cuda or rocm; a size may follow: cpu:2")
    parser.add_argument("--size", metavar="N", help="size of the accelerator (default: the device's default)")
    words = f"precision of the training steps: {', '.join(PRECISIONS)}"
    parser.add_argument("--precision", default="bf16-autocast", metavar="NAME", help=words)
    parser.add_argument("--oversubscribe", action="store_true", help="allow a size larger than this machine has")
    parser.add_argument("--json", action="store_true", help="print one JSON object per job shape")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.runner.calibration import calibrate
    from tunemark.runner.interruption import sigterm_as_interrupt

    if args.precision not in PRECISIONS:
        raise BadExperiment(what=f"precision cannot be {args.precision!r}", next=f"one of: {', '.join(PRECISIONS)}")
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
            print(json.dumps(asdict(one)))
        else:
            print_result(_text(one))
    return 0


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
