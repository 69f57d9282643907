"""The optimizers: torch's own and bitsandbytes', with their defaults."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Dict, Iterable, NamedTuple, Optional

if TYPE_CHECKING:
    import torch


class OptimizerFacts(NamedTuple):
    """class_name: in the module `optim` of its package. states: values that it keeps for each trained parameter.
    since: the first version of the package that has it; "" if all have. has_fused: torch has one kernel for the whole
    update. state_bytes: of a state's value with its scale; None where it has the weights' format. since_on_cpu: the
    first version that updates on a CPU, where that is a later one."""

    class_name: str
    states: int
    since: str = ""
    has_fused: bool = True
    package: str = "torch"
    state_bytes: Optional[float] = None
    since_on_cpu: str = ""

    @property
    def has_choice(self) -> bool:
        """Whether there are implementations to choose from: torch's alone."""
        return self.package == "torch"

    def bytes_per_state(self, width: float) -> float:
        """Bytes of a state's value where those of the weights have `width`."""
        return width if self.state_bytes is None else self.state_bytes

    def bytes_per_parameter(self, width: float) -> float:
        """Bytes of the states of a trained parameter whose weights have `width` bytes."""
        return self.states * self.bytes_per_state(width)


# AdamW: betas 0.9 and 0.999, weight decay 0.01, two moments. SGD: no momentum. Adafactor: no first moment, learning
# rate relative to a tensor's root mean square, and row and column sums of the second moment, under a thousandth of a
# value per parameter: 0 states keep the memory floor a lower bound. AdamW in 8 bits: both moments in a byte each and a
# float32 scale for each block (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", section 2), which
# has 256 values since bitsandbytes 0.44. Tensors of fewer than 4,096 values keep moments of 32 bits: a lower bound too.
OPTIMIZERS: Dict[str, OptimizerFacts] = {
    "adamw": OptimizerFacts("AdamW", 2),
    "sgd": OptimizerFacts("SGD", 0),
    "adafactor": OptimizerFacts("Adafactor", 0, since="2.5", has_fused=False),
    "adamw-8bit": OptimizerFacts(
        "AdamW8bit",
        2,
        since="0.44",
        has_fused=False,
        package="bitsandbytes",
        state_bytes=1 + 4 / 256,
        since_on_cpu="0.50",
    ),
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
    if name not in OPTIMIZERS:
        raise ValueError("the optimizer is one of {}, not {!r}".format(", ".join(OPTIMIZERS), name))
    facts = OPTIMIZERS[name]
    if not facts.has_choice and implementation != "auto":
        raise ValueError("{} has no implementation {!r}: it is {}'s".format(name, implementation, facts.package))
    # Heavy: the parent reads the table above without it.
    try:
        found = importlib.import_module(facts.package + ".optim")
    except ImportError as error:
        raise ValueError("{0} needs {1}: python -m pip install {1}".format(name, facts.package)) from error
    if not hasattr(found, facts.class_name):
        version = getattr(importlib.import_module(facts.package), "__version__", "of unknown version")
        raise ValueError("{} needs {} {} or newer, this is {}".format(name, facts.package, facts.since, version))
    made: torch.optim.Optimizer = getattr(found, facts.class_name)(
        parameters, lr=learning_rate, **_IMPLEMENTATIONS[implementation]
    )
    return made
