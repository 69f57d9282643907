"""A plugin of the kit's own: the smallest model there is, to train with where a plugin brings none. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Architecture, Model, hookimpl

NAME = "kit-bigrams"


@hookimpl
def tunemark_models() -> Sequence[Model]:
    return [
        Model(
            name=NAME,
            description="an embedding, a scale and a head, of the kit",
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
            runtime="tunemark_worker.conformance:Bigrams",
            requires=("torch",),
        )
    ]
