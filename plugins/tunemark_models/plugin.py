"""Facts of public models, for plans, audits and predictions: dimensions, each with the configuration they stand in.

Nothing here can be run: these models have neither a tokenizer nor a runtime yet. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Architecture, Model
from tunemark.plugin.hooks import hookimpl


@hookimpl
def tunemark_models() -> Sequence[Model]:
    # Llama 3.1's configuration stretches its rotary positions (rope_scaling, factor 8): no parameter, no FLOP.
    return [
        _model("llama-2-7b", "Llama 2 7B", "meta-llama/Llama-2-7b-hf",
               _llama(32, 4096, 11008, heads=32, kv_heads=32, vocab=32000, positions=4096, theta=1e4)),
        _model("llama-2-13b", "Llama 2 13B", "meta-llama/Llama-2-13b-hf",
               _llama(40, 5120, 13824, heads=40, kv_heads=40, vocab=32000, positions=4096, theta=1e4)),
        _model("llama-2-70b", "Llama 2 70B", "meta-llama/Llama-2-70b-hf",
               _llama(80, 8192, 28672, heads=64, kv_heads=8, vocab=32000, positions=4096, theta=1e4)),
        _model("llama-3-8b", "Llama 3 8B", "meta-llama/Meta-Llama-3-8B",
               _llama(32, 4096, 14336, heads=32, kv_heads=8, vocab=128256, positions=8192, theta=5e5)),
        _model("llama-3-70b", "Llama 3 70B", "meta-llama/Meta-Llama-3-70B",
               _llama(80, 8192, 28672, heads=64, kv_heads=8, vocab=128256, positions=8192, theta=5e5)),
        _model("llama-3.1-8b", "Llama 3.1 8B", "meta-llama/Llama-3.1-8B",
               _llama(32, 4096, 14336, heads=32, kv_heads=8, vocab=128256, positions=131072, theta=5e5)),
        _model("llama-3.1-70b", "Llama 3.1 70B", "meta-llama/Llama-3.1-70B",
               _llama(80, 8192, 28672, heads=64, kv_heads=8, vocab=128256, positions=131072, theta=5e5)),
        _model("tinyllama-1.1b", "TinyLlama 1.1B", "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
               _llama(22, 2048, 5632, heads=32, kv_heads=4, vocab=32000, positions=2048, theta=1e4)),
        _model("smollm2-135m", "SmolLM2 135M", "HuggingFaceTB/SmolLM2-135M",
               _llama(30, 576, 1536, heads=9, kv_heads=3, vocab=49152, positions=8192, theta=1e5, is_tied=True)),
        _model("smollm2-360m", "SmolLM2 360M", "HuggingFaceTB/SmolLM2-360M",
               _llama(32, 960, 2560, heads=15, kv_heads=5, vocab=49152, positions=8192, theta=1e5, is_tied=True)),
        _model("smollm2-1.7b", "SmolLM2 1.7B", "HuggingFaceTB/SmolLM2-1.7B",
               _llama(24, 2048, 8192, heads=32, kv_heads=32, vocab=49152, positions=8192, theta=1.3e5, is_tied=True)),
        _model("gpt2", "GPT-2 small", "openai-community/gpt2", _gpt2(12, 768, heads=12)),
        _model("gpt2-medium", "GPT-2 medium", "openai-community/gpt2-medium", _gpt2(24, 1024, heads=16)),
        _model("gpt2-large", "GPT-2 large", "openai-community/gpt2-large", _gpt2(36, 1280, heads=20)),
        _model("gpt2-xl", "GPT-2 XL", "openai-community/gpt2-xl", _gpt2(48, 1600, heads=25)),
        *_others(),
    ]  # fmt: skip


def _others() -> list[Model]:
    return [
        _model(
            "qwen2.5-7b", "Qwen2.5 7B, biased queries, keys and values", "Qwen/Qwen2.5-7B",
            # Its sliding_window stands beside use_sliding_window = false.
            Architecture(
                model_type="qwen2", num_hidden_layers=28, hidden_size=3584, intermediate_size=18944,
                num_attention_heads=28, num_key_value_heads=4, head_dim=128, vocab_size=152064,
                max_position_embeddings=131072, rope_theta=1e6, rms_norm_eps=1e-6, qkv_bias=True,
            ),
        ),
        _model(
            "qwen3-8b", "Qwen3 8B, normed queries and keys", "Qwen/Qwen3-8B",
            Architecture(
                model_type="qwen3", num_hidden_layers=36, hidden_size=4096, intermediate_size=12288,
                num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=151936,
                max_position_embeddings=40960, rope_theta=1e6, rms_norm_eps=1e-6, qk_norm="head",
            ),
        ),
        _model(
            "gemma-2-9b", "Gemma 2 9B, every other layer a sliding window of 4096", "google/gemma-2-9b",
            Architecture(
                model_type="gemma2", num_hidden_layers=42, hidden_size=3584, intermediate_size=14336,
                num_attention_heads=16, num_key_value_heads=8, head_dim=256, vocab_size=256000,
                max_position_embeddings=8192, sliding_window=4096, rope_theta=1e4, rms_norm_eps=1e-6,
                tie_word_embeddings=True, layer_types=("sliding_attention", "full_attention") * 21, norms_per_layer=4,
            ),
        ),
        _model(
            "mixtral-8x7b", "Mixtral 8x7B v0.1, 2 of 8 experts for each token", "mistralai/Mixtral-8x7B-v0.1",
            Architecture(
                model_type="mixtral", num_hidden_layers=32, hidden_size=4096, intermediate_size=14336,
                num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=32000,
                max_position_embeddings=32768, rope_theta=1e6, rms_norm_eps=1e-5, num_local_experts=8,
                num_experts_per_tok=2,
            ),
        ),
        _model(
            "phi-3-mini-4k", "Phi-3 mini 4k, sliding window of 2047", "microsoft/Phi-3-mini-4k-instruct",
            Architecture(
                model_type="phi3", num_hidden_layers=32, hidden_size=3072, intermediate_size=8192,
                num_attention_heads=32, num_key_value_heads=32, head_dim=96, vocab_size=32064,
                max_position_embeddings=4096, sliding_window=2047, rope_theta=1e4, rms_norm_eps=1e-5,
            ),
        ),
        _model(
            "olmo-2-7b", "OLMo 2 7B, normed queries and keys", "allenai/OLMo-2-1124-7B",
            Architecture(
                model_type="olmo2", num_hidden_layers=32, hidden_size=4096, intermediate_size=11008,
                num_attention_heads=32, num_key_value_heads=32, head_dim=128, vocab_size=100352,
                max_position_embeddings=4096, rope_theta=5e5, rms_norm_eps=1e-6, qk_norm="projection",
            ),
        ),
        _model(
            "baichuan2-13b", "Baichuan2 13B, ALiBi positions", "baichuan-inc/Baichuan2-13B-Base",
            Architecture(
                model_type="baichuan", num_hidden_layers=40, hidden_size=5120, intermediate_size=13696,
                num_attention_heads=40, num_key_value_heads=40, head_dim=128, vocab_size=125696,
                max_position_embeddings=4096, rope_theta=None, rms_norm_eps=1e-6,
            ),
        ),
    ]  # fmt: skip


def _model(name: str, title: str, hub: str, architecture: Architecture) -> Model:
    return Model(
        name=name,
        description=f"{title}; facts only",
        source=f"https://huggingface.co/{hub}/blob/main/config.json",
        pretrained=hub,
        architecture=architecture,
        tokenizer=None,
        runtime=None,
    )


def _llama(
    layers: int,
    hidden: int,
    inner: int,
    *,
    heads: int,
    kv_heads: int,
    vocab: int,
    positions: int,
    theta: float,
    is_tied: bool = False,
) -> Architecture:
    return Architecture(
        model_type="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        max_position_embeddings=positions,
        rope_theta=theta,
        rms_norm_eps=1e-5,
        tie_word_embeddings=is_tied,
    )


def _gpt2(layers: int, hidden: int, *, heads: int) -> Architecture:
    return Architecture(
        model_type="gpt2",
        vocab_size=50257,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=1024,
        rope_theta=None,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        gated_mlp=False,
        norm_bias=True,
        learned_positions=True,
    )
