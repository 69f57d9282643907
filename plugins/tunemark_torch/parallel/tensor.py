"""Tensor parallelism of a decoder by DTensor: which weights are cut along which dimension, by the projections' names.

The scheme is Megatron's (Shoeybi et al. 2019, section 3; with sequence parallelism Korthikanti et al. 2022, section
4.2.2): what enters a block is whole, its first projections are cut by columns, its last by rows, whose sum over ranks
leaves the block. Every other weight is replicated. Attention computes on local tensors, a rank's own heads.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from tunemark_worker.decoder import decoder

# Names of transformers' projections. Cut by columns: what enters a block. Fused ones hold several side by side.
COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "fc1", "c_fc", "dense_h_to_4h", "w1", "w3")
FUSED = ("c_attn", "qkv_proj", "gate_up_proj")
ROWS = ("o_proj", "out_proj", "down_proj", "fc2", "c_proj", "dense", "dense_4h_to_h", "w2")
# Norms of queries and keys; each is of one head's width, or of the whole projection's.
HEAD_NORMS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm")


def parallelize(model: nn.Module, mesh: Any, *, sequence_parallel: bool) -> Dict[str, Any]:
    """Cut the model over the mesh's one dimension, in place. Returns what was cut and what was left whole.

    ValueError where a part of the model is not known well enough to be cut rightly.
    """
    parts = decoder(model)
    between = Shard(1) if sequence_parallel else Replicate()
    cut: List[str] = []
    whole: List[str] = []
    for number, layer in enumerate(parts.layers):
        for name, child in layer.named_children():
            if _is_block(child):
                found = _block(child, mesh, between)
            elif _is_leaf(child):
                _on_local(child, mesh, between)
                found = []
            elif any(True for _ in child.parameters()):
                _keep_whole(child, mesh, between)
                whole += [name] if number == 0 else []
                continue
            else:
                continue
            cut += ["{}.{}".format(name, each) for each in found] if number == 0 else []
    base = parts.base
    head, embedding = getattr(model, parts.head), getattr(base, parts.embedding)
    for name in parts.positions:
        _on_local(getattr(base, name), mesh, Replicate())
    last = getattr(base, parts.norm) if parts.norm else None
    if last is not None and _is_leaf(last):
        _on_local(last, mesh, between)
    if sequence_parallel:
        split_before(parts.layers[0], mesh)
        gather_after(last if last is not None else parts.layers[-1], mesh)
    parallelize_module(embedding, mesh, RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate()))
    parallelize_module(head, mesh, ColwiseParallel(input_layouts=Replicate(), output_layouts=Replicate()))
    if parts.is_tied:
        # Both are cut by the vocabulary, so that one weight serves both as before.
        head.weight = embedding.weight
    found_cut = [*cut, parts.embedding, parts.head]
    return {"sequence_parallel": sequence_parallel, "cut": found_cut, "whole": whole}


def gather_after(module: nn.Module, mesh: Any) -> None:
    """What the module returns is cut along the sequence; make it whole."""

    def gather(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (_moved(output[0], mesh, Shard(1), Replicate()), *output[1:])
        return _moved(output, mesh, Shard(1), Replicate())

    module.register_forward_hook(gather)


def split_before(module: nn.Module, mesh: Any) -> None:
    """What enters the module is whole; leave each rank its part of the sequence."""

    def split(module: nn.Module, inputs: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        return _replaced(inputs, named, lambda hidden: _moved(hidden, mesh, Replicate(), Shard(1)))

    module.register_forward_pre_hook(split, with_kwargs=True)


def _block(block: nn.Module, mesh: Any, between: Any) -> List[str]:
    """Cut an attention or an MLP; returns the names of the projections that were cut."""
    names = {name: child for name, child in block.named_children() if any(True for _ in child.parameters())}
    degree = mesh.size()
    for name, child in names.items():
        if name in HEAD_NORMS:
            if _is_of_one_head(block, child):
                # Each rank norms its own heads: the weight is replicated, and its gradient summed.
                _on_local(child, mesh, Shard(1))
            else:
                _cut(child, mesh, dims={"weight": 0, "bias": 0}, given=Shard(-1))
        elif name in COLUMNS:
            _columns(child, mesh)
        elif name in FUSED:
            _columns(child, mesh, _widths(block, name, child))
        elif name in ROWS:
            _rows(child, mesh, between)
        else:
            raise ValueError(
                "tensor parallelism knows {}, but not {!r} in {}".format(
                    ", ".join([*COLUMNS, *FUSED, *ROWS, *HEAD_NORMS]), name, type(block).__name__
                )
            )
    _own_heads(block, degree)

    def enter(module: nn.Module, inputs: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        def distributed(hidden: torch.Tensor) -> torch.Tensor:
            given = DTensor.from_local(hidden, mesh, [between], run_check=False)
            return given.redistribute(mesh, [Replicate()])

        return _replaced(inputs, named, distributed)

    block.register_forward_pre_hook(enter, with_kwargs=True)
    return [name for name in names if name not in HEAD_NORMS]


def _own_heads(block: nn.Module, degree: int) -> None:
    """Numbers by which some families divide a projection's output: they become this rank's own."""
    for name in ("num_heads", "num_attention_heads", "num_key_value_heads", "split_size"):
        if isinstance(getattr(block, name, None), int):
            setattr(block, name, getattr(block, name) // degree)
    if hasattr(block, "qkv_proj"):
        # Phi-3 asks its configuration, which all layers share.
        config: Any = copy.copy(block.config)
        config.num_attention_heads //= degree
        config.num_key_value_heads //= degree
        block.config = config


def _widths(block: nn.Module, name: str, projection: nn.Module) -> List[int]:
    """Columns of each projection that a fused one holds, in order."""
    columns = _size(projection, columns=True)
    if name == "c_attn":
        return [columns // 3] * 3
    if name == "gate_up_proj":
        return [columns // 2] * 2
    config: Any = block.config
    width = columns // (config.num_attention_heads + 2 * config.num_key_value_heads)
    return [width * config.num_attention_heads, *[width * config.num_key_value_heads] * 2]


def _columns(projection: nn.Module, mesh: Any, widths: Optional[Sequence[int]] = None) -> None:
    """Cut by columns: each rank computes a part of the output, from the whole input."""
    dims = {"weight": 1 if _is_conv(projection) else 0, "bias": 0}
    if widths:
        # Rank r's share of each projection, side by side: then an even cut gives every rank its own of each.
        degree = mesh.size()
        if any(width % degree for width in widths):
            raise ValueError("{} columns cannot be cut into {} equal parts".format(widths, degree))
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
        named.own_columns = {name: (dims[name], torch.cat(order)) for name, _ in projection.named_parameters()}
    _cut(projection, mesh, dims, given=Replicate())


def reordered(projection: nn.Module, name: str, whole: torch.Tensor) -> torch.Tensor:
    """A whole weight as it was before `parallelize` gave every rank its own columns of each fused projection."""
    if name not in getattr(projection, "own_columns", {}):
        return whole
    dim, order = projection.own_columns[name]  # type: ignore[index]  # ours
    return whole.index_select(dim, torch.argsort(order).to(whole.device))


def _rows(projection: nn.Module, mesh: Any, between: Any) -> None:
    """Cut by rows: each rank computes a summand of the output, from its part of the input."""
    _cut(projection, mesh, {"weight": 0 if _is_conv(projection) else 1}, given=Shard(-1), wanted=between)


def _on_local(leaf: nn.Module, mesh: Any, given: Any) -> None:
    """Replicate the leaf's weights; it computes on what lies on this rank, `given` so."""
    _cut(leaf, mesh, {}, given=given)


def _cut(leaf: nn.Module, mesh: Any, dims: Dict[str, int], *, given: Any, wanted: Any = None) -> None:
    """Distribute a leaf's weights, each along its dimension in `dims`, else replicated. Its input is laid out as
    `given`, its output brought to `wanted` where that is said, and handed on as a local tensor."""
    for name, parameter in list(leaf.named_parameters(recurse=False)):
        placement = Shard(dims[name]) if name in dims else Replicate()
        distributed = distribute_tensor(parameter.data, mesh, [placement])
        setattr(leaf, name, nn.Parameter(distributed, requires_grad=parameter.requires_grad))

    def before(module: nn.Module, inputs: Tuple[Any, ...]) -> Any:
        first = inputs[0]
        if not isinstance(first, DTensor):
            first = DTensor.from_local(first, mesh, [given], run_check=False)
        return (first, *inputs[1:])

    def after(module: nn.Module, inputs: Any, output: Any) -> Any:
        return (output if wanted is None else output.redistribute(mesh, [wanted])).to_local()

    leaf.register_forward_pre_hook(before)
    leaf.register_forward_hook(after)


def _keep_whole(block: nn.Module, mesh: Any, between: Any) -> None:
    """A block that every rank computes whole, such as a mixture's experts: it sees all of the sequence."""
    if isinstance(between, Replicate):
        return

    def enter(module: nn.Module, inputs: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        return _replaced(inputs, named, lambda hidden: _moved(hidden, mesh, between, Replicate()))

    def leave(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (_moved(output[0], mesh, Replicate(), between), *output[1:])
        return _moved(output, mesh, Replicate(), between)

    block.register_forward_pre_hook(enter, with_kwargs=True)
    block.register_forward_hook(leave)


def _moved(local: torch.Tensor, mesh: Any, given: Any, wanted: Any) -> torch.Tensor:
    return DTensor.from_local(local, mesh, [given], run_check=False).redistribute(mesh, [wanted]).to_local()


def _replaced(
    inputs: Tuple[Any, ...], named: Dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """The arguments of a layer or block with the hidden states changed, which are first or have their name."""
    if inputs:
        return (change(inputs[0]), *inputs[1:]), named
    return inputs, {**named, "hidden_states": change(named["hidden_states"])}


def _is_leaf(module: nn.Module) -> bool:
    return not list(module.children()) and any(True for _ in module.parameters())


def _is_block(module: nn.Module) -> bool:
    return any(name in (*COLUMNS, *FUSED) and _is_projection(m) for name, m in module.named_children())


def _is_projection(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _is_conv(module)


def _is_conv(module: nn.Module) -> bool:
    """GPT-2's projection, whose weight is stored as [inputs, outputs]."""
    return type(module).__name__ == "Conv1D"


def _size(projection: nn.Module, *, columns: bool) -> int:
    rows, cols = projection.weight.shape  # type: ignore[misc]
    return int(cols if _is_conv(projection) == columns else rows)


def _is_of_one_head(block: nn.Module, norm: nn.Module) -> bool:
    return norm.weight.shape[-1] == getattr(block, "head_dim", None)  # type: ignore[index]
