"""What the runtimes of plugins do in the worker: the methods each must have, and the capabilities that it may add.

A capability is a method that the worker looks for by name. A method with another name is no capability. One with the
right name and wrong arguments is refused when the runtime is loaded, before anything is measured.

`python -m tunemark_worker.capabilities KIND NAME ...` says of each runtime what is wrong with it: a line of JSON, the
runtime's name and a list of problems.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    cast,
    runtime_checkable,
)

from tunemark_worker.contract import Assignment, Place, split_runtime

if TYPE_CHECKING:
    import torch

    from tunemark_worker.batches import Batch
    from tunemark_worker.exposed_communication import WaitMeter
    from tunemark_worker.trainer_session import TrainerSession


class DeviceRuntime(Protocol):
    """The device in the worker.

    is_synchronous: True where work is done when a call returns, so that `synchronize` costs nothing and every step is a
    window.
    """

    is_synchronous: bool

    def open(self, assignment: Assignment) -> Place:
        """Open the device, set threads and affinity, and join the process group, if there are several ranks, by
        `process_group.join_process_group`, since ranks of one host have no port to meet at."""

    def synchronize(self) -> None:
        """Return when all queued work is done."""

    def peak_memory_bytes(self) -> Optional[int]:
        """This process's peak memory on the device; None where it is not available."""

    def facts(self) -> Mapping[str, Any]:
        """Facts about the device, JSON values."""


@runtime_checkable
class WaitsByReading(Protocol):
    """Optional for a `DeviceRuntime`: waits by reading a value, on a platform without any other way to wait."""

    def use_reader(self, read: Callable[[], None]) -> None:
        """Called before the first step. read: copies a value to the host that depends on all queued work."""


@runtime_checkable
class EndsSteps(Protocol):
    """Optional for a `DeviceRuntime`: a lazy device, which only collects operations until it is told to start them."""

    def end_step(self) -> None:
        """Start what was collected, without waiting for it. Called after each update, once per optimizer step."""


@runtime_checkable
class CountsCompilations(Protocol):
    """Optional for a `DeviceRuntime`: compiles programs while it trains, and counts them."""

    def compilations(self) -> Tuple[int, float]:
        """(number of programs that this process has compiled so far, seconds that it has spent on them). Called at
        each edge of a window, right after `synchronize`; it must not compile or wait itself."""


class ModelRuntime(Protocol):
    """The model in the worker."""

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        """The module on `place.device`, in the parameters' dtype, with weights initialised or loaded."""

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Logits [micro_batch, sequence, vocab_size] of a batch on the device."""


@runtime_checkable
class ReportsWeightsOrigin(Protocol):
    """Optional for a `ModelRuntime`: reports the origin of the weights."""

    def weights_origin(self) -> Mapping[str, Any]:
        """JSON values for the record: where the weights were loaded from. Called after `build`."""


@runtime_checkable
class ReportsAttention(Protocol):
    """Optional for a `ModelRuntime`: reports how attention is computed."""

    def attention(self) -> Mapping[str, Any]:
        """{"kernel": "sdpa", torch's scaled_dot_product_attention, "eager", product by product, or what the assignment
        requests; "reason": why it is not that of other environments, None where it is}. Called after `build`."""


@runtime_checkable
class ComputesLoss(Protocol):
    """Optional for a `ModelRuntime`: computes the loss without the scores of all tokens, for `--loss`."""

    def loss_sum(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The float32 sum of the cross-entropy of each label of a batch on the device, given the scores one position
        before it, as the assignment's `loss` says. Called instead of `logits` in training, under autocast."""


@runtime_checkable
class SavesModel(Protocol):
    """Optional for a `ModelRuntime`: saves the model, for `--save`."""

    def save(self, module: torch.nn.Module, folder: str) -> None:
        """Write the model to an empty folder, in rank 0. module: as returned by `build`, with adapters merged."""


class StrategyRuntime(Protocol):
    """Parallelization in the worker; constructed with the assignment."""

    def prepare(self) -> None:
        """Called before the model is built."""

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        """Shard, wrap or compile the model after it is built, and return it."""

    def selected(self) -> Optional[Mapping[str, Any]]:
        """The parallelization that was actually used; None where it is not known."""


@runtime_checkable
class PlacesRanks(Protocol):
    """Optional for a `StrategyRuntime`: orders the data ranks itself."""

    def place(self, place: Place) -> Place:
        """This rank's place with its own `data_rank` and `data_ranks`. Called after `prepare`, before the model is
        built; ranks that share a batch must get the same data rank."""


@runtime_checkable
class ClipsGradients(Protocol):
    """Optional for a `StrategyRuntime`: computes the gradient norm of the job, where gradients are neither this rank's
    own nor DTensors."""

    def clip(self, parameters: List[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
        """Scale the gradients so that the norm over the whole job is at most `max_norm`, which is infinite without
        clipping; return the norm before scaling. Called each step, before the update."""


@runtime_checkable
class ComputesGradients(Protocol):
    """Optional for a `StrategyRuntime`: runs forward and backward of all a step's micro-batches, as a pipeline does."""

    def compute_gradients(
        self,
        logits: Callable[..., torch.Tensor],
        loss: Callable[..., torch.Tensor],
        batches: List[Batch],
        scale: torch.Tensor,
    ) -> torch.Tensor:
        """Add the gradients of `loss(logits(module, batch), labels) * scale` of all batches to the parameters, and
        return the unscaled losses' sum over the data rank, on every rank. It must apply autocast itself."""


@runtime_checkable
class MarksWaits(Protocol):
    """Optional for a `StrategyRuntime`: says when it waits for other ranks, where torch hides that in C++."""

    def mark_waits(self, waits: WaitMeter) -> None:
        """Called before the first step of a breakdown of several ranks. In each step, call `waits.start_waiting()` when
        this part of the step has nothing left to compute. Waits in torch's own collectives are seen without it."""


@runtime_checkable
class GathersFullState(Protocol):
    """Optional for a `StrategyRuntime` that shards: gathers the full weights, for `--save`."""

    def full_state(self, module: torch.nn.Module) -> Optional[Mapping[str, torch.Tensor]]:
        """Called in every rank after training; rank 0 returns all weights on the host, under the names of the module
        that was passed to `apply`."""


class TrainerRuntime(Protocol):
    """Another program's training loop in the worker; constructed with the assignment."""

    def facts(self) -> Mapping[str, Any]:
        """{"version": of the program, "differs": by name of a setting, in words what is otherwise than the assignment
        says}, JSON values. Called before `train`."""

    def train(self, session: TrainerSession) -> None:
        """Train on the session's micro-batches in their order, and call `session.step_ended` after each update, until
        it returns False or there are no more. `session.watch` must have got the module before its first forward."""


@runtime_checkable
class ReportsOwnRate(Protocol):
    """Optional for a `TrainerRuntime`: reports the rate that the program itself states."""

    def own_rate(self) -> Optional[Mapping[str, Any]]:
        """{"tokens_per_s": the rate, "printed": as the program printed it, "counts": what its source says that it
        counts}, None where it stated none. Called after `train`."""


# By kind of runtime: the protocol it must follow, and its capabilities.
RUNTIMES: Dict[str, Tuple[type, Sequence[type]]] = {
    "device": (DeviceRuntime, (WaitsByReading, EndsSteps, CountsCompilations)),
    "model": (ModelRuntime, (ReportsWeightsOrigin, ReportsAttention, ComputesLoss, SavesModel)),
    "strategy": (StrategyRuntime, (PlacesRanks, ClipsGradients, ComputesGradients, MarksWaits, GathersFullState)),
    "trainer": (TrainerRuntime, (ReportsOwnRate,)),
}


def load_device(name: str) -> DeviceRuntime:
    return cast(DeviceRuntime, _load("device", name))


def load_model(name: str) -> ModelRuntime:
    return cast(ModelRuntime, _load("model", name))


def load_strategy(name: str, assignment: Assignment) -> StrategyRuntime:
    return cast(StrategyRuntime, _load("strategy", name, assignment))


def load_trainer(name: str, assignment: Assignment) -> TrainerRuntime:
    return cast(TrainerRuntime, _load("trainer", name, assignment))


def _load(kind: str, name: str, *arguments: Any) -> Any:
    """A new runtime "package.module:Name"; TypeError if it does not follow the protocols of its kind."""
    runtime = import_runtime(name)(*arguments)
    required, optional = RUNTIMES[kind]
    problems = find_protocol_problems(runtime, required, optional)
    if problems:
        raise TypeError("{}: {}".format(name, "; ".join(problems)))
    return runtime


def import_runtime(name: str) -> Any:
    """The class "package.module:Name"."""
    module, attribute = split_runtime(name)
    return getattr(importlib.import_module(module), attribute)


def find_protocol_problems(found: Any, required: type, optional: Sequence[type] = ()) -> List[str]:
    """What an object, or the class of one, lacks of a protocol, and which of its methods cannot be called as the
    worker, or tunemark in the parent, calls them. A missing capability is no problem."""
    problems = []
    for protocol in (required, *optional):
        # An object may set its fields when it is constructed.
        fields = () if inspect.isclass(found) else getattr(protocol, "__annotations__", ())
        methods = [n for n, each in vars(protocol).items() if inspect.isfunction(each) and not n.startswith("_")]
        for name in [n for n in (*fields, *methods) if not hasattr(found, n) and protocol is required]:
            problems.append("it has no `{}`".format(name))
        for name in [n for n in methods if hasattr(found, n)]:
            problem = _find_call_problem(getattr(found, name), getattr(protocol, name), inspect.isclass(found))
            if problem:
                problems.append("`{}` {}, so it is no `{}`".format(name, problem, protocol.__name__))
    return problems


def _find_call_problem(method: Any, expected: Any, is_unbound: bool) -> str:
    if not callable(method):
        return "is not a method"
    takes = list(inspect.signature(expected).parameters.values())[0 if is_unbound else 1 :]
    named = {p.name: None for p in takes if p.kind is inspect.Parameter.KEYWORD_ONLY}
    try:
        inspect.signature(method).bind(*[None] * (len(takes) - len(named)), **named)
    except TypeError:
        words = ", ".join(p.name for p in takes if p.name != "self")
        return "is called with ({}), which ({}) does not accept".format(words, _format_parameters(method))
    except ValueError:  # a method without a known signature
        return ""
    return ""


def _format_parameters(method: Any) -> str:
    return ", ".join(name for name in inspect.signature(method).parameters if name != "self")


def main(*words: str) -> int:
    for kind, name in zip(words[::2], words[1::2]):
        try:
            found = import_runtime(name)
            required, optional = RUNTIMES[kind]
            problems = find_protocol_problems(found, required, optional) if inspect.isclass(found) else []
        except Exception as error:  # third-party code
            problems = ["{}: {}".format(type(error).__name__, error)]
        print(json.dumps([name, problems]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
