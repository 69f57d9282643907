"""What a model's runtime really does, measured on a batch of random ids: `python -m tunemark_worker.conformance FILE`.

The file names assignments; what was found is written beside it, one JSON object a line as soon as it is known, so that
a runtime that hangs or ends the process loses only what comes after. Nothing is judged here: the parent does that.

`Bigrams` is a model of the kit's own, with which it trains on a device whose plugin brings no model.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import sys
import traceback
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from tunemark_worker import batches as counting
from tunemark_worker import leftover, loop
from tunemark_worker.batches import Batch
from tunemark_worker.contract import IGNORED_LABEL, Assignment, Place, split_runtime
from tunemark_worker.optimizer import parameter_dtype

# Steps on one and the same batch, after which a model that learns must have less loss than before.
LEARNING_STEPS = 8
# The slot that is changed, to see which scores depend on it. Neither the first nor the last.
CHANGED = 9


class Scale(torch.nn.Module):
    """A weight for each part of what lies between: what facts without a layer count as the norm before the head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.weight


class Bigrams:
    """An embedding, a scale and a head: the smallest model that a device can be trained with."""

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        a = assignment.architecture
        model = torch.nn.Sequential(
            torch.nn.Embedding(a["vocab_size"], a["hidden_size"]),
            Scale(a["hidden_size"]),
            torch.nn.Linear(a["hidden_size"], a["vocab_size"], bias=False),
        )
        return model.to(place.device, parameter_dtype(assignment.precision))

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        scores: torch.Tensor = module(batch.input_ids)
        return scores


def main(path: str) -> int:
    """Examine every model that the file names."""
    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    out = os.open(request["answers"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(**row: Any) -> None:
        os.write(out, (json.dumps(_writable(row), allow_nan=False) + "\n").encode())

    torch.set_num_threads(request["threads"])
    for asked in request["models"]:
        assignment = Assignment.from_json(json.dumps(asked["assignment"]))
        say(model=assignment.model, begun=True)
        before = leftover.processes(request["mark"])
        for name, measure in _MEASURES:
            if asked["meta"] and name != "parameters":
                continue
            try:
                found = measure(assignment, "meta" if asked["meta"] else "cpu")
                say(model=assignment.model, measure=name, found=found)
            except BaseException as error:  # a stranger's code is on the other side
                if isinstance(error, KeyboardInterrupt):
                    raise
                told = traceback.extract_tb(error.__traceback__)[-1]
                place = "{}:{}".format(os.path.basename(told.filename), told.lineno)
                failure = "{}: {} ({})".format(type(error).__name__, error, place)
                say(model=assignment.model, measure=name, failure=failure)
            # Modules are cycles; looking for them takes longer than a small model does.
            if asked["collect"]:
                gc.collect()
        left = [p for p in leftover.processes(request["mark"]) if p not in before]
        say(model=assignment.model, measure="processes", found={"left": left})
        say(model=assignment.model, ended=True)
    return 0


def _place(device: str) -> Place:
    return Place(device=device, rank=0, ranks=1, data_rank=0, data_ranks=1)


def _built(assignment: Assignment, device: str) -> Tuple[Any, torch.nn.Module]:
    """A new runtime, and what it builds after the seed was set as the worker sets it."""
    module, attribute = split_runtime(assignment.model_runtime)
    runtime = getattr(importlib.import_module(module), attribute)()
    torch.manual_seed(assignment.seed)
    if device == "meta":
        with torch.device("meta"):
            built = runtime.build(assignment, _place(device))
    else:
        built = runtime.build(assignment, _place(device))
    if not isinstance(built, torch.nn.Module):
        raise TypeError("build returned {}, which is no torch.nn.Module".format(type(built).__name__))
    built.train()
    return runtime, built


def _batch(assignment: Assignment, lengths: List[List[int]], seed: int = 1) -> Batch:
    """Random ids. lengths: of the documents in each row; what is left of a row is padding."""
    a = assignment
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), a.sequence)
    ids = torch.full(shape, a.token_file.pad_id, dtype=torch.int64)
    labels = torch.full(shape, IGNORED_LABEL, dtype=torch.int64)
    document_ids = torch.full(shape, -1, dtype=torch.int64)
    positions = torch.zeros(shape, dtype=torch.int64)
    for r, row in enumerate(lengths):
        at = 0
        for d, length in enumerate(row):
            here = slice(at, at + length)
            ids[r, here] = torch.randint(0, a.architecture["vocab_size"], (length,), generator=generator)
            labels[r, here] = ids[r, here]
            labels[r, at] = IGNORED_LABEL
            document_ids[r, here] = d
            positions[r, here] = torch.arange(length)
            at += length
    return Batch(ids, labels, document_ids, positions, any(len(row) > 1 for row in lengths))


def _full(a: Assignment) -> Batch:
    return _batch(a, [[a.sequence]] * a.micro_batch)


def _scores(a: Assignment, runtime: Any, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    scores = runtime.logits(module, batch)
    wanted = (batch.input_ids.shape[0], batch.input_ids.shape[1], a.architecture["vocab_size"])
    if not isinstance(scores, torch.Tensor):
        raise TypeError("logits returned {}, not a tensor".format(type(scores).__name__))
    if tuple(scores.shape) != wanted:
        raise ValueError("logits has shape {}, not {}".format(tuple(scores.shape), wanted))
    return scores


def _loss(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    return loop.loss_of(scores, batch.labels) / max(counting.targets(batch), 1)


def parameters(a: Assignment, device: str) -> Dict[str, Any]:
    _, module = _built(a, device)
    every = list(module.named_parameters())
    return {
        "total": sum(p.numel() for _, p in every),
        "trainable": sum(p.numel() for _, p in every if p.requires_grad),
        "frozen": [n for n, p in every if not p.requires_grad],
        "devices": sorted({p.device.type for _, p in every}),
        "dtypes": sorted({str(p.dtype) for _, p in every}),
        "wanted_dtype": str(parameter_dtype(a.precision)),
        "imported_parent": "tunemark" in sys.modules,
    }


def flops(a: Assignment, device: str) -> Dict[str, Any]:
    """FLOPs of one forward and one backward pass per slot, and of what multiplication they are."""
    runtime, module = _built(a, device)
    batch = _full(a)
    with FlopCounterMode(display=False, custom_mapping=_uncounted()) as counter:
        _loss(_scores(a, runtime, module, batch), batch).backward()  # type: ignore[no-untyped-call]  # torch's
    return {"per_slot": counter.get_total_flops() / batch.input_ids.numel()}


def initial_loss(a: Assignment, device: str) -> Dict[str, Any]:
    runtime, module = _built(a, device)
    batch = _full(a)
    with torch.no_grad():
        return {"loss": _loss(_scores(a, runtime, module, batch), batch).item()}


def gradients(a: Assignment, device: str) -> Dict[str, Any]:
    """Trainable parameters that a loss does not reach."""
    runtime, module = _built(a, device)
    batch = _full(a)
    _loss(_scores(a, runtime, module, batch), batch).backward()  # type: ignore[no-untyped-call]  # torch's
    trainable = [(n, p.grad) for n, p in module.named_parameters() if p.requires_grad]
    return {
        "tensors": len(trainable),
        "unreached": [n for n, g in trainable if g is None or not bool((g != 0).any())],
        "not_finite": [n for n, g in trainable if g is not None and not bool(torch.isfinite(g).all())],
        "frozen": [n for n, p in module.named_parameters() if not p.requires_grad],
    }


def alignment(a: Assignment, device: str) -> Dict[str, Any]:
    """Which scores change when one slot's id does, and whether the batch comes back as it was given."""
    runtime, module = _built(a, device)
    batch = _full(a)
    given = [t.clone() for t in batch[:4]]
    with torch.no_grad():
        before = _scores(a, runtime, module.eval(), batch)
        kept = [bool((t == g).all()) for t, g in zip(batch[:4], given)]
        shifted = bool((batch.labels[:, :-1] == given[1][:, 1:]).all())
        other = batch.input_ids.clone()
        other[:, CHANGED] = (other[:, CHANGED] + 1) % a.architecture["vocab_size"]
        after = _scores(a, runtime, module, batch._replace(input_ids=other))
    change = (after.float() - before.float()).abs().amax(dim=(0, 2))
    limit = 1e-3 * float(change.max())
    first = next((i for i, c in enumerate(change.tolist()) if c > limit), None) if limit > 0 else None
    return {"changed": CHANGED, "first": first, "kept": dict(zip(Batch._fields, kept)), "labels_shifted": shifted}


def packing(a: Assignment, device: str) -> Dict[str, Any]:
    """The largest difference between a document's scores alone and behind another document in one row."""
    runtime, module = _built(a, device)
    module.eval()
    first, second = a.sequence // 2 - 3, a.sequence // 4
    packed = _batch(a, [[first, second]])
    rows = torch.full_like(packed.input_ids.repeat(2, 1), a.token_file.pad_id)
    rows[0, :first], rows[1, :second] = packed.input_ids[0, :first], packed.input_ids[0, first : first + second]
    alone = _batch(a, [[first], [second]])._replace(input_ids=rows)
    with torch.no_grad():
        together = _scores(a, runtime, module, packed).float()[0]
        apart = _scores(a, runtime, module, alone).float()
    scale = float(apart.abs().max())
    both = [(together[:first], apart[0, :first]), (together[first : first + second], apart[1, :second])]
    return {"apart": max(float((x - y).abs().max()) for x, y in both) / scale if scale else 0.0}


def determinism(a: Assignment, device: str) -> Dict[str, Any]:
    """Loss and gradient norm of two builds under one seed, as hexadecimal floats."""
    found = []
    for _ in range(2):
        runtime, module = _built(a, device)
        batch = _full(a)
        loss = _loss(_scores(a, runtime, module, batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in module.parameters() if p.grad is not None))
        found.append([float(loss.detach()).hex(), norm.hex()])
    return {"runs": found}


def learning(a: Assignment, device: str) -> Dict[str, Any]:
    """The loss of one batch before and after some steps on it."""
    runtime, module = _built(a, device)
    batch = _full(a)
    updater = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(LEARNING_STEPS):
        loss = _loss(_scores(a, runtime, module, batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        updater.step()
        updater.zero_grad()
        losses.append(float(loss.detach()))
    return {"losses": losses}


def tokens(a: Assignment, device: str) -> Dict[str, Any]:
    """What the worker counts of a padded batch once the runtime is there, against the lengths that were put in."""
    runtime, module = _built(a, device)
    lengths = [a.sequence - 5, a.sequence // 2]
    batch = _batch(a, [[n] for n in lengths])
    with torch.no_grad():
        _scores(a, runtime, module, batch)
    return {
        # By name, because a runtime may have put another function there.
        "counted": list(vars(loop)["count"]([batch])),
        "expected": [2 * a.sequence, sum(lengths), sum(n - 1 for n in lengths)],
    }


_MEASURES: List[Tuple[str, Callable[[Assignment, str], Dict[str, Any]]]] = [
    ("parameters", parameters),
    ("flops", flops),
    ("initial-loss", initial_loss),
    ("gradients", gradients),
    ("alignment", alignment),
    ("packing", packing),
    ("determinism", determinism),
    ("learning", learning),
    ("tokens", tokens),
]


def _uncounted() -> Dict[Any, Any]:
    """FLOPs of what torch's counter does not know: the CPU's fused attention (queries by keys and weights by values,
    every key counted; backward twice that, as nothing is computed again in the accounting of models), and one
    multiplication for the experts of all tokens, each token by its own expert's matrix."""

    def forward(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
        b, h, s, d = query
        return 2 * int(b) * int(h) * int(s) * int(key[-2]) * (int(d) + int(value[-1]))

    def backward(
        gradient: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any
    ) -> int:
        return 2 * forward(query, key, value)

    def grouped(a: Any, b: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
        groups = int(a[0]) if len(a) == 3 and len(b) == 3 else 1
        return 2 * groups * int(a[-2]) * int(a[-1]) * int(b[-1])

    found: Dict[Any, Any] = {}
    for name, count in (
        ("_scaled_dot_product_flash_attention_for_cpu", forward),
        ("_scaled_dot_product_flash_attention_for_cpu_backward", backward),
        ("_grouped_mm", grouped),
    ):
        if hasattr(torch.ops.aten, name):
            found[getattr(torch.ops.aten, name)] = count
    return found


def _writable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _writable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
