"""What a model's own code does in a step, found without its weights: its parameters, and each matrix product with its
FLOPs as a polynomial of the sequence.

`python -m tunemark_models.model_trace FOLDER` prints one JSON object. It runs in the interpreter that trains, because
transformers' releases differ in what they build. The module is built on the meta device and stepped forward; layers
that are alike are stepped once. Attention is eager, so that its products are seen one by one, and a mixture's experts
are those of a balanced router. The backward pass follows by the chain rule: every operand of a product that needs a
gradient costs a product of the same FLOPs. No code from the folder runs.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Tuple

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tunemark_models.packing_probe import draws_at_random, find_packing_way, takes_documents
from tunemark_models.parameter_roles import find_role
from tunemark_models.pipeline_probe import find_pipeline_problem
from tunemark_models.runtime import prepare_for_training
from tunemark_worker.decoder import find_decoder_parts, find_layers
from tunemark_worker.lora_adapters import is_adaptable

# Dependencies of an operand besides parameters: the layer's input (or what comes before the layers), and token ids.
INPUT = "@input"
_TOKENS = "@tokens"
# The unit of the traced sequences, a multiple of the chunks of most scans; shorter where the model allows less.
_UNIT = 256
# Multiples of the unit at which a product's FLOPs are read to fit a polynomial of degree two, and one to check it.
_FIT, _CHECK = (1, 2, 4), 3


class TraceError(Exception):
    """The model's step cannot be followed; the message names the operator and the module."""


class _Product(NamedTuple):
    """place: number of a layer, or -1 before and -2 after the layers. sources: what each operand that is not a weight
    depends on."""

    place: int
    operator: str
    weight: str
    sources: Tuple[FrozenSet[str], ...]


_BEFORE, _AFTER = -1, -2


class _ProductTracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """While entered, records matrix products, and for every storage the parameters that its values depend on."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.place = _BEFORE
        self.flops: Dict[_Product, float] = {}
        self.used: Dict[str, None] = {}
        # Why the layers cannot be divided among the stages of a pipeline.
        self.obstacles: Dict[str, None] = {}
        self.path: List[str] = []
        self.called: Dict[int, None] = {}
        # Bytes that autograd keeps, by kind of layer, and the kind that computes.
        self.kept: Dict[int, int] = {}
        self.kind: Optional[int] = None
        self._kept_in: Dict[int, int] = {}
        self._tags: Dict[int, FrozenSet[str]] = {}
        # Storages are kept alive, so that no address means two of them; on the meta device they hold no memory.
        self._alive: List[Any] = []
        for name, parameter in module.named_parameters():
            self._tags[parameter.untyped_storage()._cdata] = frozenset([name])

    def tags(self, tensor: torch.Tensor) -> FrozenSet[str]:
        return self._tags.get(tensor.untyped_storage()._cdata, frozenset())

    def mark(self, tensor: torch.Tensor, tags: FrozenSet[str]) -> None:
        self._tags[tensor.untyped_storage()._cdata] = tags

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor that autograd keeps, once in each kind of layer, unless it is a weight or made of weights."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if self.kind is not None and INPUT in self.tags(tensor) and self._kept_in.get(key) != self.kind:
            self._kept_in[key] = self.kind
            self.kept[self.kind] = self.kept.get(self.kind, 0) + storage.nbytes()
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        try:
            found = func(*args, **kwargs)
        except RuntimeError as error:
            if not isinstance(error, NotImplementedError) and "meta" not in str(error):
                raise
            where = self.path[-1] if self.path else "the model"
            raise TraceError(
                "its step depends on the content of tensors: {} in {}".format(name.lstrip("_"), where)
            ) from error
        inputs = [*_tensors(args), *_tensors(kwargs)]
        tags = frozenset().union(*[self.tags(each) for each in inputs])
        if name == "embedding":
            tags |= {_TOKENS}
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self._record(name, float(formula(*args, **kwargs, out_val=found)), inputs)
        for each in _tensors(found):
            storage = each.untyped_storage()
            self._alive.append(storage)
            # Whole numbers have no gradient.
            if tags and (each.is_floating_point() or each.is_complex()):
                known = self._tags.get(storage._cdata)
                self._tags[storage._cdata] = tags if known is None else known | tags
        self.used.update(dict.fromkeys(tag for tag in tags if not tag.startswith("@")))
        return found

    def _record(self, name: str, flops: float, inputs: List[torch.Tensor]) -> None:
        # The first argument of these is added to the product.
        operands = inputs[1:3] if name in ("addmm", "baddbmm") else inputs[:2]
        tags = [self.tags(each) for each in operands]
        if not any(tags):
            return  # of constants, such as rotary frequencies
        weights = [each for each in tags if each and not any(tag.startswith("@") for tag in each)]
        sources = tuple(sorted((each for each in tags if each not in weights), key=sorted))
        weight = min(weights[0]) if weights else ""
        product = _Product(self.place, name, weight, sources)
        self.flops[product] = self.flops.get(product, 0.0) + flops


def trace_model(folder: str) -> Dict[str, Any]:
    """The facts about the model that transformers builds from a folder's `config.json`; `TraceError` says what is in
    the way."""
    config = prepare_for_training(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False))
    return trace_config(config)


def trace_config(config: Any) -> Dict[str, Any]:
    """As `trace_model`, of a configuration; it is changed."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    module = build_on_meta(config)
    layers = find_layers(module)
    if layers is None:
        raise TraceError("it has no list of layers")
    numbers = _group_layers(layers, text)
    longest = _longest(text)
    unit = min(_UNIT, (longest or _UNIT * 4) // 4)
    if unit < 1:
        raise TraceError("its longest sequence is {}".format(longest))
    traces = {}
    for times in (*_FIT, _CHECK):
        traces[times] = _step(module, layers, numbers, times * unit)
    facts = _Facts(module, layers, numbers, traces, unit, text).collect()
    for kind, kept in _measure_kept(module, layers, numbers, unit).items():
        facts["kinds"][kind]["kept"] = kept
    if facts["pipeline_obstacle"] is None:
        facts["pipeline_obstacle"] = find_pipeline_problem(config)
    packing = find_packing_way(config)
    way = {"packing": packing.way, "packing_obstacle": packing.reason, "takes_documents": takes_documents(config)}
    return {**facts, **way, "is_random": draws_at_random(config)}


def build_on_meta(config: Any) -> torch.nn.Module:
    """The module with attention by separate products and experts as one batched product, on the meta device."""
    for each in _configurations(config):
        each.use_cache = False
        each._experts_implementation = "batched_mm"
    with torch.device("meta"):
        kind: Any = transformers.AutoModelForCausalLM
        module: torch.nn.Module = kind.from_config(config, trust_remote_code=False, attn_implementation="eager")
    return module.train()


def _configurations(config: Any) -> Iterator[Any]:
    yield config
    for each in vars(config).values():
        if isinstance(each, transformers.PretrainedConfig):
            yield each


def _longest(config: Any) -> Optional[int]:
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
    found = (_get(config, name) for name in names)
    return next((each for each in found if isinstance(each, int) and each > 0), None)


def _measure_kept(module: torch.nn.Module, layers: Any, numbers: List[int], unit: int) -> Dict[int, List[List[float]]]:
    """By kind of layer and for 16 and 32 bits: coefficients c1, c2 of the bytes c1 S + c2 S² that a layer keeps of S
    tokens for its backward pass, its input included; empty where that cannot be found. Changes the module's dtype."""
    found: Dict[int, List[List[float]]] = {}
    for dtype in (torch.bfloat16, torch.float32):
        module.to(dtype)
        try:
            # More than one chunk of a scan, which keeps its padding too.
            short, long = (_step(module, layers, numbers, times * unit, is_kept=True).kept for times in (2, 4))
        except TraceError:  # a family that does not compute in 16 bits
            return {}
        for kind in sorted(set(numbers)):
            # Per token, at two and four units.
            two, four = short.get(kind, 0) / 2.0 / unit, long.get(kind, 0) / 4.0 / unit
            curve = max(0.0, four - two) / 2.0 / unit
            slope = four - 4.0 * unit * curve
            found.setdefault(kind, []).append([round(slope, 3), round(curve, 6)])
    return found


def _step(
    module: torch.nn.Module, layers: Any, numbers: List[int], sequence: int, *, is_kept: bool = False
) -> _ProductTracer:
    """Step forward over one sequence. Of layers of one kind only the first computes. is_kept: what autograd keeps is
    recorded too, which changes the operators that some products are made of."""
    tracer = _ProductTracer(module)
    outputs: Dict[int, Any] = {}
    names = {each: name for name, each in module.named_modules()}

    def push(each: Any, inputs: Any) -> None:
        tracer.called[id(each)] = None
        tracer.path.append(names.get(each, "") or type(each).__name__)

    def pop(each: Any, inputs: Any, output: Any) -> None:
        tracer.path.pop()

    hooks = torch.nn.modules.module
    handles = [hooks.register_module_forward_pre_hook(push), hooks.register_module_forward_hook(pop)]

    def enter(number: int) -> Any:
        def hook(each: Any, inputs: Any, named: Any) -> None:
            tracer.place, tracer.kind = number, numbers[number]
            hidden = inputs[0] if inputs else named.get("hidden_states")
            if isinstance(hidden, torch.Tensor):
                tracer.mark(hidden, frozenset([INPUT]))
            others = (x for x in (*_tensors(inputs[1:]), *_tensors(named)) if x is not hidden)
            for tag in sorted({tag for x in others for tag in tracer.tags(x) if not tag.startswith("@")})[:1]:
                tracer.obstacles["its layers take values that depend on {}".format(tag)] = None

        return hook

    def leave(kind: int) -> Any:
        def hook(each: Any, inputs: Any, output: Any) -> None:
            outputs[kind] = output
            tracer.place, tracer.kind = _AFTER, None

        return hook

    def stand_in(layer: Any, kind: int) -> Any:
        own = layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            return outputs[kind] if kind in outputs else own(*args, **kwargs)

        return forward

    firsts = {kind: numbers.index(kind) for kind in numbers}
    for number, layer in enumerate(layers):
        kind = numbers[number]
        if firsts[kind] == number:
            handles.append(layer.register_forward_pre_hook(enter(number), with_kwargs=True))
            handles.append(layer.register_forward_hook(leave(kind)))
        else:
            layer.forward = stand_in(layer, kind)
    keeping = torch.autograd.graph.saved_tensors_hooks(tracer.keep, lambda tensor: tensor)
    try:
        with torch.set_grad_enabled(is_kept), keeping, _without_content(), tracer:
            ids = torch.zeros((1, sequence), dtype=torch.int64, device="meta")
            module(input_ids=ids, use_cache=False)
    except TraceError:
        raise
    # A family that cannot be stepped without content can raise anything.
    except Exception as error:
        where = tracer.path[-1] if tracer.path else type(module).__name__
        raise TraceError("{} in {}: {}".format(type(error).__name__, where, _first_line(error))) from error
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            vars(layer).pop("forward", None)
    return tracer


@contextlib.contextmanager
def _without_content() -> Iterator[None]:
    """Without transformers' looks at the content of ids: at positions, by which it finds packed documents (4.53 and
    newer), and at padding, of which it warns."""
    looks = (
        (getattr(transformers, "masking_utils", None), "find_packed_sequence_indices"),
        (transformers.PreTrainedModel, "warn_if_padding_and_no_attention_mask"),
    )
    before = [(owner, name, getattr(owner, name)) for owner, name in looks if hasattr(owner, name)]
    for owner, name, _ in before:
        setattr(owner, name, lambda *args, **kwargs: None)
    try:
        yield
    finally:
        for owner, name, own in before:
            setattr(owner, name, own)


def _group_layers(layers: Any, config: Any) -> List[int]:
    """A number of its kind for each layer: layers are alike if they have the same modules, shapes and attributes, and
    the same entries in the configuration's lists."""
    kinds: Dict[str, int] = {}
    # A list of numbers that all differ numbers the layers.
    per_layer = [
        value
        for value in vars(config).values()
        if isinstance(value, (list, tuple)) and len(value) == len(layers) and len({repr(each) for each in value}) < 9
    ]
    numbers = []
    seen: Dict[int, None] = {}
    for number, layer in enumerate(layers):
        parts = [repr([value[number] for value in per_layer])]
        for name, each in layer.named_modules():
            plain = {k: v for k, v in vars(each).items() if _is_plain(v) and k not in _NUMBERS}
            own = {k: tuple(p.shape) for k, p in each._parameters.items() if p is not None}
            parts.append(repr((name, type(each).__name__, sorted(plain.items()), sorted(own.items()))))
        # Parameters that an earlier layer has too are not the layer's own.
        parts.append(repr([id(p) for p in layer.parameters() if id(p) in seen]))
        seen.update((id(p), None) for p in layer.parameters())
        numbers.append(kinds.setdefault("\n".join(parts), len(kinds)))
    return numbers


_NUMBERS = ("layer_idx", "layer_id", "layer_number", "block_idx", "idx", "training", "_is_hf_initialized")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


class _Facts:
    """The facts of a traced model, put together."""

    def __init__(
        self,
        module: torch.nn.Module,
        layers: Any,
        numbers: List[int],
        traces: Dict[int, _ProductTracer],
        unit: int,
        config: Any,
    ) -> None:
        self._module, self._layers, self._numbers = module, layers, numbers
        self._traces, self._unit, self._config = traces, unit, config
        self._notes: Dict[str, None] = {}
        top: Any = module
        embedding, head = top.get_input_embeddings(), top.get_output_embeddings()
        if embedding is None or head is None:
            raise TraceError("it names no {}".format("embedding of tokens" if embedding is None else "head"))
        self._embedding, self._head = embedding.weight, head.weight

    def collect(self) -> Dict[str, Any]:
        seen: Dict[int, None] = {}
        names = {id(p): name for name, p in self._module.named_parameters()}
        kinds: List[Dict[str, Any]] = []
        for kind in sorted(set(self._numbers)):
            number = self._numbers.index(kind)
            kinds.append(self._layer(number, names, seen))
        # Layers that are like an earlier one own as many parameters as it does.
        in_layers = {id(p) for layer in self._layers for p in layer.parameters()}
        outside = {name: p for name, p in self._module.named_parameters() if id(p) not in in_layers}
        own = {name: name for name in outside}
        parameters: List[Dict[str, Any]] = [
            {"name": name, "role": self._role(name, self._module, p), "elements": p.numel(), "active": p.numel()}
            for name, p in outside.items()
        ]
        ends = [self._products(place, own, self._module, is_end=True) for place in (_BEFORE, _AFTER)]
        used = set(self._traces[1].used)
        first = {self._numbers.index(kind) for kind in set(self._numbers)}
        stepped = {id(p) for number in first for p in self._layers[number].parameters()}
        unused = [
            name
            for name, p in self._module.named_parameters()
            if name not in used and (id(p) in stepped or id(p) not in in_layers)
        ]
        total = sum(p.numel() for p in self._module.parameters())
        counted = sum(each["elements"] for each in parameters)
        counted += sum(p["elements"] for kind in self._numbers for p in kinds[kind]["parameters"])
        if counted != total:
            raise TraceError("{:,} of its {:,} parameters were found in layers and ends".format(counted, total))
        return {
            "kinds": kinds,
            "order": self._numbers,
            "parameters": parameters,
            "before": ends[0],
            "after": ends[1],
            "total": total,
            "vocab_size": self._head.shape[0],
            "embedding_rows": self._embedding.shape[0],
            "hidden_size": self._embedding.shape[1],
            "is_tied": self._head is self._embedding,
            "longest": _longest(self._config),
            "unused": unused,
            "ends_obstacle": self._find_ends_obstacle(),
            "pipeline_obstacle": self._find_pipeline_obstacle(),
            "notes": list(self._notes),
            "config": {name: _read(self._config, name) for name in _CONFIG_FIELDS},
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def _find_ends_obstacle(self) -> Optional[str]:
        """Why it is not known what comes before and after the layers; None where it is."""
        try:
            find_decoder_parts(self._module)
        except ValueError as error:
            return str(error)
        return None

    def _find_pipeline_obstacle(self) -> Optional[str]:
        """Why the layers cannot be divided among the stages of a pipeline; None where they can."""
        if problem := self._find_ends_obstacle():
            return problem
        return next((each for tracer in self._traces.values() for each in tracer.obstacles), None)

    def _role(self, name: str, root: torch.nn.Module, parameter: torch.nn.Parameter) -> str:
        if parameter is self._embedding:
            return "embedding"
        if parameter is self._head:
            return "head"
        return find_role(root, name, is_in_layer=root is not self._module)

    def _layer(self, number: int, names: Dict[int, str], seen: Dict[int, None]) -> Dict[str, Any]:
        layer = self._layers[number]
        own = {names[id(p)]: name for name, p in layer.named_parameters()}
        products = self._products(number, own, layer, is_end=False)
        self._discount_idle_experts(layer, products)
        # FLOPs per slot of the products with each weight.
        uses: Dict[str, float] = {}
        for each in products:
            uses[each["weight"]] = uses.get(each["weight"], 0.0) + each["flops"][1]
        parameters: List[Dict[str, Any]] = []
        for name, p in layer.named_parameters():
            if id(p) in seen:
                continue
            seen[id(p)] = None
            role = self._role(name, layer, p)
            is_expert = role == "mlp" and p.dim() == 3 and name in uses
            active = round(uses[name] / 2.0) if is_expert else p.numel()
            parameters.append({"name": name, "role": role, "elements": p.numel(), "active": active})
        own_names = {each["name"] for each in parameters}
        window, chunk = _find_window(layer, self._config, number)
        # Where a family reads a module's weight itself, as Mamba does `dt_proj`'s, an adapter of it would do nothing.
        linear = {path: each for path, each in layer.named_modules() if is_adaptable(each)}
        called = {path: each for path, each in linear.items() if id(each) in self._traces[1].called}
        return {
            "name": _kind_name(layer, self._config, number),
            "window": window,
            "chunk": chunk,
            "parameters": parameters,
            "products": products,
            "idle": [path for path in linear if path not in called],
            "matrices": [
                {
                    "path": path,
                    "inputs": _matrix_shape(each)[0],
                    "outputs": _matrix_shape(each)[1],
                    "uses": uses[path + ".weight"] / 2.0 / each.weight.numel(),
                    "is_own": path + ".weight" in own_names,
                }
                for path, each in called.items()
                if path + ".weight" in uses
            ],
        }

    def _discount_idle_experts(self, layer: torch.nn.Module, products: List[Dict[str, Any]]) -> None:
        """Count the experts that a router chooses where the code computes all of them for every token."""
        named = dict(layer.named_parameters())
        names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
        chosen = next((each for each in (_read(self._config, name) for name in names) if isinstance(each, int)), None)
        for each in products:
            weight = named.get(each["weight"])
            if each["role"] != "mlp" or weight is None or weight.dim() != 3 or not chosen:
                continue
            experts = weight.shape[0]
            if chosen < experts and each["flops"][1] == 2.0 * weight.numel():
                each["computed"] = experts / chosen
                each["flops"] = [flops * chosen / experts for flops in each["flops"]]

    def _products(
        self, place: int, own: Dict[str, str], root: torch.nn.Module, *, is_end: bool
    ) -> List[Dict[str, Any]]:
        """The products of a place, with names relative to `root`, which holds the parameters `own`."""
        sums: Dict[Tuple[str, str, Tuple[Tuple[str, ...], ...]], Dict[int, float]] = {}
        for times, tracer in self._traces.items():
            for product, flops in tracer.flops.items():
                if product.place != place:
                    continue
                foreign = {tag for each in product.sources for tag in each if tag not in own and tag[0] != "@"}
                if place >= 0 and foreign:
                    tracer.obstacles["its layers take values that depend on {}".format(min(foreign))] = None
                if place == _AFTER and any(_TOKENS in each for each in product.sources):
                    tracer.obstacles["what follows its layers depends on the embedding"] = None
                sources = tuple(
                    tuple(sorted({own.get(tag, INPUT) for tag in each if tag != _TOKENS or is_end}))
                    for each in product.sources
                )
                # A weight of another layer or of the embedding is no weight of this place, but is one all the same.
                weight = own.get(product.weight, product.weight)
                by_length = sums.setdefault((product.operator, weight, sources), {})
                by_length[times] = by_length.get(times, 0.0) + flops
        found = []
        for (operator, weight, sources), by_length in sums.items():
            fitted = self._fit(operator, by_length)
            if weight:
                parameter = dict(root.named_parameters(remove_duplicate=False)).get(weight)
                role = "head" if is_end or parameter is None else self._role(weight, root, parameter)
            else:
                role = "scores" if fitted[2] > 0 else "scan"
            found.append({"operator": operator, "role": role, "weight": weight, "sources": sources, "flops": fitted})
        return found

    def _fit(self, operator: str, by_length: Dict[int, float]) -> List[float]:
        """Coefficients c0, c1, c2 of the FLOPs in the sequence's tokens."""
        y1, y2, y4 = (by_length.get(times, 0.0) for times in _FIT)
        # Newton's divided differences at 1, 2 and 4 units.
        slope, curve = y2 - y1, ((y4 - y2) / 2.0 - (y2 - y1)) / 3.0
        c2 = curve
        c1 = slope - 3.0 * curve
        c0 = y1 - c1 - c2
        expected = c0 + _CHECK * c1 + _CHECK**2 * c2
        measured = by_length.get(_CHECK, 0.0)
        if abs(expected - measured) > 1e-6 * max(measured, 1.0):
            self._notes[
                "the FLOPs of {} are no polynomial of the sequence: {:.2g} % off at {} tokens".format(
                    operator, 100.0 * abs(expected - measured) / max(measured, 1.0), _CHECK * self._unit
                )
            ] = None
        unit = float(self._unit)
        return [_clean(c0), _clean(c1 / unit), _clean(c2 / unit**2)]


def _clean(value: float) -> float:
    rounded = round(value, 6)
    return float(round(value)) if abs(value - round(value)) < 1e-6 * max(1.0, abs(value)) else rounded


_CONFIG_FIELDS = (
    "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "moe_intermediate_size",
    "sliding_window", "rope_theta", "num_nextn_predict_layers", "model_type",
)  # fmt: skip


def _read(config: Any, name: str) -> Any:
    value = _get(config, name)
    return value if _is_plain(value) else None


def _get(config: Any, name: str, default: Any = None) -> Any:
    """A field of the configuration; the default where it has none, or one for each layer."""
    try:
        return getattr(config, name, default)
    except Exception:  # transformers' own type, an AttributeError in some releases only
        return default


def _matrix_shape(module: Any) -> Tuple[int, int]:
    """(inputs, outputs)"""
    rows, columns = module.weight.shape
    return (rows, columns) if type(module).__name__ == "Conv1D" else (columns, rows)


def _kind_name(layer: torch.nn.Module, config: Any, number: int) -> str:
    kinds = _get(config, "layer_types") or _get(config, "layers_block_type")
    kind = kinds[number] if isinstance(kinds, (list, tuple)) and number < len(kinds) else ""
    return "{} ({})".format(type(layer).__name__, kind) if isinstance(kind, str) and kind else type(layer).__name__


def _find_window(layer: torch.nn.Module, config: Any, number: int) -> Tuple[Optional[int], Optional[int]]:
    """(sliding window, chunk) of the layer's attention, in tokens; None where there is none."""
    kinds = _get(config, "layer_types")
    kind = kinds[number] if isinstance(kinds, (list, tuple)) and len(kinds) > number else None
    window = _get(config, "sliding_window")
    if isinstance(kind, str):
        if "chunked" in kind:
            return None, _get(config, "attention_chunk_size")
        if "sliding" in kind or "local" in kind:
            return window or _get(config, "local_attention"), None
        return None, None
    for each in layer.modules():
        if getattr(each, "attention_type", None) == "global":
            return None, None
        for name in ("sliding_window", "window_size", "attention_window_size"):
            value = getattr(each, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value, None
    if getattr(layer, "attention_type", None) == "local" or "local" in str(_get(config, "attention_layers")):
        attention = _get(config, "attention_layers")
        if isinstance(attention, list) and attention[number] == "local":
            return _get(config, "window_size"), None
    if window and _get(config, "use_sliding_window", True) and kinds is None:
        return int(window), None
    return None, None


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def main(folder: str) -> int:
    try:
        logging: Any = transformers.logging
        logging.set_verbosity_error()
        found = trace_model(folder)
    except TraceError as error:
        found = {"error": str(error)}
    # An unknown configuration can raise anything in transformers; the parent reports it.
    except Exception as error:
        found = {"error": "transformers cannot build it: {}: {}".format(type(error).__name__, _first_line(error))}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
