"""Verify folders: each attempt of a store against its seal, each report against its list of files, and signatures."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tunemark.errors import BadStore
from tunemark.loading import is_report_folder
from tunemark.results import Store
from tunemark.results.report_seal import REPORT_SEAL_FILE, check_report
from tunemark.results.seal import SEAL_FILE, SealState
from tunemark.results.seal_journal import JOURNAL_FILE
from tunemark.results.signature import check_signature, sign_seal


class VerifiedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, one report, or a store's list of seals. place: the run's or the report's folder. part: the attempt's
    folder; empty for a report. problems: what was touched, or why it is unsealed. signer: who signed the seal; None if
    nobody did."""

    place: str
    part: str
    state: SealState
    problems: tuple[str, ...]
    signer: str | None = None


def verify_folder(folder: Path, allowed_signers: Path | None = None) -> list[VerifiedPart]:
    """Verify a report's folder, or a store with those that it has within itself (trials, verifications). `BadStore` if
    it is neither. allowed_signers: as in `check_signature`."""
    if _is_report(folder):
        state, problems = check_report(folder)
        part = VerifiedPart(place=str(folder), part="", state=state, problems=problems)
        return [_add_signature(part, folder / REPORT_SEAL_FILE, allowed_signers)]
    found = [part for root in _find_stores(folder) for part in _verify_store(root, allowed_signers)]
    if not found:
        where = "give the folder of `tunemark run --store` (by default runs) or of its -o"
        raise BadStore(what=f"{folder} holds no runs", next=where)
    return found


def sign_folder(folder: Path, key: Path) -> int:
    """Sign the seals of a report or of a store's whole attempts; how many there are."""
    if _is_report(folder):
        seals = [folder / REPORT_SEAL_FILE] if check_report(folder)[0] == "whole" else []
    else:
        checks = [check for root in _find_stores(folder) for check in Store(root).check_attempts()]
        seals = [attempt / SEAL_FILE for attempt, checked in checks if checked.state == "whole"]
    for seal in seals:
        sign_seal(seal, key)
    return len(seals)


def _is_report(folder: Path) -> bool:
    return is_report_folder(folder) or (folder / REPORT_SEAL_FILE).exists()


def _find_stores(folder: Path) -> list[Path]:
    return [folder, *sorted(path.parent for path in folder.glob(f"*/{JOURNAL_FILE}"))]


def _verify_store(root: Path, allowed_signers: Path | None) -> list[VerifiedPart]:
    store = Store(root)
    checks = list(store.check_attempts())
    found = []
    for folder, checked in checks:
        part = VerifiedPart(place=folder.parent.name, part=folder.name, state=checked.state, problems=checked.problems)
        found.append(_add_signature(part, folder / SEAL_FILE, allowed_signers))
    journal = store.journal
    if journal.problem:
        found.append(VerifiedPart(place=str(root), part=JOURNAL_FILE, state="touched", problems=(journal.problem,)))
    elif not journal.name and any(checked.seal and checked.seal.journal for _, checked in checks):
        why = "it is missing: whether attempts were removed cannot be seen"
        found.append(VerifiedPart(place=str(root), part=JOURNAL_FILE, state="unsealed", problems=(why,)))
    return found


def _add_signature(part: VerifiedPart, seal: Path, allowed_signers: Path | None) -> VerifiedPart:
    """The part with its signer; one whose signature does not fit is touched."""
    signature = check_signature(seal, allowed_signers)
    if signature is None:
        return part
    if signature.signer:
        return msgspec.structs.replace(part, signer=signature.signer)
    problems = (f"the signature does not fit: {signature.why}", *part.problems)
    return msgspec.structs.replace(part, state="touched", problems=problems)
