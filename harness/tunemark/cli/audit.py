"""`tunemark audit`: hold a log, a table or a running program against physics, the clock and itself."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.errors import BadData, BadExperiment
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.analysis import Audited, Reading
    from tunemark.results import Result

# What follows `--` is somebody's command and no argument of ours.
TAKES_COMMAND = True

_CHUNK_BYTES = 1 << 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark audit [OPTIONS] FILE... | - | -- COMMAND..."
    parser.add_argument(
        "sources", nargs="*", metavar="FILE", help="a log, a table, or a store of runs; - reads a pipe as it comes"
    )
    parser.add_argument("--model", help="the model trained (`tunemark list models`)")
    parser.add_argument("--device", help="the chip, by the name that it is sold under: MI250, H100-SXM")
    parser.add_argument("--count", type=_positive, help="how many of them, as packages are sold")
    parser.add_argument("--batch", type=_positive, help="sequences per step, whole job")
    parser.add_argument("--sequence", type=_positive, help="slots in a sequence, tokens")
    parser.add_argument("--precision", help="of the matrix products: bf16, fp16, fp8, ...")
    parser.add_argument("--method", help="full or lora")
    parser.add_argument("--padding", type=_share, help="the share of slots that are padding: 0.39")
    parser.add_argument("--dataset", help="the data trained on, padded each to one sequence: says the share of padding")
    parser.add_argument("--time", type=_seconds, help="what the whole training is said to have taken: 50m, 1.5h, 3000")
    parser.add_argument("--store", metavar="DIR", help="keep the claims there beside measured runs, marked imported")
    parser.add_argument("-o", "--output", metavar="DIR", help="write imported.jsonl and a report in every format there")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row or log")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.analysis import Given, audit, audit_run
    from tunemark.report import claim_lines, claims_table, write
    from tunemark.results import encode_imported, keep

    if bool(args.sources) == bool(args.command):
        raise BadExperiment(
            what="nothing to audit" if not args.sources else "files and a command cannot be audited together",
            next="give files, - for a pipe, or -- and a command",
        )
    catalog = Catalog()
    if args.model is not None:
        catalog.model(args.model)
    given = Given(
        model=args.model, device=args.device, count=args.count, batch=args.batch, sequence=args.sequence,
        precision=args.precision, method=args.method, train_s=args.time, padding_fraction=_padding(args, catalog),
    )  # fmt: skip
    audited: list[Audited] = []
    for folder in filter(os.path.isdir, args.sources):
        audited += [audit_run(result, catalog.models()) for result in _own(Path(folder), catalog)]
    for reading in _readings(args, catalog):
        print(reading.summary(), file=sys.stderr)
        if not reading.claims:
            raise BadData(
                what=f"no throughput was found in {reading.source}",
                why=reading.summary(),
                next=f"formats read here: {', '.join(sorted(catalog.importers()))}",
            )
        audited += audit([given.added_to(claim) for claim in reading.claims], catalog.models())
    rows = [one.as_row() for one in audited]
    if args.store is not None:
        # A run of our own lies in its store already.
        keep((row for row in rows if row.kind == "imported"), Path(args.store))
    if args.output is not None:
        write([], Path(args.output), catalog, rows)
        print(f"the report is in {args.output}", file=sys.stderr)
    if args.json:
        for row in rows:
            print(encode_imported(row))
    else:
        print(claims_table(rows))
        for row in rows:
            print(claim_lines(row))
    verdicts = {one.verdict for one in audited}
    return 1 if "invalid" in verdicts else 3 if "unknown" in verdicts else 0


def _readings(args: argparse.Namespace, catalog: Catalog) -> Iterator[Reading]:
    from tunemark.analysis import read
    from tunemark.launch.witness import Witness, arriving

    # Whoever reads any program's lines may have what no specific importer understands.
    importers = sorted(catalog.importers().values(), key=lambda importer: importer.name == "anything")
    if args.command:
        witness = Witness(args.command)
        name = " ".join(args.command)
        found = read(witness.chunks(), Path(args.command[-1]).name, f"the output of `{name}`", importers)
        if witness.exit_code:
            print(f"the command ended with code {witness.exit_code}", file=sys.stderr)
        yield found
        return
    for source in args.sources:
        if os.path.isdir(source):
            continue
        if source == "-":
            yield read(arriving(sys.stdin.buffer), "-", "standard input", importers)
            continue
        try:
            with open(source, "rb") as file:
                chunks = ((data, None) for data in iter(lambda: file.read(_CHUNK_BYTES), b""))
                yield read(chunks, Path(source).name, source, importers)
        except OSError as error:
            raise BadData(
                what=f"cannot read {source!r}", why=error.strerror or str(error), next="give a log or a table"
            ) from error


def _own(folder: Path, catalog: Catalog) -> list[Result]:
    """The runs of a store, or of a folder that a report was written to."""
    from tunemark.report import read as read_report
    from tunemark.report.write import RUNS
    from tunemark.results import Store

    found = read_report(folder) if (folder / RUNS).exists() else Store(folder).results(catalog)
    if not found:
        raise BadData(what=f"{folder} holds no runs", next="give a store (runs), or a folder that -o wrote")
    return found


def _padding(args: argparse.Namespace, catalog: Catalog) -> float | None:
    """As given, or of the documents' lengths where each is padded to one sequence, as `--batching pad` does."""
    if args.dataset is None:
        return args.padding  # type: ignore[no-any-return]  # argparse's
    if args.padding is not None or args.model is None or args.sequence is None:
        raise BadExperiment(
            what="--dataset says the share of padding for a model's tokenizer and a sequence",
            next="give --model and --sequence with it, and --padding instead where the share is known",
        )
    from tunemark.data import prepare, read_tokens

    name, *options = args.dataset.split(":")
    chosen = {key: value for key, _, value in (option.partition("=") for option in options)}
    prepared = prepare(catalog.dataset(name), chosen, catalog.model(args.model), "all")
    offsets = read_tokens(Path(prepared.token_file.path)).offsets
    lengths = (offsets[1:] - offsets[:-1]).clip(max=args.sequence)
    return 1 - float(lengths.mean()) / float(args.sequence)


def _seconds(text: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = float(text.rstrip("smh")) * units[text[-1] if text[-1:].isalpha() else "s"]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 3000, 50m, 1.5h")
    return seconds


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: 0.39")
    return share


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
