"""Measure what a model runtime does on a batch of random ids: `python -m tunemark_worker.conformance REQUEST`.

The request file holds assignments and the path of the answers, one JSON object a line, each written as soon as it is
known, so that a runtime that hangs or exits loses only later answers. The parent judges them; nothing is judged here.

`Bigrams` is the test kit's own model, to train on a device whose plugin brings no model; `BusyBigrams` is the same on a
device that always has work queued.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import traceback
from typing import Any, Callable, Dict, List, Tuple

import torch

from tunemark_worker import batches as counting
from tunemark_worker import linux_proc, training_loop
from tunemark_worker.batches import Batch
from tunemark_worker.capabilities import load_model
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.precision import parameter_dtype
from tunemark_worker.queue_probe import ProductChain

# Steps on one fixed batch, after which the loss of a model that learns must be lower.
LEARNING_STEPS = 8
# The slot whose id is changed, to see which logits depend on it. Neither the first nor the last.
CHANGED_SLOT = 9


class ElementwiseScale(torch.nn.Module):
    """An elementwise weight, which the facts of a model without layers count as the norm before the head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.weight


class Bigrams:
    """An embedding, a scale and a head: the smallest model that can be trained on a device."""

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        a = assignment.architecture
        model = torch.nn.Sequential(
            torch.nn.Embedding(a["vocab_size"], a["hidden_size"]),
            ElementwiseScale(a["hidden_size"]),
            torch.nn.Linear(a["hidden_size"], a["vocab_size"], bias=False),
        )
        return model.to(place.device, parameter_dtype(assignment.precision))

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = module(batch.input_ids)
        return logits


# Seconds of work in each step of `BusyBigrams`: windows are then long compared with the delays of a busy machine.
BUSY_S = 0.1
# Forward passes besides, on a device that computes products at once: it may queue something else of a model.
MORE_PASSES = 7


class BusyBigrams:
    """`Bigrams`, whose logits wait for more work: a chain of matrix products, where the device queues these."""

    def __init__(self) -> None:
        self._bigrams = Bigrams()

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        self._chain = ProductChain(place.device)
        return self._bigrams.build(assignment, place)

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if not self._chain.is_queued:
            with torch.no_grad():
                for _ in range(MORE_PASSES):
                    self._bigrams.logits(module, batch)
            return self._bigrams.logits(module, batch)
        logits = self._bigrams.logits(module, batch)
        ones = self._chain.queue(BUSY_S)
        return logits * (ones.sum() / ones.numel())


def main(path: str) -> int:
    """Measure every model in the request file."""
    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    out = os.open(request["answers"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(**row: Any) -> None:
        os.write(out, (json.dumps(_replace_non_finite(row), allow_nan=False) + "\n").encode())

    torch.set_num_threads(request["threads"])
    for model in request["models"]:
        assignment = Assignment.from_json(json.dumps(model["assignment"]))
        write(model=assignment.model, begun=True)
        before = linux_proc.find_marked_processes(request["mark"])
        for name, measure in _MEASURES:
            if model["meta"] and name != "parameters":
                continue
            try:
                found = measure(assignment, "meta" if model["meta"] else "cpu")
                write(model=assignment.model, measure=name, found=found)
            except BaseException as error:  # third-party code may raise anything
                if isinstance(error, KeyboardInterrupt):
                    raise
                frame = traceback.extract_tb(error.__traceback__)[-1]
                place = "{}:{}".format(os.path.basename(frame.filename), frame.lineno)
                failure = "{}: {} ({})".format(type(error).__name__, error, place)
                write(model=assignment.model, measure=name, failure=failure)
            # Modules form reference cycles; collecting them takes longer than a small model's measurements.
            if model["collect"]:
                gc.collect()
        left = [p for p in linux_proc.find_marked_processes(request["mark"]) if p not in before]
        write(model=assignment.model, measure="processes", found={"left": left})
        write(model=assignment.model, ended=True)
    return 0


def _place(device: str) -> Place:
    return Place(device=device, rank=0, ranks=1, data_rank=0, data_ranks=1)


def _build(assignment: Assignment, device: str) -> Tuple[Any, torch.nn.Module]:
    """A new runtime and the model that it builds, with the seed set as the worker sets it."""
    runtime = load_model(assignment.model_runtime)
    torch.manual_seed(assignment.seed)
    if device == "meta":
        with torch.device("meta"):
            built = runtime.build(assignment, _place(device))
    else:
        built = runtime.build(assignment, _place(device))
    if not isinstance(built, torch.nn.Module):
        raise TypeError("build returned {}, which is not a torch.nn.Module".format(type(built).__name__))
    built.train()
    return runtime, built


def _batch(assignment: Assignment, lengths: List[List[int]], seed: int = 1) -> Batch:
    """A batch of random ids. lengths: of the documents in each row; the rest of a row is padding."""
    a = assignment
    generator = torch.Generator().manual_seed(seed)
    rows = [[torch.randint(0, a.architecture["vocab_size"], (n,), generator=generator) for n in row] for row in lengths]
    contents = [[(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in row] for row in rows]
    return counting.make_batch(contents, a.sequence, a.token_file.pad_id, any(len(row) > 1 for row in lengths))


def _full_batch(a: Assignment) -> Batch:
    return _batch(a, [[a.sequence]] * a.micro_batch)


def _logits(a: Assignment, runtime: Any, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    logits = runtime.logits(module, batch)
    expected = (batch.input_ids.shape[0], batch.input_ids.shape[1], a.architecture["vocab_size"])
    if not isinstance(logits, torch.Tensor):
        raise TypeError("logits returned {}, not a tensor".format(type(logits).__name__))
    if tuple(logits.shape) != expected:
        raise ValueError("logits has shape {}, not {}".format(tuple(logits.shape), expected))
    return logits


def _loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return training_loop.cross_entropy_sum(logits, batch.labels) / max(counting.count_targets(batch), 1)


def measure_parameters(a: Assignment, device: str) -> Dict[str, Any]:
    _, module = _build(a, device)
    named = list(module.named_parameters())
    return {
        "total": sum(p.numel() for _, p in named),
        "trainable": sum(p.numel() for _, p in named if p.requires_grad),
        "frozen": [n for n, p in named if not p.requires_grad],
        "devices": sorted({p.device.type for _, p in named}),
        "dtypes": sorted({str(p.dtype) for _, p in named}),
        "wanted_dtype": str(parameter_dtype(a.precision)),
        "imported_parent": "tunemark" in sys.modules,
    }


def measure_flops(a: Assignment, device: str) -> Dict[str, Any]:
    """FLOPs per slot of one forward and one backward pass."""
    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError:  # before torch 2.1
        return {"skipped": "torch {} has no counter of FLOPs".format(torch.__version__)}
    runtime, module = _build(a, device)
    batch = _full_batch(a)
    with FlopCounterMode(display=False, custom_mapping=_missing_flop_formulas()) as counter:
        _loss(_logits(a, runtime, module, batch), batch).backward()  # type: ignore[no-untyped-call]  # torch's
    return {"per_slot": counter.get_total_flops() / batch.input_ids.numel()}


def measure_initial_loss(a: Assignment, device: str) -> Dict[str, Any]:
    runtime, module = _build(a, device)
    batch = _full_batch(a)
    with torch.no_grad():
        return {"loss": _loss(_logits(a, runtime, module, batch), batch).item()}


def measure_gradients(a: Assignment, device: str) -> Dict[str, Any]:
    """Trainable parameters that get no gradient, or one that is not finite, and frozen parameters."""
    runtime, module = _build(a, device)
    batch = _full_batch(a)
    _loss(_logits(a, runtime, module, batch), batch).backward()  # type: ignore[no-untyped-call]  # torch's
    trainable = [(n, p.grad) for n, p in module.named_parameters() if p.requires_grad]
    return {
        "tensors": len(trainable),
        "unreached": [n for n, g in trainable if g is None or not bool((g != 0).any())],
        "not_finite": [n for n, g in trainable if g is not None and not bool(torch.isfinite(g).all())],
        "frozen": [n for n, p in module.named_parameters() if not p.requires_grad],
    }


def measure_alignment(a: Assignment, device: str) -> Dict[str, Any]:
    """The first slot whose logits change with slot CHANGED's id, and whether the runtime leaves the batch as it was."""
    runtime, module = _build(a, device)
    batch = _full_batch(a)
    original = [t.clone() for t in batch[:4]]
    with torch.no_grad():
        before = _logits(a, runtime, module.eval(), batch)
        is_kept = [bool((t == g).all()) for t, g in zip(batch[:4], original)]
        is_shifted = bool((batch.labels[:, :-1] == original[1][:, 1:]).all())
        other = batch.input_ids.clone()
        other[:, CHANGED_SLOT] = (other[:, CHANGED_SLOT] + 1) % a.architecture["vocab_size"]
        after = _logits(a, runtime, module, batch._replace(input_ids=other))
    change = (after.float() - before.float()).abs().amax(dim=(0, 2))
    limit = 1e-3 * float(change.max())
    first = next((i for i, c in enumerate(change.tolist()) if c > limit), None) if limit > 0 else None
    return {
        "changed": CHANGED_SLOT,
        "first": first,
        "kept": dict(zip(Batch._fields, is_kept)),
        "labels_shifted": is_shifted,
    }


def measure_packing(a: Assignment, device: str) -> Dict[str, Any]:
    """Largest difference, relative to the largest logit, between two documents' logits in one row and in two."""
    runtime, module = _build(a, device)
    module.eval()
    first, second = a.sequence // 2 - 3, a.sequence // 4
    packed = _batch(a, [[first, second]])
    rows = torch.full_like(packed.input_ids.repeat(2, 1), a.token_file.pad_id)
    rows[0, :first], rows[1, :second] = packed.input_ids[0, :first], packed.input_ids[0, first : first + second]
    alone = _batch(a, [[first], [second]])._replace(input_ids=rows)
    with torch.no_grad():
        together = _logits(a, runtime, module, packed).float()[0]
        apart = _logits(a, runtime, module, alone).float()
    scale = float(apart.abs().max())
    both = [(together[:first], apart[0, :first]), (together[first : first + second], apart[1, :second])]
    return {"apart": max(float((x - y).abs().max()) for x, y in both) / scale if scale else 0.0}


def measure_determinism(a: Assignment, device: str) -> Dict[str, Any]:
    """Loss and gradient norm of two builds with the same seed, as hexadecimal floats."""
    found = []
    for _ in range(2):
        runtime, module = _build(a, device)
        batch = _full_batch(a)
        loss = _loss(_logits(a, runtime, module, batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in module.parameters() if p.grad is not None))
        found.append([float(loss.detach()).hex(), norm.hex()])
    return {"runs": found}


def measure_learning(a: Assignment, device: str) -> Dict[str, Any]:
    """The loss of each of LEARNING_STEPS steps on one batch."""
    runtime, module = _build(a, device)
    batch = _full_batch(a)
    updater = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(LEARNING_STEPS):
        loss = _loss(_logits(a, runtime, module, batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        updater.step()
        updater.zero_grad()
        losses.append(float(loss.detach()))
    return {"losses": losses}


def measure_token_counts(a: Assignment, device: str) -> Dict[str, Any]:
    """The worker's token counts of a padded batch after the runtime has run, and those expected from the lengths."""
    runtime, module = _build(a, device)
    lengths = [a.sequence - 5, a.sequence // 2]
    batch = _batch(a, [[n] for n in lengths])
    with torch.no_grad():
        _logits(a, runtime, module, batch)
    return {
        # Looked up by name, because a runtime may have replaced the function.
        "counted": list(vars(training_loop)["count_tokens"]([batch])),
        "expected": [2 * a.sequence, sum(lengths), sum(n - 1 for n in lengths)],
    }


_MEASURES: List[Tuple[str, Callable[[Assignment, str], Dict[str, Any]]]] = [
    ("parameters", measure_parameters),
    ("flops", measure_flops),
    ("initial-loss", measure_initial_loss),
    ("gradients", measure_gradients),
    ("alignment", measure_alignment),
    ("packing", measure_packing),
    ("determinism", measure_determinism),
    ("learning", measure_learning),
    ("tokens", measure_token_counts),
]


def _missing_flop_formulas() -> Dict[Any, Any]:
    """FLOP formulas that torch's counter lacks: the CPU's fused attention (both products over all keys; backward is
    twice forward, because model FLOPs do not count recomputation), and the grouped product of a mixture of experts, in
    which each token is multiplied by its own expert's matrix."""

    def forward(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **kwargs: Any) -> int:
        b, h, s, d = query
        return 2 * int(b) * int(h) * int(s) * int(key[-2]) * (int(d) + int(value[-1]))

    def backward(
        gradient: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **kwargs: Any
    ) -> int:
        return 2 * forward(query, key, value)

    def grouped(a: Any, b: Any, *rest: Any, out_shape: Any = None, **kwargs: Any) -> int:
        groups = int(a[0]) if len(a) == 3 and len(b) == 3 else 1
        return 2 * groups * int(a[-2]) * int(a[-1]) * int(b[-1])

    formulas: Dict[Any, Any] = {}
    for name, formula in (
        ("_scaled_dot_product_flash_attention_for_cpu", forward),
        ("_scaled_dot_product_flash_attention_for_cpu_backward", backward),
        ("_grouped_mm", grouped),
    ):
        if hasattr(torch.ops.aten, name):
            formulas[getattr(torch.ops.aten, name)] = formula
    return formulas


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _replace_non_finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_non_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
