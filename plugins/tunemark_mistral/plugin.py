"""Mistral 7B, Mistral Small 3 and Ministral 8B, and tiny models of the same architectures, described without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunemark.plugin.descriptors import Architecture, Model, TokenizerSpec
from tunemark.plugin.hooks import hookimpl
from tunemark_models.families import RUNTIME, with_support

_V1 = TokenizerSpec(name="mistral-v1", loader="tunemark_mistral.tokenizer:load_v1")
_V3 = TokenizerSpec(name="mistral-v3", loader="tunemark_mistral.tokenizer:load_v3")
_V0_1 = Architecture(
    model_type="mistral",
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=32768,
    sliding_window=4096,
    rope_theta=10000.0,
    rms_norm_eps=1e-5,
)
_V0_3 = replace(_V0_1, vocab_size=32768, sliding_window=None, rope_theta=1000000.0)
_TINY = replace(
    _V0_1, hidden_size=256, intermediate_size=896, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
    head_dim=32,
)  # fmt: skip


_SMALL = replace(
    _V0_3, vocab_size=131072, hidden_size=5120, intermediate_size=32768, num_hidden_layers=40, rope_theta=1e8,
)  # fmt: skip
# Its configuration has one window, as long as the longest sequence.
_MINISTRAL = replace(
    _SMALL, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, sliding_window=32768,
)  # fmt: skip


@hookimpl
def tunemark_models() -> Sequence[Model]:
    found = [
        Model(
            name="mistral-7b",
            description="Mistral 7B v0.1, 7,241,732,096 parameters, sliding window of 4096",
            source="https://huggingface.co/mistralai/Mistral-7B-v0.1/blob/main/config.json",
            architecture=_V0_1,
            tokenizer=_V1,
            runtime=RUNTIME,
            transformers_type="mistral",
            pretrained="mistralai/Mistral-7B-v0.1",
        ),
        Model(
            name="mistral-7b-v0.3",
            description="Mistral 7B v0.3, 7,248,023,552 parameters, full attention",
            source="https://huggingface.co/mistralai/Mistral-7B-v0.3/blob/main/config.json",
            architecture=_V0_3,
            tokenizer=_V3,
            runtime=RUNTIME,
            transformers_type="mistral",
            pretrained="mistralai/Mistral-7B-v0.3",
        ),
        _from_hub("mistral-small-24b", "Mistral Small 3 24B", "Mistral-Small-24B-Base-2501", _SMALL),
        _from_hub("mistral-small-24b-instruct", "Mistral Small 3 24B", "Mistral-Small-24B-Instruct-2501", _SMALL),
        _from_hub("ministral-8b-instruct", "Ministral 8B", "Ministral-8B-Instruct-2410", _MINISTRAL),
        _tiny("mistral-tiny", "Mistral 7B's architecture at 20 million parameters", _TINY),
        _tiny("mistral-small-tiny", "Mistral Small 3's architecture in miniature", replace(_TINY, sliding_window=None)),
        _tiny("ministral-tiny", "Ministral 8B's architecture in miniature", replace(_TINY, sliding_window=32768)),
    ]
    return [with_support(model) for model in found]


def _from_hub(name: str, title: str, repository: str, architecture: Architecture) -> Model:
    hub = f"mistralai/{repository}"
    return Model(
        name=name,
        description=f"{title} ({repository})",
        source=f"https://huggingface.co/{hub}/blob/main/config.json",
        architecture=architecture,
        tokenizer=TokenizerSpec(name=hub, loader="tunemark_models.tokenizer:tokenizer_from_hub", argument=hub),
        runtime=RUNTIME,
        pretrained=hub,
        transformers_type="mistral",
    )


def _tiny(name: str, title: str, architecture: Architecture) -> Model:
    return Model(
        name=name,
        description=f"{title}, for a few CPU cores; random weights only",
        architecture=architecture,
        tokenizer=_V1,
        runtime=RUNTIME,
        transformers_type="mistral",
    )
