"""Checks of a layout of data, tensor and pipeline parallelism against the model and the batch, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.plugin.descriptors import Architecture, LayoutSettings, Schedule, StrategyAxis
from tunemark.plugin.traced_model import TracedModel
from tunemark_torch.parallel.projection_names import BLOCK_NAMES, COLUMN_PROJECTIONS, FUSED_PROJECTIONS, ROW_PROJECTIONS
from tunemark_worker.row_packing import WIDTH_MULTIPLE

SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b", "interleaved", "zb", "zbv")
_SCHEDULE_NAMES: Mapping[str, Schedule] = {name: name for name in SCHEDULES}
# Pipeline schedules in which a process holds several stages.
MULTI_STAGE_SCHEDULES = ("interleaved", "zb", "zbv")
_BOOLEANS = ("true", "false")


def layout_settings(options: Mapping[str, str]) -> LayoutSettings:
    """The settings of the layout that a strategy's options give, where these are valid."""
    schedule = _SCHEDULE_NAMES.get(options.get("schedule", "1f1b"), "1f1b")
    return LayoutSettings(
        reshard=options.get("reshard", "true") == "true",
        sequence_parallel=options.get("sequence_parallel", "false") == "true",
        schedule=schedule,
        virtual=int(options.get("virtual", "2")) if schedule in MULTI_STAGE_SCHEDULES else 1,
    )


def one_data_rank(degree: int) -> int:
    """Number of distinct batches: all ranks of the axis see the same one."""
    return 1


def micro_batches_to_fill(axis: StrategyAxis) -> int:
    """The fewest micro-batches that fill the pipeline: one per rank of the axis."""
    return axis.degree


def refusal(axes: Sequence[StrategyAxis], a: Architecture, settings: Mapping[str, Any]) -> str | None:
    """Why this layout cannot train this model, with what to change; None if it can."""
    by_name = {axis.strategy: axis for axis in axes}
    names = list(by_name)
    if {"ddp", "fsdp"} <= set(names) and names.index("ddp") > names.index("fsdp"):
        return "ddp replicates what fsdp shards: write ddp before fsdp"
    for axis in axes:
        if problem := _CHECKS[axis.strategy](axis, a, settings):
            return problem
    return None


# The oldest torch with which each strategy has trained what one process trains, and why not an older one: found with
# benchmarks/interpreters.py on CPUs, with torch 1.13.1, 2.1.0, 2.4.1, 2.6.0, 2.9.1 and 2.13.0. On GPUs nothing was run;
# there a strategy needs what it calls.
_SHOWN_ON_CPU = {
    "tp": "2.4",  # DTensor and its parallel layers
    "fsdp": "2.9",  # 2.6: the host's stream has no `record_event`; 2.4 asks for CUDA
    "pp": "2.9",  # 2.6 waits for ever; 2.4 wants to see an input
}
_CALLED_ON_GPUS = {"tp": "2.4", "fsdp": "2.6", "pp": "2.6"}
# 2.9 loses the connection between the ranks.
_ZBV_ON_CPU = "2.13"
# Copies of what is divided by tp or pp: `replicate` of torch 2.9 takes no mesh. With fsdp it is not used.
_COPIES_IN_PRODUCT = "2.13"
# Stages of sharded layers: torch 2.9 sees another shape than it was told (PipeliningShapeError).
_PP_WITH_TP = "2.13"
# gloo has no bf16 before: "Invalid scalar type".
_BF16_ON_CPU = "2.4"


def layout_versions(axes: Sequence[StrategyAxis], settings: Mapping[str, Any]) -> Mapping[str, str]:
    """The oldest torch for these axes on this device in this precision; empty if every one that the worker runs on."""
    is_cpu = settings["device"] == "cpu"
    shown = _SHOWN_ON_CPU if is_cpu else _CALLED_ON_GPUS
    names = {axis.strategy for axis in axes}
    needed = [shown[name] for name in names if name in shown]
    if "ddp" in names and len(axes) > 1 and "fsdp" not in names:
        needed.append(_COPIES_IN_PRODUCT)
    if {"pp", "tp"} <= names:
        needed.append(_PP_WITH_TP)
    if is_cpu and any(axis.options.get("schedule") == "zbv" for axis in axes):
        needed.append(_ZBV_ON_CPU)
    if is_cpu and settings["precision"] == "bf16":
        needed.append(_BF16_ON_CPU)
    return {"torch": max(needed, key=lambda version: [int(part) for part in version.split(".")])} if needed else {}


# transformers 5.23, modeling_falcon.py: `mlp_output += attention_output`. Of a view of a DTensor torch refuses it.
_ADDS_IN_PLACE = ("falcon",)


def _check_data(axis: StrategyAxis, a: Architecture, settings: Mapping[str, Any]) -> str | None:
    traced = a.traced
    if traced is not None and traced.unused and settings["method"] == "full":
        return f"{axis.strategy} waits for a gradient of each weight, and text does not reach {traced.unused[0]}"
    shared = [m.path for layer in traced.kinds for m in layer.matrices if not m.is_own] if traced is not None else []
    if axis.strategy == "fsdp" and str(settings.get("method", "")).startswith("qlora"):
        return "fsdp shards weights of any number of bits but 4: use ddp, or --method lora"
    if axis.strategy == "fsdp" and shared:
        return f"fsdp shards each layer by itself, and layers have {shared[0]} in common: use ddp"
    return _check_boolean(axis, "reshard")


def _check_tensor(axis: StrategyAxis, a: Architecture, settings: Mapping[str, Any]) -> str | None:
    degree = axis.degree
    if problem := _check_boolean(axis, "sequence_parallel"):
        return problem
    if "fp8" in str(settings.get("precision", "")):
        return "tp divides torch's own linear modules, and with fp8 they are torchao's: use ddp or fsdp"
    if settings["method"] != "full":
        return "tp shards weight matrices by name and does not support adapters: use ddp, fsdp or pp, or --method full"
    if a.num_hidden_layers == 0:
        return "tp shards layers, and this model has none"
    if a.model_type in _ADDS_IN_PLACE:
        return f"tp hands a block's output on as a view, to which {a.model_type}'s code adds in place: use ddp or fsdp"
    if a.traced is not None and (problem := _find_obstacle(a.traced, degree)):
        return problem
    for what, number in (("attention heads", a.num_attention_heads), ("key and value heads", a.num_key_value_heads)):
        if number % degree:
            return f"tp:{degree} cannot divide {number} {what}: use a degree that divides them"
    # Of a traced model this is an average, and its matrices were looked at.
    if a.traced is None and a.intermediate_size % degree:
        return f"tp:{degree} cannot divide an MLP of {a.intermediate_size}: use a degree that divides it"
    if axis.options.get("sequence_parallel") == "true" and settings["sequence"] % degree:
        return f"tp:{degree} cannot divide a sequence of {settings['sequence']}: use a multiple as --sequence"
    if (
        axis.options.get("sequence_parallel") == "true"
        and settings.get("batching") == "bucket"
        and WIDTH_MULTIPLE % degree
    ):
        return (
            f"tp:{degree} cannot divide rows of every multiple of {WIDTH_MULTIPLE} tokens, as --batching bucket makes "
            "them: use --batching pad or pack, or sequence_parallel=false"
        )
    return None


def _find_obstacle(traced: TracedModel, degree: int) -> str | None:
    """Why a family without a formula cannot be divided by the names of its projections; None where it can."""
    if traced.ends_obstacle:
        return f"tp divides what comes before and after the layers: {traced.ends_obstacle}; use ddp or fsdp"
    is_any = False
    for layer in traced.kinds:
        # By module of the layer: the names of what it holds.
        held: dict[str, set[str]] = {}
        for parameter in layer.parameters:
            block, *rest = parameter.name.split(".")
            held.setdefault(block, set()).add(rest[0] if rest else "")
        blocks = {block for block, names in held.items() if names & {*COLUMN_PROJECTIONS, *FUSED_PROJECTIONS}}
        is_any = is_any or bool(blocks)
        for block in blocks:
            if unknown := sorted(held[block] - set(BLOCK_NAMES)):
                return f"tp divides weights by name and does not know {block}.{unknown[0]}: use fsdp"
        for matrix in layer.matrices:
            block, _, name = matrix.path.partition(".")
            width = matrix.inputs if name in ROW_PROJECTIONS else matrix.outputs
            if block in blocks and width % degree:
                return f"tp:{degree} cannot divide {matrix.path} of {width}: use a degree that divides it"
    if not is_any:
        names = sorted({matrix.path for layer in traced.kinds for matrix in layer.matrices})
        return f"tp divides weights by name and knows none of {', '.join(names[:4]) or 'its weights'}: use fsdp"
    return None


def _check_pipeline(axis: StrategyAxis, a: Architecture, settings: Mapping[str, Any]) -> str | None:
    if str(settings.get("method", "")).startswith("qlora"):
        return "pp has not been tried with matrices of 4 bits: use ddp, or --method lora"
    if "fp8" in str(settings.get("precision", "")):
        return "pp has not been tried with products in fp8: use ddp or fsdp"
    if a.traced is not None and a.traced.pipeline_obstacle:
        return f"its layers cannot be divided among processes: {a.traced.pipeline_obstacle}; use ddp or fsdp"
    if settings.get("batching") == "bucket":
        return (
            "pp passes hidden states of one shape from stage to stage, and --batching bucket makes micro-batches of "
            "different widths: use --batching pack or pad, or ddp or fsdp"
        )
    schedule = axis.options.get("schedule", "1f1b")
    if schedule not in SCHEDULES:
        return f"there is no schedule {schedule!r}: use one of {', '.join(SCHEDULES)}"
    is_multi_stage = schedule in MULTI_STAGE_SCHEDULES
    if "virtual" in axis.options and (not is_multi_stage or not axis.options["virtual"].isdecimal()):
        names = ", ".join(MULTI_STAGE_SCHEDULES)
        return f"virtual=N, a number of stages per process, is an option of the schedules {names}"
    per_rank = int(axis.options.get("virtual", "2")) if is_multi_stage else 1
    if per_rank < 1 or (schedule == "zbv" and per_rank != 2):
        return f"{schedule} with {per_rank} stages per process: zbv needs exactly 2, the others at least 1"
    stages = axis.degree * per_rank
    if stages > a.num_hidden_layers:
        return f"{a.num_hidden_layers} layers do not fill {stages} stages: use a smaller degree" + (
            ", or a smaller virtual=N" if is_multi_stage else ""
        )
    micro_batches = settings["gradient_accumulation"]
    fewest = {"gpipe": 1, "zbv": 2 * axis.degree}.get(schedule, axis.degree)
    unit = "micro-batches (global batch / micro-batch / data ranks)"
    if micro_batches < fewest:
        return (
            f"{schedule} needs at least {fewest} {unit}, there are {micro_batches}: use a larger --global-batch, "
            "a smaller --micro-batch, or schedule=gpipe"
        )
    # torch requires that every round has the same number of micro-batches.
    rounds = max(1, micro_batches // axis.degree)
    if schedule in ("interleaved", "zb") and micro_batches % rounds:
        return (
            f"{schedule} takes {micro_batches} {unit} in {rounds} rounds, which must be equal: use another "
            f"--global-batch, preferably a multiple of {axis.degree} micro-batches"
        )
    return None


def _check_boolean(axis: StrategyAxis, option: str) -> str | None:
    value = axis.options.get(option, "true")
    return None if value in _BOOLEANS else f"{option} must be true or false, not {value!r}"


_CHECKS = {"ddp": _check_data, "fsdp": _check_data, "tp": _check_tensor, "pp": _check_pipeline}
