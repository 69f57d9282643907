"""Convert a row of a table of published throughput to workload, layout and device, or say why that is impossible.

Columns are those of a common table of such rows; any may be missing or empty. What a row omits is derived from the
rest where arithmetic allows it, else assumed, and each assumption is listed. Columns with measurements (tokens per
second, step time, memory) are never read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import Architecture
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.assumption_list import AssumptionKind, AssumptionList
from tunemark.predict.chip_facts import device_facts, find_any_chip
from tunemark.predict.clusters import find_cluster
from tunemark.predict.cost_model import find_layout_error, predict
from tunemark.predict.layout import DEEPSPEED, HF, MEGATRON_2021, Framework, RankLayout, Workload
from tunemark.predict.memory_model import predict_memory
from tunemark.predict.prediction import Prediction
from tunemark.predict.row_cells import RowError, read_count, read_positive, read_required_text, read_text
from tunemark.predict.row_layout import choose_virtual_stages, read_batch, read_layout
from tunemark.predict.row_memory import fit_states, read_optimizer, read_recomputation, read_states
from tunemark.predict.row_model import (
    limit_attention_to_documents,
    read_architecture,
    read_trained_weights,
    read_widest,
)
from tunemark.predict.row_words import read_precision
from tunemark.predict.software_stacks import StackFacts, choose_stack, read_year
from tunemark.predict.trainer_settings import NETWORK_ASSUMED


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedRow:
    """A row as inputs of the cost model. assumptions: one sentence for each thing that the row does not state; assumed:
    what they are about."""

    id: str
    work: Workload
    layout: RankLayout
    device: DeviceFacts
    framework: Framework
    assumptions: tuple[str, ...] = ()
    assumed: frozenset[AssumptionKind] = frozenset()

    def predict(self) -> Prediction:
        return predict(self.work, self.layout, self.device, assumed=self.assumed)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnconvertibleRow:
    """A row that is not a step of a dense or mixture-of-experts decoder on known devices, and the reason."""

    id: str
    reason: str


def format_layout(layout: RankLayout) -> str:
    """A row's layout in the terms of `--strategy`, with similar ones for what that does not offer (ZeRO 1 and 2,
    context and expert parallelism); "none" for one rank."""
    parts = []
    if layout.pipeline > 1:
        virtual = f":virtual={layout.virtual}" if layout.virtual not in (1, 2) else ""
        schedule = f":schedule={layout.schedule}" if layout.schedule != "1f1b" else ""
        parts.append(f"pp:{layout.pipeline}{schedule}{virtual}")
    replicas = layout.data * layout.context // layout.shard if layout.zero == 3 else layout.data
    if replicas > 1:
        parts.append(f"zero{layout.zero}:{replicas}" if layout.zero in (1, 2) else f"ddp:{replicas}")
    if layout.zero == 3 and layout.shard > 1:
        parts.append(f"fsdp:{layout.shard}" + ("" if layout.reshard else ":reshard=false"))
    if layout.context > 1:
        parts.append(f"cp:{layout.context}")
    if layout.expert > 1:
        parts.append(f"ep:{layout.expert}")
    if layout.tensor > 1:
        parts.append(f"tp:{layout.tensor}" + (":sequence_parallel=true" if layout.sequence_parallel else ""))
    return "+".join(parts) or "none"


def convert_row(
    row: Mapping[str, str], models: Mapping[str, Architecture] | None = None
) -> ConvertedRow | UnconvertibleRow:
    """The row's training step. models: architectures by lower-case name, for rows without dimensions."""
    name = row.get("id") or "?"
    try:
        return _convert_row(name, row, models or {})
    except RowError as error:
        return UnconvertibleRow(id=name, reason=str(error))
    except TunemarkError as error:
        # Keep a suggestion, but not the list of all names, which would be repeated for every such row.
        near = error.next.partition("? ")[0] + "?" if error.next.startswith("did you mean") else ""
        return UnconvertibleRow(id=name, reason="; ".join(filter(None, (error.what, error.why, near))))
    except ValueError as error:
        return UnconvertibleRow(id=name, reason=" ".join(str(error).split()))


def _convert_row(name: str, row: Mapping[str, str], models: Mapping[str, Architecture]) -> ConvertedRow:
    notes = AssumptionList()
    device = _read_device(row)
    notes.sentences += device.assumptions
    if device.is_chip_assumed:
        notes.kinds.add("chip")
    precision, lowered = _choose_precision(row, device, notes)
    sequence = read_count(row, "seq_len")
    if sequence is None:
        raise RowError("seq_len is not stated")
    architecture = limit_attention_to_documents(row, read_architecture(row, models, sequence, notes), notes)
    layout = read_layout(row, architecture, device.node, notes)
    whole, micro = read_batch(row, layout, notes)
    layout = replace(layout, micro_batch=micro)
    framework, stack = choose_stack(_read_stack_facts(row, precision, layout, device), notes)
    if stack is MEGATRON_2021:
        layout = replace(layout, sequence_parallel=False)
    elif framework == "torch" and layout.pipeline > 1:
        # torchtitan's default: pipeline stages keep gathered parameters.
        layout = replace(layout, reshard=False)
    elif framework == "megatron" and layout.pipeline > 1 and read_count(row, "vp") is None:
        layout = choose_virtual_stages(layout, whole, architecture.num_hidden_layers, notes)
    trained, fraction = read_trained_weights(row, architecture, framework, notes)
    if stack is HF and fraction == 1.0:
        stack = DEEPSPEED
        notes.add(
            "states", "DeepSpeed's engine under transformers' trainer, as its scripts have it to train all weights"
        )
    work = Workload(
        architecture=architecture,
        sequence=sequence,
        global_batch=whole,
        precision=lowered,
        optimizer=read_optimizer(row, notes),
        stack=read_states(row, stack, notes, is_frozen=fraction < 1.0),
        trained_fraction=fraction,
        trained=trained,
        widest=read_widest(row, sequence, notes),
    )
    why = find_layout_error(work, layout)
    if why:
        raise RowError(why)
    if layout.ranks > device.node and not device.is_network_known:
        notes.add("network", NETWORK_ASSUMED)
    layout = read_recomputation(row, work, layout, device, notes)
    work = fit_states(work, layout, device, notes)
    held, there = predict_memory(work, layout, device).total, device.memory_bytes
    if there is not None and held > math.exp(2.0 * device.memory_residual) * there:
        notes.sentences.append(
            f"that it fits: by this prediction it needs {held / 1e9:.3g} GB, of which there are {there / 1e9:.3g}"
        )
    return ConvertedRow(
        id=name,
        work=work,
        layout=layout,
        device=device,
        framework=framework,
        assumptions=tuple(notes.sentences),
        assumed=frozenset(notes.kinds),
    )


def _read_device(row: Mapping[str, str]) -> DeviceFacts:
    """The device with the node and the links that the row states, or those of the cluster that it names."""
    chip = read_required_text(row, "device")
    named = read_text(row, "cluster")
    cluster = find_cluster(named, find_any_chip(chip)[0].name) if named else None
    node = read_count(row, "node_devices") or (cluster.node if cluster else None)
    intra, inter = (read_positive(row, f"{kind}_gb_s") for kind in ("intra", "inter"))
    if inter is None and cluster:
        inter = cluster.inter_gb_s
    return device_facts(
        chip,
        node=node,
        intra_bytes_per_s=None if intra is None else intra * 1e9,
        inter_bytes_per_s=None if inter is None else inter * 1e9,
    )


def _read_stack_facts(row: Mapping[str, str], precision: str, layout: RankLayout, device: DeviceFacts) -> StackFacts:
    year = read_year(read_text(row, "year"), read_text(row, "framework_version"))
    compiled = (read_text(row, "compile") or "").upper()
    return StackFacts(
        framework=read_text(row, "framework") or "",
        words=" ".join(row.get(key) or "" for key in ("source", "url_or_repo_path", "tags", "notes")),
        year=year or read_year(read_text(row, "date_or_version")),
        is_year_stated=bool(year),
        is_compiled=compiled.startswith(("Y", "T", "1")) if compiled else None,
        precision=precision,
        zero=layout.zero,
        tensor=layout.tensor,
        others=layout.pipeline * layout.context * layout.expert,
        chip=device.name,
    )


def _choose_precision(row: Mapping[str, str], device: DeviceFacts, notes: AssumptionList) -> tuple[str, str]:
    """The precision of matrix products, and its recipe (mxfp8, fp8-rowwise ...)."""
    stated = read_text(row, "precision")
    if not stated:
        stated = "bf16" if "bf16" in device.peak_flops else "fp16"
        notes.sentences.append(f"{stated}, because no precision is stated")
    name, recipe = read_precision(stated)
    if name not in device.peak_flops:
        raise RowError(f"no confirmed peak of {device.name} in {name}, only in {', '.join(device.peak_flops)}")
    return name, recipe
