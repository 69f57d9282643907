"""Published models of families without a formula, and a tiny one of each family, by their configurations.

What a step of each was seen to do is in `traced_families.json`, so that listing them needs neither torch nor
transformers. `python -m tunemark_models.traced_families` writes that file again with the installed transformers.
"""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunemark.plugin.descriptors import Model, TokenizerSpec
from tunemark_models.families import OFFLINE_TOKENIZER, OFFLINE_VOCABULARY, RUNTIME
from tunemark_models.traced_architecture import architecture_from_trace, describe_trace

_FACTS = Path(__file__).with_suffix(".json")


class PublishedConfiguration(NamedTuple):
    """A model's configuration under transformers' names, as its repository has it. loads: whether the repository's
    weights are this model's alone; those of models that see pictures too are not."""

    name: str
    title: str
    hub: str
    configuration: Mapping[str, Any]
    loads: bool = True


def _qwen3_moe(layers: int, hidden: int, heads: int, inner: int, expert: int) -> dict[str, Any]:
    return {
        "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": hidden, "intermediate_size": inner,
        "moe_intermediate_size": expert, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "max_position_embeddings": 40960, "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "router_aux_loss_coef": 0.001,
    }  # fmt: skip


_DEEPSEEK_V3: dict[str, Any] = {
    "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
    "n_shared_experts": 1, "n_routed_experts": 256, "routed_scaling_factor": 2.5, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 8,
    "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "norm_topk_prob": True,
    "max_position_embeddings": 163840, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "rope_scaling": {"rope_type": "yarn", "factor": 40.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
                     "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
}  # fmt: skip


def _gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    return {
        "model_type": "gpt_oss", "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880,
        "num_hidden_layers": layers, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "num_local_experts": experts, "num_experts_per_tok": 4, "sliding_window": 128,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 150000.0, "tie_word_embeddings": False,
        "attention_bias": True,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                         "original_max_position_embeddings": 4096},
    }  # fmt: skip


def _llama4(experts: int, step: int, *, has_norm: bool) -> dict[str, Any]:
    return {
        "model_type": "llama4_text", "vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192,
        "intermediate_size_mlp": 16384, "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8,
        "head_dim": 128, "num_local_experts": experts, "num_experts_per_tok": 1, "interleave_moe_layer_step": step,
        "attention_chunk_size": 8192, "use_qk_norm": has_norm, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 262144, "tie_word_embeddings": False, "attn_temperature_tuning": True,
    }  # fmt: skip


def _glm4(layers: int, hidden: int, inner: int, heads: int, *, has_bias: bool) -> dict[str, Any]:
    return {
        "model_type": "glm4", "vocab_size": 151552, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 2, "head_dim": 128,
        "attention_bias": has_bias, "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32768, "tie_word_embeddings": False, "pad_token_id": 151329,
        "eos_token_id": [151329, 151336, 151338],
    }  # fmt: skip


# Many parameters: the columns in which the sizes differ.
def _gemma3(
    layers: int, hidden: int, inner: int, heads: int, kv_heads: int, *, head_dim: int = 256, window: int = 1024,
    vocab: int = 262208, positions: int = 131072, scalar: int = 256, scaling: float | None = 8.0,
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {
        "model_type": "gemma3_text", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "sliding_window": window, "query_pre_attn_scalar": scalar,
        "max_position_embeddings": positions, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
        "layer_types": ["full_attention" if (n + 1) % 6 == 0 else "sliding_attention" for n in range(layers)],
    }  # fmt: skip
    return found if scaling is None else {**found, "rope_scaling": {"rope_type": "linear", "factor": scaling}}


_SMOLLM3: dict[str, Any] = {
    "model_type": "smollm3", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008,
    "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 65536,
    "rope_theta": 5000000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "use_sliding_window": False,
    "no_rope_layers": [int((n + 1) % 4 != 0) for n in range(36)], "pad_token_id": 128004,
}  # fmt: skip


def _exaone4(layers: int, hidden: int, inner: int, heads: int, head_dim: int, *, is_small: bool) -> dict[str, Any]:
    sliding = {
        "sliding_window": 4096, "sliding_window_pattern": "LLLG",
        "layer_types": ["full_attention" if (n + 1) % 4 == 0 else "sliding_attention" for n in range(layers)],
    }  # fmt: skip
    whole = {"sliding_window": None, "sliding_window_pattern": None, "layer_types": ["full_attention"] * layers}
    return {
        "model_type": "exaone4", "vocab_size": 102400, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": head_dim,
        "max_position_embeddings": 65536 if is_small else 131072, "rope_theta": 1000000.0, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": is_small, **(whole if is_small else sliding),
        "rope_scaling": {"rope_type": "llama3", "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192},
    }  # fmt: skip


# Many parameters: the columns in which the sizes differ.
def _falcon_h1(
    layers: int, hidden: int, inner: int, heads: int, kv_heads: int, *, vocab: int, head_dim: int, ssm_heads: int,
    ssm_head: int, state: int, groups: int, positions: int,
) -> dict[str, Any]:  # fmt: skip
    return {
        "model_type": "falcon_h1", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "mamba_d_ssm": ssm_heads * ssm_head, "mamba_n_heads": ssm_heads, "mamba_d_head": ssm_head,
        "mamba_d_state": state, "mamba_n_groups": groups, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 128,
        "mamba_rms_norm": False, "mamba_norm_before_gate": False, "max_position_embeddings": positions,
        "rope_theta": 100000000000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    }  # fmt: skip


# The language models of checkpoints that see pictures too.
def _ministral3(layers: int, hidden: int, inner: int, *, is_tied: bool) -> dict[str, Any]:
    return {
        "model_type": "ministral3", "vocab_size": 131072, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 262144, "rms_norm_eps": 1e-5, "tie_word_embeddings": is_tied, "sliding_window": None,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0,
            "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 16384,
            "llama_4_scaling_beta": 0.1,
        },
    }  # fmt: skip


_OLMOE: dict[str, Any] = {
    "model_type": "olmoe", "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
    "norm_topk_prob": False, "max_position_embeddings": 4096, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}  # fmt: skip


# Many parameters: the columns in which the sizes differ.
def _granite4(
    hidden: int, heads: int, kv_heads: int, shared: int, *, ssm_heads: int, ssm_head: int = 64, state: int = 128,
    scaling: float, attention: float, experts: int = 0, chosen: int = 0, expert: int = 0, is_hybrid: bool = True,
) -> dict[str, Any]:  # fmt: skip
    attends = (5, 15, 25, 35) if is_hybrid else range(40)
    return {
        "model_type": "granitemoehybrid", "vocab_size": 100352, "hidden_size": hidden,
        "intermediate_size": expert or shared, "shared_intermediate_size": shared, "num_hidden_layers": 40,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "num_local_experts": experts,
        "num_experts_per_tok": chosen, "mamba_n_heads": ssm_heads, "mamba_d_head": ssm_head, "mamba_d_state": state,
        "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 256, "mamba_conv_bias": True,
        "mamba_proj_bias": False, "layer_types": ["attention" if n in attends else "mamba" for n in range(40)],
        "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": scaling,
        "attention_multiplier": attention, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "position_embedding_type": "nope" if is_hybrid else "rope", "tie_word_embeddings": True,
    }  # fmt: skip


# Long: one entry for each model.
def published() -> Sequence[PublishedConfiguration]:
    """The published models, by family."""
    make = PublishedConfiguration
    h1: dict[str, Any] = {"groups": 1, "state": 256, "positions": 131072}
    return [
        make("qwen3-30b-a3b", "Qwen3 30B-A3B, 8 of 128 experts", "Qwen/Qwen3-30B-A3B",
             _qwen3_moe(48, 2048, 32, 6144, 768)),
        make("qwen3-30b-a3b-base", "Qwen3 30B-A3B Base, 8 of 128 experts", "Qwen/Qwen3-30B-A3B-Base",
             _qwen3_moe(48, 2048, 32, 6144, 768)),
        make("qwen3-235b-a22b", "Qwen3 235B-A22B, 8 of 128 experts", "Qwen/Qwen3-235B-A22B",
             _qwen3_moe(94, 4096, 64, 12288, 1536)),
        make("deepseek-v3", "DeepSeek-V3, latent attention, 8 of 256 experts and a shared one, without its head for a "
             "second token, which transformers does not train", "deepseek-ai/DeepSeek-V3", _DEEPSEEK_V3, False),
        make("deepseek-v3-base", "DeepSeek-V3 Base", "deepseek-ai/DeepSeek-V3-Base", _DEEPSEEK_V3, False),
        make("gpt-oss-20b", "gpt-oss 20B, 4 of 32 experts", "openai/gpt-oss-20b", _gpt_oss(24, 32), False),
        make("gpt-oss-120b", "gpt-oss 120B, 4 of 128 experts", "openai/gpt-oss-120b", _gpt_oss(36, 128), False),
        make("llama-4-scout", "Llama 4 Scout's language model, 1 of 16 experts and a shared one",
             "meta-llama/Llama-4-Scout-17B-16E", _llama4(16, 1, has_norm=True), False),
        make("llama-4-scout-instruct", "Llama 4 Scout Instruct's language model",
             "meta-llama/Llama-4-Scout-17B-16E-Instruct", _llama4(16, 1, has_norm=True), False),
        make("llama-4-maverick", "Llama 4 Maverick's language model, 1 of 128 experts and a shared one in every other "
             "layer", "meta-llama/Llama-4-Maverick-17B-128E", _llama4(128, 2, has_norm=False), False),
        make("glm-4-9b", "GLM-4 9B 0414", "zai-org/GLM-4-9B-0414", _glm4(40, 4096, 13696, 32, has_bias=True)),
        make("glm-4-32b", "GLM-4 32B 0414", "zai-org/GLM-4-32B-0414", _glm4(61, 6144, 23040, 48, has_bias=False)),
        make("glm-4-32b-base", "GLM-4 32B Base 0414", "zai-org/GLM-4-32B-Base-0414",
             _glm4(61, 6144, 23040, 48, has_bias=False)),
        *(
            make(f"gemma-3-{size}{'' if end == 'pt' else '-it'}", f"Gemma 3 {size.upper()}{words}, five of six layers "
                 f"with a sliding window", f"google/gemma-3-{size}-{end}", stated, size == "1b")
            for size, words, stated in (
                ("1b", "", _gemma3(26, 1152, 6912, 4, 1, window=512, vocab=262144, positions=32768, scaling=None)),
                ("4b", "'s language model", _gemma3(34, 2560, 10240, 8, 4)),
                ("12b", "'s language model", _gemma3(48, 3840, 15360, 16, 8)),
                ("27b", "'s language model", _gemma3(62, 5376, 21504, 32, 16, head_dim=128, scalar=168)),
            )
            for end in ("pt", "it")
        ),
        make("smollm3-3b", "SmolLM3 3B, every fourth layer without positions", "HuggingFaceTB/SmolLM3-3B", _SMOLLM3),
        make("smollm3-3b-base", "SmolLM3 3B Base", "HuggingFaceTB/SmolLM3-3B-Base", _SMOLLM3),
        make("exaone-4.0-1.2b", "EXAONE 4.0 1.2B", "LGAI-EXAONE/EXAONE-4.0-1.2B",
             _exaone4(30, 2048, 4096, 32, 64, is_small=True)),
        make("exaone-4.0-32b", "EXAONE 4.0 32B, three of four layers with a sliding window",
             "LGAI-EXAONE/EXAONE-4.0-32B", _exaone4(64, 5120, 27392, 40, 128, is_small=False)),
        *(
            make(f"falcon-h1-{size.lower()}{end}", f"Falcon-H1 {size}, attention and a state space in each layer",
                 f"tiiuae/Falcon-H1-{size}-{'Instruct' if end else 'Base'}", stated)
            for size, stated in (
                ("0.5B", _falcon_h1(36, 1024, 2048, 8, 2, vocab=32784, head_dim=64, ssm_heads=24, ssm_head=64,
                                    **{**h1, "state": 128, "positions": 16384})),
                ("1.5B", _falcon_h1(24, 2048, 4608, 8, 2, vocab=65537, head_dim=128, ssm_heads=48, ssm_head=64, **h1)),
                ("7B", _falcon_h1(44, 3072, 12288, 12, 2, vocab=130048, head_dim=128, ssm_heads=24, ssm_head=128,
                                  **{**h1, "positions": 262144})),
            )
            for end in ("", "-instruct")
        ),
        *(
            make(f"ministral-3-{size.lower()}-{end.lower()}", f"Ministral 3 {size}'s language model",
                 f"mistralai/Ministral-3-{size}-{end}-2512", stated, False)
            for size, stated in (
                ("3B", _ministral3(26, 3072, 9216, is_tied=True)),
                ("8B", _ministral3(34, 4096, 14336, is_tied=False)),
            )
            for end in ("Base", "Instruct")
        ),
        make("olmoe-1b-7b", "OLMoE 1B-7B, 8 of 64 experts", "allenai/OLMoE-1B-7B-0924", _OLMOE),
        make("olmoe-1b-7b-instruct", "OLMoE 1B-7B Instruct", "allenai/OLMoE-1B-7B-0924-Instruct", _OLMOE),
        *(
            make(f"granite-4.0-{size}{end}", f"Granite 4.0 {size}{words}", f"ibm-granite/granite-4.0-{size}{end}",
                 stated)
            for size, words, stated in (
                ("micro", ", attention alone",
                 _granite4(2560, 40, 8, 8192, ssm_heads=128, ssm_head=40, state=256, scaling=10.0, attention=0.015625,
                           is_hybrid=False)),
                ("h-micro", ", a state space in nine of ten layers",
                 _granite4(2048, 32, 8, 8192, ssm_heads=64, scaling=8.0, attention=0.015625)),
                ("h-tiny", ", a state space in nine of ten layers, 6 of 64 experts and a shared one",
                 _granite4(1536, 12, 4, 1024, ssm_heads=48, scaling=6.0, attention=0.0078125, experts=64, chosen=6,
                           expert=512)),
                ("h-small", ", a state space in nine of ten layers, 10 of 72 experts and a shared one",
                 _granite4(4096, 32, 8, 1536, ssm_heads=128, scaling=16.0, attention=0.0078125, experts=72, chosen=10,
                           expert=768)),
            )
            for end in ("", "-base")
        ),
    ]  # fmt: skip


# The published model whose architecture a tiny one has.
_TINY = {
    "qwen3-moe-tiny": "qwen3-30b-a3b", "deepseek-v3-tiny": "deepseek-v3", "gpt-oss-tiny": "gpt-oss-20b",
    "llama-4-tiny": "llama-4-scout", "glm-4-tiny": "glm-4-9b", "gemma-3-tiny": "gemma-3-1b",
    "smollm3-tiny": "smollm3-3b", "exaone-4.0-tiny": "exaone-4.0-32b", "falcon-h1-tiny": "falcon-h1-0.5b",
    "ministral-3-tiny": "ministral-3-8b-base", "olmoe-tiny": "olmoe-1b-7b", "granite-4.0-tiny": "granite-4.0-h-tiny",
}  # fmt: skip


@functools.cache
def traced_models() -> Sequence[Model]:
    """The models of this module, published ones first."""
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))
    return [*_published(facts), *_tiny(facts)]


def _published(facts: Mapping[str, Any]) -> Iterator[Model]:
    for each in published():
        tokenizer = TokenizerSpec(
            name=each.hub, loader="tunemark_models.tokenizer:tokenizer_from_hub", argument=each.hub
        )
        yield _model(
            each.name,
            each.title,
            each.configuration,
            facts[_key(each.configuration)],
            tokenizer,
            digest=_key(each.configuration),
            source=f"https://huggingface.co/{each.hub}/blob/main/config.json",
            pretrained=each.hub if each.loads else None,
        )


def _tiny(facts: Mapping[str, Any]) -> Iterator[Model]:
    titles = {each.name: each.title.partition(",")[0] for each in published()}
    for name, original in _TINY.items():
        found = facts[name]
        title = (
            f"{titles[original]}'s architecture in miniature, for two CPU cores; random weights only; with Mistral "
            "v0.1's vocabulary, which needs no network"
        )
        yield _model(name, title, found["configuration"], found["trace"], OFFLINE_TOKENIZER, digest=name)


def _model(
    name: str,
    title: str,
    configuration: Mapping[str, Any],
    trace: Mapping[str, Any],
    tokenizer: TokenizerSpec,
    *,
    digest: str,
    **more: Any,
) -> Model:
    architecture = architecture_from_trace(trace, f"built in: {digest}")
    return Model(
        name=name,
        description=title,
        architecture=architecture,
        tokenizer=tokenizer,
        runtime=RUNTIME,
        configuration=configuration,
        transformers_type=str(configuration["model_type"]),
        notes=describe_trace(architecture),
        **more,
    )


def _key(configuration: Mapping[str, Any]) -> str:
    """Models of the same configuration share their facts."""
    return next(each.name for each in published() if each.configuration == configuration)


def main() -> int:
    """Write the facts of all models with the installed transformers."""
    from transformers import AutoConfig  # heavy, and only needed here

    from tunemark_models.model_trace import trace_config
    from tunemark_models.runtime import prepare_for_training
    from tunemark_models.shrunken_copy import shrink

    def trace(stated: Mapping[str, Any]) -> dict[str, Any]:
        # A copy: transformers completes the fields of rotary positions in place.
        fields = copy.deepcopy({name: value for name, value in stated.items() if name != "model_type"})
        return trace_config(prepare_for_training(AutoConfig.for_model(stated["model_type"], **fields)))

    facts: dict[str, Any] = {}
    stated = {each.name: each.configuration for each in published()}
    for configuration in stated.values():
        if _key(configuration) not in facts:
            facts[_key(configuration)] = trace(configuration)
    for name, original in _TINY.items():
        fields = copy.deepcopy({key: value for key, value in stated[original].items() if key != "model_type"})
        small = shrink(AutoConfig.for_model(stated[original]["model_type"], **fields))
        kept = {
            key: value for key, value in small.to_dict().items() if key in stated[original] or key.startswith("head")
        }
        tiny = {**kept, "model_type": stated[original]["model_type"], "vocab_size": OFFLINE_VOCABULARY,
                "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
        facts[name] = {"configuration": tiny, "trace": trace(tiny)}
    _FACTS.write_text(json.dumps(facts, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
