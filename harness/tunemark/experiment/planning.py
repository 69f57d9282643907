"""Plans of grid points: plugins resolve the names, and what cannot run is refused before a device is touched."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from tunemark.errors import BadExperiment, TunemarkError, UnknownName, did_you_mean
from tunemark.experiment.evaluation import (
    absolute_save_path,
    check_evaluation_supported,
    check_save_folder,
    check_single_save,
)
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.finetuning_method import Method, parse_method
from tunemark.experiment.initial_weights import has_weights, resolve_weights
from tunemark.experiment.kernel_choice import (
    check_compile,
    check_float8,
    check_loss,
    check_optimizer,
    check_quantization,
    choose_allocator,
    choose_attention,
)
from tunemark.experiment.mesh_layout import (
    MeshLayout,
    StrategyTerm,
    check_strategies,
    combine_strategies,
    make_mesh_layout,
    parse_strategy_terms,
)
from tunemark.experiment.other_trainers import check_trainer, find_files, find_trainer_python
from tunemark.experiment.plan import Plan
from tunemark.experiment.recipes import GPU, device_class, find_recipe
from tunemark.experiment.run_spec import RunSpec, run_id
from tunemark.experiment.settings import NOTHING_SAID, SETTINGS_BY_NAME, PredictionSettings
from tunemark.experiment.value_parsing import parse_named_options, parse_value
from tunemark.fields import read_fields
from tunemark.number_format import GIB, format_gib
from tunemark.physics import count_slot_flops, memory_floor_bytes
from tunemark.physics.chip_peaks import explain_missing_peak, find_chip, find_peak, parse_precision
from tunemark.plugin.catalog import Catalog
from tunemark.plugin.descriptors import Accelerator, Dataset, LaunchConfig, Launcher, Model, Strategy, Trainer
from tunemark.plugin.protocols import (
    ChecksRuns,
    Device,
    ExplainsAbsence,
    LimitsMemory,
    ListsDocumentedSizes,
    RunsRemotely,
)

T = TypeVar("T")

# Settings by which a user says what an accelerator is made of.
DECLARED_SETTINGS = ("chip", "chips", "peak_flops", "memory")
# Seconds of steps of a run without another limit: three attempts of a tiny model then take a minute and a half.
DEFAULT_BUDGET_S = 20.0


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


def expand_sizes(point: GridPoint, catalog: Catalog) -> list[GridPoint]:
    """The point, or for the size `all` one point per size that its device offers (if absent, per documented size)."""
    if point["size"] != "all":
        return [point]
    device = _device(point, catalog, None, [])
    sizes = list(device.accelerators()) or list(
        device.documented_sizes() if isinstance(device, ListsDocumentedSizes) else ()
    )
    if not sizes:
        raise BadExperiment(
            what=f"there is no {device.name} on this machine, but all its sizes are requested",
            why=_size_source(point),
            next="name the sizes; see `tunemark list devices`",
        )
    return [replace(point, values={**point.values, "size": size.name}) for size in sizes]


@dataclass(frozen=True, kw_only=True, slots=True)
class _NamedParts:
    """What the names of a point stand for, and the point itself, in which a search has set what the user gave it."""

    point: GridPoint
    model: Model
    dataset: Dataset
    dataset_options: dict[str, str]
    method: Method
    python: str | None
    launcher: Launcher
    launcher_options: dict[str, str]
    device: Device
    terms: list[StrategyTerm]
    strategies: list[Strategy]
    strategy: Strategy
    free: tuple[str, ...]
    trainer: Trainer
    trainer_options: dict[str, str]


def make_plan(point: GridPoint, catalog: Catalog) -> Plan:
    """The plan of one point; a `TunemarkError` names the value, where it was given, and what to do."""
    if point.values.get("recipe") is None:
        return _make_plan(point, catalog)
    return _plan_recipe(point, catalog)


def _plan_recipe(point: GridPoint, catalog: Catalog) -> Plan:
    """The plan of a point with the rungs of its recipe. A rung that cannot be planned is left out, with a note that
    says why; so is one whose setting the user gave."""
    device = _device(point, catalog, _python(point), [])
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
    parts = _find_parts(point, catalog, notes)
    point, model, device, strategy = parts.point, parts.model, parts.device, parts.strategy
    is_remote = parts.launcher.is_remote
    found = _find_remote(point, device, parts.launcher) if is_remote else _find_local(point, device, catalog)
    accelerator = _declare_chips(point, found)
    if not accelerator.is_present:
        notes.append(f"{device.name}:{accelerator.name} is not on this machine: it can be planned, not run")
    if point.values.get("chip") and any(point.values.get(name) is not None for name in ("peak_flops", "memory")):
        notes.append(f"{device.name}:{accelerator.name}: {accelerator.source}, not published by a vendor")
    weights, weights_path = resolve_weights(point, model)
    if weights == "random" and os.path.isabs(model.pretrained or "") and has_weights(Path(model.pretrained or "")):
        notes.append(f"{model.name} starts from random weights; --weights pretrained loads its own")
    check_evaluation_supported(point, model, strategy)
    _check_training(point, model, parts.dataset)
    launch = _launch(device, accelerator, strategy, parts.launcher)
    if is_memory_limited(point.values):
        accelerator, launch = _limit_memory(point, device, accelerator, launch)
        notes.append(f"{device.name}:{accelerator.name}: an allocation beyond {point['memory']:g} GiB fails (--memory)")
    launch = replace(launch, environment=choose_allocator(point, device, launch.environment))
    _check_processes(parts, catalog, accelerator, launch.processes)
    layout = make_mesh_layout(parts.terms, parts.strategies, strategy, launch.processes, point.place("strategy"))
    global_batch, accumulation = _batches(point, layout, is_searched=strategy.is_search)
    resolved = {"size": accelerator.name, "strategy": layout.name, "weights": weights, "global_batch": global_batch}
    spec = _make_spec(parts, resolved)
    name = run_id(spec)
    _check_spec(parts, spec, layout, accelerator, accumulation)
    architecture, trained = model.architecture, parts.method.trained(model.architecture)
    flops = count_slot_flops(architecture, spec.sequence, spec.micro_batch, global_batch, spec.checkpointing, trained)
    total, trainable = parts.method.parameters(architecture)
    quantized = parts.method.quantized_parameters(architecture)
    floor = memory_floor_bytes(total, spec.precision, spec.optimizer, trainable, quantized)
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


def _find_parts(point: GridPoint, catalog: Catalog, notes: list[str]) -> _NamedParts:
    """Look up the names of a point, in the order of the command line's most likely mistakes."""
    trainer_name, trainer_options = _options(point, "trainer")
    trainer = _named(point, "trainer", catalog.trainer, trainer_name)
    _check_options(point, "trainer", trainer, trainer_options)
    trainer_options = find_files(trainer, trainer_options, point.place("trainer"))
    python = _python(point)
    if python is None:
        python = find_trainer_python(trainer, point.place("trainer"))
    model = _named(point, "model", lambda name: catalog.model(name, python), point["model"])
    notes += model.notes
    point = _choose_batching(point, model, notes)
    dataset, dataset_options = find_dataset(point, catalog)
    _check_tokenizer(point, model, dataset)
    method = _method(point, model)
    terms = _factors(point)
    launcher_name, launcher_options = _options(point, "launcher")
    launcher = _named(point, "launcher", catalog.launcher, launcher_name)
    _check_options(point, "launcher", launcher, launcher_options)
    device = _device(point, catalog, python, notes)
    if not trainer.runtime:
        attention = choose_attention(point, model, device.name, python)
        point = replace(point, values={**point.values, "attention": attention})
    strategies = [_strategy(point, catalog, device.name, term.name) for term in terms]
    for each, term in zip(strategies, terms, strict=True):
        _check_options(point, "strategy", each, term.options)
    strategy = combine_strategies(terms, strategies, point.place("strategy"))
    free: tuple[str, ...] = ()
    if strategy.is_search:
        point, terms, free = resolve_search_options(point, terms[0])
    return _NamedParts(
        point=point,
        model=model,
        dataset=dataset,
        dataset_options=dataset_options,
        method=method,
        python=python,
        launcher=launcher,
        launcher_options=launcher_options,
        device=device,
        terms=terms,
        strategies=strategies,
        strategy=strategy,
        free=free,
        trainer=trainer,
        trainer_options=trainer_options,
    )


def find_dataset(point: GridPoint, catalog: Catalog) -> tuple[Dataset, dict[str, str]]:
    """A point's dataset with its options."""
    name, options = _options(point, "dataset")
    dataset = _named(point, "dataset", catalog.dataset, name)
    _check_options(point, "dataset", dataset, options)
    return dataset, options


def _make_spec(parts: _NamedParts, resolved: Mapping[str, Any]) -> RunSpec:
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
            "budget": _budget(point),
            "save": absolute_save_path(point),
            **resolved,
        }
    )


def _check_processes(parts: _NamedParts, catalog: Catalog, accelerator: Accelerator, processes: int) -> None:
    """Refuse several processes for a strategy of one."""
    if processes == 1 or parts.strategy.distributed:
        return
    name = parts.device.name
    known = [s.name for s in catalog.strategies().values() if s.distributed and name in (s.devices or (name,))]
    raise BadExperiment(
        what=f"{name}:{accelerator.name} needs {processes} processes, but strategy {parts.strategy.name!r} has one",
        why=f"{parts.point.place('strategy')}; {_size_source(parts.point)}",
        next=f"--strategy with one of: {', '.join(known) or 'nothing installed'}; or a smaller --size",
    )


def _check_spec(
    parts: _NamedParts, spec: RunSpec, layout: MeshLayout, accelerator: Accelerator, accumulation: int
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
    check_quantization(point, parts.method, device.name)
    check_float8(point, architecture, _known_precisions(device, accelerator))
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


# Settings that a search may choose besides the layout, unless the user gives them.
SEARCHED_SETTINGS = ("checkpointing", "micro_batch")
DEFAULT_TRIALS = SETTINGS_BY_NAME["trials"].default


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


def resolve_search_options(
    point: GridPoint, factor: StrategyTerm
) -> tuple[GridPoint, list[StrategyTerm], tuple[str, ...]]:
    """(the point of a search; its strategy term, with every value that the user gave as an option, so that the
    strategy's text alone identifies the search; the settings that the search may choose)"""
    options = dict(factor.options)
    values = dict(point.values)
    for name in SEARCHED_SETTINGS:
        if name not in point.sources and name not in options:
            continue
        value = _option_value(point, name, options[name]) if name in options else values[name]
        if name in options and name in point.sources and value != values[name]:
            raise BadExperiment(
                what=f"{name} is given twice: {options[name]} and {values[name]}",
                why=f"{point.place('strategy')}; {point.place(name)}",
                next="give it once",
            )
        values[name] = value
        options[name] = str(value)
    trials = options.pop("trials", None)
    count = values.get("trials", DEFAULT_TRIALS) if trials is None else _option_value(point, "trials", trials)
    if count != DEFAULT_TRIALS:
        options["trials"] = str(count)
    free = tuple(name for name in SEARCHED_SETTINGS if name not in options)
    return replace(point, values={**values, "trials": count}), [factor._replace(options=options)], free


def _option_value(point: GridPoint, name: str, word: str) -> Any:
    return parse_value(SETTINGS_BY_NAME[name], word, f"{point.place('strategy')}, option {name}")


def _memory_notes(what: str, floor: int, device: str, accelerator: Accelerator) -> list[str]:
    """A warning where the memory floor alone exceeds the memory; activations and buffers come on top."""
    memory = accelerator.memory_bytes
    if memory is None or floor <= memory:
        return []
    size = f"{device}:{accelerator.name}"
    needed = f"{what} needs at least {format_gib(floor)} GiB unless it is sharded"
    return [f"{needed}, {size} has {format_gib(memory)} GiB: it may run out of memory"]


def _named(point: GridPoint, setting: str, look_up: Callable[[str], T], name: str) -> T:
    try:
        return look_up(name)
    except UnknownName as error:
        why = "; ".join(part for part in (point.place(setting), error.why) if part)
        raise UnknownName(what=error.what, why=why, next=error.next) from error


# Other common names of strategies, and how they are written here.
_OTHER_NAMES = {
    "dp": "ddp, or fsdp to shard the model too",
    "hsdp": "ddp:COPIES+fsdp:SHARDS, such as ddp:2+fsdp:4",
    "sp": "tp:sequence_parallel=true",
    "zero": "fsdp, which is ZeRO 3",
    "zero3": "fsdp, which is ZeRO 3",
}


# Other common names of devices, of which the nearest in letters is another one.
_GPUS = "--device cuda for GPUs of NVIDIA, rocm for those of AMD; `tunemark list devices` shows what is here"
_OTHER_DEVICES = {
    **dict.fromkeys(("gpu", "gpus", "nvidia"), _GPUS),
    **dict.fromkeys(("hip", "amd"), "--device rocm"),
    **dict.fromkeys(("tpu", "tpus"), "--device xla"),
    "mps": "--device cpu: Apple's GPUs are no device yet",
}


def _strategy(point: GridPoint, catalog: Catalog, device: str, name: str) -> Strategy:
    try:
        return _named(point, "strategy", lambda name: catalog.strategy(name, device), name)
    except UnknownName as error:
        if name.lower() not in _OTHER_NAMES:
            raise
        next = f"--strategy {_OTHER_NAMES[name.lower()]}; `tunemark list strategies` shows all"
        raise UnknownName(what=error.what, why=error.why, next=next) from error


def _method(point: GridPoint, model: Model) -> Method:
    try:
        method = parse_method(point["method"])
        method.trained(model.architecture)
        return method
    except BadExperiment as error:
        why = "; ".join(part for part in (point.place("method"), error.why) if part)
        raise BadExperiment(what=error.what, why=why, next=error.next) from error


def _options(point: GridPoint, setting: str) -> tuple[str, dict[str, str]]:
    try:
        return parse_named_options(point[setting])
    except ValueError as error:
        raise BadExperiment(
            what=f"{setting} cannot be {point[setting]!r}",
            why=f"{point.place(setting)}: {error}",
            next="options follow the name: NAME:KEY=VALUE",
        ) from error


def _factors(point: GridPoint) -> list[StrategyTerm]:
    try:
        return parse_strategy_terms(point["strategy"])
    except ValueError as error:
        raise BadExperiment(
            what=f"strategy cannot be {point['strategy']!r}",
            why=f"{point.place('strategy')}: {error}",
            next="write NAME:DEGREE:KEY=VALUE, with degree and options optional; + combines strategies",
        ) from error


def _check_options(
    point: GridPoint, setting: str, descriptor: Dataset | Strategy | Launcher | Trainer, options: Mapping[str, str]
) -> None:
    for key in options:
        if key not in descriptor.options:
            raise BadExperiment(
                what=f"the {setting} {descriptor.name!r} has no option {key!r}",
                why=point.place(setting),
                next=did_you_mean(key, descriptor.options),
            )


def _check_tokenizer(point: GridPoint, model: Model, dataset: Dataset) -> None:
    if dataset.needs_tokenizer and model.tokenizer is None:
        raise BadExperiment(
            what=f"{model.name} has no tokenizer, and {dataset.name} is text",
            why=f"{point.place('model')}; only the dimensions of this model are known here",
            next="plan it with a dataset of ids, such as synthetic, or choose a model that `tunemark list models` "
            "shows with a tokenizer",
        )


def format_named_options(name: str, options: Mapping[str, str]) -> str:
    """The text "name:key=value:key=value", with the options sorted."""
    return ":".join([name, *(f"{key}={value}" for key, value in sorted(options.items()))])


def _python(point: GridPoint) -> str | None:
    given: str | None = point["python"]
    if given is None:
        return None
    path = shutil.which(os.path.expanduser(given))
    if path is None:
        raise BadExperiment(
            what=f"{given!r} is not an executable file",
            why=point.place("python"),
            next="give the path of a Python interpreter, such as venv/bin/python",
        )
    # Symbolic links are not resolved: a virtual environment's interpreter is one.
    return os.path.abspath(path)


def _device(point: GridPoint, catalog: Catalog, python: str | None, notes: list[str]) -> Device:
    if point["device"] != "auto":
        try:
            return _named(point, "device", catalog.device, point["device"])
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
    return _named(point, "device", catalog.device, "cpu")


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


def _find_local(point: GridPoint, device: Device, catalog: Catalog) -> Accelerator:
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
    source = _size_source(point)
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


def _find_remote(point: GridPoint, device: Device, launcher: Launcher) -> Accelerator:
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
        raise BadExperiment(what=f"{device.name} has no size {size!r}", why=_size_source(point), next="a number: cpu:4")
    return replace(found, oversubscribed=point["oversubscribe"])


def _launch(device: Device, accelerator: Accelerator, strategy: Strategy, launcher: Launcher) -> LaunchConfig:
    if launcher.is_remote:
        assert isinstance(device, RunsRemotely), "other devices are refused earlier"
        return device.remote_launch(accelerator, strategy)
    return device.launch(accelerator, strategy)


def is_memory_limited(values: Mapping[str, Any]) -> bool:
    """Whether --memory limits what a job may use, instead of saying what a declared chip has."""
    return values.get("memory") is not None and all(
        values.get(name) is None for name in ("chip", "chips", "peak_flops")
    )


def _limit_memory(
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


def _declare_chips(point: GridPoint, accelerator: Accelerator) -> Accelerator:
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


def _size_source(point: GridPoint) -> str:
    # A size may be given after the device's name.
    return point.place("size" if "size" in point.sources else "device")


def _choose_batching(point: GridPoint, model: Model, notes: list[str]) -> GridPoint:
    """The point; padded rows by default where nothing keeps the documents of a packed row apart."""
    traced = model.architecture.traced
    if point["batching"] != "pack" or traced is None or traced.packing is not None:
        return point
    why = f"documents in one row would not be apart: {traced.packing_obstacle}"
    if "batching" in point.sources:
        raise BadExperiment(
            what=f"{model.architecture.model_type} cannot be trained on packed rows",
            why=f"{point.place('batching')}; {why}",
            next="--batching pad",
        )
    notes.append(f"{model.architecture.model_type}: rows are padded, not packed; {why}")
    return replace(point, values={**point.values, "batching": "pad"})


def _check_training(point: GridPoint, model: Model, dataset: Dataset) -> None:
    longest = model.architecture.max_position_embeddings
    if point["sequence"] > longest:
        raise BadExperiment(
            what=f"a sequence of {point['sequence']} tokens is longer than {model.name}'s maximum of {longest}",
            why=point.place("sequence"),
            next=f"--sequence {longest} or less",
        )
    if point["train_on"] == "response" and "prompt" not in dataset.roles:
        raise BadExperiment(
            what=f"{dataset.name} does not distinguish prompts from responses",
            why=f"{point.place('train_on')}; its pieces are: {', '.join(dataset.roles)}",
            next="use --train-on all, or an instruction dataset",
        )
    has_end = point["epochs"] is not None or (point["steps"] is not None and point["warmup"] is not None)
    if point["schedule"] != "constant" and not has_end:
        raise BadExperiment(
            what=f"a {point['schedule']} schedule needs a known number of steps",
            why=point.place("schedule"),
            next="add --steps N --warmup N, or --epochs N, or use --schedule constant",
        )


def _budget(point: GridPoint) -> float | None:
    """Seconds of steps; without --budget, a run with another limit has no time limit."""
    if point["budget"] is not None:
        return float(point["budget"])
    return None if point["steps"] is not None or point["epochs"] is not None else DEFAULT_BUDGET_S


def _batches(point: GridPoint, layout: MeshLayout, *, is_searched: bool) -> tuple[int, int]:
    """(global batch, gradient accumulation steps)"""
    unit = point["micro_batch"] * layout.data_ranks
    if is_searched:
        # The search chooses data ranks and micro-batches; all its layouts have this global batch.
        return point["global_batch"] or unit, 1
    batch = unit * layout.micro_batches if point["global_batch"] is None else point["global_batch"]
    if batch % unit:
        near = max(1, (batch + unit // 2) // unit) * unit
        raise BadExperiment(
            what=f"a global batch of {batch} is not a multiple of {point['micro_batch']} x {layout.data_ranks}",
            why=f"{point.place('global_batch')}; micro-batch ({point.place('micro_batch')}) times data ranks",
            next=f"--global-batch {near}, or another --micro-batch",
        )
    return batch, batch // unit
