"""Are the families of causal language models that transformers builds accounted for, and trained right?

    python benchmarks/families.py                     # plan each, and count a shrunken copy's FLOPs with torch
    python benchmarks/families.py --family mamba2,glm4

Each family is taken at its default configuration: its parameters are compared with those of the module, and the FLOPs
of a shrunken copy with those that torch's counter sees in a forward and backward pass (eager attention, every score).
Nothing is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

# Families of transformers 5.23 for language alone that people fine-tune, and older ones that papers compare with.
FAMILIES = (
    "apertus", "arcee", "bamba", "bitnet", "bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5",
    "ernie4_5_moe", "exaone4", "falcon", "falcon_h1", "falcon_mamba", "gemma", "gemma2", "gemma3_text", "gemma3n_text",
    "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe",
    "granitemoehybrid", "helium", "hunyuan_v1_dense", "hyperclovax", "jamba", "lfm2", "llama", "llama4_text", "mamba",
    "mamba2", "minimax", "ministral3", "mistral", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmoe", "opt", "phi",
    "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "recurrent_gemma", "seed_oss",
    "smollm3", "stablelm", "starcoder2", "zamba2",
)  # fmt: skip

# What transformers' defaults leave out, as published checkpoints have it.
MISSING: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "moe_layer_freq": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
}

SEQUENCE = 64

_HIDDEN, _HEADS, _KV_HEADS, _HEAD_DIM, _INNER, _LAYERS, _VOCAB = 64, 4, 2, 16, 96, 4, 160
# Dimensions of a copy that two cores train in milliseconds, by the names of configurations.
_SMALL: Mapping[str, Any] = {
    "vocab_size": _VOCAB, "vocab_size_per_layer_input": _VOCAB, "hidden_size": _HIDDEN, "n_embd": _HIDDEN,
    "d_model": _HIDDEN, "word_embed_proj_dim": _HIDDEN, "embedding_size": _HIDDEN,
    "intermediate_size": _INNER, "intermediate_size_mlp": _INNER, "ffn_dim": _INNER, "n_inner": _INNER,
    "ffn_hidden_size": 4 * _HIDDEN, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40,
    "shared_intermediate_size": 40, "num_hidden_layers": _LAYERS, "n_layer": _LAYERS, "n_layers": _LAYERS,
    "num_layers": _LAYERS, "num_attention_heads": _HEADS, "n_head": _HEADS, "n_heads": _HEADS, "num_heads": _HEADS,
    "num_key_value_heads": _KV_HEADS, "num_kv_heads": _KV_HEADS, "head_dim": _HEAD_DIM, "attention_head_dim": 32,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "moe_k": 2,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "qk_head_dim": 24, "sliding_window": 16, "attention_window_size": 16, "window_size": 16, "attention_chunk_size": 32,
    "max_position_embeddings": 256, "n_positions": 256, "max_seq_len": 256, "original_max_position_embeddings": 128,
    "state_size": 8, "mamba_d_state": 8, "mamba_d_ssm": 2 * _HIDDEN, "mamba_n_heads": 8, "mamba_d_head": 16,
    "mamba_expand": 2, "mamba_headdim": 16, "n_mamba_heads": 8, "num_ssm_heads": 8, "n_groups": 1, "mamba_n_groups": 1,
    "mamba_ngroups": 1, "chunk_size": 32, "mamba_chunk_size": 32, "block_size": 32, "time_step_rank": 4,
    "mamba_dt_rank": 4, "lru_width": _HIDDEN, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "hidden_size_per_layer_input": 16, "laurel_rank": 8,
    "rotary_dim": 8, "block_multiple_of": 8, "block_ffn_dim_multiplier": 1.0, "max_window_layers": 2,
    "attention_hidden_size": 2 * _HIDDEN, "adapter_rank": 8, "num_mem_blocks": 1, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# What else a family needs so that it has each of its kinds of layers.
_OWN: Mapping[str, Mapping[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "bloom": {"hidden_size": _HIDDEN},
    "deepseek_v3": {"head_dim": 8},
    "falcon_mamba": {"intermediate_size": 2 * _HIDDEN},
    "gemma3n_text": {
        "num_hidden_layers": 5, "intermediate_size": [_INNER] * 5, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] + ["full_attention"],
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "intermediate_size": None},
    "gpt_oss": {"intermediate_size": 48},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "attention"]},
    "hyperclovax": {"attention_multiplier": 0.1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2": {"full_attn_idxs": [1, 3], "layer_types": ["conv", "full_attention"] * 2, "block_dim": _HIDDEN,
             "conv_dim": _HIDDEN, "conv_dim_out": _HIDDEN, "block_ff_dim": _INNER},
    "llama4_text": {"interleave_moe_layer_step": 2, "moe_layers": [1, 3], "num_experts_per_tok": 1,
                    "no_rope_layers": [1, 1, 1, 0], "layer_types": ["chunked_attention"] * 3 + ["full_attention"]},
    "mamba": {"intermediate_size": 2 * _HIDDEN},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 8},
    "minimax": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "mpt": {"n_heads": _HEADS, "expansion_ratio": 2},
    "qwen3_next": {"layer_types": ["linear_attention"] * 3 + ["full_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"], "num_hidden_layers": 3},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3],
               "attention_head_dim": 32, "attention_hidden_size": 2 * _HIDDEN, "n_mamba_heads": 8,
               "mamba_headdim": 16, "num_key_value_heads": _HEADS, "intermediate_size": _INNER},
}  # fmt: skip


def make_default(kind: str) -> Any:
    """transformers' default configuration of the family, with what it leaves out."""
    from transformers import AutoConfig  # heavy

    return AutoConfig.for_model(kind, **MISSING.get(kind, {}))


def make_small(kind: str) -> Any:
    """The family's configuration at dimensions that two cores train in milliseconds."""
    from transformers import AutoConfig  # heavy

    stated = make_default(kind).to_dict()
    fields = {name: value for name, value in _SMALL.items() if stated.get(name) is not None}
    if stated.get("num_key_value_heads") == stated.get("num_attention_heads"):
        fields["num_key_value_heads"] = _HEADS
    if stated.get("layer_types"):
        kinds = list(dict.fromkeys(stated["layer_types"]))
        fields["layer_types"] = (kinds * _LAYERS)[:_LAYERS]
    fields.update(MISSING.get(kind, {}))
    fields.update({name: value for name, value in _SMALL.items() if name in MISSING.get(kind, {})})
    fields.update(_OWN.get(kind, {}))
    return AutoConfig.for_model(kind, **fields)


def count_flops(config: Any, sequence: int = SEQUENCE) -> tuple[int, float]:
    """(parameters, FLOPs per slot that torch's counter sees in a forward and backward pass of the real module)"""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM
    for each in (config, *(c for c in vars(config).values() if hasattr(c, "to_dict"))):
        each._experts_implementation = "eager"
    module = model.from_config(config, attn_implementation="eager").train()
    ids = torch.randint(3, _VOCAB, (1, sequence))
    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward}
    ) as counter:
        module(input_ids=ids, use_cache=False).logits.float().square().mean().backward()
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() / sequence


def _conv_backward(grad: Any, inputs: Any, weight: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    """FLOPs of a convolution's backward pass: the forward pass's for each gradient. torch 2.13 takes a grouped
    convolution's weight gradient for that of a whole one, as many times more as there are groups."""
    mask = rest[-1]
    forward = 2 * grad[0] * grad[2] * weight[0] * weight[1] * weight[2]
    return int(forward) * (bool(mask[0]) + bool(mask[1]))


def check_family(kind: str) -> dict[str, Any]:
    """What was found of a family: whether parameters are exact, and by how much FLOPs differ from torch's."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunemark.physics import count_parameters, train_flops_per_token
    from tunemark.physics.traced_counts import computed_share
    from tunemark_models.model_trace import trace_config
    from tunemark_models.runtime import prepare_for_training
    from tunemark_models.traced_architecture import architecture_from_trace

    whole = architecture_from_trace(trace_config(prepare_for_training(make_default(kind))), kind)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM
        built = model.from_config(make_default(kind))
    counted = count_parameters(whole)
    small = prepare_for_training(make_small(kind))
    a = architecture_from_trace(trace_config(prepare_for_training(make_small(kind))), f"{kind}, small")
    assert a.traced is not None
    parameters, flops = count_flops(small)
    ours = train_flops_per_token(a, SEQUENCE, "full") * computed_share(a.traced, SEQUENCE)
    return {
        "parameters": counted.total,
        "active": counted.active,
        "is_exact": counted.total == sum(p.numel() for p in built.parameters())
        and count_parameters(a).total == parameters,
        "flops": train_flops_per_token(whole, 512),
        "difference": ours / flops - 1.0,
        "kinds": len(a.traced.kinds),
        "notes": [*a.traced.notes, *(f"not reached: {name}" for name in a.traced.unused[:1])],
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    import transformers

    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", default=",".join(FAMILIES), help="names of model types, separated by commas")
    families = parser.parse_args(arguments).family.split(",")
    print("| family | parameters | active | exact | GFLOP per token at 512 | small copy against torch | notes |")
    print("|---|---:|---:|---|---:|---:|---|")
    right = 0
    with quiet():
        for kind in families:
            try:
                row = check_family(kind)
            # A family can raise anything; it is a row.
            except Exception as error:
                print(
                    f"| {kind} | | | | | | {type(error).__name__}: {' '.join(str(error).split())[:200]} |", flush=True
                )
                continue
            right += row["is_exact"] and abs(row["difference"]) < 0.01
            print(
                f"| {kind} | {row['parameters']:,} | {row['active']:,} | {'yes' if row['is_exact'] else 'NO'} "
                f"| {row['flops'] / 1e9:.4g} | {100 * row['difference']:+.3f} % | {'; '.join(row['notes'])} |",
                flush=True,
            )
    print(f"\n{right} of {len(families)} families are exact in parameters and within 1 % in FLOPs")
    return 0 if right == len(families) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
