"""The worker's interpreter: what it has, found without importing torch, and whether a plan can run there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tunemark.errors import BadExperiment
from tunemark.experiment import Plan
from tunemark.plugin.protocols import ChecksInterpreter
from tunemark.version_order import is_older, version_numbers
from tunemark_worker import interpreter_query

# Seconds for the reply: an interpreter on a cold network disk takes several.
_REPLY_TIMEOUT_S = 60

# The oldest Python whose syntax the worker and every runtime keep to.
_OLDEST_PYTHON = "3.8"

# transformers uses `scaled_dot_product_attention` from this torch on: is_torch_sdpa_available in 4.36 to 4.57, whose
# message says so; transformers 5 needs a newer torch for everything.
_OLDEST_TORCH_WITH_SDPA = "2.1.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """An interpreter and the versions of the packages that the run needs (None if metadata does not say).

    modules: those asked for that it has. model_types: the types of causal language models that its transformers has;
    None if unknown or not asked for."""

    path: str
    python: str
    versions: dict[str, str | None]
    modules: frozenset[str] = frozenset()
    model_types: frozenset[str] | None = None


class _InterpreterReply(msgspec.Struct):
    python: str
    found: dict[str, bool]
    versions: dict[str, str | None]
    model_types: list[str] | None


def query_interpreter(path: str, requires: Sequence[str], others: Sequence[str] = ()) -> Interpreter:
    """Query the interpreter at `path`; BadExperiment if it does not work or lacks a required module. others: modules
    that it may lack."""
    reply = _query(path, [*requires, *others])
    if is_older(reply.python, _OLDEST_PYTHON):
        raise BadExperiment(
            what=f"the worker needs Python {_OLDEST_PYTHON} or newer",
            why=f"{path} is Python {reply.python}",
            next="another --python",
        )
    missing = [name for name in requires if not reply.found.get(name)]
    if missing:
        raise BadExperiment(
            what=f"{path} lacks {', '.join(missing)}",
            why="the run needs it in the interpreter that trains; nothing is installed into it for you",
            next=f"{path} -m pip install {' '.join(missing)}",
        )
    return _interpreter(path, reply)


def _query(path: str, requires: Sequence[str]) -> _InterpreterReply:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    program = Path(interpreter_query.__file__).read_text(encoding="utf-8")
    try:
        process = subprocess.run(
            [path, "-c", program, *requires], capture_output=True, text=True, timeout=_REPLY_TIMEOUT_S, env=environment
        )
        output = (process.stderr or process.stdout).strip()[-500:]
        reason = f"it ended with code {process.returncode}" + (f": {output}" if output else " and no output")
        if process.returncode == 0:
            return msgspec.json.decode(process.stdout, type=_InterpreterReply)
    except subprocess.TimeoutExpired:
        reason = f"it did not answer in {_REPLY_TIMEOUT_S} s"
    except OSError as error:
        reason = error.strerror or str(error)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        reason = f"it does not answer as Python does: {output!r}" if output else "it printed nothing"
    raise BadExperiment(what=f"cannot ask the interpreter {path}", why=reason, next="give --python a working Python")


def _interpreter(path: str, reply: _InterpreterReply) -> Interpreter:
    types = None if reply.model_types is None else frozenset(reply.model_types)
    modules = frozenset(name for name, is_found in reply.found.items() if is_found)
    return Interpreter(path=path, python=reply.python, versions=reply.versions, modules=modules, model_types=types)


def check_interpreter(interpreter: Interpreter, plan: Plan) -> None:
    """BadExperiment if a package is too old for the plan, or the device cannot be used; a version that metadata do not
    state is accepted."""
    _check_device(interpreter, plan)
    for need in sorted(plan.version_needs, key=lambda need: version_numbers(need.minimum), reverse=True):
        version = interpreter.versions.get(need.module)
        if version is not None and is_older(version, need.minimum):
            raise BadExperiment(
                what=f"{need.what} needs {need.module} {need.minimum} or newer",
                why=f"{interpreter.path} has {need.module} {version}",
                next=f"another --python, or another {need.setting}",
            )
    kind, known = plan.model.transformers_type, interpreter.model_types
    # A model of remote code brings its own class.
    if kind is not None and known is not None and kind not in known and not plan.model.is_remote:
        raise BadExperiment(
            what=f"{plan.model.name} cannot be built: the interpreter's transformers has no model of type {kind!r}",
            why=f"{interpreter.path} has transformers {interpreter.versions.get('transformers') or 'unknown'}",
            next="another --python, or another --model",
        )


def _check_device(interpreter: Interpreter, plan: Plan) -> None:
    device, packages = plan.device, plan.device_packages
    if not isinstance(device, ChecksInterpreter) or not packages:
        return
    versions = {name: interpreter.versions.get(name) for name in packages if name in interpreter.modules}
    remedy = device.interpreter_problem(versions)
    if remedy is not None:
        words = [f"{n} {versions[n] or 'of unknown version'}" if n in versions else f"no {n}" for n in packages]
        raise BadExperiment(
            what=f"{interpreter.path} cannot use the device {device.name}",
            why=f"it has {', '.join(words)}",
            next=remedy,
        )


def find_remarks(interpreter: Interpreter, plan: Plan) -> list[str]:
    """What the user should know of running the plan in this interpreter."""
    torch = interpreter.versions.get("torch")
    own = plan.model.transformers_type is None or plan.model.architecture.eager_attention
    if own or torch is None or not is_older(torch, _OLDEST_TORCH_WITH_SDPA):
        return []
    return [
        f"attention is computed eagerly, product by product: transformers uses torch's scaled_dot_product_attention "
        f"from torch {_OLDEST_TORCH_WITH_SDPA} on, and {interpreter.path} has {torch}. The run is only compared with "
        "runs that did the same"
    ]


def check_plans(plans: Iterable[Plan]) -> list[str]:
    """Check each plan's interpreter before anything is run, and return the remarks, each once.

    A plan for this interpreter is accepted even without torch: it can be made on a laptop and run elsewhere."""
    remarks: dict[str, None] = {}
    asked: dict[tuple[str | None, tuple[str, ...], tuple[str, ...]], Interpreter] = {}
    for plan in plans:
        path, requires, others = key = (plan.spec.python, plan.requires, plan.device_packages)
        if key not in asked and path is None:
            own = msgspec.convert(interpreter_query.query([*requires, *others]), _InterpreterReply)
            asked[key] = _interpreter(sys.executable, own)
        elif key not in asked:
            asked[key] = query_interpreter(str(path), requires, others)
        check_interpreter(asked[key], plan)
        missing = [name for name in requires if name not in asked[key].modules]
        if path is None and missing:
            names = " and ".join(missing)
            remarks[
                f"{sys.executable} lacks {names}: a run is refused here until `pip install {' '.join(missing)}`"
            ] = None
        remarks.update(dict.fromkeys(find_remarks(asked[key], plan)))
    return list(remarks)
