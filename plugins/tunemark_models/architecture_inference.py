"""Infers the architecture of a family that is not known by name, from the module that transformers builds.

The module must be a decoder that `Architecture` can describe: the projections of attention and one MLP, all layers
alike, and parameters that add up to the module's. Any other is refused, so that FLOPs and memory are those of what is
trained.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tunemark.physics import count_parameters
from tunemark.plugin.descriptors import Architecture

_TIMEOUT_S = 120
_LAYER_TYPES = ("full_attention", "sliding_attention")


class UnsupportedArchitectureError(ValueError):
    """The message says why the module has no architecture here."""


def infer_architecture(folder: str, kind: str) -> Architecture:
    """The architecture of the configuration in a folder; `UnsupportedArchitectureError` if it cannot be inferred."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        found = json.loads(_run_census(folder, file.read()))
    if "error" in found:
        raise UnsupportedArchitectureError(f"transformers cannot build it: {found['error']}")
    return architecture_from_shapes(found, kind)


def architecture_from_shapes(found: Mapping[str, Any], kind: str) -> Architecture:
    """The architecture that matches every shape and count of `tunemark_models.module_shapes`."""
    config, layers = found["config"], found["layers"]
    if any(layer != layers[0] for layer in layers):
        raise UnsupportedArchitectureError("its layers differ")
    if layers[0]["others"]:
        raise UnsupportedArchitectureError(
            f"a layer has weights that are no matrix or vector of a plain decoder: {layers[0]['others'][0]}"
        )
    vocab, hidden = found["embedding"]
    if found["head"] != found["embedding"]:
        raise UnsupportedArchitectureError(f"the head is {found['head']}, the embedding {found['embedding']}")
    heads = config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"] or heads
    if not heads or (not config["head_dim"] and hidden % heads):
        raise UnsupportedArchitectureError("its configuration does not give the width of its heads")
    width = config["head_dim"] or hidden // heads
    inner, is_gated = _find_mlp(layers[0]["matrices"], hidden, heads * width, kv_heads * width)
    window, types = _find_windows(config, len(layers))
    shared_fields: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width,
        "max_position_embeddings": config["max_position_embeddings"],
        "sliding_window": window,
        "layer_types": types,
        "rope_theta": config["rope_theta"],
        "tie_word_embeddings": found["is_tied"],
        "gated_mlp": is_gated,
        "learned_positions": found["positions"] > 0,
    }
    if not config["max_position_embeddings"]:
        raise UnsupportedArchitectureError("its configuration does not give the longest sequence")
    for more in _norms_and_biases(found["norm"], hidden):
        a = Architecture(**shared_fields, **more)
        if count_parameters(a).total == found["total"]:
            return a
    raise UnsupportedArchitectureError(
        f"its {found['total']:,} parameters are not those of attention, an MLP, norms and biases"
    )


def _norms_and_biases(norm: int, hidden: int) -> Iterator[dict[str, Any]]:
    """Every combination of norms and biases, the usual ones first. norm: elements of the final norm."""
    if norm not in (hidden, 2 * hidden):
        return
    biases: tuple[dict[str, bool], ...] = ({}, {"qkv_bias": True}, {"attention_bias": True})
    for qk_norm, bias, mlp_bias, norms in itertools.product(
        (None, "head", "projection"), biases, (False, True), (2, 4, 1, 3)
    ):
        yield {
            "norm_bias": norm == 2 * hidden,
            "norms_per_layer": norms,
            "qk_norm": qk_norm,
            "mlp_bias": mlp_bias,
            **bias,
        }


def _find_mlp(matrices: list[list[int]], hidden: int, queries: int, keys: int) -> tuple[int, bool]:
    """(intermediate size, whether it is gated) of the MLP: the projections that are not attention's, fused or not."""
    every = Counter((inputs, outputs) for inputs, outputs in matrices)
    separate = Counter([(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)])
    fused = Counter([(hidden, queries + 2 * keys), (queries, hidden)])
    for attention in (separate, fused):
        if attention - every:
            continue
        left = list((every - attention).elements())
        for inner in {i for i, o in left if o == hidden}:
            gated = [
                [(hidden, inner), (hidden, inner), (inner, hidden)],
                [(hidden, 2 * inner), (inner, hidden)],
            ]
            plain = [(hidden, inner), (inner, hidden)]
            if Counter(left) in map(Counter, gated):
                return inner, True
            if Counter(left) == Counter(plain):
                return inner, False
    raise UnsupportedArchitectureError("the projections of a layer are not those of attention and one MLP")


def _find_windows(config: Mapping[str, Any], layers: int) -> tuple[int | None, tuple[Any, ...] | None]:
    """(sliding window, layer types); None for each that does not apply."""
    window, types = config["sliding_window"], config["layer_types"]
    if config["use_sliding_window"] is False:
        window = None
    if not types:
        return window, None
    unknown = [each for each in types if each not in _LAYER_TYPES]
    if unknown or len(types) != layers:
        raise UnsupportedArchitectureError(
            f"it has layers of type {unknown[0]!r}" if unknown else "it does not give a type for every layer"
        )
    if "sliding_attention" not in types:
        return None, None
    if window is None:
        raise UnsupportedArchitectureError("it has sliding-attention layers without a window")
    return window, tuple(types)


@functools.cache
def _run_census(folder: str, content: str) -> str:
    """The output of `tunemark_models.module_shapes`. content: the configuration's text, a part of the cache key."""
    command = [sys.executable, "-m", "tunemark_models.module_shapes", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise UnsupportedArchitectureError(f"transformers did not build it in {_TIMEOUT_S} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise UnsupportedArchitectureError(f"it could not be built: {lines[-1] if lines else error}") from error
    return done.stdout.splitlines()[-1]
