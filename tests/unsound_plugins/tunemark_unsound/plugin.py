"""Models, datasets and a device with one fault each, and a model name that the example plugin already uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunemark_example.plugin import Toy

from tunemark.plugin import Architecture, Dataset, Device, Model, Strategy, TokenizerSpec, hookimpl

BYTES = TokenizerSpec(name="bytes", loader="tunemark_example.text:ByteTokenizer")
FAULTS = {
    "parameters": "has a bias that its facts leave out",
    "flops": "multiplies by its head twice",
    "shifted": "returns the scores of the slot before, as if the loss did not shift the labels",
    "relabelled": "shifts the labels of the batch, which the loss also shifts",
    "frozen": "does not train its embedding",
    "detached": "lets no gradient through to its embedding",
    "counts": "counts padding as content",
    "random": "draws weights from an unseeded generator",
    "child": "leaves a child process behind",
    "crossing": "lets packed documents see each other",
    "future": "sees the token that it has to predict",
    "sound": "has no fault",
}


@hookimpl
def tunemark_models() -> Sequence[Model]:
    made: dict[str, Any] = {
        "description": "has one fault",
        "architecture": Architecture(
            model_type="unsound",
            vocab_size=259,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=0,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=64,
        ),
        "requires": ("torch",),
    }
    models = [
        Model(name=f"unsound-{name}", tokenizer=BYTES, runtime="tunemark_unsound.runtime:Unsound", **made)
        for name in FAULTS
    ]
    padding = TokenizerSpec(name="padded", loader="tunemark_unsound.data:Padding")
    named = {"runtime": None, **made}
    return [
        *models,
        Model(name="unsound-padding", tokenizer=padding, **named),
        Model(name="toy-lm", tokenizer=None, **named),
    ]


@hookimpl
def tunemark_datasets() -> Sequence[Dataset]:
    return [
        Dataset(
            name="unsound-padded",
            loader="tunemark_unsound.data:Padded",
            description="documents that are already padded",
            needs_tokenizer=False,
            roles=("response",),
        ),
        Dataset(
            name="unsound-moving",
            loader="tunemark_unsound.data:Moving",
            description="different examples each time",
            needs_tokenizer=False,
            roles=("response",),
        ),
    ]


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [Toy("unsound-lying", "tunemark_example.runtime:ToyAsyncLying")]


@hookimpl
def tunemark_strategies() -> Sequence[Strategy]:
    runtime = "tunemark_unsound.runtime:WrongClip"
    return [Strategy(name="unsound-clip", runtime=runtime, description="clips nothing it is given", distributed=False)]
