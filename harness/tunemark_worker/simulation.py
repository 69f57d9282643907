"""Simulate a step of one rank of any layout without its hardware and without the other ranks: `python -m
tunemark_worker.simulation ASSIGNMENT RANK RESULT ...`, with one process per candidate and rank.

The real model, strategy, optimizer and training step run on torch's fake tensors, which have shapes but no content, in
torch's fake process group, whose collectives return at once. So a model and a mesh of any size take seconds, and the
step is counted exactly: FLOPs by operator, collectives with sizes and groups, and every storage from allocation to
release. Nothing is learned about time.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import sys
import traceback
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Sequence

from tunemark_worker.atomic_write import write_json
from tunemark_worker.capabilities import PlacesRanks, load_device, load_model, load_strategy
from tunemark_worker.contract import Assignment
from tunemark_worker.precision import PRECISIONS

# Categories of memory, in the order of the result.
CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "buffers", "workspace")


def main(*jobs: str) -> int:
    """Simulate every (assignment file, rank, file for the result or error) in `jobs` and return the exit code. Each
    runs in a forked child, which shares the modules imported here."""
    for name in PRELOADED_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Frozen objects are not scanned by the children's garbage collectors, so their pages stay shared.
    gc.collect()
    gc.freeze()
    failed, parent = 0, os.getppid()
    for assignment_path, rank, result_path in zip(*[iter(jobs)] * 3):
        if os.getppid() != parent:
            return 1  # the parent that wants the results is gone
        child = os.fork()
        if child:
            failed += os.waitpid(child, 0)[1] != 0
            continue
        try:
            with open(assignment_path, encoding="utf-8") as file:
                row = simulate_step(Assignment.from_json(file.read()), rank=int(rank))
        except Exception as error:
            traceback.print_exc()
            row = {"error": _explain(error)}
        write_json(result_path, row)
        sys.stderr.flush()
        # Skips the teardown of torch and of the fake group's threads.
        os._exit("error" in row)
    return 1 if failed else 0


def _explain(error: Exception) -> str:
    """The error in words for the user."""
    kind = type(error).__name__
    if kind in ("DynamicOutputShapeException", "DataDependentOutputException"):
        return "its step depends on the content of tensors ({}), which fake tensors do not have".format(error)
    return "{}: {}".format(kind, error)


# Modules that every simulation imports.
PRELOADED_MODULES = (
    "torch._dynamo",
    "torch._subclasses.fake_tensor",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch.distributed.pipelining",
    "torch.testing._internal.distributed.fake_pg",
    "transformers.masking_utils",
    "transformers.modeling_layers",
    "tunemark_worker.training_loop",
    "tunemark_worker.op_counter",
)


def simulate_step(assignment: Assignment, *, rank: int) -> Dict[str, Any]:
    """Take two steps as rank `rank` of the assignment's processes and return the counts of the second.

    Patches torch permanently, so the process must not be used for anything else. RuntimeError if torch is older than
    2.6 or already in a process group, for matrices of 4 bits and for products in fp8.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from tunemark_worker import activation_checkpointing, lora_adapters, training_loop
    from tunemark_worker.batches import TokenCounts
    from tunemark_worker.op_counter import OpCounter

    if assignment.method == "qlora":
        raise RuntimeError("matrices of 4 bits are not simulated")
    if PRECISIONS[assignment.precision].float8:
        raise RuntimeError("products in fp8 are not simulated")
    a = replace(assignment, device="cpu", device_options={}, breakdown=False, weights="random")
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(a.processes), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    torch.set_num_threads(1)
    _join_fake_group(a, rank)
    model = load_model(a.model_runtime)
    device = load_device("tunemark_torch.runtime:CpuRuntime")
    strategy = load_strategy(a.strategy_runtime, a)
    place = device.open(a)
    strategy.prepare()
    if isinstance(strategy, PlacesRanks):
        place = strategy.place(place)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    counter = OpCounter(copies_scattered=assignment.device == "cpu")
    with _patched_torch(a), mode, counter:
        # Built for padding: masks of packed documents, and where documents end, depend on the content of tensors.
        attention = "sdpa" if a.attention == "varlen" else a.attention
        built = model.build(replace(a, batching="pad", attention=attention), place)
        lora_adapters.apply_method(a.method, a.method_options, built, a.architecture)
        built.train()
        activation_checkpointing.checkpoint_layers(built, a.checkpointing)
        module = strategy.apply(built, place)
        del built
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            # This class expects tensors in the results of its collectives, and the fake group's have none.
            module.register_comm_hook(None, lambda state, bucket: _all_reduce_bucket(bucket))
            module.reducer = _Reducer(module.reducer)  # type: ignore[assignment]
        parameters = [p for p in module.parameters() if p.requires_grad]
        updater = training_loop.make_updater(a, parameters)
        batches = [_batch(torch, a) for _ in range(a.gradient_accumulation)]
        slots = a.gradient_accumulation * a.micro_batch * a.sequence
        counts = TokenCounts(slots, slots, slots - a.gradient_accumulation * a.micro_batch)
        recorder = _PhaseRecorder if a.loss == "plain" else _LossRecorder
        recorded_model = recorder(model, counter, a.architecture["vocab_size"])
        job = training_loop.TrainingJob(
            assignment=a,
            place=place,
            device=device,
            strategy=strategy,
            model=recorded_model,  # type: ignore[arg-type]  # it has been built
            module=module,
            optimizer=updater,
            factor=lambda number: 1.0,
            steps=iter(()),
            recorder=None,  # type: ignore[arg-type]  # a step writes no records
            clock=lambda: 0.0,
            second=lambda: 0.0,
            is_interrupted=lambda: False,
        )
        watch = _MemoryWatch(counter, module, updater, recorded_model.logit_storages)
        # The first step creates the optimizer's state and fills DTensor's caches, which must not be counted.
        training_loop.take_step(job, training_loop.SAMPLED_STEPS, batches, counts)
        watch.begin()
        training_loop.take_step(job, training_loop.SAMPLED_STEPS + 1, batches, counts)
        return {"rank": rank, **watch.end()}


class _MemoryWatch:
    """Sorts the storages of a step into CATEGORIES, and finds the bytes of each at the peak."""

    def __init__(self, counter: Any, module: Any, updater: Any, logit_storages: Any) -> None:
        self._tally, self._module, self._updater = counter, module, updater
        self._logit_storages = logit_storages
        self._gradients: List[int] = []
        self._categories: Dict[int, str] = {}
        self._resident: Dict[int, int] = {}
        updater.register_step_pre_hook(self._before_update)

    def begin(self) -> None:
        from tunemark_worker.gradient_norm import local_part  # heavy

        self._tally.restart()
        self._tally.phase = "forward"
        self._resident = self._tally.held()
        for tensor in [*self._module.parameters(), *self._module.buffers()]:
            self._mark(local_part(tensor), "parameters")
        for state in self._updater.state.values():
            for value in state.values():
                if hasattr(value, "untyped_storage"):
                    self._mark(local_part(value), "optimizer")
        self._gradients.clear()

    def end(self) -> Dict[str, Any]:
        counter = self._tally
        for number in self._gradients:
            self._categories.setdefault(number, "gradients")
        alive, now, most, at, phase = dict(self._resident), sum(self._resident.values()), -1, 0, ""
        if not counter.events:
            raise RuntimeError("the step allocated no storage, so it was not recorded")
        for index, event in enumerate(counter.events):
            now += event.delta_bytes
            if now > most:
                most, at, phase = now, index, event.phase
        for event in counter.events[: at + 1]:
            alive[event.storage] = alive.get(event.storage, 0) + event.delta_bytes
        by_category = dict.fromkeys(CATEGORIES, 0)
        makers: Dict[str, int] = {}
        for number, size in alive.items():
            kind = self._category(number)
            by_category[kind] += size
            maker = "{} {} {}".format(kind, *counter.origins[number])
            makers[maker] = makers.get(maker, 0) + size
        collectives: Dict[Any, int] = {}
        for each in counter.collectives:
            collectives[each] = collectives.get(each, 0) + 1
        return {
            "flops": counter.flops,
            "operators": counter.operators,
            "collectives": [
                {"kind": each.kind, "payload_bytes": each.payload_bytes, "ranks": list(each.ranks), "count": count}
                for each, count in collectives.items()
            ],
            "memory_bytes": by_category,
            "peak_bytes": most,
            "held": dict(sorted(makers.items(), key=lambda item: -item[1])[:_MAKERS]),
            "peak_phase": phase,
            "peak_operator": counter.events[at].operator,
            "resident_bytes": sum(self._resident.values()),
        }

    def _before_update(self, *args: Any) -> None:
        from tunemark_worker.gradient_norm import local_part  # heavy

        self._tally.phase = "optimizer"
        for parameter in self._module.parameters():
            if parameter.grad is not None:
                number = self._tally.number_of(local_part(parameter.grad))
                if number is not None:
                    self._gradients.append(number)

    def _mark(self, tensor: Any, kind: str) -> None:
        number = self._tally.number_of(tensor)
        if number is not None:
            self._categories.setdefault(number, kind)

    def _category(self, number: int) -> str:
        if number in self._categories:
            return self._categories[number]
        operator, phase = self._tally.origins[number]
        is_bare = operator.startswith("aten.empty") and phase != "build"
        if operator.startswith(_COLLECTIVES) or number in self._resident or is_bare:
            return "buffers"
        return "activations" if phase == "forward" and number not in self._logit_storages else "workspace"


# Origins of the memory at the peak that are reported, the largest first.
_MAKERS = 24
# Prefixes of operators whose outputs are communication buffers; models themselves create no empty tensors.
_COLLECTIVES = ("c10d", "_c10d_functional", "_dtensor", "fsdp")


class _PhaseRecorder:
    """Wraps a model's runtime to set the counter's phase and to remember which storages hold the logits."""

    def __init__(self, model: Any, counter: Any, vocabulary: int) -> None:
        self._model, self._tally, self._vocabulary = model, counter, vocabulary
        self.logit_storages: List[int] = []

    def logits(self, module: Any, batch: Any) -> Any:
        self._tally.phase = "forward"
        logits = self._model.logits(module, batch)
        self._tally.phase = "loss"
        if logits.shape[-1] == self._vocabulary:
            self.logit_storages.append(self._tally.number_of(logits))
        return logits


class _LossRecorder(_PhaseRecorder):
    """The same for a model that computes its loss without all scores."""

    def loss_sum(self, module: Any, batch: Any) -> Any:
        self._tally.phase = "forward"
        loss = self._model.loss_sum(module, batch)
        self._tally.phase = "loss"
        return loss


class _Reducer:
    """DistributedDataParallel's reducer without rebuilding buckets, for which ranks would exchange their order."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False


def _all_reduce_bucket(bucket: Any) -> Any:
    """All-reduce a bucket of gradients, as a communication hook."""
    import torch
    import torch.distributed as dist

    dist.all_reduce(bucket.buffer())
    found: Any = torch.futures.Future()
    found.set_result(bucket.buffer())
    return found


def _batch(torch: Any, a: Assignment) -> Any:
    """A micro-batch of full rows without padding."""
    from tunemark_worker.batches import Batch

    tensors = [torch.zeros((a.micro_batch, a.sequence), dtype=torch.int64) for _ in range(4)]
    return Batch(tensors[0], tensors[1], tensors[2], tensors[3], a.batching == "pack")


def _join_fake_group(a: Assignment, rank: int) -> None:
    """Join a fake process group with as many ranks as the assignment has."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise RuntimeError("a simulation needs a process of its own, and this one is in a process group")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=a.processes)


@contextlib.contextmanager
def _patched_torch(a: Assignment) -> Iterator[None]:
    """Replace the parts of torch that read the content of tensors, which fake ones do not have."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    # Untyped, because they are patched.
    dist: Any = importlib.import_module("torch.distributed")
    device_mesh: Any = importlib.import_module("torch.distributed.device_mesh")
    schedules: Any = importlib.import_module("torch.distributed.pipelining.schedules")
    stage: Any = importlib.import_module("torch.distributed.pipelining.stage")
    ddp: Any = importlib.import_module("torch.nn.parallel.distributed")
    chunked_loss: Any = importlib.import_module("tunemark_worker.chunked_loss")
    from tunemark_worker.precision import parameter_dtype

    # All rows have labels, but for the last of each sequence; and a factor changes no shape.
    chunked_loss.find_labelled = lambda labels: torch.arange(labels.shape[0] - a.micro_batch, device=labels.device)
    chunked_loss.read_factor = lambda scores, tried: 1.0

    def with_real_tensors(function: Any) -> Any:
        """For device meshes, which read their ranks from a tensor."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with unset_fake_temporarily():
                return function(*args, **kwargs)

        return call

    device_mesh.init_device_mesh = with_real_tensors(device_mesh.init_device_mesh)
    mesh = device_mesh.DeviceMesh
    for name in ("__init__", "__getitem__", "get_coordinate", "get_local_rank", "_flatten", "_get_all_submeshes"):
        setattr(mesh, name, with_real_tensors(getattr(mesh, name)))
    mesh._concatenate = staticmethod(with_real_tensors(mesh._concatenate))
    # Ranks would exchange their parameters' shapes, which are equal.
    ddp._verify_param_shape_across_processes = lambda *args, **kwargs: None
    with contextlib.suppress(ImportError):
        from transformers import masking_utils  # 4.53 and newer

        # It reads the positions to find packed documents; batches with packed documents come with a mask.
        masking_utils.find_packed_sequence_indices = lambda position_ids: None
    with contextlib.suppress(ImportError):
        moe: Any = importlib.import_module("transformers.integrations.moe")  # 5.0 and newer
        # torch's grouped product has a fake implementation for bfloat16 only, transformers' own for every precision.
        moe._can_use_grouped_mm = lambda *args, **kwargs: False
    torch.nn.Module._apply = _apply_by_replacing  # type: ignore[method-assign]
    # Neighbouring stages would send the metadata of their hidden states, which is the same as this stage's.
    shape = (a.micro_batch, a.sequence, a.architecture["hidden_size"])
    dtype = parameter_dtype(a.precision)

    def receive_meta(self: Any, number: int) -> Any:
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

    stage.PipelineStage._recv_meta = receive_meta
    stage.PipelineStage._send_meta = lambda self, meta, number: None
    schedules._PipelineSchedule._warmup_p2p = _infer_shapes
    dist.all_gather_object = _fake_all_gather_object
    yield


def _apply_by_replacing(module: Any, function: Any, recurse: bool = True) -> Any:
    """Module._apply that replaces the tensors: torch swaps them in place, which fake tensors do not allow."""
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


def _infer_shapes(schedule: Any, stages: Sequence[Any], *args: Any) -> None:
    """Have stages infer the shapes of their outputs in a first forward pass, as they do if none are given."""
    stage: Any = importlib.import_module("torch.distributed.pipelining.stage")
    for each in stages:
        each._inference_mode = stage.InferenceMode.DYNAMIC


def _fake_all_gather_object(gathered: List[Any], mine: Any, group: Any = None) -> None:
    """As if all ranks had sent the same object as this one."""
    gathered[:] = [mine] * len(gathered)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
