"""Whether a model's stages compute what the whole model does: tried with a few tokens before the model is divided.

A stage runs the model's own code around the layers that it holds. Code that changes the hidden states between two
layers would therefore change them once per stage, whatever the names of its parts are.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from tunemark_torch.parallel.pipeline_parallel import Stage, split_layers
from tunemark_worker.batches import Batch
from tunemark_worker.decoder import find_decoder_parts
from tunemark_worker.precision import PRECISIONS, autocast

_TOKENS = 16


class StageCheck(NamedTuple):
    """tuple_length: of what a layer returns, 0 for a tensor alone; it depends on the transformers release. difference:
    of the stages' logits from the whole model's, relative to these (Euclidean norms); not a number in a simulated step,
    whose tensors have no values. problem: why the stages are not to be used, None where they are."""

    tuple_length: int
    difference: float
    problem: Optional[str]


def check_stages(model: nn.Module, stages: int, precision: str) -> StageCheck:
    """Compare the whole model with its stages, run one after another in this process, without gradients.

    Both do the same operations in the same order, so what they may differ by is far below the precision's tolerance."""
    parts = find_decoder_parts(model)
    weight = getattr(parts.base, parts.embedding).weight
    ids = (torch.arange(_TOKENS, device=weight.device) % weight.shape[0])[None]
    documents, positions = torch.zeros_like(ids), torch.arange(_TOKENS, device=weight.device)[None]
    outputs: List[Any] = []
    hook = parts.layers[0].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    was_training = model.training
    # Some families draw random numbers in training, such as a router's noise.
    model.eval()
    try:
        with torch.no_grad():
            with autocast(precision, ids.device.type):
                whole = _logits(model, Batch(ids, ids, documents, positions, False))
            hook.remove()
            tuple_length = len(outputs[0]) if isinstance(outputs[0], tuple) else 0
            hidden: torch.Tensor = ids
            for number, bounds in enumerate(split_layers(len(parts.layers), stages)):
                stage = Stage(parts, bounds, number == 0, number == stages - 1, tuple_length, precision)
                stage.logits = _logits
                hidden = stage(hidden, ids, documents, positions)
            if isinstance(whole, FakeTensor):
                return StageCheck(tuple_length, float("nan"), None)
            difference = float((hidden.float() - whole.float()).norm() / whole.float().norm())
    finally:
        hook.remove()
        model.train(was_training)
    # Also where it is not a number.
    is_equal = difference <= PRECISIONS[precision].tolerance
    problem = "{} in {} stages does not compute what it does whole: its logits differ by {:.2g} of their size".format(
        type(model).__name__, stages, difference
    )
    return StageCheck(tuple_length, difference, None if is_equal else problem)


def _logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    return model(input_ids=batch.input_ids, use_cache=False).logits  # type: ignore[no-any-return]
