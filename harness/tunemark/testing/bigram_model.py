"""The kit's own plugin: minimal models to train when the checked plugin has none. This module imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Architecture, Model, hookimpl

NAME = "kit-bigrams"
# The same model, on a device that always has work queued.
BUSY_NAME = "kit-busy-bigrams"


@hookimpl
def tunemark_models() -> Sequence[Model]:
    return [
        Model(
            name=name,
            description="the kit's model: an embedding, a scale and a head",
            architecture=Architecture(
                model_type="bigrams",
                vocab_size=512,
                hidden_size=64,
                intermediate_size=64,
                num_hidden_layers=0,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=64,
                max_position_embeddings=4096,
            ),
            tokenizer=None,
            runtime=f"tunemark_worker.conformance:{runtime}",
            requires=("torch",),
        )
        for name, runtime in ((NAME, "Bigrams"), (BUSY_NAME, "BusyBigrams"))
    ]
