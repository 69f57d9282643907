"""How a run computes attention, the loss and the update: what `auto` means for it, and what cannot be."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.finetuning_method import Method
from tunemark.experiment.recipes import CPU, GPU, device_class
from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.physics.chip_peaks import parse_precision
from tunemark.physics.parameters import adaptable_matrices, layer_matrices
from tunemark.plugin.descriptors import Architecture, LaunchConfig, Model, Strategy
from tunemark.plugin.protocols import ChoosesAllocator, Device
from tunemark.version_order import is_older
from tunemark_worker.optimizer import OPTIMIZERS
from tunemark_worker.precision import PRECISIONS
from tunemark_worker.training_settings import IN_BACKWARD

# The first release of transformers whose models pass a mask of any kind to attention.
PASSES_MASKS = "4.53"
# Of every dimension of a product in fp8: torch's `_scaled_mm`.
_FLOAT8_MULTIPLE = 16
# Values that have a scale in common in the OCP's microscaling formats, and the chips that multiply them.
_BLOCK = 32
_BLOCK_SCALED = ("B200", "B300")
# Attentions whose kernels on a GPU take 16-bit numbers alone.
_HALF_ONLY = ("flash",)


def choose_attention(point: GridPoint, model: Model, device: str, python: str | None) -> str:
    """The attention of a run; raises `BadExperiment` for one that the model or the device does not have."""
    asked, kind = point["attention"], device_class(device)
    known = model.supports.get("attention", ())
    if asked == "auto":
        # Another program's loop does not say where documents lie.
        is_own = point.values.get("trainer") in (None, SETTINGS_BY_NAME["trainer"].default)
        is_better = is_own and kind == CPU and point["batching"] == "pack" and "varlen" in known
        return "varlen" if is_better and _passes_masks(python) else "auto"
    if asked not in known:
        raise _refuse(point, f"{model.name} cannot compute attention by {asked}", "", known)
    if kind == CPU and asked in ("flash", "flex"):
        needs = {"flash": "flash-attn has no kernel", "flex": "FlexAttention has no backward pass"}
        others = [each for each in known if each not in needs]
        raise _refuse(point, f"{device} cannot compute attention by {asked}", f"{needs[asked]} for CPUs", others)
    if kind == GPU and asked == "varlen":
        why = "each document would be a kernel of its own; `flash` takes all documents of a row at once"
        raise _refuse(
            point, f"{device} cannot compute attention by varlen", why, [each for each in known if each != asked]
        )
    if kind not in (CPU, GPU) and asked in ("varlen", "flash", "flex"):
        why = "its runtime compiles what transformers computes by itself"
        raise _refuse(point, f"{device} cannot compute attention by {asked}", why, ("eager", "sdpa"))
    if kind == GPU and asked in _HALF_ONLY and point["precision"] == "fp32":
        why = f"the kernels are for bf16, and the precision is fp32 ({point.place('precision')})"
        raise _refuse(point, f"{device} cannot compute attention by {asked} in fp32", why, ("sdpa", "eager"))
    return str(asked)


def _refuse(point: GridPoint, what: str, why: str, others: Any) -> BadExperiment:
    words = [f"--attention {each}" for each in ("auto", *others) if each != point["attention"]]
    return BadExperiment(
        what=what, why="; ".join(part for part in (point.place("attention"), why) if part), next=" or ".join(words)
    )


def _passes_masks(python: str | None) -> bool:
    """Whether the training interpreter's transformers is new enough. Unknown is no: the run is then as before."""
    if python is None:
        try:
            version = metadata.version("transformers")
        except metadata.PackageNotFoundError:
            return False
        return not is_older(version, PASSES_MASKS)
    folders = Path(python).parent.parent.glob("lib*/python*/site-packages/transformers-*.dist-info")
    versions = [each.name.removesuffix(".dist-info").partition("-")[2] for each in folders]
    return bool(versions) and not any(is_older(version, PASSES_MASKS) for version in versions)


def check_loss(point: GridPoint, model: Model, device: str, degrees: Collection[str]) -> None:
    """Raise `BadExperiment` for a loss that the model, the device or the layout does not have. degrees: the axes'."""
    asked = point["loss"]
    if asked == "plain":
        return
    what = f"the loss cannot be {asked}"
    why, next = "", "--loss plain"
    if asked not in model.supports.get("loss", ()):
        why = f"the runtime of {model.name} computes the scores of all tokens"
    elif asked == "fused" and device_class(device) != GPU:
        why, next = f"liger-kernel has no kernels for {device}", "--loss chunked"
    elif device_class(device) not in (CPU, GPU):
        why = f"the runtime of {device} compiles what the model computes by itself"
    elif {"tensor", "pipeline"} & set(degrees):
        why, next = (
            "the head's weight is divided, or in another process than the loss",
            "--loss plain, or --strategy fsdp",
        )
    if why:
        raise BadExperiment(what=what, why=f"{point.place('loss')}; {why}", next=next)


def check_compile(point: GridPoint, device: str, degrees: Collection[str]) -> None:
    """Raise `BadExperiment` for a device or a layout whose model is not compiled. degrees: the axes'."""
    why = ""
    if point["compile"] == "off":
        return
    if device_class(device) not in (CPU, GPU):
        why = f"the runtime of {device} compiles what the model computes by itself"
    elif {"tensor", "pipeline"} & set(degrees):
        why = "a model that is divided within its layers or among stages has not been shown to compile"
    elif point["compile"] == "full" and "shard" in degrees:
        why = "sharded weights are gathered layer by layer: --compile regional"
    elif point["batching"] == "bucket":
        why = (
            "--batching bucket makes micro-batches of many widths, and each new one would be compiled while steps are "
        )
        why += "timed: --batching pack or pad can be compiled"
    if why:
        what = f"the model cannot be compiled ({point['compile']})"
        raise BadExperiment(what=what, why=f"{point.place('compile')}; {why}", next="--compile off")


def check_float8(point: GridPoint, a: Architecture, peaks: Collection[str], chip: str) -> None:
    """Raise `BadExperiment` where products in fp8 cannot be, or would be few. peaks: the precisions in which the
    device's rate of products is known. chip: the device's, as far as it is known."""
    if not PRECISIONS[point["precision"]].float8:
        return
    slots, next = point["micro_batch"] * point["sequence"], "--precision bf16-autocast"
    is_blocked = PRECISIONS[point["precision"]].float8 == "mx"
    multiple = _BLOCK if is_blocked else _FLOAT8_MULTIPLE
    sizes = {size for m in layer_matrices(a) for size in (m.inputs, m.outputs)} if a.traced is None else set()
    why = ""
    if parse_precision(point["precision"]) not in peaks:
        why = (
            "the device is not known to have products in fp8, as have NVIDIA's chips of compute capability 8.9 and "
            "newer (L4, H100, B200) and AMD's MI300 and newer"
        )
        next += "" if peaks else "; or say which chip it is: --device cuda --chip H100 --chips 1"
    elif is_blocked and not any(name in chip.upper() for name in _BLOCK_SCALED):
        why = "products scaled by blocks are known of NVIDIA's chips of compute capability 10: B200, GB200, B300, GB300"
        next = f"--precision fp8, or {next}"
    elif a.traced is not None or a.num_local_experts:
        why = f"of {a.model_type} not all matrices of the layers are torch's linear modules"
    elif "c_attn" in adaptable_matrices(a):
        why = f"matrices of {a.model_type} are stored transposed, in modules that torchao does not convert"
    elif point["method"] != "full":
        why = f"adapters are multiplied in 16 bits ({point.place('method')})"
        next += ", or --method full"
    elif any(size % multiple for size in sizes) or slots % multiple or point["batching"] == "bucket":
        why = (
            f"its kernels take multiples of {multiple}: matrices of {', '.join(map(str, sorted(sizes)))}, "
            f"micro-batches of {slots} slots (batching {point['batching']})"
        )
    if why:
        what = f"precision {point['precision']} cannot be trained in like this"
        raise BadExperiment(what=what, why=f"{point.place('precision')}; {why}", next=next)


def check_quantization(point: GridPoint, method: Method, device: str) -> None:
    """Raise `BadExperiment` where adapters cannot be trained beside matrices of 4 bits."""
    if not method.is_quantized:
        return
    next = "--method lora"
    other = {
        "compile": ("off", "a model with matrices of 4 bits has not been shown to compile"),
        "save": (None, "adapters are not merged into matrices of 4 bits"),
    }
    why = ""
    if device_class(device) not in (CPU, GPU):
        why = f"bitsandbytes has no kernels for {device}"
    else:
        for name, (value, words) in other.items():
            if point.values.get(name, value) != value:
                setting = SETTINGS_BY_NAME[name]
                why = f"{words} ({point.place(name)})"
                next = f"{f'{setting.flag} {value}' if value else f'leave out {setting.flag}'}, or --method lora"
    if why:
        raise BadExperiment(what="qlora cannot train like this", why=f"{point.place('method')}; {why}", next=next)


def check_optimizer(point: GridPoint, device: str, degrees: Collection[str]) -> None:
    """Raise `BadExperiment` for an optimizer that the device or the layout does not have, or for an implementation that
    the optimizer does not have. degrees: the axes'."""
    facts = OPTIMIZERS[point["optimizer"]]
    if not facts.has_choice:
        what, why, next = f"{point['optimizer']} cannot update", "", "--optimizer adamw"
        if device_class(device) not in (CPU, GPU):
            why = f"{facts.package} has no kernels for {device}"
        elif {"shard", "tensor"} & set(degrees) or len(degrees) > 1:
            why = f"{facts.package} updates whole tensors, and this strategy divides or wraps them"
            next = "--strategy none or ddp, or --optimizer adamw"
        elif point["optimizer_impl"] != "auto":
            what = f"{point['optimizer']} has no implementation {point['optimizer_impl']}"
            raise BadExperiment(
                what=what, why=f"{point.place('optimizer_impl')}; it is {facts.package}'s", next="--optimizer-impl auto"
            )
        if why:
            raise BadExperiment(what=what, why=f"{point.place('optimizer')}; {why}", next=next)
    if point["optimizer_impl"] == "fused" and not OPTIMIZERS[point["optimizer"]].has_fused:
        raise BadExperiment(
            what=f"{point['optimizer']} cannot be fused",
            why=f"{point.place('optimizer_impl')}; torch has no such kernel",
            next="--optimizer-impl foreach",
        )


def check_update(point: GridPoint, device: str, strategy: Strategy, accumulation: int) -> None:
    """Raise `BadExperiment` where weights cannot be updated in the backward pass. accumulation: the micro-batches of a
    step."""
    if point["update"] != IN_BACKWARD:
        return
    next = "--update at-end"
    if device_class(device) not in (CPU, GPU):
        why = f"the runtime of {device} compiles a step as a whole"
    elif strategy.is_search:
        why = f"a layout of several processes could be chosen ({point.place('strategy')})"
        next = f"--strategy none, or {next}"
    elif strategy.distributed:
        why = f"a gradient is averaged over ranks after it is there ({point.place('strategy')})"
        next = f"--strategy none, or {next}"
    elif not OPTIMIZERS[point["optimizer"]].has_choice:
        facts = OPTIMIZERS[point["optimizer"]]
        why = f"{point['optimizer']} is {facts.package}'s, which has not been shown to update weights one by one"
        next = f"--optimizer adamw, or {next}"
    elif point["clip_norm"] > 0:
        why = f"gradients are clipped by the norm of all, which must then exist together ({point.place('clip_norm')})"
        next = f"--clip-norm 0, or {next}"
    elif accumulation > 1:
        why = f"a gradient is the sum over {accumulation} micro-batches ({point.place('global_batch')})"
        next = f"--global-batch {point['micro_batch']}, or {next}"
    else:
        return
    raise BadExperiment(
        what="weights cannot be updated in the backward pass", why=f"{point.place('update')}; {why}", next=next
    )


def check_activations(point: GridPoint, device: str, strategy: Strategy, degrees: Collection[str]) -> None:
    """Raise `BadExperiment` where activations cannot wait in host memory. degrees: the axes'."""
    if point["activations"] == "device":
        return
    next = "--activations device"
    kind = device_class(device)
    if kind == CPU:
        why = "a CPU's activations are in host memory already"
    elif kind != GPU:
        why = f"the runtime of {device} compiles a step as a whole"
    elif point["checkpointing"] != "none":
        why = f"they are freed, and computed again ({point.place('checkpointing')})"
        next = f"--checkpointing none, or {next}"
    elif point["compile"] != "off":
        why = f"what a compiled layer keeps is not moved ({point.place('compile')})"
        next = f"--compile off, or {next}"
    elif strategy.is_search or not degrees or set(degrees) - {"single", "data"}:
        why = f"that has been built for one process and for copies of the model ({point.place('strategy')})"
        next = f"--strategy none or ddp, or {next}"
    else:
        return
    raise BadExperiment(
        what="activations cannot wait in host memory", why=f"{point.place('activations')}; {why}", next=next
    )


def check_thread_binding(point: GridPoint, device: str, launch: LaunchConfig) -> None:
    """Raise `BadExperiment` where threads cannot be bound to a core each."""
    if point["thread_binding"] == "process":
        return
    why = ""
    cores = launch.options.get("cores")
    if device_class(device) != CPU:
        why = f"threads of a job on {device} mostly wait for it"
    elif not hasattr(os, "sched_setaffinity"):
        why = "this system does not let a program choose its threads' cores"
    elif isinstance(cores, Sequence) and not isinstance(cores, str) and len(set(cores[0])) < launch.threads:
        why = f"{launch.threads} threads have {len(set(cores[0]))} cores"
    if why:
        why = f"{point.place('thread_binding')}; {why}"
        raise BadExperiment(what="threads cannot each have a core", why=why, next="--thread-binding process")


def choose_allocator(point: GridPoint, device: Device, environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment of a job with its allocator; raises `BadExperiment` for one that the device does not choose."""
    asked = point["allocator"]
    if asked == SETTINGS_BY_NAME["allocator"].default:
        return environment
    if not isinstance(device, ChoosesAllocator):
        raise BadExperiment(
            what=f"{device.name} does not choose an allocator",
            why=point.place("allocator"),
            next="--allocator tuned, which leaves it as it is",
        )
    try:
        return {**environment, **device.allocator_environment(asked)}
    except BadExperiment as error:
        why = "; ".join(part for part in (point.place("allocator"), error.why) if part)
        raise BadExperiment(what=error.what, why=why, next=error.next) from error
