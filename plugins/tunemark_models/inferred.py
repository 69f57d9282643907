"""The architecture of a family that is not known by name, from what transformers builds of it.

It is a decoder of the parts that `Architecture` has words for, or it is refused: its projections have to be those of
attention and of an MLP, every layer alike, and its parameters have to add up to the module's, so that FLOPs and memory
are of what is trained.
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

from tunemark.physics import parameters
from tunemark.plugin.descriptors import Architecture

_PATIENCE_S = 120
_KINDS = ("full_attention", "sliding_attention")


class UnaccountedError(ValueError):
    """Why there is no architecture, in words."""


def architecture(folder: str, kind: str) -> Architecture:
    """The architecture of the configuration in a folder; `UnaccountedError` where it cannot be accounted for."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        found = json.loads(_census(folder, file.read()))
    if "error" in found:
        raise UnaccountedError(f"transformers does not build it: {found['error']}")
    return of_census(found, kind)


def of_census(found: Mapping[str, Any], kind: str) -> Architecture:
    """The architecture that explains every count of `tunemark_models.census`."""
    said, layers = found["said"], found["layers"]
    if any(layer != layers[0] for layer in layers):
        raise UnaccountedError("its layers are of several kinds")
    if layers[0]["others"]:
        raise UnaccountedError(
            f"a layer has weights that are no matrix or vector of a plain decoder: {layers[0]['others'][0]}"
        )
    vocab, hidden = found["embedding"]
    if found["head"] != found["embedding"]:
        raise UnaccountedError(f"the head is {found['head']}, the embedding {found['embedding']}")
    heads = said["num_attention_heads"]
    shared = said["num_key_value_heads"] or heads
    if not heads or (not said["head_dim"] and hidden % heads):
        raise UnaccountedError("it does not say how wide its heads are")
    width = said["head_dim"] or hidden // heads
    inner, is_gated = _mlp(layers[0]["matrices"], hidden, heads * width, shared * width)
    window, types = _windows(said, len(layers))
    shared_fields: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": width,
        "max_position_embeddings": said["max_position_embeddings"],
        "sliding_window": window,
        "layer_types": types,
        "rope_theta": said["rope_theta"],
        "tie_word_embeddings": found["is_tied"],
        "gated_mlp": is_gated,
        "learned_positions": found["positions"] > 0,
    }
    if not said["max_position_embeddings"]:
        raise UnaccountedError("it does not say how long a sequence it takes")
    for more in _smaller_parts(found["norm"], hidden):
        a = Architecture(**shared_fields, **more)
        if parameters(a).total == found["total"]:
            return a
    raise UnaccountedError(f"its {found['total']:,} parameters are not those of attention, an MLP, norms and biases")


def _smaller_parts(norm: int, hidden: int) -> Iterator[dict[str, Any]]:
    """Every way in which norms and biases may be there, the usual ones first. norm: elements of the last one."""
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


def _mlp(matrices: list[list[int]], hidden: int, queries: int, keys: int) -> tuple[int, bool]:
    """(inner size, whether it is gated) of the projections that are left when attention's are taken away, separate or
    fused."""
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
    raise UnaccountedError("the projections of a layer are not those of attention and one MLP")


def _windows(said: Mapping[str, Any], layers: int) -> tuple[int | None, tuple[Any, ...] | None]:
    """(window, types of the layers)."""
    window, types = said["sliding_window"], said["layer_types"]
    if said["use_sliding_window"] is False:
        window = None
    if not types:
        return window, None
    strange = [each for each in types if each not in _KINDS]
    if strange or len(types) != layers:
        raise UnaccountedError(
            f"layers of the kind {strange[0]!r}" if strange else "a kind is not named for every layer"
        )
    if "sliding_attention" not in types:
        return None, None
    if window is None:
        raise UnaccountedError("layers of sliding attention without a window")
    return window, tuple(types)


@functools.cache
def _census(folder: str, content: str) -> str:
    """What the census says; content: of the configuration, by which it is kept."""
    command = [sys.executable, "-m", "tunemark_models.census", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise UnaccountedError(f"transformers did not build it in {_PATIENCE_S} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise UnaccountedError(f"it could not be built: {said[-1] if said else error}") from error
    return done.stdout.splitlines()[-1]
