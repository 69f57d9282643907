"""What transformers builds of a configuration, counted on no device: `python -m tunemark_models.census FOLDER`.

A process of its own, because it imports torch. Prints one JSON object; `error` in it says why there is nothing to
count. No code out of the folder runs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

# What a decoder's configuration says of itself under the names that transformers maps its own to.
SAID = (
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window",
    "use_sliding_window", "layer_types", "rope_theta", "rms_norm_eps",
)  # fmt: skip


def census(folder: str) -> dict[str, Any]:
    """Shapes and counts of the module's parameters, each once, and what its configuration says."""
    import torch  # heavy, and needed in this process alone
    import transformers

    from tunemark_worker.decoder import decoder

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        kind: Any = transformers.AutoModelForCausalLM
        module = kind.from_config(config, trust_remote_code=False, attn_implementation="sdpa")
    parts = decoder(module)
    embedding, head = getattr(parts.base, parts.embedding), getattr(parts.top, parts.head)
    norm = getattr(parts.base, parts.norm) if parts.norm else None
    return {
        "total": sum(p.numel() for p in module.parameters()),
        "layers": [_layer(layer) for layer in parts.layers],
        "embedding": list(embedding.weight.shape),
        "head": list(head.weight.shape),
        "positions": sum(p.numel() for name in parts.positions for p in getattr(parts.base, name).parameters()),
        "norm": sum(p.numel() for p in norm.parameters()) if norm is not None else 0,
        "is_tied": parts.is_tied,
        "said": {name: getattr(config, name, None) for name in SAID},
    }


def _layer(layer: Any) -> dict[str, Any]:
    """matrices: [inputs, outputs] of each projection. vectors: elements of all parameters of one dimension. others:
    names of the parameters that are neither."""
    matrices, known = [], set()
    for name, each in layer.named_modules():
        conv = type(each).__name__ == "Conv1D"
        if type(each).__name__ == "Linear" or conv:
            rows, columns = each.weight.shape
            matrices.append([rows, columns] if conv else [columns, rows])
            known.add(f"{name}.weight")
    named = dict(layer.named_parameters())
    return {
        "matrices": sorted(matrices),
        "vectors": sum(p.numel() for p in named.values() if p.dim() == 1),
        "others": sorted(name for name, p in named.items() if p.dim() != 1 and name not in known),
    }


def main(folder: str) -> int:
    try:
        found = census(folder)
    # Whatever transformers makes of a stranger's configuration is an answer.
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
