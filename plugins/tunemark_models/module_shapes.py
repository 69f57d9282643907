"""Parameter shapes and counts of the module that transformers builds from a configuration, on the meta device.

`python -m tunemark_models.module_shapes FOLDER` is a separate process because it imports torch. It prints one JSON
object, with `error` where transformers builds no such module. No code from the folder runs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

# Fields of a decoder's configuration, under transformers' common names.
CONFIG_FIELDS = (
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window",
    "use_sliding_window", "layer_types", "rope_theta", "rms_norm_eps",
)  # fmt: skip


def collect_shapes(folder: str) -> dict[str, Any]:
    """Shapes and counts of the module's parameters, each counted once, and fields of its configuration (`config`)."""
    import torch  # heavy, and only needed in this process
    import transformers

    from tunemark_worker.decoder import find_decoder_parts

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        kind: Any = transformers.AutoModelForCausalLM
        module = kind.from_config(config, trust_remote_code=False, attn_implementation="sdpa")
    parts = find_decoder_parts(module)
    embedding, head = getattr(parts.base, parts.embedding), getattr(parts.top, parts.head)
    norm = getattr(parts.base, parts.norm) if parts.norm else None
    return {
        "total": sum(p.numel() for p in module.parameters()),
        "layers": [_layer_shapes(layer) for layer in parts.layers],
        "embedding": list(embedding.weight.shape),
        "head": list(head.weight.shape),
        "positions": sum(p.numel() for name in parts.positions for p in getattr(parts.base, name).parameters()),
        "norm": sum(p.numel() for p in norm.parameters()) if norm is not None else 0,
        "is_tied": parts.is_tied,
        "config": {name: getattr(config, name, None) for name in CONFIG_FIELDS},
    }


def _layer_shapes(layer: Any) -> dict[str, Any]:
    """matrices: [inputs, outputs] of each projection. vectors: elements of all one-dimensional parameters. others:
    names of the other parameters."""
    matrices, matrix_names = [], set()
    for name, module in layer.named_modules():
        is_conv = type(module).__name__ == "Conv1D"
        if type(module).__name__ == "Linear" or is_conv:
            rows, columns = module.weight.shape
            matrices.append([rows, columns] if is_conv else [columns, rows])
            matrix_names.add(f"{name}.weight")
    named = dict(layer.named_parameters())
    return {
        "matrices": sorted(matrices),
        "vectors": sum(p.numel() for p in named.values() if p.dim() == 1),
        "others": sorted(name for name, p in named.items() if p.dim() != 1 and name not in matrix_names),
    }


def main(folder: str) -> int:
    try:
        found = collect_shapes(folder)
    # An unknown configuration can raise anything in transformers; the parent reports it.
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
