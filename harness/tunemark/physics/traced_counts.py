"""Parameters and FLOPs of a model that was traced (`tunemark.plugin.traced_model`) instead of described by a formula.

The conventions are those of `tunemark.physics.flops`: two FLOPs per multiply-add, matrix products alone. So the
elementwise recurrences of state-space models count nothing, as in torch's own counter.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from tunemark.plugin.traced_model import (
    LAYER_INPUT,
    LinearModule,
    ParameterRole,
    TracedLayer,
    TracedModel,
    TracedParameter,
    TracedProduct,
)


def count_by_role(traced: TracedModel) -> tuple[dict[ParameterRole, int], int]:
    """(elements of all parameters by role, elements of the MLPs that one token uses)"""
    by_role: dict[ParameterRole, int] = dict.fromkeys(
        ("embedding", "position", "attention", "mlp", "router", "bias", "norm", "head"), 0
    )
    active = 0
    for parameter in _all_parameters(traced):
        by_role[parameter.role] += parameter.elements
        active += parameter.active if parameter.role == "mlp" else 0
    return by_role, active


def adaptable_names(traced: TracedModel) -> tuple[str, ...]:
    """The names of the linear modules in layers, each once, in the order of a forward pass."""
    return tuple(dict.fromkeys(each.name for layer in traced.layers for each in layer.matrices))


def count_adapters(traced: TracedModel, rank: int, targets: Iterable[str], *, magnitudes: bool) -> int:
    """The parameters of LoRA's adapters of this rank on every linear module with one of these names. magnitudes: with
    one for each output."""
    wanted = set(targets)
    return sum(
        rank * (each.inputs + each.outputs) + magnitudes * each.outputs
        for layer in traced.layers
        for each in _adapted(layer, wanted)
        if each.is_own
    )


def count_matrices(traced: TracedModel) -> int:
    """The weights of all linear modules in layers, each once."""
    return sum(each.inputs * each.outputs for layer in traced.layers for each in layer.matrices if each.is_own)


def adapter_shapes(traced: TracedModel, targets: Iterable[str]) -> list[tuple[int, int, int]]:
    """(inputs, outputs, calls) of every linear module with one of these names, in each layer that calls it."""
    wanted = set(targets)
    found = (each for layer in traced.layers for each in _adapted(layer, wanted))
    return [(each.inputs, each.outputs, max(1, round(each.uses))) for each in found]


def layer_flops(
    layer: TracedLayer,
    sequence: int,
    *,
    is_causal: bool,
    is_trained: bool,
    input_grad: bool,
    lora_rank: int,
    lora_targets: Sequence[str],
    is_backward: bool,
) -> tuple[dict[str, float], bool]:
    """(FLOPs per slot by role, whether the layer's output needs a gradient)

    is_trained: the layer's own weights; input_grad: the layer's input needs a gradient. is_causal: scores count the
    keys that a query sees, else all of the sequence.
    """
    adapted = _adapted(layer, set(lora_targets)) if lora_rank else []
    paths = tuple(f"{each.path}." for each in adapted)

    def needs_grad(source: Iterable[str]) -> bool:
        return any(input_grad if name == LAYER_INPUT else is_trained or name.startswith(paths) for name in source)

    keys = mean_visible_keys(layer, sequence) if is_causal else float(sequence)
    by_role: dict[str, float] = {}
    sources: dict[str, tuple[str, ...]] = {}
    for product in layer.products:
        gradients = sum(map(needs_grad, product.sources)) + int(bool(product.weight) and is_trained)
        flops = _per_slot(product, sequence, keys) * (1 + is_backward * gradients)
        role = _FLOPS_ROLES.get(product.role, product.role)
        by_role[role] = by_role.get(role, 0.0) + flops
        if product.weight and product.sources:
            sources[product.weight] = product.sources[0]
    for each in adapted:
        # The first of an adapter's matrices has an input gradient only if the module's input has one.
        source = sources.get(f"{each.path}.weight", ())
        first, second = 1 + is_backward * (1 + needs_grad(source)), 1 + is_backward * 2
        flops = 2 * lora_rank * (first * each.inputs + second * each.outputs) * each.uses
        by_role["adapters"] = by_role.get("adapters", 0.0) + flops
    return by_role, input_grad or is_trained or bool(adapted)


def ends_flops(
    products: Iterable[TracedProduct], sequence: int, *, is_trained: bool, input_grad: bool, is_backward: bool
) -> float:
    """FLOPs per slot of products before or after the layers. input_grad: what enters them needs a gradient."""
    total = 0.0
    for product in products:
        gradients = int(bool(product.weight) and is_trained)
        gradients += sum(input_grad or (is_trained and source != (LAYER_INPUT,)) for source in product.sources)
        total += _per_slot(product, sequence, float(sequence)) * (1 + is_backward * gradients)
    return total


def mean_visible_keys(layer: TracedLayer, sequence: int) -> float:
    """Keys that a query sees under a causal mask, itself included, averaged over the sequence."""
    if layer.chunk is not None:
        whole, rest = divmod(sequence, layer.chunk)
        return (whole * layer.chunk * (layer.chunk + 1) + rest * (rest + 1)) / 2 / sequence
    w = sequence if layer.window is None else min(layer.window, sequence)
    return (w * (w + 1) / 2 + (sequence - w) * w) / sequence


@functools.lru_cache(maxsize=64)
def computed_share(traced: TracedModel, sequence: int) -> float:
    """FLOPs that the implementation spends per FLOP that the model needs, scores in full."""
    needed = spent = 0.0
    for product in (*traced.before, *traced.after, *(p for layer in traced.layers for p in layer.products)):
        flops = _per_slot(product, sequence, float(sequence))
        needed += flops
        spent += flops * product.computed
    return spent / needed if needed else 1.0


# Roles of products under which their FLOPs are added up.
_FLOPS_ROLES = {"norm": "attention", "bias": "attention", "embedding": "head", "position": "head"}


def _per_slot(product: TracedProduct, sequence: int, keys: float) -> float:
    """Forward FLOPs per slot. keys: those that the mask leaves to a query, on average."""
    c0, c1, c2 = product.flops
    return c0 / sequence + c1 + c2 * (keys if product.role == "scores" else sequence)


def _adapted(layer: TracedLayer, targets: set[str]) -> list[LinearModule]:
    return [each for each in layer.matrices if each.name in targets]


def _all_parameters(traced: TracedModel) -> Iterable[TracedParameter]:
    yield from traced.parameters
    for layer in traced.layers:
        yield from layer.parameters
