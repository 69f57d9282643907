"""Count what passes torch's dispatcher during a step: matrix FLOPs, collectives, and storages allocated and released.

Works on real and on fake tensors, and sees local tensors, never DTensors. FLOPs are those of matrix products, two per
multiply-add. Fused attention counts its two products, over the keys that a causal mask leaves if there is a mask,
and twice that in backward: recomputation inside a fused backward kernel is left out, as in published figures.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class CollectiveCall(NamedTuple):
    """kind: all_gather, reduce_scatter, all_reduce, broadcast, all_to_all, send, receive or the operator's own name.
    payload_bytes: of the full tensor (after a gather, or before a scatter). ranks: of the group."""

    kind: str
    payload_bytes: int
    ranks: Tuple[int, ...]


class StorageEvent(NamedTuple):
    """A storage was allocated, released or resized. delta_bytes: signed. operator: the cause. phase: "backward" within
    autograd, else what the caller has set."""

    storage: int
    delta_bytes: int
    operator: str
    phase: str


class OpCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts while it is entered. Storages that existed before are added by `know`.

    copies_scattered: also count gloo's temporary copy for a reduce-scatter, which no operator allocates."""

    def __init__(self, *, copies_scattered: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.phase = "build"
        self._copies_scattered = copies_scattered
        self.flops: Dict[str, float] = {}
        self.collectives: List[CollectiveCall] = []
        self.events: List[StorageEvent] = []
        self.operators = 0
        # By storage number: the operator that allocated it, and the phase.
        self.origins: Dict[int, Tuple[str, str]] = {}
        self._sizes: Dict[int, int] = {}
        self._references: Dict[int, Any] = {}
        self._numbers: Dict[int, int] = {}
        self._next = 0
        self._original_resize: Any = None

    def restart(self) -> None:
        """Reset the counts, but keep track of the living storages."""
        gc.collect()
        self.flops, self.collectives, self.events, self.operators = {}, [], [], 0

    def number_of(self, tensor: torch.Tensor) -> Optional[int]:
        """The number in `events` of a local tensor's storage; None if it is not tracked."""
        return self._numbers.get(tensor.untyped_storage()._cdata)

    def held(self) -> Dict[int, int]:
        """Bytes of each living storage, by its number."""
        return dict(self._sizes)

    def know(self, tensor: torch.Tensor, operator: str) -> None:
        """Track the tensor's storage from now on."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        size = int(storage.nbytes())
        number = self._numbers.get(address)
        if number is not None:
            if self._sizes[number] != size:
                self._add_event(number, size, operator)
            return
        self._next += 1
        number = self._next
        self._numbers[address] = number
        self._sizes[number] = 0
        self.origins[number] = (operator, self._current_phase())
        self._references[number] = weakref.ref(storage, lambda _: self._on_release(address, number))
        self._add_event(number, size, operator)

    def _add_temporary(self, size: int, operator: str) -> None:
        """Add a storage that is allocated and released within an operator."""
        self._next += 1
        self.origins[self._next] = (operator, self._current_phase())
        self.events += [StorageEvent(self._next, signed, operator, self._current_phase()) for signed in (size, -size)]

    def _current_phase(self) -> str:
        return "backward" if torch._C._current_graph_task_id() != -1 else self.phase

    def _add_event(self, number: int, size: int, operator: str) -> None:
        self.events.append(StorageEvent(number, size - self._sizes[number], operator, self._current_phase()))
        self._sizes[number] = size

    def _on_release(self, address: int, number: Optional[int]) -> None:
        assert number is not None
        self._add_event(number, 0, "")
        del self._sizes[number], self._references[number]
        if self._numbers.get(address) == number:
            del self._numbers[address]

    def __enter__(self) -> OpCounter:
        # FSDP frees gathered weights by resizing their storages to zero, which no operator reports.
        storages: Any = torch.UntypedStorage
        original = storages.resize_
        self._original_resize = original

        def resize(storage: Any, size: int) -> Any:
            resized = original(storage, size)
            number = self._numbers.get(storage._cdata)
            if number is not None:
                self._add_event(number, int(storage.nbytes()), "resize")
            return resized

        storages.resize_ = resize
        super().__enter__()  # type: ignore[no-untyped-call]  # torch's
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # torch's
        storages: Any = torch.UntypedStorage
        storages.resize_ = self._original_resize

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.distributed.tensor import DTensor  # torch 2.5 and newer

        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its own operators arrive here with this rank's local tensors
        kwargs = kwargs or {}
        if self.phase == "optimizer" and func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # an optimizer that reads a norm to scale by it
        # wait_tensor returns the same tensor in reality, but its fake implementation a new one.
        found = (
            args[0] if func.namespace == "_c10d_functional" and "wait_tensor" in str(func) else func(*args, **kwargs)
        )
        self.operators += 1
        name = str(func).partition(".default")[0]
        packet = func._overloadpacket
        namespace = func.namespace
        if namespace in ("c10d", "_c10d_functional", "_dtensor"):
            collective = _parse_collective(packet.__name__, args, found)
            if collective is not None:
                self.collectives.append(collective)
                if self._copies_scattered and collective.kind == "reduce_scatter":
                    self._add_temporary(collective.payload_bytes, "c10d.copy")
        else:
            flops = _count_flops(packet, args, kwargs, found)
            if flops:
                self.flops[name] = self.flops.get(name, 0.0) + flops
        for tensor in _iterate_tensors(found):
            self.know(tensor, name)
        return found


def _iterate_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _iterate_tensors(each)


def _count_flops(packet: Any, args: Any, kwargs: Any, found: Any) -> float:
    name = packet.__name__
    if name.startswith("_scaled_dot_product"):
        is_backward = name.endswith("_backward")
        query, key = (args[1], args[2]) if is_backward else (args[0], args[1])
        batch, heads, queries, width = query.shape
        keys = key.shape[-2]
        flags = [each for each in args[3:] if isinstance(each, bool)]
        # Any mask is taken to be causal: its content is not read.
        is_masked = kwargs.get("is_causal", any(flags)) or kwargs.get("attn_mask") is not None
        visible_keys = (keys + 1) / 2.0 if is_masked else float(keys)
        flops: float = 4.0 * batch * heads * queries * visible_keys * width * (2.0 if is_backward else 1.0)
        return flops
    if name in ("_grouped_mm", "grouped_mm_fallback"):
        # Either rows of the first are grouped, each group with its own matrix, or both are split along the summed
        # dimension. In both cases every value of the first is multiplied by a row of the second.
        first, second = args[0], args[1]
        products = first.numel() * second.shape[-1] if first.dim() == 2 else first.shape[-2] * second.numel()
        return 2.0 * float(products)
    if name == "grouped_mm_fallback_backward":
        return 4.0 * float(args[0].numel() * args[1].shape[-1])
    formula = flop_registry.get(packet)
    return float(formula(*args, **kwargs, out_val=found)) if formula is not None else 0.0


# Operators of each kind in torch's two interfaces to collectives.
_OPERATORS = {
    "all_gather": "_allgather_base_ allgather_ allgather_into_tensor_coalesced_ all_gather_into_tensor "
    "all_gather_into_tensor_out",
    "reduce_scatter": "_reduce_scatter_base_ reduce_scatter_tensor",
    "all_reduce": "allreduce_ allreduce_coalesced_ all_reduce all_reduce_ all_reduce_coalesced",
    "broadcast": "broadcast_ broadcast",
    "all_to_all": "all_to_all_single shard_dim_alltoall alltoall_base_",
    "send": "send",
    "receive": "recv_",
}
_KINDS = {operator: kind for kind, operators in _OPERATORS.items() for operator in operators.split()}


def _parse_collective(operator: str, args: Any, found: Any) -> Optional[CollectiveCall]:
    if operator in ("wait_tensor", "barrier", "monitored_barrier_"):
        return None
    sizes = [sum(t.numel() * t.element_size() for t in _iterate_tensors(each)) for each in (*args[:2], found)]
    return CollectiveCall(_KINDS.get(operator, operator), max(sizes), _group_ranks(args))


def _group_ranks(args: Any) -> Tuple[int, ...]:
    """Ranks of a collective's process group, which is a name or a boxed object among the arguments."""
    resolve: Any = torch._C._distributed_c10d._resolve_process_group
    for each in args:
        if isinstance(each, torch.ScriptObject) and "ProcessGroup" in str(each._type()):
            group: Any = dist.ProcessGroup.unbox(each)
            return tuple(dist.get_process_group_ranks(group))
        if isinstance(each, str):
            try:
                group = resolve(each)
            except (LookupError, RuntimeError):
                continue  # the name of a reduction, such as "sum"
            return tuple(dist.get_process_group_ranks(group))
    return ()
