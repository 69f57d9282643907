"""In the worker: the loss computed where a model computes its scores, without the scores of all tokens.

The head's forward is replaced, so that all that wraps the model (DistributedDataParallel, sharding) still sees its
weights used inside the model's forward.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Optional

import torch

from tunemark_worker import chunked_loss
from tunemark_worker.chunked_loss import ScoreRule, compute_chunked_loss
from tunemark_worker.contract import IGNORED_LABEL

# Scores that go through what a family does after its head, to see what that is.
_TRIED = (-8.0, -1.0, -0.25, 0.5, 2.0, 5.0)


class HeadLoss:
    """Takes over a model's head. ValueError if what the family does to its scores is neither a factor nor a cap."""

    def __init__(self, module: Any, dtype: torch.dtype, kind: str) -> None:
        """kind: "chunked", or "fused" by the package liger-kernel."""
        self._config, self._dtype = module.config, dtype
        self._following: Optional[torch.Tensor] = None
        self._tried: Optional[torch.Tensor] = None
        self._sum = _liger_sum if kind == "fused" else compute_chunked_loss
        head = module.get_output_embeddings()
        if not isinstance(head, torch.nn.Linear):
            raise ValueError(f"{type(module).__name__} has no linear head: use --loss plain")
        self._head, self._plain = head, head.forward
        self.cap: Optional[float] = getattr(self._config, "final_logit_softcapping", None)
        if self.cap is not None:
            # From now on the head caps its scores itself.
            self._config.final_logit_softcapping = None
        head.__dict__["forward"] = self._forward
        self._rule = ScoreRule(self._find_factor(module), self.cap)
        if kind == "fused" and self._rule != ScoreRule():
            raise ValueError("liger-kernel's loss is not called with capped or scaled scores here: use --loss chunked")

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._tried is not None:
            return self._tried
        if self._following is None:
            scores: torch.Tensor = self._plain(hidden)
            if self.cap is None:
                return scores
            return torch.tanh(scores * self._rule.factor / self.cap) * (self.cap / self._rule.factor)
        loss = self._sum(hidden, self._head, self._following, self._rule, self._dtype)
        return loss.reshape(1, 1, 1)

    def _find_factor(self, module: Any) -> float:
        tried = torch.tensor(_TRIED, device=self._head.weight.device)
        self._tried = tried[None, None].expand(1, 2, -1)
        try:
            with torch.no_grad():
                ids = torch.zeros((1, 2), dtype=torch.int64, device=tried.device)
                found = module(input_ids=ids, use_cache=False).logits[0, -1].float()
        finally:
            self._tried = None
        try:
            # By its module, because a simulation puts another in its place.
            return chunked_loss.read_factor(found, tried)
        except ValueError as error:
            raise ValueError(f"of {type(module).__name__} {error}: use --loss plain") from error

    def loss_sum(self, call: Callable[[], torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """The loss of the labels in the forward pass that `call` makes, which returns what the model says are its
        scores."""
        self._following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
        try:
            # What comes back went through the family's factor.
            return call().float().sum() / self._rule.factor
        finally:
            self._following = None

    def restore(self) -> None:
        """Leave the model as it was, so that it can be saved."""
        del self._head.__dict__["forward"]
        if self.cap is not None:
            self._config.final_logit_softcapping = self.cap


# Long: as `compute_chunked_loss`.
def _liger_sum(
    hidden: torch.Tensor, head: Any, following: torch.Tensor, rule: ScoreRule, dtype: torch.dtype
) -> torch.Tensor:
    """The same by liger-kernel's fused kernel. Not run on hardware."""
    operators: Any = importlib.import_module("liger_kernel.ops.fused_linear_cross_entropy")

    states, labels = hidden.reshape(-1, hidden.shape[-1]), following.reshape(-1)
    found: Any = operators.LigerFusedLinearCrossEntropyFunction.apply(
        states.to(dtype), head.weight.to(dtype), labels, head.bias, None, IGNORED_LABEL, 0.0, 0.0, "sum"
    )
    loss: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return loss
