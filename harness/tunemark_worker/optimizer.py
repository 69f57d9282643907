"""The optimizers: torch's own, with its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Iterable, NamedTuple

if TYPE_CHECKING:
    import torch


class OptimizerFacts(NamedTuple):
    """torch_class: in torch.optim. states: values that it keeps for each trained parameter. since: the first version of
    torch that has it; "" if all have. has_fused: torch has one kernel for the whole update."""

    torch_class: str
    states: int
    since: str = ""
    has_fused: bool = True


# AdamW: betas 0.9 and 0.999, weight decay 0.01, two moments. SGD: no momentum. Adafactor: no first moment, learning
# rate relative to a tensor's root mean square, and row and column sums of the second moment, under a thousandth of a
# value per parameter: 0 states keep the memory floor a lower bound.
OPTIMIZERS: Dict[str, OptimizerFacts] = {
    "adamw": OptimizerFacts("AdamW", 2),
    "sgd": OptimizerFacts("SGD", 0),
    "adafactor": OptimizerFacts("Adafactor", 0, since="2.5", has_fused=False),
}


_IMPLEMENTATIONS: Dict[str, Dict[str, bool]] = {
    "auto": {},
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def make_optimizer(
    name: str, parameters: Iterable[torch.nn.Parameter], learning_rate: float, implementation: str = "auto"
) -> torch.optim.Optimizer:
    """The optimizer of this name. implementation: "auto" leaves it to torch."""
    import torch  # the parent reads the table above without it

    if name not in OPTIMIZERS:
        raise ValueError("the optimizer is one of {}, not {!r}".format(", ".join(OPTIMIZERS), name))
    facts = OPTIMIZERS[name]
    if not hasattr(torch.optim, facts.torch_class):
        raise ValueError("{} needs torch {} or newer, this is {}".format(name, facts.since, torch.__version__))
    made: torch.optim.Optimizer = getattr(torch.optim, facts.torch_class)(
        parameters, lr=learning_rate, **_IMPLEMENTATIONS[implementation]
    )
    return made
