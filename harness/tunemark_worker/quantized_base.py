"""QLoRA's frozen matrices: bitsandbytes' linear modules in 4 bits (NF4), their scales quantized a second time.

Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3.
"""

from __future__ import annotations

from typing import Any, Iterable, Sequence

import torch

from tunemark_worker.lora_adapters import find_targets


def quantize_matrices(
    module: torch.nn.Module, names: Sequence[str], idle: Sequence[str], compute_dtype: torch.dtype, device: str
) -> None:
    """Replace each linear module of the layers that has one of the names by one of 4 bits on the device, matrix by
    matrix, and move everything else there. idle: as in `find_targets`.

    The module is on the host before, so that the device never holds it in more bits. compute_dtype: of products.
    """
    import bitsandbytes  # heavy, and needed for this method alone

    for path in find_targets(module, names, idle):
        old: Any = module.get_submodule(path)
        weight = old.weight.detach()
        if type(old).__name__ == "Conv1D":
            weight = weight.T.contiguous()
        outputs, inputs = weight.shape
        made: Any = bitsandbytes.nn.Linear4bit(
            inputs, outputs, bias=old.bias is not None, compute_dtype=compute_dtype, quant_type="nf4", device="meta"
        )
        made.weight = bitsandbytes.nn.Params4bit(
            weight, requires_grad=False, compress_statistics=True, quant_type="nf4", module=made
        ).to(device)
        made.bias = old.bias
        # On a CPU with AVX-512 for bf16, evaluation would leave the weights in a layout that training does not
        # differentiate (bitsandbytes 0.50, nn/modules.py, Linear4bit.forward).
        made.support_avx512bf16_for_cpu = False
        parent, _, attribute = path.rpartition(".")
        setattr(module.get_submodule(parent), attribute, made)
    for each in module.modules():
        for parameter in each.parameters(recurse=False):
            if getattr(parameter, "quant_state", None) is None:
                parameter.data = parameter.data.to(device)
        for name, buffer in each.named_buffers(recurse=False):
            each._buffers[name] = buffer.to(device)


def count_values(parameters: Iterable[torch.nn.Parameter]) -> int:
    """The number of weights, of which one in 4 bits is half a byte of what it is stored in."""
    return sum(_count(each) for each in parameters)


def _count(parameter: torch.nn.Parameter) -> int:
    state: Any = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())
