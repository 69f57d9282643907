"""`tunemark audit`: check the rates that a log, a table or a running program claims against physics and the clock."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_message
from tunemark.cli.run_arguments import add_seal_argument, refuse_touched
from tunemark.cli.terminal import print_result
from tunemark.errors import BadData, BadExperiment
from tunemark.exit_codes import exit_code_of_verdicts
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.analysis import AuditedClaim, ParsedSource
    from tunemark.results import Result

# Words after `--` are a command to run, not arguments of tunemark.
TAKES_COMMAND = True

_CHUNK_BYTES = 1 << 16

EXAMPLES = (
    ("tunemark audit train.log --model mistral-7b --device H100-SXM --count 8", "can what the log says be true?"),
    ("tunemark audit -- python train.py", "the same, while it runs"),
    ("tunemark audit published.csv --json", "a table, one JSON object per row"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark audit [OPTIONS] FILE... | - | -- COMMAND..."
    parser.add_argument(
        "sources", nargs="*", metavar="FILE", help="log, table or store of runs; - reads standard input as it arrives"
    )
    parser.add_argument("--model", help="model that was trained (see `tunemark list models`)")
    parser.add_argument("--device", help="chip, by its product name: MI250, H100-SXM")
    parser.add_argument("--count", type=_parse_positive, help="number of devices, as packages are sold")
    parser.add_argument("--batch", type=_parse_positive, help="global batch: sequences per step of the whole job")
    parser.add_argument("--sequence", type=_parse_positive, help="sequence length, tokens (padding included)")
    parser.add_argument("--precision", help="precision of the matrix products: bf16, fp16, fp8, ...")
    parser.add_argument("--method", help="fine-tuning method: full or lora")
    parser.add_argument("--padding", type=_parse_fraction, help="fraction of slots that are padding, such as 0.39")
    parser.add_argument("--dataset", help="compute the padding fraction from this dataset, padded to one sequence each")
    parser.add_argument("--time", type=_parse_duration, help="stated duration of the whole training: 50m, 1.5h, 3000")
    add_seal_argument(parser)
    parser.add_argument("--store", metavar="DIR", help="also keep the claims in this store, marked imported")
    parser.add_argument("-o", "--output", metavar="DIR", help="write imported.jsonl and reports in every format to DIR")
    parser.add_argument("--json", action="store_true", help="print one JSON object per row or log")


def execute(args: argparse.Namespace) -> int:
    from tunemark.launch.observed_program import read_chunks

    # Its lines are stamped while all else is still being loaded.
    piped = read_chunks(sys.stdin.buffer) if "-" in args.sources else iter(())
    # Heavy, and not needed by --help.
    from tunemark.analysis import UserFacts, audit_claims, audit_run
    from tunemark.report import claim_lines, claims_table, write_report
    from tunemark.results import encode_claim, store_claims

    if bool(args.sources) == bool(args.command):
        raise BadExperiment(
            what="nothing to audit" if not args.sources else "files and a command cannot be audited together",
            next="give files, - for a pipe, or -- and a command",
        )
    catalog = Catalog()
    if args.model is not None:
        catalog.model(args.model)
    given = UserFacts(
        model=args.model, device=args.device, count=args.count, batch=args.batch, sequence=args.sequence,
        precision=args.precision, method=args.method, train_s=args.time, padding_fraction=_padding(args, catalog),
    )  # fmt: skip
    audited: list[AuditedClaim] = []
    for folder in filter(os.path.isdir, args.sources):
        results = _read_runs(Path(folder), catalog)
        if not args.despite_seal:
            refuse_touched(results)
        audited += [audit_run(result, catalog.models()) for result in results]
    for reading in _read_sources(args, catalog, piped):
        print_message(reading.summary())
        if not reading.claims:
            raise BadData(
                what=f"no throughput was found in {reading.source}",
                why=reading.summary(),
                next=f"formats that are read: {', '.join(sorted(catalog.importers()))}",
            )
        audited += audit_claims([given.apply_to(claim) for claim in reading.claims], catalog.models())
    rows = [one.as_row() for one in audited]
    if args.store is not None:
        # Own runs are in their store already.
        store_claims((row for row in rows if row.kind == "imported"), Path(args.store))
    if args.output is not None:
        write_report([], Path(args.output), catalog, rows)
        print_message(f"the report is in {args.output}")
    if args.json:
        for row in rows:
            print(encode_claim(row))
    else:
        print_result(claims_table(rows))
        for row in rows:
            print_result(claim_lines(row))
    return exit_code_of_verdicts(one.verdict for one in audited)


def _read_sources(
    args: argparse.Namespace, catalog: Catalog, piped: Iterator[tuple[bytes, float | None]]
) -> Iterator[ParsedSource]:
    from tunemark.analysis import read_claims
    from tunemark.launch.observed_program import ObservedProgram

    importers = list(catalog.importers().values())
    if args.command:
        witness = ObservedProgram(args.command)
        name = " ".join(args.command)
        found = read_claims(witness.chunks(), Path(args.command[-1]).name, f"the output of `{name}`", importers)
        if witness.exit_code:
            print_message(f"the command ended with code {witness.exit_code}")
        yield found
        return
    for source in args.sources:
        if os.path.isdir(source):
            continue
        if source == "-":
            yield read_claims(piped, "-", "standard input", importers)
            continue
        try:
            with open(source, "rb") as file:
                chunks = ((data, None) for data in iter(lambda: file.read(_CHUNK_BYTES), b""))
                yield read_claims(chunks, Path(source).name, source, importers)
        except OSError as error:
            raise BadData(
                what=f"cannot read {source!r}", why=error.strerror or str(error), next="give a log or a table"
            ) from error


def _read_runs(folder: Path, catalog: Catalog) -> list[Result]:
    """The runs of a store or of a report folder; the audit that follows applies the claim rules to both."""
    from tunemark.analysis.judgement import add_plugin_findings
    from tunemark.loading import load_results

    found = load_results(folder, partial(add_plugin_findings, catalog=catalog))
    if not found:
        raise BadData(what=f"{folder} holds no runs", next="give a store (runs) or a report folder written by -o")
    return found


def _padding(args: argparse.Namespace, catalog: Catalog) -> float | None:
    """The padding fraction: as given, or computed from document lengths, each padded as by `--batching pad`."""
    if args.dataset is None:
        return args.padding  # type: ignore[no-any-return]  # argparse's
    if args.padding is not None or args.model is None or args.sequence is None:
        raise BadExperiment(
            what="--dataset gives a padding fraction only for a model's tokenizer and a sequence length",
            next="give --model and --sequence with it, or --padding if the fraction is known",
        )
    from tunemark.data import prepare_data, read_token_file

    name, *options = args.dataset.split(":")
    dataset_options = {key: value for key, _, value in (option.partition("=") for option in options)}
    prepared = prepare_data(catalog.dataset(name), dataset_options, catalog.model(args.model), "all")
    offsets = read_token_file(Path(prepared.token_file.path)).offsets
    lengths = (offsets[1:] - offsets[:-1]).clip(max=args.sequence)
    return 1 - float(lengths.mean()) / float(args.sequence)


def _parse_duration(text: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = float(text.rstrip("smh")) * units[text[-1] if text[-1:].isalpha() else "s"]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: 3000, 50m, 1.5h")
    return seconds


def _parse_fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction: 0.39")
    return fraction


def _parse_positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
