"""What is done before and after the timed part, never in it: the held-out loss, a greedy completion, saving.

All are forward passes without gradients in evaluation mode, by the same `logits` and in the same precision as training.
Every rank takes part with the same batches, because a sharded model's forward needs all of them; rank 0 writes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import torch

from tunemark_worker import documents
from tunemark_worker import method as methods
from tunemark_worker import optimizer as optimizing
from tunemark_worker.batches import Batch, Tokens, targets
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.loop import loss_of
from tunemark_worker.recorder import Recorder


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


def _held_out_loss(o: Outside) -> Any:
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

    The whole text is read anew for each id, so that any model and strategy can do it without a cache."""
    a = o.assignment
    ids = list(a.sample_ids)
    found: List[int] = []
    while len(found) < a.sample_tokens and len(ids) < a.architecture["max_position_embeddings"]:
        row = torch.tensor([ids], dtype=torch.int64)
        nothing = torch.full_like(row, -100)
        positions = torch.arange(len(ids), dtype=torch.int64)[None]
        batch = Batch(row, nothing, torch.zeros_like(row), positions, False).to(o.place.device)
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

    A strategy that shards gives the whole weights by `full_state`; without it the module is whole in every rank."""
    target = o.assignment.save
    if target is None:
        return
    gather = getattr(o.strategy, "full_state", None)
    state: Optional[Dict[str, torch.Tensor]] = gather(o.module) if gather else None
    if o.place.rank == 0:
        plain = o.module
        while hasattr(plain, "module") and isinstance(plain.module, torch.nn.Module):
            plain = plain.module
        if state is None:
            methods.merge(plain)
        part = "{}.part-{}".format(target, os.getpid())
        try:
            os.makedirs(part)
            o.model.save(plain, state, part)
            size = sum(os.path.getsize(os.path.join(part, name)) for name in os.listdir(part))
            # An empty folder of that name gives way; one with files is refused before and is an error here.
            os.rename(part, target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        o.recorder.write("saved", path=target, bytes=size, files=sorted(os.listdir(target)))
    o.recorder.write("phase", name="saved")


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train()
