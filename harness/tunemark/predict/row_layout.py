"""The layout of ranks and the batch of a published row: as stated, derived, or assumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tunemark.plugin.descriptors import Architecture
from tunemark.predict.assumption_list import AssumptionList
from tunemark.predict.layout import RankLayout
from tunemark.predict.row_cells import RowError, read_count, read_text

# ZeRO stages by other names of sharding.
_STAGES: Mapping[str, int] = {
    "true": 3, "yes": 3, "y": 3, "full": 3, "full-shard": 3, "fsdp": 3, "fsdp1": 3, "fsdp2": 3, "hsdp": 3,
    "hybrid-shard": 3, "hybrid": 3, "hybrid-shard-zero2": 2, "shard-grad-op": 2, "os": 1, "os-g": 2, "os-g-p": 3,
    "distributed-optimizer": 1, "dist-opt": 1, "distopt": 1, "megatron-fsdp": 3, "mfsdp": 3, "zero-offload": 2,
    "zero-infinity": 3, "false": 0, "no": 0, "n": 0, "no-shard": 0, "none": 0, "ddp": 0, "off": 0,
}  # fmt: skip
_HYBRID = ("hsdp", "hybrid")
# Ranks of a group that shards: "1(8-way)", "3-8-way", "hsdp-8".
_GROUP = re.compile(
    r"\(-?(?:size-?)?(\d+)(?:\.0)?(?:-?(?:ways?|ranks?|gpus?|devices?|x))?-?\)|-(\d+)-?ways?$|(?<=^hsdp)-(\d+)$"
)


# Long: one step for each degree, in the order in which the rest is derived.
def read_layout(row: Mapping[str, str], a: Architecture, node: int, notes: AssumptionList) -> RankLayout:
    """The layout of a row, with micro-batches of one sequence. node: devices of one node, the group within which hybrid
    sharding divides where the row states no other."""
    tensor, pipeline, context = (read_count(row, key) or 1 for key in ("tp", "pp", "cp"))
    devices, data = read_count(row, "n_devices"), read_count(row, "dp")
    group = tensor * pipeline * context
    if devices is None:
        devices = (data or 1) * group
        if data is None:
            notes.add("batch", f"{devices} devices, because none are stated")
    if devices % group:
        raise RowError(f"tp x pp x cp = {group} does not divide {devices} devices")
    if data is not None and data * group != devices:
        raise RowError(f"dp x tp x pp x cp = {data * group}, but there are {devices} devices")
    data = devices // group
    replicas = data * context
    zero, shard = read_sharding(read_text(row, "fsdp") or "", node)
    shard = read_count(row, "shard_group") or shard
    if zero is None:
        zero = 1 if replicas > 1 else 0
        if zero:
            notes.add(
                "sharding",
                "optimizer states divided over the data ranks (ZeRO 1), because no sharding is stated",
            )
    if not zero:
        shard = 1
    elif shard is None:
        shard = replicas
    elif shard > replicas:
        # A group that is at least as large as there are replicas is all of them.
        shard = replicas
    if replicas % shard:
        raise RowError(f"groups of {shard} that shard do not divide {replicas} data ranks")
    virtual = read_count(row, "vp") or 1
    expert, expert_tensor = _read_expert_degrees(row, a, tensor, replicas, notes)
    return RankLayout(
        data=data,
        shard=shard,
        zero=zero,
        tensor=tensor,
        pipeline=pipeline,
        virtual=virtual if pipeline > 1 else 1,
        schedule="interleaved" if virtual > 1 and pipeline > 1 else "1f1b",
        context=context,
        expert=expert,
        expert_tensor=expert_tensor,
    )


def read_sharding(stated: str, node: int) -> tuple[int | None, int | None]:
    """(ZeRO stage, ranks of a sharding group) of a cell such as "3", "zero-1", "1(8-way)", "FULL_SHARD" or "HSDP"; each
    None where it is not stated. node: the group of hybrid sharding."""
    word = re.sub(r"[^a-z0-9().]+", "-", stated.lower()).strip("-")
    if not word or word in ("n-a", "na", "unknown", "auto"):
        return None, None
    # The engine's name and where states wait say nothing of what is sharded. "FSDP=1" is a flag.
    word = re.sub(r"^(?:deepspeed|pytorch|torch)-|(?<=\d)-(?:cpu-)?offload$", "", word)
    word = {"fsdp-1": "3", "fsdp-0": "0"}.get(word, word) if "=" in stated else word
    way = _GROUP.search(word)
    shard = int(way[1] or way[2] or way[3]) if way else None
    if way:
        word = (word[: way.start()] + word[way.end() :]).strip("-")
    if word.startswith(_HYBRID) and shard is None:
        shard = node
    stage = _STAGES.get(word)
    if stage is None and (match := re.fullmatch(r"(?:zero-?|stage-?|z|zero-stage-?)?(\d+)(?:\.0+)?", word)):
        stage = int(match[1])
    if stage is None or shard == 0:
        raise RowError(
            f"fsdp is {stated!r}: a ZeRO stage is expected, 0 to 3, or a name such as HSDP; ranks of a group follow in "
            "brackets: 1(8-way)"
        )
    if stage > 3:
        raise RowError(f"there is no ZeRO stage {stage}: where {stage} ranks shard everything, write 3({stage}-way)")
    return stage, shard


def _read_expert_degrees(
    row: Mapping[str, str], a: Architecture, tensor: int, replicas: int, notes: AssumptionList
) -> tuple[int, int]:
    """Ranks that divide the experts, and ranks that divide each expert."""
    expert, parts = read_count(row, "ep") or 1, read_count(row, "etp")
    if not a.num_local_experts:
        return expert, tensor
    if parts is None and (match := re.search(r"\betp\s*=?\s*(\d+)", (read_text(row, "notes") or "").lower())):
        parts = int(match[1]) or None
    if parts is None:
        # Megatron's default divides experts as everything else, where that many ranks exist.
        parts = tensor if replicas % expert == 0 else 1
        if tensor > 1:
            how = f"each expert divided over {parts} tensor ranks" if parts > 1 else "experts that are whole"
            notes.add("experts", f"{how}, because nothing else is stated")
    if tensor * replicas % (expert * parts):
        raise RowError(f"{expert} x {parts} expert ranks do not divide {tensor * replicas} ranks of a stage")
    return expert, parts


def choose_virtual_stages(layout: RankLayout, whole: int, layers: int, notes: AssumptionList) -> RankLayout:
    """The layout with as many virtual stages as have two layers or more each, if stages divide layers and
    micro-batches."""
    passes = whole // (layout.data * layout.micro_batch)
    each = layers // layout.pipeline
    if layers % layout.pipeline or passes % layout.pipeline:
        return layout
    virtual = max((v for v in range(1, each // 2 + 1) if each % v == 0), default=1)
    if virtual == 1:
        return layout
    notes.add("schedule", f"{virtual} virtual stages of {each // virtual} layers, because none are stated")
    return replace(layout, virtual=virtual, schedule="interleaved")


def read_batch(row: Mapping[str, str], layout: RankLayout, notes: AssumptionList) -> tuple[int, int]:
    """Sequences in a step and in a micro-batch."""
    whole, micro, accumulation = (read_count(row, key) for key in ("global_batch_seqs", "micro_batch", "grad_accum"))
    if whole is None:
        if micro is None or accumulation is None:
            micro = micro or 1
            accumulation = accumulation or 4 * layout.pipeline if layout.pipeline > 1 else accumulation or 1
            notes.add("batch", f"{accumulation} micro-batches of {micro}, because no batch is stated")
        return micro * accumulation * layout.data, micro
    if micro and accumulation and (product := micro * accumulation * layout.data) != whole:
        words = f"micro_batch {micro} x grad_accum {accumulation} x {layout.data} data ranks"
        raise RowError(f"{words} = {product}, but global_batch_seqs is {whole}")
    if micro is None:
        share = whole / layout.data
        micro = int(share / accumulation) if accumulation and share % accumulation == 0 else 1
        if not accumulation:
            notes.add("batch", "micro-batches of one sequence, because none are stated")
        micro = max(micro, 1)
    return whole, micro
