"""What a published row says of memory: recomputation, optimizer states, frozen weights, offloading, the loss."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.assumption_list import AssumptionList
from tunemark.predict.layout import RankLayout, Recompute, SoftwareStack, Workload
from tunemark.predict.memory_model import predict_memory
from tunemark.predict.row_cells import read_count, read_flag, read_text
from tunemark.predict.row_words import read_checkpointing
from tunemark.predict.software_stacks import GPTQ_EXPANDED_BYTES, change_states

# Words of software whose loss is computed in pieces.
_CHUNKED_LOSSES = r"liger|torchtune|chunked (?:cross|loss)"


def read_optimizer(row: Mapping[str, str], notes: AssumptionList) -> str:
    """The optimizer by the cost model's name: adamw, sgd, adafactor or lion (one moment)."""
    word = (read_text(row, "optimizer") or "").lower()
    found = next((name for name in ("adafactor", "sgd", "lion") if name in word), "adamw")
    if "muon" in word:
        notes.add("states", "one moment, as Lion's, for Muon, whose products are not modelled")
        return "lion"
    if word and found == "adamw" and "adam" not in word:
        notes.add("states", f"AdamW's states, because those of {word!r} are not known")
    return found


def read_states(
    row: Mapping[str, str], stack: SoftwareStack, notes: AssumptionList, *, is_frozen: bool
) -> SoftwareStack:
    """The stack with the row's optimizer states, frozen weights, offloading and loss. is_frozen: most are frozen."""
    words = f"{read_text(row, 'notes') or ''} {read_text(row, 'source') or ''}".lower()
    task = (read_text(row, "task") or "").lower()
    bits = read_count(row, "optimizer_bits")
    if bits is None:
        named = f"{words} {(read_text(row, 'optimizer') or '').lower()}"
        if re.search(r"8[- ]?bit (?:adam|optim)|adamw?_?8bit|paged_adamw_8bit", named):
            bits = 8
        elif re.search(r"bf16 optimi[sz]er states", named):
            bits = 16
    base = read_count(row, "base_bits")
    if base is None and is_frozen:
        if re.search(r"int4|4[- ]?bit|nf4|gptq", words) or "qlora" in task:
            base = 4
        elif re.search(r"int8|8[- ]?bit base|llm\.int8", words):
            base = 8
    loss = (read_text(row, "loss") or "").lower()
    is_chunked = re.search(r"chunk|linear|liger|cut", loss) if loss else re.search(_CHUNKED_LOSSES, words)
    stack = change_states(
        stack,
        optimizer_bits=bits,
        base_bits=base,
        is_frozen=is_frozen,
        loss="chunked" if is_chunked else "fused" if loss.startswith("fus") else "",
    )
    if stack.base_bits and "gptq" in words:
        stack = replace(stack, expanded_bytes=GPTQ_EXPANDED_BYTES)
    stack = _read_offloading(row, words, stack, notes)
    return change_states(stack, is_in_backward=bool(read_flag(row, "optimizer_in_backward")))


def _read_offloading(row: Mapping[str, str], words: str, stack: SoftwareStack, notes: AssumptionList) -> SoftwareStack:
    """The stack with states in host memory, as the column `offload` or llmq's options in the notes say it."""
    stated = (read_text(row, "offload") or "").lower()
    if stated in ("none", "no", "n", "false", "0"):
        return stack
    moved = 0.0
    if re.search(r"optim|states|cpu|\ball\b|^(?:y|yes|true|1)$", stated) or re.search(
        r"zero-?\d?[- ]offload", f"{words} {(read_text(row, 'fsdp') or '').lower()}"
    ):
        moved = stack.main_bytes
    elif stated:
        notes.add("states", f"nothing in host memory, because offloading {stated!r} is not modelled")
    master = max(stack.main_bytes - 4.0, 0.0) if stack.main_bytes > 8.0 else stack.main_bytes / 2.0
    for option in ("offload-opt-m", "offload-opt-v"):
        moved += (stack.main_bytes - master) / 2.0 if option in words else 0.0
    moved += master if "offload-master" in words else 0.0
    moved = min(moved, stack.main_bytes)
    return replace(stack, main_bytes=stack.main_bytes - moved, host_bytes=moved)


def fit_states(work: Workload, layout: RankLayout, device: DeviceFacts, notes: AssumptionList) -> Workload:
    """The workload with the smallest change of its training states with which the run, which did fit, fits by this
    prediction: states in 16 bits; states in 8 bits and gradients freed in the backward pass."""
    if device.memory_bytes is None:
        return work
    room = math.exp(2.0 * device.memory_residual) * device.memory_bytes
    if predict_memory(work, layout, device).total <= room or not work.stack.flash_attention:
        return work
    half = replace(work.stack, parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=4.0, step_bytes=0.0)
    least = replace(half, gradient_bytes=0.0, main_bytes=2.0)
    for stack, words in (
        (half, "weights and states in 16 bits"),
        (least, "weights in 16 bits, states in 8, and gradients freed in the backward pass"),
    ):
        tried = replace(work, stack=stack)
        if stack.main_bytes < work.stack.main_bytes and predict_memory(tried, layout, device).total <= room:
            notes.add("states", f"{words}, because the run fits and by this prediction would not otherwise")
            return tried
    return work


def _read_share(row: Mapping[str, str]) -> float | None:
    """The share of the layers that a row recomputes: "recomputes 72 of 80 layers"."""
    words = (read_text(row, "notes") or "").lower()
    if "save_qkv_proj" in words:
        # MaxText's policy of that name keeps queries, keys and values: about a sixth of a layer's products.
        return 0.85
    match = re.search(r"recomput\w* (\d+) of (?:the )?(\d+) layers", words)
    if match is None or not int(match[2]):
        return None
    return min(1.0, int(match[1]) / int(match[2]))


def read_recomputation(
    row: Mapping[str, str], work: Workload, layout: RankLayout, device: DeviceFacts, notes: AssumptionList
) -> RankLayout:
    stated = (read_text(row, "act_ckpt") or "").lower()
    if stated:
        found = read_checkpointing(stated, work.architecture.num_hidden_layers)
        return replace(layout, recompute=found.kind, recomputed=_read_share(row) or found.share)
    # The least recomputation that fits, allowing for the error of predicted memory: the publisher's run did fit. Where
    # the row states no sharding, training states may still have been sharded.
    slack = math.exp(2.0 * device.memory_residual)
    to_host = device.host_bytes_per_s > 0 and work.stack.scattered_messages and work.stack.flash_attention
    stages = [(layout.zero, layout.shard)]
    if layout.zero == 0 and layout.data * layout.context > 1 and work.stack.flash_attention:
        stages += [(zero, layout.data * layout.context) for zero in ((1, 3) if layout.pipeline == 1 else (1,))]
    kinds: tuple[Recompute, ...] = ("none",) if to_host else ("none", "selective")
    for kind in kinds:
        for zero, shard in stages:
            chosen = replace(layout, recompute=kind, zero=zero, shard=shard)
            if device.memory_bytes is None or predict_memory(work, chosen, device).total <= slack * device.memory_bytes:
                if zero != layout.zero:
                    notes.add("sharding", f"ZeRO {zero}, because it does not fit without")
                notes.add(
                    "recomputation",
                    f"recomputation: {kind}, the least that fits by this prediction, because none is stated",
                )
                return chosen
    layout = replace(layout, zero=stages[-1][0], shard=stages[-1][1])
    if to_host:
        # Offload of each micro-batch in flight as much as does not fit.
        flights = min(layout.pipeline, work.global_batch // (layout.data * layout.micro_batch))
        whole = predict_memory(work, replace(layout, recompute="none"), device)
        more = min(whole.total - (device.memory_bytes or whole.total), whole.activations)
        notes.add(
            "recomputation",
            "no recomputation: activations that do not fit go to the host's memory, because none is stated",
        )
        return replace(layout, recompute="none", offloaded=more / flights)
    least, most = (
        predict_memory(work, replace(layout, recompute="full", recomputed=share), device).total for share in (1.0, 0.0)
    )
    room = slack * (device.memory_bytes or most)
    share = min(1.0, max(0.0, (most - room) / (most - least))) if most > least else 1.0
    fits = "the least that fits" if least <= room else "though it does not fit"
    notes.add(
        "recomputation",
        f"recomputation of {100 * share:.0f} % of the layers: {fits} by this prediction, because none is stated",
    )
    return replace(layout, recompute="full", recomputed=share)
