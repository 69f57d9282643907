"""What passes torch's dispatcher while a step runs: matrix arithmetic, collectives, and storages made and let go.

Works on real and on fake tensors alike, and sees what torch's operators see: local tensors, never distributed ones.
FLOPs are those of matrix multiplications, two for each multiply-add. Of attention in one operator they are the two
products over the keys that a causal mask leaves, where it has a mask, and twice that backward: what a fused kernel
computes again inside its backward pass is left out, as published figures leave it out.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Collective(NamedTuple):
    """kind: all_gather, reduce_scatter, all_reduce, broadcast, all_to_all, send, receive or the operator's own name.
    payload_bytes: of the tensor that is whole (gathered, or before a scatter). ranks: of the group."""

    kind: str
    payload_bytes: int
    ranks: Tuple[int, ...]


class Event(NamedTuple):
    """A storage that was made, let go or changed its size. delta_bytes: signed. operator: that made it. phase:
    "backward" within autograd, else what the caller has set."""

    storage: int
    delta_bytes: int
    operator: str
    phase: str


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts from entering to leaving. Storages that were there before are taken up by `know`.

    copies_scattered: add, while it lasts, the copy on which gloo reduces and scatters, which no operator makes."""

    def __init__(self, *, copies_scattered: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.phase = "build"
        self._copies_scattered = copies_scattered
        self.flops: Dict[str, float] = {}
        self.collectives: List[Collective] = []
        self.events: List[Event] = []
        self.operators = 0
        # By number of a storage: the operator that made it, and the phase in which it did.
        self.origins: Dict[int, Tuple[str, str]] = {}
        self._sizes: Dict[int, int] = {}
        self._known: Dict[int, Any] = {}
        self._numbers: Dict[int, int] = {}
        self._next = 0
        self._resize: Any = None

    def restart(self) -> None:
        """Forget what was counted; storages stay known."""
        gc.collect()
        self.flops, self.collectives, self.events, self.operators = {}, [], [], 0

    def number_of(self, tensor: torch.Tensor) -> Optional[int]:
        """The storage of a local tensor, by the number that events call it."""
        return self._numbers.get(tensor.untyped_storage()._cdata)

    def held(self) -> Dict[int, int]:
        """Bytes of each storage that is alive, by its number."""
        return dict(self._sizes)

    def know(self, tensor: torch.Tensor, operator: str) -> None:
        """Follow the tensor's storage from now on."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        size = int(storage.nbytes())
        number = self._numbers.get(address)
        if number is not None:
            if self._sizes[number] != size:
                self._write(number, size, operator)
            return
        self._next += 1
        number = self._next
        self._numbers[address] = number
        self._sizes[number] = 0
        self.origins[number] = (operator, self._now())
        self._known[number] = weakref.ref(storage, lambda _: self._gone(address, number))
        self._write(number, size, operator)

    def _pass_by(self, size: int, operator: str) -> None:
        """A storage that is made and let go within an operator."""
        self._next += 1
        self.origins[self._next] = (operator, self._now())
        self.events += [Event(self._next, signed, operator, self._now()) for signed in (size, -size)]

    def _now(self) -> str:
        return "backward" if torch._C._current_graph_task_id() != -1 else self.phase

    def _write(self, number: int, size: int, operator: str) -> None:
        self.events.append(Event(number, size - self._sizes[number], operator, self._now()))
        self._sizes[number] = size

    def _gone(self, address: int, number: Optional[int]) -> None:
        assert number is not None
        self._write(number, 0, "")
        del self._sizes[number], self._known[number]
        if self._numbers.get(address) == number:
            del self._numbers[address]

    def __enter__(self) -> Tally:
        # FSDP lets the memory of gathered weights go by making their storages empty, which no operator does.
        storages: Any = torch.UntypedStorage
        kept = storages.resize_
        self._resize = kept

        def resize(storage: Any, size: int) -> Any:
            found = kept(storage, size)
            number = self._numbers.get(storage._cdata)
            if number is not None:
                self._write(number, int(storage.nbytes()), "resize")
            return found

        storages.resize_ = resize
        super().__enter__()  # type: ignore[no-untyped-call]  # torch's
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # torch's
        storages: Any = torch.UntypedStorage
        storages.resize_ = self._resize

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.distributed.tensor import DTensor  # torch 2.5 and newer

        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its own operators come back here with what lies on this rank
        kwargs = kwargs or {}
        if self.phase == "optimizer" and func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # an optimizer that reads a norm, to scale by it
        # What is waited for is what was asked for: torch's operator gives back the same tensor, its fake a new one.
        found = (
            args[0] if func.namespace == "_c10d_functional" and "wait_tensor" in str(func) else func(*args, **kwargs)
        )
        self.operators += 1
        name = str(func).partition(".default")[0]
        packet = func._overloadpacket
        namespace = func.namespace
        if namespace in ("c10d", "_c10d_functional", "_dtensor"):
            collective = _collective(packet.__name__, args, found)
            if collective is not None:
                self.collectives.append(collective)
                if self._copies_scattered and collective.kind == "reduce_scatter":
                    self._pass_by(collective.payload_bytes, "c10d.copy")
        else:
            flops = _flops(packet, args, kwargs, found)
            if flops:
                self.flops[name] = self.flops.get(name, 0.0) + flops
        for tensor in _tensors(found):
            self.know(tensor, name)
        return found


def _tensors(found: Any) -> Iterator[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, (tuple, list)):
        for each in found:
            yield from _tensors(each)


def _flops(packet: Any, args: Any, kwargs: Any, found: Any) -> float:
    name = packet.__name__
    if name.startswith("_scaled_dot_product"):
        is_backward = name.endswith("_backward")
        query, key = (args[1], args[2]) if is_backward else (args[0], args[1])
        batch, heads, queries, width = query.shape
        keys = key.shape[-2]
        flags = [each for each in args[3:] if isinstance(each, bool)]
        # Whatever else a mask hides, that is in its content.
        is_masked = kwargs.get("is_causal", any(flags)) or kwargs.get("attn_mask") is not None
        seen = (keys + 1) / 2.0 if is_masked else float(keys)
        flops: float = 4.0 * batch * heads * queries * seen * width * (2.0 if is_backward else 1.0)
        return flops
    if name in ("_grouped_mm", "grouped_mm_fallback"):
        # Rows of the first are dealt to groups, each with a matrix of its own; or both are cut along what is summed
        # over. Either way every value of the first meets a row of the second.
        first, second = args[0], args[1]
        meets = first.numel() * second.shape[-1] if first.dim() == 2 else first.shape[-2] * second.numel()
        return 2.0 * float(meets)
    if name == "grouped_mm_fallback_backward":
        return 4.0 * float(args[0].numel() * args[1].shape[-1])
    count = flop_registry.get(packet)
    return float(count(*args, **kwargs, out_val=found)) if count is not None else 0.0


# Operators of both of torch's interfaces to collectives, by the kind that they are.
_KINDS = {
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "all_gather_into_tensor_out": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "allreduce_": "all_reduce",
    "allreduce_coalesced_": "all_reduce",
    "all_reduce": "all_reduce",
    "all_reduce_": "all_reduce",
    "all_reduce_coalesced": "all_reduce",
    "broadcast_": "broadcast",
    "broadcast": "broadcast",
    "all_to_all_single": "all_to_all",
    "shard_dim_alltoall": "all_to_all",
    "alltoall_base_": "all_to_all",
    "send": "send",
    "recv_": "receive",
}


def _collective(operator: str, args: Any, found: Any) -> Optional[Collective]:
    if operator in ("wait_tensor", "barrier", "monitored_barrier_"):
        return None
    sizes = [sum(t.numel() * t.element_size() for t in _tensors(each)) for each in (*args[:2], found)]
    return Collective(_KINDS.get(operator, operator), max(sizes), _ranks(args))


def _ranks(args: Any) -> Tuple[int, ...]:
    """Ranks of the group that a collective was called on, which is a name or a boxed object among its arguments."""
    named: Any = torch._C._distributed_c10d._resolve_process_group
    for each in args:
        if isinstance(each, torch.ScriptObject) and "ProcessGroup" in str(each._type()):
            group: Any = dist.ProcessGroup.unbox(each)
            return tuple(dist.get_process_group_ranks(group))
        if isinstance(each, str):
            try:
                group = named(each)
            except (LookupError, RuntimeError):
                continue  # the name of a reduction, such as "sum"
            return tuple(dist.get_process_group_ranks(group))
    return ()
