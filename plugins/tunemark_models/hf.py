"""`hf:FOLDER` or `hf:OWNER/NAME`: the model that a `config.json` describes, of those that transformers builds.

The configuration of a family that is known here is read without transformers, so that a plan needs no torch; of any
other, transformers builds the module without weights in a process of its own. A model whose parameters and FLOPs cannot
be accounted for is refused: a rate would say nothing of its work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, UnknownName
from tunemark.plugin.descriptors import Architecture, LayerType, Model, TokenizerName
from tunemark_models import inferred
from tunemark_models.families import RUNTIME

Stated = Mapping[str, Any]


def model(reference: str) -> Model:
    """The model of a folder or of a repository on the hub; a `TunemarkError` says why there is none."""
    folder = Path(reference).expanduser()
    is_local = folder.is_dir() or reference.startswith((".", "/", "~"))
    path = folder / "config.json" if is_local else _from_hub(reference)
    stated = _read(path, reference)
    kind = stated.get("model_type")
    if not isinstance(kind, str):
        raise BadExperiment(
            what=f"hf:{reference} does not say what it is", why="its config.json has no model_type", next=_HINT
        )
    if quantization := stated.get("quantization_config"):
        how = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise BadExperiment(
            what=f"hf:{reference} is quantized ({how or 'in an unknown way'})",
            why="quantized weights cannot be trained in full, and their FLOPs are not those of matrices in floats",
            next="use the unquantized model",
        )
    read = _KINDS.get(kind)
    try:
        architecture = _positive(read(stated) if read else inferred.architecture(str(path.parent), kind))
    except inferred.UnaccountedError as error:
        own = "; its own Python code would, which is not counted here" if "auto_map" in stated else ""
        raise BadExperiment(
            what=f"hf:{reference} is a {kind!r}, whose parameters and FLOPs cannot be accounted for",
            why=f"{error}{own}",
            next="write a plugin that states its facts: `tunemark new model NAME`",
        ) from error
    except KeyError as error:
        raise BadExperiment(
            what=f"hf:{reference} leaves a dimension out: {error.args[0]}",
            why=f"a {kind} needs it in its config.json",
            next="complete the configuration: a default may be another model's",
        ) from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise BadExperiment(
            what=f"hf:{reference} has dimensions that fit no model", why=f"config.json: {error}", next=_HINT
        ) from error
    where = os.path.abspath(folder) if is_local else reference
    loader = "tunemark_models.tokenizer:from_folder" if is_local else "tunemark_models.tokenizer:from_hub"
    is_remote = kind in _REMOTE
    return Model(
        name=f"hf:{where}",
        description=f"{kind} of {where}",
        architecture=architecture,
        tokenizer=TokenizerName(name=f"hf:{where}", loader=loader, argument=where),
        runtime=RUNTIME,
        source=os.path.join(where, "config.json") if is_local else f"hub: {reference}",
        pretrained=where,
        configuration={} if is_remote else _more(stated, architecture) if read else _whole(stated),
        is_remote=is_remote,
    )


_HINT = "give a folder with a config.json as transformers writes it, or the id of a repository on the hub"

# What says of positions, activations and scales what no count depends on, under transformers' names.
_MORE = (
    "rope_scaling", "rope_parameters", "rope_theta", "partial_rotary_factor", "hidden_act", "hidden_activation",
    "activation_function", "initializer_range", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "clip_qkv",
    "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "use_sliding_window",
    "max_window_layers", "original_max_position_embeddings", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier", "logits_scaling", "no_rope_layers", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn", "router_jitter_noise", "use_bias", "head_dim",
)  # fmt: skip


def _more(stated: Stated, a: Architecture) -> dict[str, Any]:
    found = {name: stated[name] for name in _MORE if stated.get(name) is not None}
    if a.model_type == "gpt2":
        found.pop("head_dim", None)
    return found


def _whole(stated: Stated) -> dict[str, Any]:
    """The configuration as it is written, which says its own kind."""
    return {k: v for k, v in stated.items() if k not in _NOT_TOLD}


# Of the file, not of the model; and code that is not run.
_NOT_TOLD = ("architectures", "auto_map", "_name_or_path", "transformers_version", "torch_dtype", "dtype")


def _decoder(stated: Stated, **more: Any) -> Architecture:
    """The dimensions under the names that nearly all configurations use; KeyError names what is missing."""
    kind, hidden, heads = stated["model_type"], int(stated["hidden_size"]), int(stated["num_attention_heads"])
    rope = stated.get("rope_parameters") or {}
    values: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": int(stated["vocab_size"]),
        "hidden_size": hidden,
        "intermediate_size": int(stated["intermediate_size"]),
        "num_hidden_layers": int(stated["num_hidden_layers"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(_shared(stated) or heads),
        "head_dim": int(stated.get("head_dim") or _divided(hidden, heads)),
        "max_position_embeddings": int(stated["max_position_embeddings"]),
        "rope_theta": float(stated.get("rope_theta") or rope.get("rope_theta") or _THETA.get(kind, 10000.0)),
        "rms_norm_eps": float(stated.get("rms_norm_eps") or _EPSILON.get(kind, 1e-6)),
        "tie_word_embeddings": bool(stated.get("tie_word_embeddings", False)),
    }
    return Architecture(**{**values, **more})


# transformers' own defaults where they are not those of most.
_THETA = {"mixtral": 1e6}
_EPSILON = {"olmo2": 1e-5, "starcoder2": 1e-5}
_AS_MANY_AS_HEADS = ("llama", "phi3", "olmo2", "granite", "baichuan")


def _shared(stated: Stated) -> Any:
    """Key-value heads; None for as many as heads: null says so in every family, and leaving it out only in some."""
    name = "num_key_value_heads"
    return stated.get(name) if stated["model_type"] in _AS_MANY_AS_HEADS else stated[name]


def _positive(a: Architecture) -> Architecture:
    bad = [f"{name} is {value}" for name, value in a.as_dict().items() if type(value) is int and value < 1]
    if bad:
        raise ValueError(", ".join(bad))
    return a


def _divided(hidden: int, heads: int) -> int:
    if hidden % heads:
        raise ValueError(f"{heads} heads do not divide a hidden_size of {hidden}")
    return hidden // heads


def _llama(stated: Stated) -> Architecture:
    biases = {name: bool(stated.get(name, False)) for name in ("attention_bias", "mlp_bias")}
    return _decoder(stated, **biases)


def _mistral(stated: Stated) -> Architecture:
    # transformers' own default, where the configuration leaves it out; null is none.
    return _decoder(stated, sliding_window=stated.get("sliding_window", 4096))


def _mixtral(stated: Stated) -> Architecture:
    experts = int(stated["num_local_experts"]), int(stated["num_experts_per_tok"])
    return _decoder(
        stated,
        sliding_window=stated.get("sliding_window"),
        num_local_experts=experts[0],
        num_experts_per_tok=experts[1],
    )


def _qwen(stated: Stated) -> Architecture:
    kind = stated["model_type"]
    more: dict[str, Any] = {"qkv_bias": True} if kind == "qwen2" else {"qk_norm": "head"}
    if kind == "qwen3":
        # transformers' own default, where the configuration leaves it out.
        more["head_dim"] = int(stated.get("head_dim") or 128)
        more["attention_bias"] = bool(stated.get("attention_bias", False))
    if stated.get("use_sliding_window") and stated.get("sliding_window"):
        layers = int(stated["num_hidden_layers"])
        full = int(stated.get("max_window_layers", 28))
        kinds = stated.get("layer_types") or [_SLIDING if i >= full else _FULL for i in range(layers)]
        if _SLIDING in kinds:
            more.update(sliding_window=int(stated["sliding_window"]), layer_types=tuple(kinds))
    return _decoder(stated, **more)


_SLIDING: LayerType = "sliding_attention"
_FULL: LayerType = "full_attention"


def _gemma(stated: Stated) -> Architecture:
    # Tied unless they say otherwise.
    tied = bool(stated.get("tie_word_embeddings", True))
    more: dict[str, Any] = {"tie_word_embeddings": tied, "attention_bias": bool(stated.get("attention_bias", False))}
    more["head_dim"] = int(stated.get("head_dim") or 256)
    if stated["model_type"] == "gemma2":
        layers = int(stated["num_hidden_layers"])
        kinds = stated.get("layer_types") or [_FULL if i % 2 else _SLIDING for i in range(layers)]
        more.update(norms_per_layer=4, sliding_window=int(stated["sliding_window"]), layer_types=tuple(kinds))
    return _decoder(stated, **more)


def _phi3(stated: Stated) -> Architecture:
    return _decoder(stated, sliding_window=stated.get("sliding_window"))


def _olmo2(stated: Stated) -> Architecture:
    return _decoder(stated, qk_norm="projection", attention_bias=bool(stated.get("attention_bias", False)))


def _granite(stated: Stated) -> Architecture:
    biases = {name: bool(stated.get(name, False)) for name in ("attention_bias", "mlp_bias")}
    return _decoder(stated, **biases)


def _starcoder2(stated: Stated) -> Architecture:
    bias = bool(stated.get("use_bias", True))
    return _decoder(
        stated,
        sliding_window=stated.get("sliding_window"),
        attention_bias=bias,
        mlp_bias=bias,
        gated_mlp=False,
        norm_bias=True,
        tie_word_embeddings=bool(stated.get("tie_word_embeddings", True)),
    )


def _gpt2(stated: Stated) -> Architecture:
    hidden, heads = int(stated["n_embd"]), int(stated["n_head"])
    return Architecture(
        model_type="gpt2",
        vocab_size=int(stated["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(stated.get("n_inner") or 4 * hidden),
        num_hidden_layers=int(stated["n_layer"]),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=_divided(hidden, heads),
        max_position_embeddings=int(stated["n_positions"]),
        rope_theta=None,
        rms_norm_eps=float(stated.get("layer_norm_epsilon", 1e-5)),
        tie_word_embeddings=bool(stated.get("tie_word_embeddings", True)),
        attention_bias=True,
        mlp_bias=True,
        gated_mlp=False,
        norm_bias=True,
        learned_positions=True,
    )


def _baichuan(stated: Stated) -> Architecture:
    # The 13B has ALiBi and names its longest sequence otherwise.
    longest = stated.get("max_position_embeddings") or stated["model_max_length"]
    return _decoder({**stated, "max_position_embeddings": longest}, rope_theta=None)


_KINDS: Mapping[str, Callable[[Stated], Architecture]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "gemma": _gemma,
    "gemma2": _gemma,
    "phi3": _phi3,
    "olmo2": _olmo2,
    "granite": _granite,
    "starcoder2": _starcoder2,
    "gpt2": _gpt2,
    "baichuan": _baichuan,
}

# Not in transformers: the repository's own Python code builds them.
_REMOTE = ("baichuan",)


def _from_hub(repository: str) -> Path:
    import huggingface_hub  # only where such a model is asked for

    try:
        return Path(huggingface_hub.hf_hub_download(repository, "config.json"))
    # The network, the hub and the cache are on the other side, each with exceptions of its own.
    except Exception as error:
        raise UnknownName(
            what=f"there is no folder {repository!r}, and hf:{repository} is not in the local cache of the hub and "
            "cannot be had from it",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            next="give the model's folder: hf:FOLDER",
        ) from error


def _read(path: Path, reference: str) -> Stated:
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stated, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise BadExperiment(what=f"hf:{reference} has no config.json to read", why=f"{path}: {why}", next=_HINT) from (
            error
        )
    return stated
