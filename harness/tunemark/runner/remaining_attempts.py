"""Which attempts of a run are still to be made: those that are finished are skipped, unless they must be repeated."""

from __future__ import annotations

from dataclasses import replace

from tunemark.experiment import Plan, is_saved
from tunemark.launch import AttemptEnd
from tunemark.runner.attempt import PendingAttempt
from tunemark.runner.observer import run_title
from tunemark.runner.preparation import PreparedRun
from tunemark.runner.session import Session


def first_remaining(ready: PreparedRun, session: Session, *, among_own: bool = False) -> PendingAttempt | None:
    """The first attempt that a run lacks; None if all are finished with the same code, data and interpreter. among_own:
    a newer series with other ones does not count, since another command makes it meanwhile."""
    run_id, store = ready.plan.run_id, session.store
    # Attempts without the verification that is requested now do not count as finished.
    verified = ready.verification is not None
    done = 0
    if not session.redo:
        done = store.finished_attempts(run_id, ready.fingerprint, verified=verified, among_own=among_own)
        touched = store.find_touched(run_id, ready.fingerprint, among_own=among_own) if done else []
        if touched:  # nobody can use that series any more
            done = 0
            words = f"measured again, since what is stored was touched: {touched[0]}"
            session.observer.message(f"{run_title(ready.plan)}: {words}")
    if done >= session.repeats and needs_saving(ready.plan):
        done = 0
    elif done >= session.repeats:
        return None
    series = store.series(run_id, ready.fingerprint, new=done == 0, among_own=among_own)
    return PendingAttempt(
        ready=ready,
        series=series,
        number=done + 1,
        of=session.repeats,
        is_saving=done + 1 == session.repeats and needs_saving(ready.plan),
    )


def refresh_pending(pending: PendingAttempt, session: Session) -> PendingAttempt | None:
    """A pending attempt as the store is now, since another command may have measured it meanwhile; None if it has."""
    return pending if session.redo else first_remaining(pending.ready, session, among_own=True)


def next_remaining(attempt: PendingAttempt, end: AttemptEnd) -> PendingAttempt | None:
    """The attempt after one that has ended; None after the last, and after one that failed, which is not repeated."""
    if end.status != "ok" or attempt.number >= attempt.of:
        return None
    number = attempt.number + 1
    return replace(attempt, number=number, is_saving=number == attempt.of and needs_saving(attempt.ready.plan))


def needs_saving(plan: Plan) -> bool:
    """Whether a trained model is to be saved and was not yet: then a finished run must be trained again."""
    return plan.spec.save is not None and not is_saved(plan.spec.save, plan.run_id)
