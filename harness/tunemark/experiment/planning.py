"""Plans of grid points: plugins resolve the names, and what cannot run is refused before a device is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, TunemarkError, UnknownName
from tunemark.experiment.batch_choice import check_training, choose_batches, choose_budget
from tunemark.experiment.device_choice import (
    DECLARED_SETTINGS,
    declare_chips,
    expand_sizes,
    find_device,
    find_local,
    find_remote,
    is_memory_limited,
    limit_memory,
    make_launch,
    size_source,
)
from tunemark.experiment.evaluation import (
    absolute_save_path,
    check_evaluation_supported,
    check_save_folder,
    check_single_save,
)
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.initial_weights import has_weights, resolve_weights
from tunemark.experiment.kernel_choice import (
    check_activations,
    check_compile,
    check_float8,
    check_loss,
    check_optimizer,
    check_quantization,
    check_thread_binding,
    check_update,
    choose_allocator,
)
from tunemark.experiment.mesh_layout import MeshLayout, check_strategies, make_mesh_layout
from tunemark.experiment.named_parts import NamedParts, find_parts, find_python
from tunemark.experiment.other_trainers import check_trainer
from tunemark.experiment.plan import Plan
from tunemark.experiment.recipes import GPU, device_class, find_recipe
from tunemark.experiment.run_spec import RunSpec, run_id
from tunemark.experiment.settings import NOTHING_SAID, SETTINGS_BY_NAME, PredictionSettings
from tunemark.experiment.value_parsing import format_named_options, parse_value
from tunemark.fields import read_fields
from tunemark.number_format import format_gib
from tunemark.physics import count_slot_flops, memory_floor_bytes
from tunemark.physics.chip_peaks import find_chip
from tunemark.plugin.catalog import Catalog
from tunemark.plugin.descriptors import Accelerator
from tunemark.plugin.protocols import ChecksRuns, Device
from tunemark_worker.training_settings import IN_BACKWARD


def make_plans(points: Sequence[GridPoint], catalog: Catalog) -> list[Plan]:
    """The plans of all points; duplicate runs are kept once, with a note."""
    sizes = {(point["device"], point["size"]) for point in points}
    if len(sizes) > 1 and any(point.values.get("chips") for point in points):
        raise BadExperiment(
            what="--chips is the number of chips of one size, but several sizes are requested",
            why=points[0].place("chips"),
            next="run one size at a time; `tunemark report` combines their results",
        )
    plans: dict[str, Plan] = {}
    counts: dict[str, int] = {}
    for point in (sized for each in points for sized in expand_sizes(each, catalog)):
        plan = make_plan(point, catalog)
        plans.setdefault(plan.run_id, plan)
        counts[plan.run_id] = counts.get(plan.run_id, 0) + 1
    for name, count in counts.items():
        if count > 1:
            note = f"run {name} is requested {count} times and is measured once"
            plans[name] = replace(plans[name], notes=(*plans[name].notes, note))
    check_single_save(list(plans.values()))
    return list(plans.values())


def make_possible_plans(points: Sequence[GridPoint], catalog: Catalog) -> tuple[list[Plan], list[BadExperiment]]:
    """The plans of the points that can be planned, and why the others cannot be: for whoever asks without running, that
    a strategy does not fit one of several sizes is part of the answer. Raises for a name that nothing has."""
    try:
        return make_plans(points, catalog), []
    except BadExperiment as error:
        if len(points) == 1 and points[0]["size"] != "all":
            return [], [error]
    possible, misfits = [], []
    for point in (sized for each in points for sized in expand_sizes(each, catalog)):
        try:
            make_plan(point, catalog)
            possible.append(point)
        except BadExperiment as error:
            misfits.append(error)
    return make_plans(possible, catalog) if possible else [], misfits


def make_plan(point: GridPoint, catalog: Catalog) -> Plan:
    """The plan of one point; a `TunemarkError` names the value, where it was given, and what to do."""
    if point.values.get("recipe") is None:
        return _make_plan(point, catalog)
    return _plan_recipe(point, catalog)


def _plan_recipe(point: GridPoint, catalog: Catalog) -> Plan:
    """The plan of a point with the rungs of its recipe. A rung that cannot be planned is left out, with a note that
    says why; so is one whose setting the user gave."""
    device = find_device(point, catalog, find_python(point), [])
    recipe = find_recipe(point["recipe"], device.name)
    plan, notes = _make_plan(point, catalog), []
    for rung in recipe.rungs:
        setting = SETTINGS_BY_NAME[rung.setting]
        value = parse_value(setting, rung.value, f"recipe {recipe.title}")
        if rung.setting in point.sources:
            if point[rung.setting] != value:
                notes.append(f"recipe {recipe.title}: {setting.flag} {rung.value} is not used, since another was given")
            continue
        sources = {**point.sources, rung.setting: f"recipe {recipe.title}"}
        climbed = replace(point, values={**point.values, rung.setting: value}, sources=sources)
        try:
            plan = _make_plan(climbed, catalog)
            point = climbed
        except TunemarkError as error:
            notes.append(f"recipe {recipe.title}: {setting.flag} {rung.value} is not used: {error.one_line()}")
    used = ", ".join(f"{r.setting} {point[r.setting]}" for r in recipe.rungs if r.setting in point.sources)
    notes = [f"recipe {recipe.title}: {used or 'no setting'}", *notes]
    return replace(plan, recipe=recipe.title, notes=(*plan.notes, *notes))


def _make_plan(point: GridPoint, catalog: Catalog) -> Plan:
    """The plan of a point without a recipe."""
    notes: list[str] = []
    parts = find_parts(point, catalog, notes)
    point, model, device, strategy = parts.point, parts.model, parts.device, parts.strategy
    is_remote = parts.launcher.is_remote
    found = find_remote(point, device, parts.launcher) if is_remote else find_local(point, device, catalog)
    accelerator = declare_chips(point, found)
    if not accelerator.is_present:
        notes.append(f"{device.name}:{accelerator.name} is not on this machine: it can be planned, not run")
    if point.values.get("chip") and any(point.values.get(name) is not None for name in ("peak_flops", "memory")):
        notes.append(f"{device.name}:{accelerator.name}: {accelerator.source}, not published by a vendor")
    weights, weights_path = resolve_weights(point, model)
    if weights == "random" and os.path.isabs(model.pretrained or "") and has_weights(Path(model.pretrained or "")):
        notes.append(f"{model.name} starts from random weights; --weights pretrained loads its own")
    check_evaluation_supported(point, model, strategy)
    check_training(point, model, parts.dataset)
    launch = make_launch(device, accelerator, strategy, parts.launcher)
    if is_memory_limited(point.values):
        accelerator, launch = limit_memory(point, device, accelerator, launch)
        notes.append(f"{device.name}:{accelerator.name}: an allocation beyond {point['memory']:g} GiB fails (--memory)")
    launch = replace(launch, environment=choose_allocator(point, device, launch.environment))
    check_thread_binding(point, device.name, launch)
    _check_processes(parts, catalog, accelerator, launch.processes)
    layout = make_mesh_layout(parts.terms, parts.strategies, strategy, launch.processes, point.place("strategy"))
    global_batch, accumulation = choose_batches(point, layout, is_searched=strategy.is_search)
    resolved = {"size": accelerator.name, "strategy": layout.name, "weights": weights, "global_batch": global_batch}
    spec = _make_spec(parts, resolved)
    name = run_id(spec)
    _check_spec(parts, spec, layout, accelerator, accumulation)
    architecture, trained = model.architecture, parts.method.trained(model.architecture)
    flops = count_slot_flops(architecture, spec.sequence, spec.micro_batch, global_batch, spec.checkpointing, trained)
    total, trainable = parts.method.parameters(architecture)
    quantized = parts.method.quantized_parameters(architecture)
    keeps = spec.update != IN_BACKWARD
    floor = memory_floor_bytes(total, spec.precision, spec.optimizer, trainable, quantized, keeps_gradients=keeps)
    notes += _memory_notes(f"{model.name} ({spec.precision}, {spec.optimizer})", floor, device.name, accelerator)
    return Plan(
        run_id=name,
        spec=spec,
        model=model,
        **read_fields(parts, "method", "dataset", "dataset_options", "device", "launcher", "launcher_options", "free"),
        **read_fields(parts, "trainer", "trainer_options"),
        accelerator=accelerator,
        strategy=strategy,
        strategy_options=parts.terms[0].options if len(parts.terms) == 1 else {},
        axes=layout.axes,
        strategies=tuple(parts.strategies),
        launch=launch,
        data_ranks=layout.data_ranks,
        gradient_accumulation=accumulation,
        parameters=total,
        trainable_parameters=trainable,
        flops_per_token=flops.model,
        flops_per_token_full_attention=flops.full_attention,
        hardware_flops_per_token=flops.hardware,
        memory_floor_bytes=floor,
        tokens_per_step=global_batch * spec.sequence,
        notes=tuple(notes),
        weights_path=weights_path,
        trust_remote_code=point["trust_remote_code"],
        allow_pickle=point["allow_pickle"],
        declared={name: value for name in DECLARED_SETTINGS if (value := point.values.get(name)) is not None},
        prediction=read_prediction_settings(point),
    )


def read_prediction_settings(point: GridPoint) -> PredictionSettings:
    """The settings of predictions of a point. Raises `BadExperiment` for one of another trainer without its name."""
    found = replace(NOTHING_SAID, **{name: point.values[name] for name in asdict(NOTHING_SAID) if name in point.values})
    if found.framework in (None, "ours"):
        found = replace(found, framework=None)
        for name in ("framework_version", "base_bits", "optimizer_bits", "offload", "optimizer_in_backward"):
            if getattr(found, name) != getattr(NOTHING_SAID, name):
                raise BadExperiment(
                    what=f"{SETTINGS_BY_NAME[name].flag} describes another trainer, but none is named",
                    why=point.place(name),
                    next="add --framework, for example --framework hf",
                )
    return found


def _make_spec(parts: NamedParts, resolved: Mapping[str, Any]) -> RunSpec:
    """The spec: the point's values, with those that plugins, the size and the batches resolve."""
    point = parts.point
    given = {each.name: point[each.name] for each in fields(RunSpec)}
    return RunSpec(
        **{
            **given,
            "model": parts.model.name,
            "dataset": format_named_options(parts.dataset.name, parts.dataset_options),
            "device": parts.device.name,
            "method": str(parts.method),
            "trainer": format_named_options(parts.trainer.name, parts.trainer_options),
            "python": parts.python,
            "budget": choose_budget(point),
            "save": absolute_save_path(point),
            **resolved,
        }
    )


def _check_processes(parts: NamedParts, catalog: Catalog, accelerator: Accelerator, processes: int) -> None:
    """Refuse several processes for a strategy of one."""
    if processes == 1 or parts.strategy.distributed:
        return
    name = parts.device.name
    known = [s.name for s in catalog.strategies().values() if s.distributed and name in (s.devices or (name,))]
    raise BadExperiment(
        what=f"{name}:{accelerator.name} needs {processes} processes, but strategy {parts.strategy.name!r} has one",
        why=f"{parts.point.place('strategy')}; {size_source(parts.point)}",
        next=f"--strategy with one of: {', '.join(known) or 'nothing installed'}; or a smaller --size",
    )


def _check_spec(
    parts: NamedParts, spec: RunSpec, layout: MeshLayout, accelerator: Accelerator, accumulation: int
) -> None:
    """Refuse what the folder to save to, the strategies or the device do not support."""
    point, device, values = parts.point, parts.device, asdict(spec)
    if spec.save:
        check_save_folder(spec.save, run_id(spec), point.place("save"))
    settings = {**values, "gradient_accumulation": accumulation}
    architecture, model = parts.model.architecture, parts.model.name
    check_trainer(point, parts.trainer, architecture, settings)
    check_strategies(layout, parts.strategies, architecture, settings, model, point.place("strategy"))
    degrees = [each.layout.degree for each in parts.strategies if each.layout is not None]
    if point.values.get("framework") in (None, "ours"):
        check_loss(point, parts.model, device.name, degrees)
        check_compile(point, device.name, degrees)
    check_optimizer(point, device.name, degrees)
    check_update(point, device.name, parts.strategy, accumulation)
    check_activations(point, device.name, parts.strategy, degrees)
    check_quantization(point, parts.method, device.name)
    check_float8(point, architecture, _known_precisions(device, accelerator), accelerator.chip or "")
    why = device.refusal(accelerator, spec.strategy, values) if isinstance(device, ChecksRuns) else None
    if why:
        raise BadExperiment(
            what=f"{device.name}:{accelerator.name} cannot run strategy {spec.strategy!r} like this",
            why=f"{point.place('strategy')}; {point.place('device')}",
            next=why,
        )


def _known_precisions(device: Device, accelerator: Accelerator) -> set[str]:
    """The precisions in which a GPU's rate of products is known, whether or not it is a ceiling."""
    if device_class(device.name) != GPU:
        return set()
    try:
        return {*accelerator.peak_flops, *find_chip(accelerator.chip or "").flops}
    except UnknownName:
        return set(accelerator.peak_flops)


def derive_plan(plan: Plan, catalog: Catalog, **settings: Any) -> Plan:
    """The plan that a user would get by giving the settings of a plan, and in their place those named here."""
    values = {
        **asdict(plan.spec),
        "verify": False,
        "oversubscribe": plan.accelerator.oversubscribed,
        "launcher": format_named_options(plan.launcher.name, plan.launcher_options),
        "trust_remote_code": plan.trust_remote_code,
        "allow_pickle": plan.allow_pickle,
        **plan.declared,
        **asdict(plan.prediction),
        **settings,
    }
    return make_plan(GridPoint(values=values, sources={}), catalog)


def _memory_notes(what: str, floor: int, device: str, accelerator: Accelerator) -> list[str]:
    """A warning where the memory floor alone exceeds the memory; activations and buffers come on top."""
    memory = accelerator.memory_bytes
    if memory is None or floor <= memory:
        return []
    size = f"{device}:{accelerator.name}"
    needed = f"{what} needs at least {format_gib(floor)} GiB unless it is sharded"
    return [f"{needed}, {size} has {format_gib(memory)} GiB: it may run out of memory"]
