"""The deliberate faults by name. The module prints on import, as third-party code may."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunemark.plugin import Architecture, Finding, Model, Strategy, TokenizerSpec, Trainer, hookimpl

if TYPE_CHECKING:
    from tunemark.experiment.plan import Plan
    from tunemark.results.result import Result

print("a plugin that prints while it is imported")
if os.environ.get("TUNEMARK_FAULTY_LEAVES"):
    sys.exit(0)

FAULTS = {
    "sound": "none",
    "slow-step": "one step takes 0.5 s more",
    "drift": "each step takes longer than the one before it",
    "double-count": "the worker's count of tokens is doubled",
    "shape": "a product of matrices that do not fit",
    "illegal": "a memory access that the device refuses",
    "too-large": "an allocation that no machine can give",
    "exit": "the process ends without a word",
    "killed": "the process is killed",
    "nan": "the loss is no number from some step on",
    "frozen": "no gradient reaches any weight",
    "talkative": "none in the model: the plugin's hooks print what they see of it",
}


@hookimpl
def tunemark_models() -> Sequence[Model]:
    return [
        Model(
            name=f"faulty-{name}",
            description=description,
            architecture=Architecture(
                model_type="faulty",
                vocab_size=259,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=0,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=16,
                max_position_embeddings=4096,
            ),
            tokenizer=TokenizerSpec(name="bytes", loader="tunemark_example.text:ByteTokenizer"),
            runtime="tunemark_faulty.runtime:Faulty",
            requires=("torch",),
        )
        for name, description in FAULTS.items()
    ]


@hookimpl
def tunemark_strategies() -> Sequence[Strategy]:
    return [
        Strategy(
            name="faulty-gradients",
            runtime="tunemark_faulty.runtime:WrongGradients",
            description="one process, whose gradients are half as large again",
            distributed=False,
        ),
        Strategy(
            name="faulty-late",
            runtime="tunemark_faulty.runtime:Late",
            description="data parallel, and rank 1 comes to each step's reduction late",
        ),
    ]


@hookimpl
def tunemark_trainers() -> Sequence[Trainer]:
    words = {
        "ImportsNothing": "needs a package that is not there",
        "Hangs": "does nothing, and goes on when it is told to end",
        "Talks": "prints on standard output as if it were results",
        "Boasts": "states a rate of its own that is ten times too high",
    }
    return [
        Trainer(
            name=f"faulty-{name.lower()}",
            runtime=f"tunemark_faulty.trainers:{name}",
            description=fault,
            license="none",
            honours={"precision": ("fp32",), "optimizer": (), "clip_norm": ()},
        )
        for name, fault in words.items()
    ]


@hookimpl
def tunemark_record(plan: Plan, record: Mapping[str, Any]) -> None:
    if plan.spec.model == "faulty-talkative":
        print("a hook that prints: record")


@hookimpl
def tunemark_audit(plan: Plan | None, result: Result) -> Sequence[Finding]:
    if result.model == "faulty-talkative":
        print("a hook that prints: audit")
    return []
