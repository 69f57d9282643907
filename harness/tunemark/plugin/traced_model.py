"""What a model's own code was seen to do in a step: parameters and matrix products, layer by layer.

For families that no formula describes. A source of models (`ModelSource`) finds it by stepping the model without
weights; `tunemark.physics` reads FLOPs and parameter counts from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ParameterRole = Literal["embedding", "position", "attention", "mlp", "router", "bias", "norm", "head"]
ProductRole = Literal["attention", "scores", "scan", "mlp", "router", "head", "norm", "bias", "embedding", "position"]

# The dependency of an operand on what enters a layer, besides the layer's own parameters.
LAYER_INPUT = "@input"


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedParameter:
    """A parameter by its name in the layer, or in the model outside the layers. active: elements that one token uses,
    fewer than `elements` in a mixture's experts. attention: of attention or of whatever else mixes tokens."""

    name: str
    role: ParameterRole
    elements: int
    active: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedProduct:
    """Matrix products of one of torch's operators with the same operands, all of a layer together.

    weight: the parameter that is an operand, empty where both are activations. sources: for each operand that is an
    activation, the parameters of the layer that it depends on, and "@input". flops: coefficients c0, c1, c2 of the
    forward pass over one sequence of S tokens: c0 + c1 S + c2 S². computed: FLOPs that the implementation spends per
    FLOP that the model needs, more than 1 where it computes every expert for every token.
    scores: products of queries, keys and values, which grow with S²; scan: products of activations that do not, as in
    linear attention.
    """

    operator: str
    role: ProductRole
    weight: str
    sources: tuple[tuple[str, ...], ...]
    flops: tuple[float, float, float]
    computed: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearModule:
    """A linear module of a layer, by its path in it. uses: products per token. is_own: False where an earlier layer
    has the same module."""

    path: str
    inputs: int
    outputs: int
    uses: float
    is_own: bool

    @property
    def name(self) -> str:
        """The last part of the path, by which LoRA's targets name it."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedLayer:
    """One kind of layer. window: tokens that a query of a sliding attention sees; chunk: tokens of a chunk, beyond
    which attention does not reach; None for each that does not apply. idle: paths of linear modules that are not
    called, of which an adapter would do nothing.

    kept: for 16 and 32 bits, coefficients c1, c2 of the bytes c1 S + c2 S² that torch's eager operators keep of S
    tokens for the backward pass, the layer's input included; the second is of scores of attention that are stored.
    """

    name: str
    window: int | None
    chunk: int | None
    parameters: tuple[TracedParameter, ...]
    products: tuple[TracedProduct, ...]
    matrices: tuple[LinearModule, ...]
    idle: tuple[str, ...] = ()
    kept: tuple[tuple[float, float], tuple[float, float]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedModel:
    """A model by its kinds of layers. order: the kind of each layer, by its place in `kinds`. parameters: outside the
    layers; before, after: the products that precede and follow the layers.

    takes_documents: the runtime can compute attention by documents, without a mask. is_random: a step draws random
    numbers besides dropout.
    unused: parameters that a step over text does not reach. packing: how the worker keeps documents apart that share a
    row, in the words of the model's runtime; None where nothing does, and packing_obstacle says why. ends_obstacle: why
    what comes before and after the layers cannot be told apart; pipeline_obstacle: why the layers cannot be divided
    among processes; None where that is no question. notes: what could not be traced exactly.
    versions: of torch and transformers. digest: a hash of all that the trace depends on, which identifies it.
    """

    kinds: tuple[TracedLayer, ...]
    order: tuple[int, ...]
    parameters: tuple[TracedParameter, ...]
    before: tuple[TracedProduct, ...]
    after: tuple[TracedProduct, ...]
    unused: tuple[str, ...]
    packing: str | None
    packing_obstacle: str | None
    ends_obstacle: str | None
    pipeline_obstacle: str | None
    notes: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    digest: str
    takes_documents: bool = False
    is_random: bool = False

    def __hash__(self) -> int:
        # Architectures are keys of caches that a layout search asks tens of thousands of times.
        return hash(self.digest)

    @property
    def layers(self) -> tuple[TracedLayer, ...]:
        return tuple(self.kinds[kind] for kind in self.order)
