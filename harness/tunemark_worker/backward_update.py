"""Update each weight in the backward pass, as soon as its gradient is complete, and free the gradient.

So gradients never exist together. The updates are those after the pass: a gradient is complete once all that the loss
owes to a weight is summed, and nothing later in the pass reads the weight. Source of the idea: Lv et al. 2023, "Full
Parameter Fine-tuning for Large Language Models with Limited Resources", section 3.1; torch's tutorial "How to save
memory by fusing the optimizer step into the backward pass".
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence

import torch

from tunemark_worker.gradient_norm import sum_squares


class BackwardUpdater:
    """An optimizer for each weight, which the weight's gradient calls. It needs torch 2.1.

    make: an optimizer of some parameters. Gradients must not be accumulated or clipped, nor be averaged over ranks."""

    def __init__(
        self,
        make: Callable[[Sequence[torch.nn.Parameter]], torch.optim.Optimizer],
        parameters: Sequence[torch.nn.Parameter],
    ) -> None:
        self._squares: List[torch.Tensor] = []
        self._optimizers = [make([each]) for each in parameters]
        for parameter, optimizer in zip(parameters, self._optimizers):
            hooked: Any = parameter  # torch's method is untyped
            hooked.register_post_accumulate_grad_hook(self._make_hook(optimizer))

    @property
    def param_groups(self) -> List[Dict[str, Any]]:
        """Those of all weights, whose learning rate has to be set before the backward pass."""
        return [group for each in self._optimizers for group in each.param_groups]

    @property
    def state(self) -> Dict[Any, Any]:
        return {parameter: state for each in self._optimizers for parameter, state in each.state.items()}

    def register_step_pre_hook(self, hook: Callable[..., None]) -> None:
        """Call `hook` before each update of a weight."""
        for each in self._optimizers:
            each.register_step_pre_hook(hook)

    def take_gradient_norm(self) -> torch.Tensor:
        """The 2-norm over all gradients since the last call; float64, on their device."""
        squares, self._squares = self._squares, []
        return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)

    def _make_hook(self, optimizer: torch.optim.Optimizer) -> Callable[[torch.Tensor], None]:
        def update(parameter: torch.Tensor) -> None:
            if parameter.grad is not None:
                self._squares.append(sum_squares(parameter.grad))
            optimizer.step()
            parameter.grad = None

        return update
