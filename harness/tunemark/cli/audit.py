"""`tunemark audit`: check the rates that a log, a table or a running program claims against physics and the clock."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.audit_facts import add_fact_arguments, make_user_facts, parse_duration
from tunemark.cli.audit_follow import follow_log
from tunemark.cli.messages import print_json, print_message
from tunemark.cli.run_arguments import add_seal_argument, refuse_touched
from tunemark.cli.terminal import print_result
from tunemark.errors import BadData, BadExperiment, TunemarkError
from tunemark.exit_codes import exit_code_of_verdicts
from tunemark.plugin import Catalog
from tunemark.redaction import hide_secrets

if TYPE_CHECKING:
    from tunemark.analysis import AuditedClaim, ParsedSource
    from tunemark.plugin.descriptors import Model
    from tunemark.results import Result

# Words after `--` are a command to run, not arguments of tunemark.
TAKES_COMMAND = True

_CHUNK_BYTES = 1 << 16

EXAMPLES = (
    ("tunemark audit train.log --model mistral-7b --device H100-SXM --count 8", "can what the log says be true?"),
    ("tunemark audit -- python train.py", "the same, while it runs"),
    ("tunemark audit published.csv --json", "a table, one JSON object per row"),
    ('tunemark audit "Mistral 7B on 16 MI250: 390,000 tokens/s"', "a claim as people write it"),
    ("tunemark audit --follow train.log --count 8", "the verdict while a log grows"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark audit [OPTIONS] FILE... | SENTENCE | - | -- COMMAND..."
    parser.add_argument(
        "sources", nargs="*", metavar="FILE",
        help="log, table or store of runs; or a claim in a sentence; - reads standard input as it arrives",
    )  # fmt: skip
    add_fact_arguments(parser)
    add_seal_argument(parser)
    parser.add_argument("--store", metavar="DIR", help="also keep the claims in this store, marked imported")
    parser.add_argument("-o", "--output", metavar="DIR", help="write imported.jsonl and reports in every format to DIR")
    words = "show names of hosts and users, folders and addresses in what -o writes, which hides them else"
    parser.add_argument("--no-redact", action="store_true", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object per row or log")
    parser.add_argument(
        "--columns", type=_parse_columns, metavar="HEADER=COLUMN,...",
        help="what the headers of a table mean, by the columns of docs/audit.md; HEADER=- leaves one out",
    )  # fmt: skip
    parser.add_argument("--follow", action="store_true", help="say the verdict again whenever the log has grown")
    parser.add_argument(
        "--until-idle", type=parse_duration, metavar="TIME", help="with --follow: end when it has not grown for so long"
    )


def execute(args: argparse.Namespace) -> int:
    from tunemark.launch.observed_program import read_chunks

    # Its lines are stamped while all else is still being loaded.
    piped = read_chunks(sys.stdin.buffer) if "-" in args.sources else iter(())
    # Heavy, and not needed by --help.
    from tunemark.analysis import audit_claims, audit_run
    from tunemark.report import claim_lines, claims_table, write_report
    from tunemark.results import encode_claim, store_claims

    if bool(args.sources) == bool(args.command):
        raise BadExperiment(
            what="nothing to audit" if not args.sources else "files and a command cannot be audited together",
            next="give files, - for a pipe, or -- and a command",
        )
    catalog = Catalog()
    given = make_user_facts(args, catalog)
    if args.follow:
        return follow_log(args, given, catalog)
    audited: list[AuditedClaim] = []
    for source in filter(_holds_runs, args.sources):
        results = _read_runs(Path(source), catalog)
        if not args.despite_seal:
            refuse_touched(results)
        models = _find_models(catalog, {result.model for result in results})
        audited += [audit_run(result, models) for result in results]
    for reading in _read_sources(args, catalog, piped):
        print_message(reading.summary())
        if not reading.claims:
            raise BadData(
                what=f"no throughput was found in {reading.source}",
                why=reading.summary(),
                next=f"formats that are read: {', '.join(sorted(catalog.importers()))}",
            )
        claims = [given.apply_to(claim) for claim in reading.claims]
        audited += audit_claims(claims, catalog.models(), args.peak_flops)
    rows = [one.as_row() for one in audited]
    if args.store is not None:
        # Own runs are in their store already.
        store_claims((row for row in rows if row.kind == "imported"), Path(args.store))
    if args.output is not None:
        write_report([], Path(args.output), catalog, rows, is_redacted=not args.no_redact)
        print_message(f"the report is in {args.output}")
    if args.json:
        for row in rows:
            print_json(encode_claim(row))
    else:
        print_result(claims_table(rows))
        for row in rows:
            print_result(claim_lines(row))
    return exit_code_of_verdicts(one.verdict for one in audited)


def _find_models(catalog: Catalog, names: Iterable[str]) -> Mapping[str, Model]:
    """The installed models, and those of runs that a source such as a folder still has."""
    found = dict(catalog.models())
    for name in names:
        if name not in found and ":" in name:
            with contextlib.suppress(TunemarkError):
                found[name] = catalog.model(name)
    return found


def _read_sources(
    args: argparse.Namespace, catalog: Catalog, piped: Iterator[tuple[bytes, float | None]]
) -> Iterator[ParsedSource]:
    from tunemark.analysis import read_claims
    from tunemark.launch.observed_program import ObservedProgram

    importers = list(catalog.importers().values())
    if args.command:
        witness = ObservedProgram(args.command)
        name = hide_secrets(" ".join(args.command))
        found = read_claims(witness.chunks(), Path(args.command[-1]).name, f"the output of `{name}`", importers)
        if witness.exit_code:
            print_message(f"the command ended with code {witness.exit_code}")
        yield found
        return
    for source in args.sources:
        if _holds_runs(source):
            continue
        if source == "-":
            yield read_claims(piped, "-", "standard input", importers, args.columns)
            continue
        if _is_sentence(source):
            found = read_claims([(source.encode(), None)], "claim", "the sentence", importers)
            if found.importer is None or not found.claims:
                raise BadData(
                    what=f"{source!r} is no file, and states no rate of a model on a chip",
                    next='give a file, or a sentence such as "Mistral 7B on 16 MI250: 390,000 tokens/s"',
                )
            for claim in found.claims:
                # What was understood is said before it is judged.
                print_message("\n".join(claim.notes))
            yield found
            continue
        try:
            with open(source, "rb") as file:
                chunks = ((data, None) for data in iter(lambda: file.read(_CHUNK_BYTES), b""))
                yield read_claims(chunks, Path(source).name, source, importers, args.columns)
        except OSError as error:
            raise BadData(
                what=f"cannot read {source!r}", why=error.strerror or str(error), next="give a log or a table"
            ) from error


def _is_sentence(source: str) -> bool:
    """Whether an argument is a claim in words instead of a file."""
    words = source.split()
    return len(words) > 2 and any(character.isdigit() for character in source) and not os.path.exists(source)


def _parse_columns(text: str) -> dict[str, str]:
    pairs = [part.rpartition("=") for part in text.split(",") if part.strip()]
    if not pairs or any(not name.strip() or not column.strip() for name, _, column in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEADER=COLUMN,...: 'tokens/s/GPU=tokens_per_s_per_device'")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _holds_runs(source: str) -> bool:
    """Whether a source has our own runs: a folder, or a report's runs.jsonl wherever it is."""
    from tunemark.loading import is_result_file

    return os.path.isdir(source) or (os.path.isfile(source) and is_result_file(Path(source)))


def _read_runs(source: Path, catalog: Catalog) -> list[Result]:
    """The runs of a store, of a report folder or of its runs.jsonl; the audit that follows applies the claim rules."""
    from tunemark.analysis.judgement import add_plugin_findings
    from tunemark.loading import load_result_file, load_results

    broken: list[TunemarkError] = []
    if source.is_dir():
        found = load_results(source, partial(add_plugin_findings, catalog=catalog), unread=broken.append)
    else:
        found = load_result_file(source, broken.append)
    for each in broken:
        print_message(f"not read: {each}")
    if not found:
        raise BadData(what=f"{source} holds no runs", next="give a store (runs) or a report folder written by -o")
    return found
