"""A step of one rank of any layout, without the hardware and without the other ranks: `python -m
tunemark_worker.simulation ASSIGNMENT RANK RESULT ...`, one process a candidate and rank.

The real model goes through the real strategy, optimizer and step. Its tensors are torch's fake ones, which have shapes
and no content, and the process group is torch's fake one, which answers at once. So a model and a mesh of any size
are stepped in seconds, and what the step does is counted exactly: FLOPs by operator, collectives with their sizes and
groups, and every storage from its making to its end. Nothing is known of time.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import sys
import traceback
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Sequence

from tunemark_worker.contract import Assignment, split_runtime

# Categories of memory, in the order in which they are told.
CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "buffers", "workspace")


def main(*jobs: str) -> int:
    """Each three of `jobs` are an assignment's file, the rank, and where the result goes or what went wrong. All share
    what this process has imported; each is simulated in a child of its own."""
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # What all have in common is not looked through again by each child's collector, and so not copied for it.
    gc.collect()
    gc.freeze()
    failed, parent = 0, os.getppid()
    for told, rank, found in zip(*[iter(jobs)] * 3):
        if os.getppid() != parent:
            return 1  # nobody waits any longer for what would be found
        child = os.fork()
        if child:
            failed += os.waitpid(child, 0)[1] != 0
            continue
        try:
            with open(told, encoding="utf-8") as file:
                row = simulate(Assignment.from_json(file.read()), rank=int(rank))
        except Exception as error:
            traceback.print_exc()
            row = {"error": _why(error)}
        with open(found + ".growing", "w", encoding="utf-8") as file:
            json.dump(row, file)
        os.replace(found + ".growing", found)
        sys.stderr.flush()
        # The fake group's threads and torch's teardown have nothing left to say.
        os._exit("error" in row)
    return 1 if failed else 0


def _why(error: Exception) -> str:
    """The error in words for who asked."""
    kind = type(error).__name__
    if kind in ("DynamicOutputShapeException", "DataDependentOutputException"):
        return "its step depends on the contents of tensors ({}), and a step without data has none".format(error)
    return "{}: {}".format(kind, error)


# What every simulation imports sooner or later.
HEAVY = (
    "torch._dynamo",
    "torch._subclasses.fake_tensor",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch.distributed.pipelining",
    "torch.testing._internal.distributed.fake_pg",
    "transformers.masking_utils",
    "transformers.modeling_layers",
    "tunemark_worker.loop",
    "tunemark_worker.tally",
)


def simulate(assignment: Assignment, *, rank: int) -> Dict[str, Any]:
    """Step rank `rank` of the assignment's processes twice and count the second step.

    Changes torch's state for good: the process is to be used for nothing else. RuntimeError where torch is older than
    2.6 or stands in a process group already.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from tunemark_worker import checkpointing, loop, method, optimizer
    from tunemark_worker.batches import Counts
    from tunemark_worker.tally import Tally

    a = replace(assignment, device="cpu", device_options={}, breakdown=False, weights="random")
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(a.processes), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    torch.set_num_threads(1)
    _join(a, rank)
    model = runtime(a.model_runtime)()
    device = runtime("tunemark_torch.runtime:Cpu")()
    strategy = runtime(a.strategy_runtime)(a)
    place = device.open(a)
    strategy.prepare()
    place = getattr(strategy, "place", lambda found: found)(place)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    tally = Tally(copies_scattered=assignment.device == "cpu")
    with _without_data(a), mode, tally:
        # Whether packed documents are kept apart is read from numbers, which there are none of.
        built = model.build(replace(a, batching="pad"), place)
        method.apply(a.method, a.method_options, built)
        built.train()
        checkpointing.apply(built, a.checkpointing)
        module = strategy.apply(built, place)
        del built
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            # What the fake group answers has no tensors in it, for which this class asks.
            module.register_comm_hook(None, lambda state, bucket: _reduced(bucket))
            module.reducer = _Reducer(module.reducer)  # type: ignore[assignment]
        parameters = [p for p in module.parameters() if p.requires_grad]
        updater = optimizer.make(a.optimizer, parameters, a.learning_rate)
        batches = [_batch(torch, a) for _ in range(a.gradient_accumulation)]
        slots = a.gradient_accumulation * a.micro_batch * a.sequence
        counts = Counts(slots, slots, slots - a.gradient_accumulation * a.micro_batch)
        asked = _Asked(model, tally, a.architecture["vocab_size"])
        job = loop.Job(
            assignment=a,
            place=place,
            device=device,
            strategy=strategy,
            model=asked,
            module=module,
            optimizer=updater,
            factor=lambda number: 1.0,
            steps=iter(()),
            recorder=None,  # type: ignore[arg-type]  # a step writes nothing
            clock=lambda: 0.0,
            second=lambda: 0.0,
            is_interrupted=lambda: False,
        )
        watch = _Watch(tally, module, updater, asked.scores)
        # The first step makes the optimizer's states and fills DTensor's tables, which would be counted otherwise.
        loop.advance(job, loop.SAMPLED_STEPS, batches, counts)
        watch.begin()
        loop.advance(job, loop.SAMPLED_STEPS + 1, batches, counts)
        return {"rank": rank, **watch.end()}


class _Watch:
    """Which storage of a step is what, and how many bytes of each kind there are when there are most."""

    def __init__(self, tally: Any, module: Any, updater: Any, scores: Any) -> None:
        self._tally, self._module, self._updater = tally, module, updater
        self._scores = scores
        self._gradients: List[int] = []
        self._kinds: Dict[int, str] = {}
        self._base: Dict[int, int] = {}
        updater.register_step_pre_hook(self._before_update)

    def begin(self) -> None:
        from tunemark_worker.norm import local  # heavy

        self._tally.restart()
        self._tally.phase = "forward"
        self._base = self._tally.held()
        for tensor in [*self._module.parameters(), *self._module.buffers()]:
            self._mark(local(tensor), "parameters")
        for state in self._updater.state.values():
            for value in state.values():
                if hasattr(value, "untyped_storage"):
                    self._mark(local(value), "optimizer")
        self._gradients.clear()

    def end(self) -> Dict[str, Any]:
        tally = self._tally
        for number in self._gradients:
            self._kinds.setdefault(number, "gradients")
        held, now, most, at, phase = dict(self._base), sum(self._base.values()), -1, 0, ""
        if not tally.events:
            raise RuntimeError("the step made no storage: it was not seen")
        for index, event in enumerate(tally.events):
            now += event.delta_bytes
            if now > most:
                most, at, phase = now, index, event.phase
        for event in tally.events[: at + 1]:
            held[event.storage] = held.get(event.storage, 0) + event.delta_bytes
        by = dict.fromkeys(CATEGORIES, 0)
        makers: Dict[str, int] = {}
        for number, size in held.items():
            kind = self._kind(number)
            by[kind] += size
            maker = "{} {} {}".format(kind, *tally.origins[number])
            makers[maker] = makers.get(maker, 0) + size
        collectives: Dict[Any, int] = {}
        for each in tally.collectives:
            collectives[each] = collectives.get(each, 0) + 1
        return {
            "flops": tally.flops,
            "operators": tally.operators,
            "collectives": [
                {"kind": each.kind, "payload_bytes": each.payload_bytes, "ranks": list(each.ranks), "count": count}
                for each, count in collectives.items()
            ],
            "memory_bytes": by,
            "peak_bytes": most,
            "held": dict(sorted(makers.items(), key=lambda item: -item[1])[:_MAKERS]),
            "peak_phase": phase,
            "peak_operator": tally.events[at].operator,
            "resident_bytes": sum(self._base.values()),
        }

    def _before_update(self, *args: Any) -> None:
        from tunemark_worker.norm import local  # heavy

        self._tally.phase = "optimizer"
        for parameter in self._module.parameters():
            if parameter.grad is not None:
                number = self._tally.number_of(local(parameter.grad))
                if number is not None:
                    self._gradients.append(number)

    def _mark(self, tensor: Any, kind: str) -> None:
        number = self._tally.number_of(tensor)
        if number is not None:
            self._kinds.setdefault(number, kind)

    def _kind(self, number: int) -> str:
        if number in self._kinds:
            return self._kinds[number]
        operator, phase = self._tally.origins[number]
        is_bare = operator.startswith("aten.empty") and phase != "build"
        if operator.startswith(_COLLECTIVES) or number in self._base or is_bare:
            return "buffers"
        return "activations" if phase == "forward" and number not in self._scores else "workspace"


# Origins of what is held at the peak that are told, the largest first.
_MAKERS = 24
# Operators whose output is sent, received or gathered into; models themselves make no empty tensors.
_COLLECTIVES = ("c10d", "_c10d_functional", "_dtensor", "fsdp")


class _Asked:
    """A model's runtime that says when it is computing, and which storage holds the scores."""

    def __init__(self, model: Any, tally: Any, vocabulary: int) -> None:
        self._model, self._tally, self._vocabulary = model, tally, vocabulary
        self.scores: List[int] = []

    def logits(self, module: Any, batch: Any) -> Any:
        self._tally.phase = "forward"
        found = self._model.logits(module, batch)
        self._tally.phase = "loss"
        if found.shape[-1] == self._vocabulary:
            self.scores.append(self._tally.number_of(found))
        return found


class _Reducer:
    """DistributedDataParallel's own, but that buckets stay as they are at first: ranks would agree on their order."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False


def _reduced(bucket: Any) -> Any:
    """A bucket of gradients, reduced."""
    import torch
    import torch.distributed as dist

    dist.all_reduce(bucket.buffer())
    found: Any = torch.futures.Future()
    found.set_result(bucket.buffer())
    return found


def _batch(torch: Any, a: Assignment) -> Any:
    """A micro-batch of full rows."""
    from tunemark_worker.batches import Batch

    tensors = [torch.zeros((a.micro_batch, a.sequence), dtype=torch.int64) for _ in range(4)]
    return Batch(tensors[0], tensors[1], tensors[2], tensors[3], a.batching == "pack")


def _join(a: Assignment, rank: int) -> None:
    """Join the fake process group as one of as many ranks as the assignment has."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise RuntimeError("a simulation needs a process of its own, and this one is in a process group")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=a.processes)


@contextlib.contextmanager
def _without_data(a: Assignment) -> Iterator[None]:
    """What of torch reads contents of tensors that a simulation has not got, done without them."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    # As they are altered here, they are of no type.
    dist: Any = importlib.import_module("torch.distributed")
    device_mesh: Any = importlib.import_module("torch.distributed.device_mesh")
    schedules: Any = importlib.import_module("torch.distributed.pipelining.schedules")
    stage: Any = importlib.import_module("torch.distributed.pipelining.stage")
    ddp: Any = importlib.import_module("torch.nn.parallel.distributed")
    from tunemark_worker import optimizer

    def really(function: Any) -> Any:
        """Ranks of a mesh are numbers, which are read."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with unset_fake_temporarily():
                return function(*args, **kwargs)

        return call

    device_mesh.init_device_mesh = really(device_mesh.init_device_mesh)
    mesh = device_mesh.DeviceMesh
    for name in ("__init__", "__getitem__", "get_coordinate", "get_local_rank", "_flatten", "_get_all_submeshes"):
        setattr(mesh, name, really(getattr(mesh, name)))
    mesh._concatenate = staticmethod(really(mesh._concatenate))
    # All ranks would say whether their parameters have the same shapes: they do.
    ddp._verify_param_shape_across_processes = lambda *args, **kwargs: None
    with contextlib.suppress(ImportError):
        from transformers import masking_utils  # 4.53 and newer

        # Whether positions start anew within a row is read from them. Where our batches' do, the mask is given.
        masking_utils.find_packed_sequence_indices = lambda position_ids: None
    with contextlib.suppress(ImportError):
        moe: Any = importlib.import_module("transformers.integrations.moe")  # 5.0 and newer
        # What experts multiply is known of torch's operator in bfloat16 alone, of transformers' own in every precision.
        moe._can_use_grouped_mm = lambda *args, **kwargs: False
    torch.nn.Module._apply = _replace  # type: ignore[method-assign]
    # What a stage's neighbours say of the hidden states that they send: they are as large as its own.
    shape = (a.micro_batch, a.sequence, a.architecture["hidden_size"])
    dtype = optimizer.parameter_dtype(a.precision)

    def told(self: Any, number: int) -> Any:
        meta = stage._TensorMeta(
            shape=torch.Size(shape),
            stride=(shape[1] * shape[2], shape[2], 1),
            dtype=dtype,
            requires_grad=number < self.stage_index,
        )
        return (
            stage._StageForwardMeta(forward_metas=(meta,))
            if number < self.stage_index
            else stage._StageBackwardMeta(backward_metas=(meta,))
        )

    stage.PipelineStage._recv_meta = told
    stage.PipelineStage._send_meta = lambda self, meta, number: None
    schedules._PipelineSchedule._warmup_p2p = _infer
    dist.all_gather_object = _everybody
    yield


def _replace(module: Any, function: Any, recurse: bool = True) -> Any:
    """Move or convert a module's tensors by putting others in their place: torch swaps them, which fakes cannot be."""
    import torch

    for child in module.children() if recurse else ():
        child._apply(function)
    for name, parameter in module._parameters.items():
        moved = None if parameter is None else function(parameter)
        if moved is not None and moved is not parameter:
            module._parameters[name] = torch.nn.Parameter(moved.detach(), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def _infer(schedule: Any, stages: Sequence[Any], *args: Any) -> None:
    """Stages find the shapes of what they hand on by a first forward pass, as they do where nobody told them."""
    stage: Any = importlib.import_module("torch.distributed.pipelining.stage")
    for each in stages:
        each._inference_mode = stage.InferenceMode.DYNAMIC


def _everybody(found: List[Any], mine: Any, group: Any = None) -> None:
    """All ranks say what this one says."""
    found[:] = [mine] * len(found)


def runtime(name: str) -> Any:
    module, attribute = split_runtime(name)
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
