"""Convert a row of a table of published throughput to workload, layout and device, or say why that is impossible.

Columns are those of a common table of such rows; any may be missing or empty. What a row omits is derived from the
rest where arithmetic allows it, else assumed, and each assumption is listed. Columns with measurements (tokens per
second, step time, memory) are never read.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunemark.errors import BadData, TunemarkError
from tunemark.physics.chip_peaks import parse_precision
from tunemark.physics.parameters import count_parameters, make_architecture
from tunemark.plugin.descriptors import Architecture
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.chip_facts import device_facts
from tunemark.predict.cost_model import LOW_PRECISIONS, find_layout_error, predict, predict_memory
from tunemark.predict.layout import (
    COMPILED_HEAD_BYTES,
    MEGATRON,
    MEGATRON_2021,
    TORCH,
    RankLayout,
    Recompute,
    SoftwareStack,
    Workload,
)
from tunemark.predict.prediction import Prediction

# Required columns; a model by dimensions or by name is checked row by row.
_REQUIRED_COLUMNS = ("device",)
_COLUMNS = frozenset(
    ("id", "model", "params_b", "n_layers", "hidden", "intermediate", "mlp_gated", "n_heads", "n_kv_heads", "vocab",
     "task", "device", "n_devices", "precision", "seq_len", "global_batch_seqs", "micro_batch", "grad_accum", "dp",
     "fsdp", "tp", "pp", "vp", "cp", "ep", "act_ckpt", "compile", "notes", "head_dim", "n_experts",
     "experts_per_token", "date_or_version"),
)  # fmt: skip

# Dimensions that an installed model of the row's name supplies where the row has none.
_DIMENSIONS = ("n_layers", "hidden", "n_heads", "intermediate", "n_kv_heads", "vocab")

_FLAGS = {"true": "1", "yes": "1", "y": "1", "false": "0", "no": "0", "n": "0"}
# ZeRO stages by FSDP's names of sharding.
_STAGES = {"true": "3", "yes": "3", "y": "3", "full_shard": "3", "false": "0", "no": "0", "n": "0", "no_shard": "0"}

# Year since which Megatron has fused attention (Dao et al. 2022 was published in the summer before).
_FUSED_ATTENTION_YEAR = "2023"
_DEFAULT_VOCABULARY = 50304
# Largest plausible counts: of anything, and of layers, stages and virtual stages.
_MAX_COUNT, _MAX_LAYERS = 1e12, 1e5
# LoRA of rank 16 on queries and values, as a share of a model of 7 billion parameters: 6.8 of 7,242 million.
_LORA_FRACTION = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedRow:
    """A row as inputs of the cost model. assumptions: one sentence for each thing that the row does not state."""

    id: str
    work: Workload
    layout: RankLayout
    device: DeviceFacts
    assumptions: tuple[str, ...] = ()

    def predict(self) -> Prediction:
        return predict(self.work, self.layout, self.device)


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


def read_published_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, cells stripped. Raises `BadData` where it cannot be read as such."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            _check_header(names, path)
            reader.fieldnames = names
            return list(_read_cells(reader, path))
    except OSError as error:
        raise BadData(
            what=f"cannot read {str(path)!r}", why=error.strerror or str(error), next="give a file of rows in CSV"
        ) from error
    except UnicodeDecodeError as error:
        raise BadData(
            what=f"{path} is no text in UTF-8", why=f"byte {error.start}: {error.reason}", next="save it as CSV, UTF-8"
        ) from error
    except csv.Error as error:
        raise BadData(what=f"{path} is no CSV", why=str(error), next="give rows with a header, in CSV") from error


def convert_row(
    row: Mapping[str, str], models: Mapping[str, Architecture] | None = None
) -> ConvertedRow | UnconvertibleRow:
    """The row's training step. models: architectures by lower-case name, for rows without dimensions."""
    name = row.get("id") or "?"
    try:
        return _convert_row(name, row, models or {})
    except _RowError as error:
        return UnconvertibleRow(id=name, reason=str(error))
    except TunemarkError as error:
        # Keep a suggestion, but not the list of all names, which would be repeated for every such row.
        near = error.next.partition("? ")[0] + "?" if error.next.startswith("did you mean") else ""
        return UnconvertibleRow(id=name, reason="; ".join(filter(None, (error.what, error.why, near))))
    except ValueError as error:
        return UnconvertibleRow(id=name, reason=" ".join(str(error).split()))


class _RowError(Exception):
    """Why a row cannot be converted."""


def _check_header(names: Sequence[str], path: str | Path) -> None:
    if not names:
        raise BadData(what=f"{path} is empty", next="give rows with a header, in CSV")
    missing = [name for name in _REQUIRED_COLUMNS if name not in names]
    if missing:
        found = ", ".join(name for name in names if name in _COLUMNS) or "none that is known"
        other = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
        raise BadData(
            what=f"{path} has no column {missing[0]!r}",
            why=f"its header is separated by {other!r}" if other else f"its header: {found}",
            next="separate cells by commas" if other else f"columns are: {', '.join(sorted(_COLUMNS))}",
        )
    twice = [name for name in names if name in _COLUMNS and names.count(name) > 1]
    if twice:
        raise BadData(what=f"{path} has the column {twice[0]!r} twice", next="leave one of them out")


def _read_cells(reader: csv.DictReader[str], path: str | Path) -> Iterator[dict[str, str]]:
    for row in reader:
        if None in row or None in row.values():
            there = "more" if None in row else "fewer"
            what = f"{path}, line {reader.line_num} has {there} cells than the header"
            raise BadData(what=what, next="mend the line")
        cells = {name: (value or "").strip() for name, value in row.items()}
        cells.setdefault("id", "")
        cells["id"] = cells["id"] or f"line {reader.line_num}"
        yield cells


def _convert_row(name: str, row: Mapping[str, str], models: Mapping[str, Architecture]) -> ConvertedRow:
    notes: list[str] = []
    device = device_facts(_required_text(row, "device"))
    notes += device.assumptions
    precision, lowered = _choose_precision(row, device, notes)
    sequence = _count(row, "seq_len")
    if sequence is None:
        raise _RowError("seq_len is not stated")
    architecture = _architecture(row, models, sequence, notes)
    tensor, pipeline, context = (_count(row, key) or 1 for key in ("tp", "pp", "cp"))
    layout = _layout(row, tensor, pipeline, context, architecture, notes)
    whole, micro = _choose_batch(row, layout, notes)
    layout = replace(layout, micro_batch=micro)
    stack = _choose_stack(row, precision, layout, notes)
    if stack is MEGATRON_2021:
        layout = replace(layout, sequence_parallel=False)
    elif stack is not MEGATRON and layout.pipeline > 1:
        # torchtitan's default: pipeline stages keep gathered parameters.
        layout = replace(layout, reshard=False)
    elif layout.pipeline > 1 and _count(row, "vp") is None:
        layout = _choose_virtual_stages(layout, whole, architecture.num_hidden_layers, notes)
    task = (_text(row, "task") or "pretrain").lower()
    is_lora = "lora" in task
    if is_lora:
        notes.append("LoRA of rank 16 on queries and values")
    work = Workload(
        architecture=architecture,
        sequence=sequence,
        global_batch=whole,
        precision=lowered,
        stack=stack,
        trained_fraction=_LORA_FRACTION if is_lora else 1.0,
    )
    why = find_layout_error(work, layout)
    if why:
        raise _RowError(why)
    layout = _recomputation(row, work, layout, device, notes)
    held, there = predict_memory(work, layout, device).total, device.memory_bytes
    if there is not None and held > math.exp(2.0 * device.memory_residual) * there:
        notes.append(
            f"that it fits: by this prediction it needs {held / 1e9:.3g} GB, of which there are {there / 1e9:.3g}"
        )
    return ConvertedRow(id=name, work=work, layout=layout, device=device, assumptions=tuple(notes))


def _choose_precision(row: Mapping[str, str], device: DeviceFacts, notes: list[str]) -> tuple[str, str]:
    """The precision of matrix products, and its recipe (mxfp8, fp8-rowwise ...)."""
    stated = _text(row, "precision")
    if not stated:
        stated = "bf16" if "bf16" in device.peak_flops else "fp16"
        notes.append(f"{stated}, because no precision is stated")
    name = parse_precision(stated)
    if name is None:
        raise _RowError(f"no precision {stated!r} is known")
    if name not in device.peak_flops:
        raise _RowError(f"no confirmed peak of {device.name} in {name}, only in {', '.join(device.peak_flops)}")
    recipe = stated.lower()
    return name, recipe if recipe in LOW_PRECISIONS else "nvfp4" if name == "fp4" else name


def _architecture(
    row: Mapping[str, str], models: Mapping[str, Architecture], sequence: int, notes: list[str]
) -> Architecture:
    layers, hidden, heads = (_count(row, key) for key in ("n_layers", "hidden", "n_heads"))
    model = _text(row, "model") or ""
    name = _find_installed_model(model, models)
    known = models.get(name or "")
    unlike = f"no model named {model!r} is installed" if known is None else _find_differences(row, known)
    if known is not None and not unlike and any(_text(row, key) is None for key in _DIMENSIONS):
        notes.append(f"the dimensions of the installed model {name!r}")
        return known
    if layers is None or hidden is None or heads is None:
        lacking = [key for key in ("n_layers", "hidden", "n_heads") if _count(row, key) is None]
        raise _RowError(f"{', '.join(lacking)} not stated, and {unlike}")
    inner = _count(row, "intermediate")
    gated = _flag(row, "mlp_gated")
    if inner is None:
        inner = 4 * hidden
        gated = 0.0 if gated is None else gated
        notes.append(f"an MLP of {inner}, {'gated' if gated else 'not gated'}, because none is stated")
    elif gated is None:
        gated = float(inner != 4 * hidden)
        notes.append(f"an MLP that is {'gated' if gated else 'not gated'}, by its width")
    vocab = _count(row, "vocab")
    if vocab is None:
        vocab = _DEFAULT_VOCABULARY
        notes.append(f"a vocabulary of {vocab}, because none is stated")
    # Some tables write 0 for a dense model.
    experts, used = (_count(row, key, least=0) or None for key in ("n_experts", "experts_per_token"))
    if (experts or 1) > 1 and used is None:
        raise _RowError(f"{experts} experts, but no experts_per_token")
    if used is not None and used > (experts or 1):
        raise _RowError(f"{used} experts for each token, of {experts or 'an unknown number'}")
    architecture = make_architecture(
        layers=layers,
        hidden=hidden,
        intermediate=inner,
        is_gated=bool(gated),
        heads=heads,
        kv_heads=_count(row, "n_kv_heads"),
        head_dim=_count(row, "head_dim"),
        vocab=vocab,
        experts=experts if experts and used else None,
        experts_per_token=used if experts and used else None,
        sequence=sequence,
    )
    stated = _number(row, "params_b")
    counted = count_parameters(architecture).total / 1e9
    if architecture.num_local_experts is None:
        if (_count(row, "ep") or 1) > 1:
            raise _RowError("experts in parallel, but no n_experts and experts_per_token")
        if stated and stated > 1.6 * counted:
            raise _RowError(
                f"{stated:g} billion parameters are stated and the dimensions make {counted:.1f}: "
                "a mixture of experts, whose n_experts and experts_per_token are not stated"
            )
    return architecture


def _find_installed_model(stated: str, models: Mapping[str, Architecture]) -> str | None:
    """The name of the installed model that is meant: "Llama 3 8B" is llama-3-8b; None if there is no single match."""
    if stated.lower() in models:
        return stated.lower()
    plain = re.sub(r"[^a-z0-9]", "", stated.lower())
    alike = [name for name in models if re.sub(r"[^a-z0-9]", "", name) == plain]
    return alike[0] if len(alike) == 1 else None


def _find_differences(row: Mapping[str, str], known: Architecture) -> str:
    """How a row's dimensions differ from those of an installed model; empty where they do not."""
    own = {
        "n_layers": known.num_hidden_layers, "hidden": known.hidden_size, "intermediate": known.intermediate_size,
        "n_heads": known.num_attention_heads, "n_kv_heads": known.num_key_value_heads, "head_dim": known.head_dim,
        "vocab": known.vocab_size, "n_experts": known.num_local_experts or 0,
        "experts_per_token": known.num_experts_per_tok or 0,
    }  # fmt: skip
    stated = {key: _count(row, key, least=0) for key in own}
    gated = _flag(row, "mlp_gated")
    other = [f"{key} {n}, not {own[key]}" for key, n in stated.items() if n is not None and n != own[key]]
    other += [] if gated is None or bool(gated) == known.gated_mlp else [f"mlp_gated {gated:g}"]
    return f"the installed model of that name has another shape: {', '.join(other)}" if other else ""


def _layout(
    row: Mapping[str, str], tensor: int, pipeline: int, context: int, architecture: Architecture, notes: list[str]
) -> RankLayout:
    devices, data = _count(row, "n_devices"), _count(row, "dp")
    group = tensor * pipeline * context
    if devices is None:
        data = data or 1
        devices = data * group
        if _count(row, "dp") is None:
            notes.append(f"{devices} devices, because none are stated")
    if devices % group:
        raise _RowError(f"tp x pp x cp = {group} does not divide {devices} devices")
    if data is not None and data * group != devices:
        raise _RowError(f"dp x tp x pp x cp = {data * group}, but there are {devices} devices")
    data = devices // group
    zero = _count({"fsdp": _STAGES.get((row.get("fsdp") or "").lower(), row.get("fsdp") or "")}, "fsdp", least=0)
    if zero is None:
        zero = 1 if data * context > 1 else 0
        if zero:
            notes.append("optimizer states divided over the data ranks (ZeRO 1), because no sharding is stated")
    if zero > 3:
        raise _RowError(f"there is no ZeRO stage {zero}")
    virtual = _count(row, "vp") or 1
    expert = _count(row, "ep") or 1
    return RankLayout(
        data=data,
        shard=data * context if zero else 1,
        zero=zero,
        tensor=tensor,
        pipeline=pipeline,
        virtual=virtual if pipeline > 1 else 1,
        schedule="interleaved" if virtual > 1 and pipeline > 1 else "1f1b",
        context=context,
        expert=expert,
    )


def _choose_virtual_stages(layout: RankLayout, whole: int, layers: int, notes: list[str]) -> RankLayout:
    """The layout with as many virtual stages as have two layers or more each, if stages divide layers and
    micro-batches."""
    passes = whole // (layout.data * layout.micro_batch)
    each = layers // layout.pipeline
    if layers % layout.pipeline or passes % layout.pipeline:
        return layout
    virtual = max((v for v in range(1, each // 2 + 1) if each % v == 0), default=1)
    if virtual == 1:
        return layout
    notes.append(f"{virtual} virtual stages of {each // virtual} layers, because none are stated")
    return replace(layout, virtual=virtual, schedule="interleaved")


def _choose_batch(row: Mapping[str, str], layout: RankLayout, notes: list[str]) -> tuple[int, int]:
    """Sequences in a step and in a micro-batch."""
    whole, micro, accumulation = (_count(row, key) for key in ("global_batch_seqs", "micro_batch", "grad_accum"))
    if whole is None:
        if micro is None or accumulation is None:
            micro = micro or 1
            accumulation = accumulation or 4 * layout.pipeline if layout.pipeline > 1 else accumulation or 1
            notes.append(f"{accumulation} micro-batches of {micro}, because no batch is stated")
        return micro * accumulation * layout.data, micro
    if micro and accumulation and (product := micro * accumulation * layout.data) != whole:
        words = f"micro_batch {micro} x grad_accum {accumulation} x {layout.data} data ranks"
        raise _RowError(f"{words} = {product}, but global_batch_seqs is {whole}")
    if micro is None:
        share = whole / layout.data
        micro = int(share / accumulation) if accumulation and share % accumulation == 0 else 1
        if not accumulation:
            notes.append("micro-batches of one sequence, because none are stated")
        micro = max(micro, 1)
    return whole, micro


def _choose_stack(row: Mapping[str, str], precision: str, layout: RankLayout, notes: list[str]) -> SoftwareStack:
    """The software stack, as far as the row's columns say it; fp16 is taken as older than fused attention."""
    if precision == "fp16":
        return MEGATRON_2021
    years = re.findall(r"(?<![\w.])20\d\d(?![\w.])", row.get("date_or_version") or "")
    if years and max(years) < _FUSED_ATTENTION_YEAR and layout.zero != 3:
        notes.append(f"Megatron before fused attention, because it is of {max(years)}")
        return MEGATRON_2021
    compiled = (_text(row, "compile") or "").upper()
    # Only PyTorch stacks state whether they compile.
    if layout.zero == 3 and compiled:
        is_fused = compiled.startswith("Y")
        is_async = layout.tensor > 1 and "async" in (_text(row, "notes") or "").lower()
        return replace(
            TORCH,
            fused=is_fused,
            stream_bytes=MEGATRON.stream_bytes if is_fused else TORCH.stream_bytes,
            head_bytes=COMPILED_HEAD_BYTES if is_fused and layout.tensor == 1 else TORCH.head_bytes,
            # torchtitan's policy: every second matrix product of a layer is computed again, attention never.
            selective="alternate",
            # torch's functional collectives join the ranks' parts along tokens by copying the whole, unless gathering
            # is fused with the product.
            copied_collectives=layout.tensor > 1,
            tensor_overlap=is_async,
        )
    return MEGATRON


def _recomputation(
    row: Mapping[str, str], work: Workload, layout: RankLayout, device: DeviceFacts, notes: list[str]
) -> RankLayout:
    stated = (_text(row, "act_ckpt") or "").lower()
    names: dict[str, Recompute] = {
        "none": "none", "n": "none", "false": "none", "no": "none", "off": "none", "0": "none",
        "selective": "selective", "full": "full", "y": "full", "true": "full", "yes": "full", "1": "full",
    }  # fmt: skip
    if stated:
        if stated not in names:
            raise _RowError(f"no checkpointing {stated!r} is known: none, selective or full")
        return replace(layout, recompute=names[stated])
    # The least recomputation that fits, allowing for the error of predicted memory: the publisher's run did fit. Where
    # the row states no sharding, training states may still have been sharded.
    slack = math.exp(2.0 * device.memory_residual)
    to_host = device.host_bytes_per_s > 0 and work.stack is MEGATRON
    stages = [(layout.zero, layout.shard)]
    if layout.zero == 0 and layout.data * layout.context > 1 and work.stack is not MEGATRON_2021:
        stages += [(zero, layout.data * layout.context) for zero in ((1, 3) if layout.pipeline == 1 else (1,))]
    kinds: tuple[Recompute, ...] = ("none",) if to_host else ("none", "selective")
    for kind in kinds:
        for zero, shard in stages:
            chosen = replace(layout, recompute=kind, zero=zero, shard=shard)
            if device.memory_bytes is None or predict_memory(work, chosen, device).total <= slack * device.memory_bytes:
                if zero != layout.zero:
                    notes.append(f"ZeRO {zero}, because it does not fit without")
                notes.append(f"recomputation: {kind}, the least that fits by this prediction, because none is stated")
                return chosen
    layout = replace(layout, zero=stages[-1][0], shard=stages[-1][1])
    if to_host:
        # Offload of each micro-batch in flight as much as does not fit.
        flights = min(layout.pipeline, work.global_batch // (layout.data * layout.micro_batch))
        whole = predict_memory(work, replace(layout, recompute="none"), device)
        more = min(whole.total - (device.memory_bytes or whole.total), whole.activations)
        notes.append("no recomputation: activations that do not fit go to the host's memory, because none is stated")
        return replace(layout, recompute="none", offloaded=more / flights)
    least, most = (
        predict_memory(work, replace(layout, recompute="full", recomputed=share), device).total for share in (1.0, 0.0)
    )
    room = slack * (device.memory_bytes or most)
    share = min(1.0, max(0.0, (most - room) / (most - least))) if most > least else 1.0
    fits = "the least that fits" if least <= room else "though it does not fit"
    notes.append(
        f"recomputation of {100 * share:.0f} % of the layers: {fits} by this prediction, because none is stated"
    )
    return replace(layout, recompute="full", recomputed=share)


def _text(row: Mapping[str, str], key: str) -> str | None:
    return (row.get(key) or "").strip() or None


def _number(row: Mapping[str, str], key: str) -> float | None:
    word = _text(row, key)
    if word is None:
        return None
    try:
        value = float(word)
    except ValueError:
        raise _RowError(f"{key} is no number: {word!r}") from None
    if not math.isfinite(value):
        raise _RowError(f"{key} is no number: {word!r}")
    return value


def _flag(row: Mapping[str, str], key: str) -> float | None:
    """1 or 0, which a spreadsheet may also write as true or false, yes or no."""
    return _number({key: _FLAGS.get((row.get(key) or "").lower(), row.get(key) or "")}, key)


def _count(row: Mapping[str, str], key: str, least: int = 1) -> int | None:
    value = _number(row, key)
    if value is None:
        return None
    most = _MAX_LAYERS if key in ("n_layers", "pp", "vp") else _MAX_COUNT
    if not least <= value <= most or value != int(value):
        raise _RowError(f"{key} is {value:g}, not a whole number of at least {least} and at most {most:,.0f}")
    return int(value)


def _required_text(row: Mapping[str, str], key: str) -> str:
    word = _text(row, key)
    if word is None:
        raise _RowError(f"{key} is not stated")
    return word
