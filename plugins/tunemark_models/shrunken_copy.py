"""A family's configuration at dimensions that a CPU trains in milliseconds, with each of its kinds of layers.

Whether documents stay apart in a row, and whether a pipeline computes the same, does not depend on the dimensions: so
it is tried on such a copy. Scales, such as of embeddings, residuals and logits, are the model's own.
"""

from __future__ import annotations

from typing import Any, Dict, List

_HIDDEN, _HEADS, _KV_HEADS, _HEAD_DIM, _INNER, _LAYERS = 64, 4, 2, 16, 96, 4
VOCABULARY = 160

# Dimensions by the names of configurations.
_SMALL: Dict[str, Any] = {
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY, "hidden_size": _HIDDEN, "n_embd": _HIDDEN,
    "d_model": _HIDDEN, "word_embed_proj_dim": _HIDDEN, "embedding_size": _HIDDEN, "embedding_dim": _HIDDEN,
    "intermediate_size": _INNER, "intermediate_size_mlp": _INNER, "ffn_dim": _INNER, "n_inner": _INNER,
    "ffn_hidden_size": 4 * _HIDDEN, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40,
    "moe_shared_expert_intermediate_size": 40, "shared_intermediate_size": 40, "num_hidden_layers": _LAYERS,
    "n_layer": _LAYERS, "n_layers": _LAYERS, "num_layers": _LAYERS, "num_attention_heads": _HEADS, "n_head": _HEADS,
    "n_heads": _HEADS, "num_heads": _HEADS, "num_key_value_heads": _KV_HEADS, "num_kv_heads": _KV_HEADS,
    "head_dim": _HEAD_DIM, "attention_head_dim": 32, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "moe_num_experts": 4, "moe_k": 2, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "num_dense_layers": 1, "n_shared_experts": 1, "num_shared_experts": 1,
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "qk_head_dim": 24, "sliding_window": 16, "attention_window_size": 16, "window_size": 16, "attention_chunk_size": 32,
    "max_position_embeddings": 256, "n_positions": 256, "max_seq_len": 256, "original_max_position_embeddings": 128,
    "state_size": 8, "mamba_d_state": 8, "mamba_d_ssm": 2 * _HIDDEN, "mamba_n_heads": 8, "mamba_d_head": 16,
    "mamba_expand": 2, "mamba_headdim": 16, "mamba_head_dim": 16, "mamba_num_heads": 8, "ssm_state_size": 8,
    "n_mamba_heads": 8, "num_ssm_heads": 8, "n_groups": 1, "mamba_n_groups": 1, "mamba_ngroups": 1, "chunk_size": 32,
    "mamba_chunk_size": 32, "block_size": 32, "time_step_rank": 4, "mamba_dt_rank": 4, "lru_width": _HIDDEN,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "hidden_size_per_layer_input": 16, "laurel_rank": 8, "rotary_dim": 8, "block_multiple_of": 8,
    "block_ffn_dim_multiplier": 1.0, "max_window_layers": 2, "attention_hidden_size": 2 * _HIDDEN, "adapter_rank": 8,
    "num_mem_blocks": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# What else a family needs, so that its dimensions fit and it has each of its kinds of layers.
_BY_FAMILY: Dict[str, Dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "deepseek_v3": {"head_dim": 8},
    "falcon_mamba": {"intermediate_size": 2 * _HIDDEN},
    "gemma3n_text": {
        "num_hidden_layers": 5, "intermediate_size": [_INNER] * 5, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] + ["full_attention"],
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "intermediate_size": None},
    "gpt_oss": {"intermediate_size": 48},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2": {"full_attn_idxs": [1, 3], "layer_types": ["conv", "full_attention"] * 2, "block_dim": _HIDDEN,
             "conv_dim": _HIDDEN, "conv_dim_out": _HIDDEN, "block_ff_dim": _INNER},
    "llama4_text": {"interleave_moe_layer_step": 2, "moe_layers": [1, 3], "num_experts_per_tok": 1,
                    "no_rope_layers": [1, 1, 1, 0], "layer_types": ["chunked_attention"] * 3 + ["full_attention"]},
    "mamba": {"intermediate_size": 2 * _HIDDEN},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 8},
    "mpt": {"n_heads": _HEADS, "expansion_ratio": 2},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"], "num_hidden_layers": 3},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3],
               "attention_head_dim": 32, "attention_hidden_size": 2 * _HIDDEN, "n_mamba_heads": 8,
               "mamba_headdim": 16, "num_key_value_heads": _HEADS, "intermediate_size": _INNER},
}  # fmt: skip


def shrink(config: Any) -> Any:
    """A small configuration of the same type; what it does not name is as in `config`."""
    stated = config.to_dict()
    fields = {name: value for name, value in stated.items() if name not in _DERIVED}
    # What is 0, such as a dense model's experts, stays 0.
    small = {name: value for name, value in _SMALL.items() if stated.get(name) or name.endswith("token_id")}
    if stated.get("num_key_value_heads") == stated.get("num_attention_heads"):
        small["num_key_value_heads"] = _HEADS
    elif stated.get("num_key_value_heads") == 1:
        small["num_key_value_heads"] = 1
    if stated.get("layer_types"):
        small["layer_types"] = _shorten(stated["layer_types"])
    small.update(_BY_FAMILY.get(stated["model_type"], {}))
    layers = len(stated.get("layer_types") or ())
    for name, value in stated.items():
        # Other lists with an entry for each layer.
        if isinstance(value, list) and layers and len(value) == layers and name not in small:
            small[name] = _shorten(value)
    fields.update(small)
    return type(config)(**fields)


# Fields that describe the file, and those that the constructor derives.
_DERIVED = (
    "architectures",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "_name_or_path",
    "model_type",
    "attention_layers",
)


def _shorten(per_layer: List[Any]) -> List[Any]:
    """Each of the kinds in a list with an entry for each layer, for a few layers."""
    kinds: List[Any] = []
    for each in per_layer:
        if each not in kinds:
            kinds.append(each)
    return (kinds * _LAYERS)[:_LAYERS] if len(kinds) < _LAYERS else kinds[:_LAYERS]
