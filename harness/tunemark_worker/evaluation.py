"""Evaluation before and after the timed part, never in it: the held-out loss, a greedy completion, and saving.

The first two are forward passes in evaluation mode without gradients, with the same `logits` and precision as training.
All ranks run the same batches, because the forward pass of a sharded model needs every rank; rank 0 writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Tuple

import torch

from tunemark_worker import lora_adapters as methods
from tunemark_worker import row_packing
from tunemark_worker.batches import Batch, MappedTokens, count_targets
from tunemark_worker.capabilities import GathersFullState, ModelRuntime, SavesModel, StrategyRuntime
from tunemark_worker.contract import IGNORED_LABEL, PROVENANCE_FILE, Assignment, Place
from tunemark_worker.precision import autocast
from tunemark_worker.recorder import Recorder
from tunemark_worker.training_loop import cross_entropy_sum

# A prompt is padded to a multiple of this many tokens times ranks, so that sequence parallelism can split it evenly and
# a device that compiles for each shape sees few shapes.
PADDING_TOKENS = 16


class EvaluationContext(NamedTuple):
    """The arguments of this module's functions. model: the runtime. module: as returned by the strategy."""

    assignment: Assignment
    place: Place
    model: ModelRuntime
    strategy: StrategyRuntime
    module: torch.nn.Module
    tokens: MappedTokens
    recorder: Recorder


def evaluate(o: EvaluationContext, moment: str) -> None:
    """Record the held-out loss and the completion, if requested. moment: "before" or "after" training."""
    a = o.assignment
    if not a.evaluate and not a.sample_ids:
        return
    with _evaluation_mode(o.module):
        if a.evaluate:
            loss_sum, predicted, rows = _held_out_loss(o)
            if o.place.rank == 0:
                counts = {"documents": a.evaluate, "rows": rows, "targets": predicted}
                o.recorder.write("evaluation", moment=moment, **counts, loss_sum=loss_sum)
        if a.sample_ids:
            ids = _completion(o)
            if o.place.rank == 0:
                o.recorder.write("sample", moment=moment, ids=ids)
    o.recorder.write("phase", name="looked_" + moment)


def _held_out_loss(o: EvaluationContext) -> Tuple[float, int, int]:
    """(loss sum, predicted tokens, rows) over the held-out documents, each once, truncated to `sequence` tokens."""
    a = o.assignment
    lengths = row_packing.held_out_lengths(o.tokens.lengths(), a.evaluate)
    # A micro-batch here is what a global batch is in training: rows of about one length, if that is asked for.
    rows = [row for _, row in row_packing.make_batch_rows(lengths, a.sequence, a.batching, a.seed, 1, a.micro_batch)]
    total, predicted = 0.0, 0
    for first in range(0, len(rows), a.micro_batch):
        batch = o.tokens.micro_batch(rows[first : first + a.micro_batch], a)
        on_device = batch.to(o.place.device)
        total += cross_entropy_sum(_logits(o, on_device), on_device.labels).item()
        predicted += count_targets(batch)
    return total, predicted, len(rows)


def _completion(o: EvaluationContext) -> List[int]:
    """The ids of a greedy completion of the prompt, up to eos, which is left out.

    Every id takes a forward pass over the whole text, so that any model and strategy can do it without a KV cache.
    Padding is on the right, where no earlier token attends to it."""
    a = o.assignment
    ids = list(a.sample_ids)
    found: List[int] = []
    longest, shape = a.architecture["max_position_embeddings"], PADDING_TOKENS * o.place.ranks
    while len(found) < a.sample_tokens and len(ids) < longest:
        length = min((len(ids) + shape - 1) // shape * shape, longest)
        row = torch.full((1, length), a.token_file.pad_id, dtype=torch.int64)
        row[0, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        document = torch.full_like(row, -1)
        document[0, : len(ids)] = 0
        positions = torch.arange(length, dtype=torch.int64)[None]
        batch = Batch(row, torch.full_like(row, IGNORED_LABEL), document, positions, False).to(o.place.device)
        # Of every position, so that a device that compiles sees one program for all prompts of this length.
        following = int(_logits(o, batch)[0].float().argmax(dim=-1).cpu()[len(ids) - 1])
        if following == a.eos_id:
            break
        ids.append(following)
        found.append(following)
    return found


def _logits(o: EvaluationContext, batch: Batch) -> torch.Tensor:
    with autocast(o.assignment.precision, o.place.device):
        logits: torch.Tensor = o.model.logits(o.module, batch)
    return logits


def save_model(o: EvaluationContext) -> None:
    """Save the model, with adapters merged, to the assignment's folder, completely or not at all.

    A strategy that shards returns the full weights from `full_state`, and they are loaded into a newly built model;
    without that hook the module is complete on every rank."""
    target = o.assignment.save
    if target is None:
        return
    is_sharded = isinstance(o.strategy, GathersFullState)
    state = o.strategy.full_state(o.module) if isinstance(o.strategy, GathersFullState) else None
    if o.place.rank == 0:
        whole = _rebuilt(o, state or {}) if is_sharded else _unwrapped(o.module)
        methods.merge_adapters(whole)
        if o.place.device.partition(":")[0] not in ("cpu", "cuda"):
            # Weights on a lazy device have no address, by which the file's writer finds those that are shared.
            move_to_host(whole)
        part = "{}.part-{}".format(target, os.getpid())
        try:
            os.makedirs(part)
            assert isinstance(o.model, SavesModel), "checked before the run"
            o.model.save(whole, part)
            with open(os.path.join(part, PROVENANCE_FILE), "w", encoding="utf-8") as file:
                json.dump(_provenance(o.assignment), file, indent=1, sort_keys=True)
            size = sum(os.path.getsize(os.path.join(part, name)) for name in os.listdir(part))
            # Replaces an empty folder of that name; one with files was refused earlier and is an error here.
            os.rename(part, target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        o.recorder.write("saved", path=target, bytes=size, files=sorted(os.listdir(target)))
    o.recorder.write("phase", name="saved")


def move_to_host(module: torch.nn.Module) -> None:
    """Move all weights and buffers to the host, in place. A weight that modules share stays shared, unlike with `to`,
    which makes a new one for each where the devices differ."""
    moved: Dict[int, Tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                # With the old one, so that no other gets its id.
                new = torch.nn.Parameter(parameter.detach().cpu(), requires_grad=parameter.requires_grad)
                each._parameters[name] = moved.setdefault(id(parameter), (parameter, new))[1]
        for name, buffer in each._buffers.items():
            each._buffers[name] = None if buffer is None else buffer.cpu()


def _unwrapped(module: Any) -> torch.nn.Module:
    """The model inside a DistributedDataParallel wrapper."""
    while isinstance(module, torch.nn.parallel.DistributedDataParallel):
        module = module.module
    found: torch.nn.Module = module
    return found


def _rebuilt(o: EvaluationContext, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The model with these weights, built on the host without any strategy."""
    a = o.assignment
    model = type(o.model)()
    module: torch.nn.Module = model.build(a, Place("cpu", 0, 1, 0, 1))
    methods.apply_method(a.method, a.method_options, module, a.architecture)
    expected = set(module.state_dict())
    # A weight shared by two modules is in `state` under only one of its names.
    loaded = module.load_state_dict(state, strict=False)
    shared = {name for name, _ in module.named_parameters(remove_duplicate=True)}
    missing = [name for name in loaded.missing_keys if name in shared]
    if missing or loaded.unexpected_keys:
        raise ValueError(
            "the strategy returned {} of {} weights: {} are missing, {} are not in the model".format(
                len(state), len(expected), missing[:3], list(loaded.unexpected_keys)[:3]
            )
        )
    return module


def _provenance(a: Assignment) -> Dict[str, Any]:
    """Facts stored with a saved model about the run that produced it."""
    return {
        "run_id": a.run_id,
        "attempt": a.attempt,
        "model": a.model,
        "method": a.method,
        "method_options": a.method_options,
        "weights": a.weights,
        "precision": a.precision,
        "tokens_sha256": a.token_file.sha256,
    }


@contextlib.contextmanager
def _evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train()
        modules: List[Any] = list(module.modules())
        for each in modules:
            # FSDP2 keeps weights gathered in forward until a backward, which does not come here.
            if hasattr(each, "set_requires_gradient_sync") and hasattr(each, "reshard"):
                each.reshard()
