"""The accelerator of a run: which device and size, its chips and memory, and who starts processes there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, UnknownName
from tunemark.experiment.experiment import GridPoint
from tunemark.number_format import GIB, format_gib
from tunemark.physics.chip_peaks import explain_missing_peak, find_chip, find_peak, parse_precision
from tunemark.plugin.catalog import Catalog
from tunemark.plugin.descriptors import Accelerator, LaunchConfig, Launcher, Strategy
from tunemark.plugin.protocols import Device, ExplainsAbsence, LimitsMemory, ListsDocumentedSizes, RunsRemotely

# Settings by which a user says what an accelerator is made of.
DECLARED_SETTINGS = ("chip", "chips", "peak_flops", "memory")


def expand_sizes(point: GridPoint, catalog: Catalog) -> list[GridPoint]:
    """The point, or for the size `all` one point per size that its device offers (if absent, per documented size)."""
    if point["size"] != "all":
        return [point]
    device = find_device(point, catalog, None, [])
    sizes = list(device.accelerators()) or list(
        device.documented_sizes() if isinstance(device, ListsDocumentedSizes) else ()
    )
    if not sizes:
        raise BadExperiment(
            what=f"there is no {device.name} on this machine, but all its sizes are requested",
            why=size_source(point),
            next="name the sizes; see `tunemark list devices`",
        )
    return [replace(point, values={**point.values, "size": size.name}) for size in sizes]


# Other common names of devices, of which the nearest in letters is another one.
_GPUS = "--device cuda for GPUs of NVIDIA, rocm for those of AMD; `tunemark list devices` shows what is here"
_OTHER_DEVICES = {
    **dict.fromkeys(("gpu", "gpus", "nvidia"), _GPUS),
    **dict.fromkeys(("hip", "amd"), "--device rocm"),
    **dict.fromkeys(("tpu", "tpus"), "--device xla"),
    "mps": "--device cpu: Apple's GPUs are no device yet",
}


def find_device(point: GridPoint, catalog: Catalog, python: str | None, notes: list[str]) -> Device:
    """The device of a point; with `auto`, a GPU that is here and that torch is built for, else the CPU, with a note."""
    if point["device"] != "auto":
        try:
            return point.look_up("device", catalog.device, point["device"])
        except UnknownName as error:
            next = _OTHER_DEVICES.get(point["device"].lower()) or f"{error.next}. {_chip_hint(point['device'])}"
            raise UnknownName(what=error.what, why=error.why, next=next) from error
    cuda = catalog.devices().get("cuda")
    if cuda is None:
        why = "no plugin offers cuda"
    elif not cuda.accelerators():
        why = "no cuda accelerator is present"
    else:
        built_for = _torch_is_built_for(python)
        if built_for:
            notes.append(f"device auto is cuda: an accelerator is present and torch is built for {built_for}")
            return cuda
        why = "an accelerator is present, but the training interpreter's torch is not built for cuda or hip"
    notes.append(f"device auto is cpu: {why}")
    return point.look_up("device", catalog.device, "cpu")


def _chip_hint(name: str) -> str:
    """How to use the name of a chip, where it was given as a device."""
    hint = "`tunemark plan --strategy auto` accepts a chip's name"
    try:
        chip = find_chip(name).name
    except UnknownName:
        return f"{hint}; {explain_missing_peak(name, 'bf16')}"
    flags = f"--device cuda:8 --chip {chip} --chips 8 --oversubscribe"
    return f"{chip} is a chip: {hint}; to plan or predict one given layout, use {flags}"


def _torch_is_built_for(python: str | None) -> str | None:
    """ "cuda 12.8" or "hip 6.2", read from the text of torch's version.py, as importing torch would take seconds."""
    if python is None:
        found = importlib.util.find_spec("torch")
        files = [Path(found.origin).with_name("version.py")] if found and found.origin else []
    else:
        files = sorted(Path(python).parent.parent.glob("lib*/python*/site-packages/torch/version.py"))
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError:
            continue
        # cuda: Optional[str] = '12.8'
        match = re.search(r"^(cuda|hip)\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
        if match:
            return f"{match[1]} {match[2]}"
    return None


def find_local(point: GridPoint, device: Device, catalog: Catalog) -> Accelerator:
    """The accelerator of a point on this machine; one that is not there, or is larger, needs --oversubscribe."""
    present = device.accelerators()
    size: str | None = point["size"]
    if size is None:
        if not present:
            raise BadExperiment(
                what=f"there is no {device.name} on this machine",
                why=_explain_absence(device, point.place("device")),
                next="see `tunemark list devices`; to plan for another machine, name a size and --oversubscribe",
            )
        size = device.default_size()
    found = device.accelerator(size)
    source = size_source(point)
    names = ", ".join(a.name for a in present) or "none on this machine"
    if found is None:
        hint = f"{device.name} offers: {names}"
        if size in catalog.devices() or size == "auto":
            hint += f". After a device with a size, the next device needs one too: {size}:SIZE"
        raise BadExperiment(what=f"{device.name} has no size {size!r}", why=source, next=hint)
    if found.oversubscribed and not point["oversubscribe"]:
        raise BadExperiment(
            what=f"{device.name}:{size} is more than this machine has",
            why=f"{_explain_absence(device, source) if not present else source}; {device.name} offers: {names}",
            next="choose a smaller size, or add --oversubscribe to plan or to test that it works (not to measure)",
        )
    return found


def _explain_absence(device: Device, place: str) -> str:
    return f"{place}: {device.absence()}" if isinstance(device, ExplainsAbsence) else place


def find_remote(point: GridPoint, device: Device, launcher: Launcher) -> Accelerator:
    """The accelerator on the launcher's machines, which this machine's hardware says nothing about."""
    if not isinstance(device, RunsRemotely):
        raise BadExperiment(
            what=f"{device.name} only runs on this machine",
            why=f"{point.place('launcher')}: {launcher.name} starts processes on other machines",
            next="--launcher local",
        )
    size: str | None = point["size"]
    if size is None or point["device"] == "auto":
        raise BadExperiment(
            what=f"the launcher {launcher.name!r} needs a device with a size",
            why=f"{point.place('device')}; sizes of other machines cannot be detected from this one",
            next="for example --device cpu:4, or --device cuda:8 --chip h100 --chips 8",
        )
    found = device.remote_accelerator(size)
    if found is None:
        raise BadExperiment(what=f"{device.name} has no size {size!r}", why=size_source(point), next="a number: cpu:4")
    return replace(found, oversubscribed=point["oversubscribe"])


def make_launch(device: Device, accelerator: Accelerator, strategy: Strategy, launcher: Launcher) -> LaunchConfig:
    """How the device starts processes: on this machine, or on the launcher's."""
    if launcher.is_remote:
        assert isinstance(device, RunsRemotely), "other devices are refused earlier"
        return device.remote_launch(accelerator, strategy)
    return device.launch(accelerator, strategy)


def is_memory_limited(values: Mapping[str, Any]) -> bool:
    """Whether --memory limits what a job may use, instead of saying what a declared chip has."""
    return values.get("memory") is not None and all(
        values.get(name) is None for name in ("chip", "chips", "peak_flops")
    )


def limit_memory(
    point: GridPoint, device: Device, accelerator: Accelerator, launch: LaunchConfig
) -> tuple[Accelerator, LaunchConfig]:
    """The accelerator and the launch of a job that --memory holds to less than there is."""
    limit_bytes, has_bytes = round(point["memory"] * GIB), accelerator.memory_bytes
    if not isinstance(device, LimitsMemory) or not accelerator.is_present:
        raise BadExperiment(
            what=f"{device.name}:{accelerator.name} cannot be held to less memory",
            why=f"{point.place('memory')}; "
            + ("the device has no limit to set" if accelerator.is_present else "it is not on this machine"),
            next="to say what a chip has, give --chip and --chips too",
        )
    if has_bytes is not None and limit_bytes > has_bytes:
        raise BadExperiment(
            what=f"a limit of {point['memory']:g} GiB is more than {device.name}:{accelerator.name} has",
            why=f"{point.place('memory')}; it has {format_gib(has_bytes)} GiB",
            next="--memory with less, or leave it out",
        )
    parts = None if accelerator.parts is None else limit_bytes // accelerator.parts
    limited = replace(accelerator, memory_bytes=limit_bytes, part_memory_bytes=parts)
    return limited, device.limit_memory(launch, limit_bytes)


def declare_chips(point: GridPoint, accelerator: Accelerator) -> Accelerator:
    """The accelerator with the chips of --chip and --chips, and with their --peak-flops and --memory, if given."""
    given = [name for name in DECLARED_SETTINGS if point.values.get(name) is not None]
    if not given or is_memory_limited(point.values):
        return accelerator
    missing = [name for name in ("chip", "chips") if name not in given]
    if missing:
        flag = "--" + given[0].replace("_", "-")
        raise BadExperiment(
            what=f"{flag} has no effect without --{missing[0]}",
            why=point.place(given[0]),
            next="give both --chip and --chips: the chip model, and how many of these chips the size has",
        )
    chip, chips, words = str(point["chip"]), int(point["chips"]), "declared by --chip and --chips"
    peak_flops, memory = point.values.get("peak_flops"), point.values.get("memory")
    peaks: dict[str, float] = {}
    memory_bytes = accelerator.memory_bytes
    try:
        found = find_chip(chip)
    except UnknownName as error:
        if peak_flops is None and memory is None:
            how = "declare it: --peak-flops FLOP/s of one in the run's precision, --memory GiB of one"
            raise UnknownName(what=error.what, why=error.why, next=f"{how}; or {error.next}") from error
    else:
        chip = found.name
        published = (find_peak(chip, name, chips) for name in found.flops)
        known = [peak for peak in published if peak is not None and peak.is_ceiling]
        peaks = {peak.precision: peak.flops for peak in known}
        words += f"; peak: {known[0].source}" if known else ""
    if peak_flops is not None:
        precision = parse_precision(point["precision"])
        assert precision is not None, "every precision that trains multiplies in a known one"
        peaks = {precision: peak_flops * chips}
        words = f"declared by --chip and --chips; peak in {precision} declared by --peak-flops"
    if memory is not None:
        memory_bytes = round(memory * GIB) * chips
        words += "; memory declared by --memory"
    return replace(accelerator, chip=chip, chips=chips, peak_flops=peaks, memory_bytes=memory_bytes, source=words)


def size_source(point: GridPoint) -> str:
    """Where the size was given, which may have been after the device's name."""
    return point.place("size" if "size" in point.sources else "device")
