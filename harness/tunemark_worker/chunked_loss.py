"""The loss from hidden states, some rows at a time, so that the scores of all tokens never exist together.

The gradients are computed in the forward pass, while a chunk's scores are there: as many products as without chunks.
The matrix products are of a chunk. On a CPU all between them is of so few rows that its caches hold them; the gradient
takes the place of the scores.
torch's own chunked `linear_cross_entropy` is of 2.13, knows neither capped nor scaled scores, and computes the scores
of tokens without a label too.
Source of the idea: Hsu et al. 2024, "Liger Kernel", section 3.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple

import torch

from tunemark_worker.contract import IGNORED_LABEL
from tunemark_worker.training_settings import CACHED_SCORES, CHUNK_SCORES


class ScoreRule(NamedTuple):
    """What a family does to the scores after its head: cap · tanh(factor · score / cap), or factor · score without a
    cap."""

    factor: float = 1.0
    cap: Optional[float] = None


def compute_chunked_loss(
    hidden: torch.Tensor,
    head: Any,
    following: torch.Tensor,
    rule: ScoreRule,
    dtype: torch.dtype,
    chunk_scores: int = CHUNK_SCORES,
) -> torch.Tensor:
    """The float32 sum of the cross-entropy of each label given the hidden state of its predecessor.

    hidden: [..., hidden_size]. head: a linear module. following: the label after each position. dtype: of the products.
    """
    states, labels = hidden.reshape(-1, hidden.shape[-1]), following.reshape(-1)
    if hidden.device.type == "cpu":
        # Elsewhere the number of labels would have to be waited for.
        kept = find_labelled(labels)
        states, labels = states[kept], labels[kept]
    rows = max(1, chunk_scores // head.weight.shape[0])
    cached = max(1, CACHED_SCORES // head.weight.shape[0]) if hidden.device.type == "cpu" else rows
    with_gradients = torch.is_grad_enabled()
    loss: torch.Tensor = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]  # torch's
        states, head.weight, head.bias, labels, rule, dtype, rows, cached, with_gradients
    )
    return loss


def find_labelled(labels: torch.Tensor) -> torch.Tensor:
    """Indices of the labels that count."""
    return (labels != IGNORED_LABEL).nonzero()[:, 0]


def read_factor(scores: torch.Tensor, tried: torch.Tensor) -> float:
    """By how much a family scales the scores of its head: of `tried` it makes `scores`. ValueError if it does more."""
    factor = float(scores[-1] / tried[-1])
    if not torch.allclose(scores, factor * tried, rtol=1e-2):
        raise ValueError("more is done to scores than to scale or to cap them")
    return factor


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    # Many parameters: torch passes all that the forward pass needs.
    def forward(  # type: ignore[no-untyped-def]  # torch's signature is open
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: Optional[torch.Tensor],
        labels: torch.Tensor,
        rule: ScoreRule,
        dtype: torch.dtype,
        rows: int,
        cached: int,
        with_gradients: bool,
    ):
        wanted = [with_gradients and each for each in ctx.needs_input_grad[:3]]
        matrix, loss = weight.to(dtype), torch.zeros((), dtype=torch.float32, device=states.device)
        by_state = torch.empty_like(states) if wanted[0] else None
        by_weight = torch.zeros_like(weight) if wanted[1] else None
        by_bias = torch.zeros_like(bias) if wanted[2] and bias is not None else None
        for first in range(0, len(labels), rows):
            some = states[first : first + rows].to(dtype)
            products = some @ matrix.t()
            if bias is not None:
                products += bias.to(dtype)
            for at in range(0, len(products), cached):
                few = products[at : at + cached]
                part, gradient = _loss_and_gradient(few, labels[first + at :][: len(few)], rule, any(wanted))
                loss += part
                if gradient is None:
                    continue
                few.copy_(gradient)
                if by_bias is not None:
                    by_bias += gradient.sum(0)
            if by_state is not None:
                by_state[first : first + rows] = products @ matrix
            if by_weight is not None:
                by_weight += products.t() @ some
            # Before the next chunk's products are there.
            del products, few, gradient
        ctx.gradients = by_state, by_weight, by_bias
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Tuple[Any, ...]:
        gradients = [None if each is None else each.mul_(upstream.to(each.dtype)) for each in ctx.gradients]
        ctx.gradients = ()
        return (*gradients, None, None, None, None, None, None)


def _loss_and_gradient(
    products: torch.Tensor, labels: torch.Tensor, rule: ScoreRule, with_gradient: bool
) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
    """The float32 sum of the losses of some rows, and its gradient by their products."""
    slope: Optional[torch.Tensor] = None
    if rule == ScoreRule():
        logs = torch.log_softmax(products, dim=-1, dtype=torch.float32)
    else:
        scores = products.float() * rule.factor
        if rule.cap is not None:
            scores.div_(rule.cap).tanh_()
            slope = 1.0 - scores.square()
            scores.mul_(rule.cap)
        logs = torch.log_softmax(scores, dim=-1)
    # On a CPU the rows without a label are left out before.
    has_label = None if labels.device.type == "cpu" else labels != IGNORED_LABEL
    targets = (labels if has_label is None else labels.clamp(min=0))[:, None]
    losses = -logs.gather(1, targets)[:, 0]
    loss = (losses if has_label is None else losses * has_label).sum()
    if not with_gradient:
        return loss, None
    gradient = logs.exp_()
    gradient.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=gradient.dtype))
    if has_label is not None:
        gradient.mul_(has_label[:, None])
    if slope is not None:
        gradient.mul_(slope)
    if rule.factor != 1.0:
        gradient.mul_(rule.factor)
    return loss, gradient
