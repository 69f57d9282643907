"""How a script of anybody's says when its optimizer steps: `from tunemark_worker import lap`.

Run by itself, a script's calls do nothing. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional

if TYPE_CHECKING:
    from tunemark_worker.trainer_session import TrainerSession

# The session of this process, if it runs a script; set by the runtime that does.
_SESSIONS: List[TrainerSession] = []


def lap(model: Any, loss: Optional[Any] = None) -> bool:
    """Call once with the model before the loop, then with the loss after each `optimizer.step()`. loss: the mean over
    the step's predicted tokens, a tensor or a number. Returns True to go on; once enough is measured it does not
    return: it raises an exception that ends the script."""
    if not _SESSIONS:
        return True
    session = _SESSIONS[-1]
    if not session.is_watching:
        session.begin(model)
    else:
        session.step_ended_or_stop(loss)
    return True


def open_session(session: TrainerSession) -> None:
    """Let the calls of `lap` in this process be those of a session."""
    _SESSIONS.append(session)
