"""What is done before and after the timed part, never in it: the held-out loss, a greedy completion, saving.

The first two are forward passes without gradients in evaluation mode, by the same `logits` and in the same precision as
training. Every rank takes part with the same batches, because a sharded model's forward needs all of them; rank 0
writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch

from tunemark_worker import documents
from tunemark_worker import method as methods
from tunemark_worker import optimizer as optimizing
from tunemark_worker.batches import Batch, Tokens, targets
from tunemark_worker.contract import IGNORED_LABEL, SAVED_BY, Assignment, Place
from tunemark_worker.loop import loss_of
from tunemark_worker.recorder import Recorder

# A text that is completed is padded to a multiple of so many tokens for each process: a sequence that is shared out
# can then be cut evenly, and a device that compiles for each shape sees few.
SHAPE = 16


class Outside(NamedTuple):
    """What the functions of this module work on. model: the runtime. module: as the strategy made it."""

    assignment: Assignment
    place: Place
    model: Any
    strategy: Any
    module: torch.nn.Module
    tokens: Tokens
    recorder: Recorder


def look(o: Outside, moment: str) -> None:
    """Write the held-out loss and the completion, where they are asked for. moment: "before" or "after" training."""
    a = o.assignment
    if not a.evaluate and not a.sample_ids:
        return
    with _evaluating(o.module):
        if a.evaluate:
            loss_sum, predicted, rows = _held_out_loss(o)
            if o.place.rank == 0:
                o.recorder.write(
                    "evaluation",
                    moment=moment,
                    documents=a.evaluate,
                    rows=rows,
                    targets=predicted,
                    loss_sum=loss_sum,
                )
        if a.sample_ids:
            ids = _completion(o)
            if o.place.rank == 0:
                o.recorder.write("sample", moment=moment, ids=ids)
    o.recorder.write("phase", name="looked_" + moment)


def _held_out_loss(o: Outside) -> Tuple[float, int, int]:
    """(sum, predicted tokens, rows) over the documents that training leaves out, each once, cut at `sequence`."""
    a = o.assignment
    lengths = documents.held_out_lengths(o.tokens.lengths(), a.evaluate)
    rows = [row for _, row in documents.rows(lengths, a.sequence, a.batching, a.seed, 1)]
    total, predicted = 0.0, 0
    for first in range(0, len(rows), a.micro_batch):
        batch = o.tokens.batch(rows[first : first + a.micro_batch], a.sequence, a.batching == "pack")
        on_device = batch.to(o.place.device)
        total += loss_of(_logits(o, on_device), on_device.labels).item()
        predicted += targets(batch)
    return total, predicted, len(rows)


def _completion(o: Outside) -> List[int]:
    """The ids that follow the prompt, each the likeliest after those before it; ends with eos, which is left out.

    The whole text is read anew for each id, so that any model and strategy can do it without a cache. Padding is on
    the right, where no earlier token attends to it."""
    a = o.assignment
    ids = list(a.sample_ids)
    found: List[int] = []
    longest, shape = a.architecture["max_position_embeddings"], SHAPE * o.place.ranks
    while len(found) < a.sample_tokens and len(ids) < longest:
        length = min((len(ids) + shape - 1) // shape * shape, longest)
        row = torch.full((1, length), a.token_file.pad_id, dtype=torch.int64)
        row[0, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        document = torch.full_like(row, -1)
        document[0, : len(ids)] = 0
        positions = torch.arange(length, dtype=torch.int64)[None]
        batch = Batch(row, torch.full_like(row, IGNORED_LABEL), document, positions, False).to(o.place.device)
        following = int(_logits(o, batch)[0, len(ids) - 1].float().argmax().item())
        if following == a.eos_id:
            break
        ids.append(following)
        found.append(following)
    return found


def _logits(o: Outside, batch: Batch) -> torch.Tensor:
    with optimizing.autocast(o.assignment.precision, o.place.device):
        logits: torch.Tensor = o.model.logits(o.module, batch)
    return logits


def save(o: Outside) -> None:
    """Write the model, adapters merged into it, to the assignment's folder, whole or not at all.

    A strategy that shards gives the whole weights by `full_state`, which a model built anew then takes; without it the
    module is whole in every rank."""
    target = o.assignment.save
    if target is None:
        return
    gather = getattr(o.strategy, "full_state", None)
    state: Optional[Dict[str, torch.Tensor]] = gather(o.module) if gather else None
    if o.place.rank == 0:
        whole = _unwrapped(o.module) if gather is None else _rebuilt(o, state or {})
        methods.merge(whole)
        part = "{}.part-{}".format(target, os.getpid())
        try:
            os.makedirs(part)
            o.model.save(whole, part)
            with open(os.path.join(part, SAVED_BY), "w", encoding="utf-8") as file:
                json.dump(_origin(o.assignment), file, indent=1, sort_keys=True)
            size = sum(os.path.getsize(os.path.join(part, name)) for name in os.listdir(part))
            # An empty folder of that name gives way; one with files is refused before and is an error here.
            os.rename(part, target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        o.recorder.write("saved", path=target, bytes=size, files=sorted(os.listdir(target)))
    o.recorder.write("phase", name="saved")


def _unwrapped(module: Any) -> torch.nn.Module:
    """The model inside of what a data-parallel wrapper made of it."""
    while isinstance(module, torch.nn.parallel.DistributedDataParallel):
        module = module.module
    found: torch.nn.Module = module
    return found


def _rebuilt(o: Outside, state: Dict[str, torch.Tensor]) -> torch.nn.Module:
    """The model as it was before any strategy, on the host, with these weights."""
    a = o.assignment
    model = type(o.model)()
    module: torch.nn.Module = model.build(a, Place("cpu", 0, 1, 0, 1))
    methods.apply(a.method, a.method_options, module)
    expected = set(module.state_dict())
    # A weight that two modules share is there under one of its names.
    loaded = module.load_state_dict(state, strict=False)
    shared = {name for name, _ in module.named_parameters(remove_duplicate=True)}
    missing = [name for name in loaded.missing_keys if name in shared]
    if missing or loaded.unexpected_keys:
        raise ValueError(
            "the strategy gave {} of {} weights back: {} are missing, {} are of no model".format(
                len(state), len(expected), missing[:3], list(loaded.unexpected_keys)[:3]
            )
        )
    return module


def _origin(a: Assignment) -> Dict[str, Any]:
    """What tells of a saved model where it comes from."""
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
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train()
        every: List[Any] = list(module.modules())
        for each in every:
            # FSDP2 keeps what a forward has gathered until a backward that does not come.
            if hasattr(each, "set_requires_gradient_sync") and hasattr(each, "reshard"):
                each.reshard()
