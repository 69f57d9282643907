"""Tensor parallelism of a decoder with DTensor: the projections' names decide how each weight is sharded.

The scheme is Megatron's (Shoeybi et al. 2019, section 3; with sequence parallelism Korthikanti et al. 2022, section
4.2.2): a block's input is whole, its first projections are sharded by columns, its last one by rows, and the sum over
ranks is its output. Every other weight is replicated. Attention runs on local tensors, the rank's own heads.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import nn

try:
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
except ImportError:  # torch 2.4
    from torch.distributed._tensor import (  # type: ignore[attr-defined]  # as torch exports it there
        DTensor,
        Replicate,
        Shard,
        distribute_tensor,
    )
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from tunemark_torch.parallel.projection_names import (
    BLOCK_NAMES,
    COLUMN_PROJECTIONS,
    FUSED_PROJECTIONS,
    HEAD_NORMS,
    ROW_PROJECTIONS,
)
from tunemark_worker.decoder import find_decoder_parts


def parallelize(model: nn.Module, mesh: Any, *, sequence_parallel: bool) -> Dict[str, Any]:
    """Shard the model over the mesh's one dimension, in place. Returns what was sharded and what was left whole.

    ValueError for a projection whose name is unknown, because it could be sharded wrongly.
    """
    parts = find_decoder_parts(model)
    between = Shard(1) if sequence_parallel else Replicate()
    cut: List[str] = []
    whole: List[str] = []
    for number, layer in enumerate(parts.layers):
        for name, child in layer.named_children():
            if _is_block(child):
                found = _shard_block(child, mesh, between)
            elif _is_leaf(child):
                _replicate(child, mesh, between)
                found = []
            elif any(True for _ in child.parameters()):
                _run_on_whole_sequence(child, mesh, between)
                whole += [name] if number == 0 else []
                continue
            else:
                continue
            cut += ["{}.{}".format(name, each) for each in found] if number == 0 else []
    base = parts.base
    head, embedding = getattr(model, parts.head), getattr(base, parts.embedding)
    for name in parts.positions:
        _replicate(getattr(base, name), mesh, Replicate())
    last = getattr(base, parts.norm) if parts.norm else None
    if last is not None and _is_leaf(last):
        _replicate(last, mesh, between)
    if sequence_parallel:
        split_sequence_before(parts.layers[0], mesh)
        gather_sequence_after(last if last is not None else parts.layers[-1], mesh)
    parallelize_module(embedding, mesh, RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate()))
    parallelize_module(head, mesh, ColwiseParallel(input_layouts=Replicate(), output_layouts=Replicate()))
    if parts.is_tied:
        # Both are sharded by vocabulary, so they can share one weight as before.
        head.weight = embedding.weight
    sharded_names = [*cut, parts.embedding, parts.head]
    return {"sequence_parallel": sequence_parallel, "cut": sharded_names, "whole": whole}


def gather_sequence_after(module: nn.Module, mesh: Any) -> None:
    """Gather the module's output, which is sharded along the sequence."""

    def gather(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (_redistribute(output[0], mesh, Shard(1), Replicate()), *output[1:])
        return _redistribute(output, mesh, Shard(1), Replicate())

    module.register_forward_hook(gather)


def split_sequence_before(module: nn.Module, mesh: Any) -> None:
    """Shard the module's input along the sequence."""

    def split(module: nn.Module, inputs: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        return _replace_hidden_states(inputs, named, lambda hidden: _redistribute(hidden, mesh, Replicate(), Shard(1)))

    module.register_forward_pre_hook(split, with_kwargs=True)


def _shard_block(block: nn.Module, mesh: Any, between: Any) -> List[str]:
    """Shard an attention or an MLP; returns the names of its sharded projections."""
    names = {name: child for name, child in block.named_children() if any(True for _ in child.parameters())}
    degree = mesh.size()
    for name, child in names.items():
        if name in HEAD_NORMS:
            if _is_per_head(block, child):
                # Each rank normalizes its own heads: the weight is replicated and its gradient is summed over ranks.
                _replicate(child, mesh, Shard(1))
            else:
                _shard_leaf(child, mesh, dims={"weight": 0, "bias": 0}, source=Shard(-1))
        elif name in COLUMN_PROJECTIONS:
            _shard_columns(child, mesh)
        elif name in FUSED_PROJECTIONS:
            _shard_columns(child, mesh, _fused_widths(block, name, child))
        elif name in ROW_PROJECTIONS:
            _shard_rows(child, mesh, between)
        else:
            raise ValueError(
                "tensor parallelism supports {}, but not {!r} in {}".format(
                    ", ".join(BLOCK_NAMES),
                    name,
                    type(block).__name__,
                )
            )
    _divide_head_counts(block, degree)

    def enter(module: nn.Module, inputs: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        def distributed(hidden: torch.Tensor) -> torch.Tensor:
            source = DTensor.from_local(hidden, mesh, [between], run_check=False)
            return source.redistribute(mesh, [Replicate()])

        return _replace_hidden_states(inputs, named, distributed)

    block.register_forward_pre_hook(enter, with_kwargs=True)
    return [name for name in names if name not in HEAD_NORMS]


def _divide_head_counts(block: nn.Module, degree: int) -> None:
    """Divide the head counts and widths by which some families split a projection's output."""
    for name in ("num_heads", "num_attention_heads", "num_key_value_heads", "split_size"):
        if isinstance(getattr(block, name, None), int):
            setattr(block, name, getattr(block, name) // degree)
    if hasattr(block, "qkv_proj"):
        # Phi-3 reads them from its configuration, which all layers share.
        config: Any = copy.copy(block.config)
        config.num_attention_heads //= degree
        config.num_key_value_heads //= degree
        block.config = config


def _fused_widths(block: nn.Module, name: str, projection: nn.Module) -> List[int]:
    """Number of columns of each projection in a fused one, in order."""
    columns = _count(projection, columns=True)
    if name == "c_attn":
        return [columns // 3] * 3
    if name == "gate_up_proj":
        return [columns // 2] * 2
    config: Any = block.config
    width = columns // (config.num_attention_heads + 2 * config.num_key_value_heads)
    return [width * config.num_attention_heads, *[width * config.num_key_value_heads] * 2]


def _shard_columns(projection: nn.Module, mesh: Any, widths: Optional[Sequence[int]] = None) -> None:
    """Shard by columns: each rank computes a part of the output from the whole input."""
    dims = {"weight": 1 if _is_conv(projection) else 0, "bias": 0}
    if widths:
        # Put rank r's part of each fused projection side by side, so that an even split gives every rank its parts.
        degree = mesh.size()
        if any(width % degree for width in widths):
            raise ValueError("{} columns cannot be split into {} equal parts".format(widths, degree))
        starts = [sum(widths[:i]) for i in range(len(widths))]
        order = [
            torch.arange(start + r * width // degree, start + (r + 1) * width // degree)
            for r in range(degree)
            for start, width in zip(starts, widths)
        ]
        for name, parameter in projection.named_parameters():
            index = torch.cat(order).to(parameter.device)
            parameter.data = parameter.data.index_select(dims[name], index)
        named: Any = projection
        named.column_order = {name: (dims[name], torch.cat(order)) for name, _ in projection.named_parameters()}
    _shard_leaf(projection, mesh, dims, source=Replicate())


def restore_column_order(projection: nn.Module, name: str, whole: torch.Tensor) -> torch.Tensor:
    """A whole weight in its original column order, which `parallelize` changes for fused projections."""
    if name not in getattr(projection, "column_order", {}):
        return whole
    dim, order = projection.column_order[name]  # type: ignore[index]  # ours
    return whole.index_select(dim, torch.argsort(order).to(whole.device))


def _shard_rows(projection: nn.Module, mesh: Any, between: Any) -> None:
    """Shard by rows: each rank computes a summand of the output from its part of the input."""
    _shard_leaf(projection, mesh, {"weight": 0 if _is_conv(projection) else 1}, source=Shard(-1), target=between)


def _replicate(leaf: nn.Module, mesh: Any, source: Any) -> None:
    """Replicate the leaf's weights; it computes on this rank's local tensor, whose placement is `source`."""
    _shard_leaf(leaf, mesh, {}, source=source)


def _shard_leaf(leaf: nn.Module, mesh: Any, dims: Dict[str, int], *, source: Any, target: Any = None) -> None:
    """Shard a leaf's weights along their dimensions in `dims`, and replicate the others. Its input has placement
    `source`; its output is redistributed to `target` unless that is None, and returned as a local tensor."""
    for name, parameter in list(leaf.named_parameters(recurse=False)):
        placement = Shard(dims[name]) if name in dims else Replicate()
        distributed = distribute_tensor(parameter.data, mesh, [placement])
        setattr(leaf, name, nn.Parameter(distributed, requires_grad=parameter.requires_grad))

    def before(module: nn.Module, inputs: Tuple[Any, ...]) -> Any:
        first = inputs[0]
        if not isinstance(first, DTensor):
            first = DTensor.from_local(first, mesh, [source], run_check=False)
        return (first, *inputs[1:])

    def after(module: nn.Module, inputs: Any, output: Any) -> Any:
        return (output if target is None else output.redistribute(mesh, [target])).to_local()

    leaf.register_forward_pre_hook(before)
    leaf.register_forward_hook(after)


def _run_on_whole_sequence(block: nn.Module, mesh: Any, between: Any) -> None:
    """Let every rank compute a block in full, such as a mixture of experts: give it the whole sequence."""
    if isinstance(between, Replicate):
        return

    def enter(module: nn.Module, inputs: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        return _replace_hidden_states(inputs, named, lambda hidden: _redistribute(hidden, mesh, between, Replicate()))

    def leave(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (_redistribute(output[0], mesh, Replicate(), between), *output[1:])
        return _redistribute(output, mesh, Replicate(), between)

    block.register_forward_pre_hook(enter, with_kwargs=True)
    block.register_forward_hook(leave)


def _redistribute(local: torch.Tensor, mesh: Any, source: Any, target: Any) -> torch.Tensor:
    return DTensor.from_local(local, mesh, [source], run_check=False).redistribute(mesh, [target]).to_local()


def _replace_hidden_states(
    inputs: Tuple[Any, ...], named: Dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """The arguments with `change` applied to the hidden states, the first one or `hidden_states`."""
    if inputs:
        return (change(inputs[0]), *inputs[1:]), named
    return inputs, {**named, "hidden_states": change(named["hidden_states"])}


def _is_leaf(module: nn.Module) -> bool:
    return not list(module.children()) and any(True for _ in module.parameters())


def _is_block(module: nn.Module) -> bool:
    return any(
        name in (*COLUMN_PROJECTIONS, *FUSED_PROJECTIONS) and _is_projection(m) for name, m in module.named_children()
    )


def _is_projection(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _is_conv(module)


def _is_conv(module: nn.Module) -> bool:
    """Whether it is GPT-2's projection, whose weight is [inputs, outputs]."""
    return type(module).__name__ == "Conv1D"


def _count(projection: nn.Module, *, columns: bool) -> int:
    rows, cols = projection.weight.shape  # type: ignore[misc]
    return int(cols if _is_conv(projection) == columns else rows)


def _is_per_head(block: nn.Module, norm: nn.Module) -> bool:
    return norm.weight.shape[-1] == getattr(block, "head_dim", None)  # type: ignore[index]
