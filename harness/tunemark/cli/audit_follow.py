"""`tunemark audit --follow`: the verdict on a log while it grows, each time that it changes."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.terminal import print_result
from tunemark.errors import BadData, BadExperiment
from tunemark.exit_codes import exit_code_of_verdicts
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.analysis import AuditedClaim, UserFacts

_CHUNK_BYTES = 1 << 16
_POLL_S = 0.5
# A verdict is worked out over all lines again, so not more often than this.
_EVERY_S = 2.0


def follow_log(args: argparse.Namespace, given: UserFacts, catalog: Catalog) -> int:
    """Audit a log again and again until it is left idle or the user ends it; then print the whole audit. Returns the
    exit code. Raises `BadExperiment` unless exactly one file is given."""
    from tunemark.analysis import audit_claims, follow_claims
    from tunemark.report import claim_lines, claims_table

    if len(args.sources) != 1 or args.sources[0] == "-" or args.command or os.path.isdir(args.sources[0]):
        raise BadExperiment(
            what="--follow needs exactly one file",
            next="give the log that a program is writing; a pipe is followed by -",
        )
    source = Path(args.sources[0])
    audited: list[AuditedClaim] = []
    shown = ""
    try:
        for reading in follow_claims(
            _grown(source, args.until_idle), source.name, str(source), list(catalog.importers().values())
        ):
            audited = audit_claims([given.apply_to(c) for c in reading.claims], catalog.models(), args.peak_flops)
            now = "; ".join(_state(one) for one in audited) or "no figure yet"
            if now != shown:
                shown = now
                print_result(f"{datetime.now():%H:%M:%S}  line {reading.lines:,}: {now}")
    except KeyboardInterrupt:
        pass
    rows = [one.as_row() for one in audited]
    if rows:
        print_result(claims_table(rows))
        for row in rows:
            print_result(claim_lines(row))
    return exit_code_of_verdicts(one.verdict for one in audited)


def _state(one: AuditedClaim) -> str:
    rate = "no rate" if one.rate is None else f"{one.rate.tokens_per_s:,.0f} tokens/s"
    mfu = "" if one.mfu_implied is None else f", {100 * one.mfu_implied:.3g} % MFU"
    accusing = next((f for f in one.findings if f.severity in ("invalid", "suspect", "unknown")), None)
    return f"{rate}{mfu}, {one.verdict}" + (f" ({accusing.rule}: {accusing.message})" if accusing else "")


def _grown(path: Path, until_idle_s: float | None) -> Iterator[tuple[bytes, float | None]]:
    """The bytes of a file, and those that are added to it, with their arrival; an empty piece when it is time to look
    at what there is."""
    try:
        with path.open("rb") as file:
            looked = grown = time.monotonic()
            is_new, is_live = False, False
            while True:
                data = file.read(_CHUNK_BYTES)
                now = time.monotonic()
                if data:
                    yield data, now if is_live else None
                    grown, is_new = now, True
                if is_new and (not data or now - looked > _EVERY_S):
                    yield b"", None
                    looked, is_new = now, False
                if not data:
                    is_live = True
                    if until_idle_s is not None and now - grown > until_idle_s:
                        return
                    time.sleep(_POLL_S)
    except OSError as error:
        raise BadData(what=f"cannot read {path}", why=error.strerror or str(error), next="give the log") from error
