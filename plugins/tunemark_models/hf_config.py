"""`hf:FOLDER` or `hf:OWNER/NAME`: the model that a `config.json` describes, where transformers can build it.

The configuration of a known family is read without transformers, so that a plan needs no torch; any other family is
stepped without weights in a process of the interpreter that trains (`traced_architecture`). A model whose parameters
and FLOPs cannot be accounted for is refused, because its tokens per second could not be related to its work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, UnknownName
from tunemark.given_file import read_given_file
from tunemark.hub import explain_hub_failure, hub_or_its_cache
from tunemark.plugin.descriptors import Architecture, LayerType, Model, TokenizerSpec
from tunemark_models import traced_architecture
from tunemark_models.families import BLOCKS, RUNTIME, with_support

ConfigDict = Mapping[str, Any]


def read_hf_model(reference: str, python: str | None = None) -> Model:
    """The model of a folder or of a repository on the hub; raises `TunemarkError` with the reason if there is none.

    python: the interpreter that trains, None for this one."""
    folder = Path(reference).expanduser()
    is_local = folder.is_dir() or reference.startswith((".", "/", "~"))
    path = folder / "config.json" if is_local else _download_config(reference)
    stated = _read_config(path, reference)
    kind = stated.get("model_type")
    if not isinstance(kind, str):
        raise BadExperiment(
            what=f"hf:{reference} does not name its model type", why="its config.json has no model_type", next=_HINT
        )
    if quantization := stated.get("quantization_config"):
        how = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise BadExperiment(
            what=f"hf:{reference} is quantized ({how or 'in an unknown way'})",
            why="quantized weights cannot be trained in full, and their FLOPs differ from those of float matrices",
            next="use the unquantized model",
        )
    read = _READERS.get(kind)
    try:
        architecture = _check_dimensions(
            read(stated) if read else traced_architecture.trace_architecture(path.parent, stated, python)
        )
    except traced_architecture.UntraceableModelError as error:
        hint = "; its own Python code could build it, but cannot be counted" if "auto_map" in stated else ""
        raise BadExperiment(
            what=f"hf:{reference} is a {kind!r}, whose parameters and FLOPs cannot be accounted for",
            why=f"{error}{hint}",
            next="write a plugin that describes it: `tunemark new model NAME`",
        ) from error
    except KeyError as error:
        raise BadExperiment(
            what=f"hf:{reference} lacks a dimension: {error.args[0]}",
            why=f"a {kind} needs it in its config.json",
            next="complete the configuration: a default could describe another model",
        ) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise BadExperiment(
            what=f"hf:{reference} has invalid dimensions", why=f"config.json: {error}", next=_HINT
        ) from error
    where = os.path.abspath(folder) if is_local else reference
    loader = (
        "tunemark_models.tokenizer:tokenizer_from_folder"
        if is_local
        else "tunemark_models.tokenizer:tokenizer_from_hub"
    )
    is_remote = kind in _REMOTE_CODE
    model = Model(
        name=f"hf:{where}",
        description=f"{kind} of {where}",
        architecture=architecture,
        tokenizer=TokenizerSpec(name=f"hf:{where}", loader=loader, argument=where),
        runtime=RUNTIME,
        source=os.path.join(where, "config.json") if is_local else f"hub: {reference}",
        pretrained=where,
        configuration={} if is_remote else _other_fields(stated, architecture) if read else _full_configuration(stated),
        is_remote=is_remote,
        transformers_type=None if is_remote else kind,
        notes=traced_architecture.describe_trace(architecture),
    )
    return with_support(model)


_HINT = "give a folder with a config.json as transformers writes it, or the id of a repository on the hub"

# Fields for positions, activations and scales, on which no count depends, under transformers' names.
_OTHER_FIELDS = (
    "rope_scaling", "rope_parameters", "rope_theta", "partial_rotary_factor", "hidden_act", "hidden_activation",
    "activation_function", "initializer_range", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "clip_qkv",
    "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "use_sliding_window",
    "max_window_layers", "original_max_position_embeddings", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier", "logits_scaling", "no_rope_layers", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn", "router_jitter_noise", "use_bias", "head_dim",
)  # fmt: skip


def _other_fields(stated: ConfigDict, a: Architecture) -> dict[str, Any]:
    found = {name: stated[name] for name in _OTHER_FIELDS if stated.get(name) is not None}
    if a.model_type == "gpt2":
        found.pop("head_dim", None)
    return found


def _full_configuration(stated: ConfigDict) -> dict[str, Any]:
    """The configuration as written, `model_type` included."""
    return {k: v for k, v in stated.items() if k not in _LEFT_OUT}


# These describe the file or name code that is not run.
_LEFT_OUT = ("architectures", "auto_map", "_name_or_path", "transformers_version", "torch_dtype", "dtype")


def _make_architecture(stated: ConfigDict, **more: Any) -> Architecture:
    """The dimensions under the names that nearly all configurations use; a KeyError names a missing one."""
    kind, hidden, heads = stated["model_type"], int(stated["hidden_size"]), int(stated["num_attention_heads"])
    rope = stated.get("rope_parameters") or {}
    values: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": int(stated["vocab_size"]),
        "hidden_size": hidden,
        "intermediate_size": int(stated["intermediate_size"]),
        "num_hidden_layers": int(stated["num_hidden_layers"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(_kv_heads(stated) or heads),
        "head_dim": int(stated.get("head_dim") or _divide(hidden, heads)),
        "max_position_embeddings": int(stated["max_position_embeddings"]),
        "rope_theta": float(stated.get("rope_theta") or rope.get("rope_theta") or _DEFAULT_THETA.get(kind, 10000.0)),
        "rms_norm_eps": float(stated.get("rms_norm_eps") or _DEFAULT_EPSILON.get(kind, 1e-6)),
        "tie_word_embeddings": bool(stated.get("tie_word_embeddings", False)),
    }
    return Architecture(**{**values, **BLOCKS.get(kind, {}), **more})


# transformers' defaults for families that differ from most.
_DEFAULT_THETA = {"mixtral": 1e6}
_DEFAULT_EPSILON = {"olmo2": 1e-5}
_OPTIONAL_KV_HEADS = ("llama", "phi3", "olmo2", "granite", "baichuan")


def _kv_heads(stated: ConfigDict) -> Any:
    """Key-value heads; None means as many as heads. In every family null means that; a missing key only in some."""
    name = "num_key_value_heads"
    return stated.get(name) if stated["model_type"] in _OPTIONAL_KV_HEADS else stated[name]


# No model's dimension is as large, and no model as deep: counting a billion layers one by one would take hours.
_MOST, _MOST_LAYERS = 1 << 40, 100_000


def _check_dimensions(a: Architecture) -> Architecture:
    sizes = {name: value for name, value in a.as_dict().items() if type(value) is int}
    invalid = [f"{name} is {value}" for name, value in sizes.items() if value < 1]
    most = {"num_hidden_layers": _MOST_LAYERS}
    invalid += [
        f"{name} is more than {most.get(name, _MOST):,}"
        for name, value in sizes.items()
        if value > most.get(name, _MOST)
    ]
    if invalid:
        raise ValueError(", ".join(invalid))
    return a


def _divide(hidden: int, heads: int) -> int:
    if hidden % heads:
        raise ValueError(f"{heads} heads do not divide a hidden_size of {hidden}")
    return hidden // heads


def _llama(stated: ConfigDict) -> Architecture:
    biases = {name: bool(stated.get(name, False)) for name in ("attention_bias", "mlp_bias")}
    return _make_architecture(stated, **biases)


def _mistral(stated: ConfigDict) -> Architecture:
    # transformers' default if the configuration lacks the key; null means no window.
    return _make_architecture(stated, sliding_window=stated.get("sliding_window", 4096))


def _mixtral(stated: ConfigDict) -> Architecture:
    experts = int(stated["num_local_experts"]), int(stated["num_experts_per_tok"])
    return _make_architecture(
        stated,
        sliding_window=stated.get("sliding_window"),
        num_local_experts=experts[0],
        num_experts_per_tok=experts[1],
    )


def _qwen(stated: ConfigDict) -> Architecture:
    kind = stated["model_type"]
    more: dict[str, Any] = {"qkv_bias": True} if kind == "qwen2" else {"qk_norm": "head"}
    if kind == "qwen3":
        # transformers' default if the configuration lacks the key.
        more["head_dim"] = int(stated.get("head_dim") or 128)
        more["attention_bias"] = bool(stated.get("attention_bias", False))
    if stated.get("use_sliding_window") and stated.get("sliding_window"):
        layers = int(stated["num_hidden_layers"])
        full = int(stated.get("max_window_layers", 28))
        kinds = stated.get("layer_types") or [_SLIDING if i >= full else _FULL for i in range(layers)]
        if _SLIDING in kinds:
            more.update(sliding_window=int(stated["sliding_window"]), layer_types=tuple(kinds))
    return _make_architecture(stated, **more)


_SLIDING: LayerType = "sliding_attention"
_FULL: LayerType = "full_attention"


def _gemma(stated: ConfigDict) -> Architecture:
    # Tied by default.
    tied = bool(stated.get("tie_word_embeddings", True))
    more: dict[str, Any] = {"tie_word_embeddings": tied, "attention_bias": bool(stated.get("attention_bias", False))}
    more["head_dim"] = int(stated.get("head_dim") or 256)
    if stated["model_type"] == "gemma2":
        layers = int(stated["num_hidden_layers"])
        kinds = stated.get("layer_types") or [_FULL if i % 2 else _SLIDING for i in range(layers)]
        more.update(norms_per_layer=4, sliding_window=int(stated["sliding_window"]), layer_types=tuple(kinds))
    return _make_architecture(stated, **more)


def _phi3(stated: ConfigDict) -> Architecture:
    return _make_architecture(stated, sliding_window=stated.get("sliding_window"))


def _olmo2(stated: ConfigDict) -> Architecture:
    return _make_architecture(stated, qk_norm="projection", attention_bias=bool(stated.get("attention_bias", False)))


def _gpt2(stated: ConfigDict) -> Architecture:
    hidden, heads = int(stated["n_embd"]), int(stated["n_head"])
    return Architecture(
        model_type="gpt2",
        vocab_size=int(stated["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(stated.get("n_inner") or 4 * hidden),
        num_hidden_layers=int(stated["n_layer"]),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=_divide(hidden, heads),
        max_position_embeddings=int(stated["n_positions"]),
        rope_theta=None,
        rms_norm_eps=float(stated.get("layer_norm_epsilon", 1e-5)),
        tie_word_embeddings=bool(stated.get("tie_word_embeddings", True)),
        attention_bias=True,
        mlp_bias=True,
        gated_mlp=False,
        norm_bias=True,
        learned_positions=True,
        **BLOCKS["gpt2"],
    )


def _baichuan(stated: ConfigDict) -> Architecture:
    # The 13B uses ALiBi and names its longest sequence model_max_length.
    longest = stated.get("max_position_embeddings") or stated["model_max_length"]
    return _make_architecture({**stated, "max_position_embeddings": longest}, rope_theta=None)


_READERS: Mapping[str, Callable[[ConfigDict], Architecture]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "gemma": _gemma,
    "gemma2": _gemma,
    "phi3": _phi3,
    "olmo2": _olmo2,
    "granite": _llama,
    "gpt2": _gpt2,
    "baichuan": _baichuan,
}

# Not in transformers: the repository's own Python code builds them.
_REMOTE_CODE = ("baichuan",)


def _download_config(repository: str) -> Path:
    import huggingface_hub  # heavy, and only needed for hub models

    try:
        with hub_or_its_cache():
            return Path(huggingface_hub.hf_hub_download(repository, "config.json"))
    # The network, the hub and the cache each raise exceptions of their own.
    except Exception as error:
        raise UnknownName(
            what=f"there is no folder {repository!r}, and hf:{repository} is not in the local cache of the hub and "
            "cannot be downloaded from it",
            why=explain_hub_failure(error),
            next="give the model's folder: hf:FOLDER",
        ) from error


def _read_config(path: Path, reference: str) -> ConfigDict:
    try:
        stated = json.loads(read_given_file(path))
        if not isinstance(stated, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadExperiment(what=f"hf:{reference} has no readable config.json", why=f"{path}: {why}", next=_HINT) from (
            error
        )
    return stated
