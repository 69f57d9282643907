"""What the names of a point stand for: plugins' models, datasets, strategies and so on, with their options."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunemark.errors import BadExperiment, UnknownName, did_you_mean
from tunemark.experiment.batch_choice import choose_batching
from tunemark.experiment.device_choice import find_device
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.finetuning_method import Method, parse_method
from tunemark.experiment.kernel_choice import choose_attention
from tunemark.experiment.mesh_layout import StrategyTerm, combine_strategies, parse_strategy_terms
from tunemark.experiment.other_trainers import find_files, find_trainer_python, refuse_absent
from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.experiment.value_parsing import parse_named_options, parse_value
from tunemark.plugin.catalog import Catalog
from tunemark.plugin.descriptors import Dataset, Launcher, Model, Strategy, Trainer
from tunemark.plugin.protocols import Device

# Settings that a search may choose besides the layout, unless the user gives them.
SEARCHED_SETTINGS = ("checkpointing", "micro_batch")
DEFAULT_TRIALS = SETTINGS_BY_NAME["trials"].default


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedParts:
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


def find_parts(point: GridPoint, catalog: Catalog, notes: list[str]) -> NamedParts:
    """Look up the names of a point, in the order of the command line's most likely mistakes."""
    trainer_name, trainer_options = _options(point, "trainer")
    trainer = point.look_up("trainer", catalog.trainer, trainer_name)
    refuse_absent(trainer, point.place("trainer"))
    _check_options(point, "trainer", trainer, trainer_options)
    trainer_options = find_files(trainer, trainer_options, point.place("trainer"))
    python = find_python(point)
    if python is None:
        python = find_trainer_python(trainer, point.place("trainer"))
    model = point.look_up("model", lambda name: catalog.model(name, python), point["model"])
    notes += model.notes
    point = choose_batching(point, model, notes)
    dataset, dataset_options = find_dataset(point, catalog)
    _check_tokenizer(point, model, dataset)
    method = _method(point, model)
    terms = _factors(point)
    launcher_name, launcher_options = _options(point, "launcher")
    launcher = point.look_up("launcher", catalog.launcher, launcher_name)
    _check_options(point, "launcher", launcher, launcher_options)
    device = find_device(point, catalog, python, notes)
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
    return NamedParts(
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
    dataset = point.look_up("dataset", catalog.dataset, name)
    _check_options(point, "dataset", dataset, options)
    return dataset, options


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


# Other common names of strategies, and how they are written here.
_OTHER_NAMES = {
    "dp": "ddp, or fsdp to shard the model too",
    "hsdp": "ddp:COPIES+fsdp:SHARDS, such as ddp:2+fsdp:4",
    "sp": "tp:sequence_parallel=true",
    "zero": "fsdp, which is ZeRO 3",
    "zero3": "fsdp, which is ZeRO 3",
}


def _strategy(point: GridPoint, catalog: Catalog, device: str, name: str) -> Strategy:
    try:
        return point.look_up("strategy", lambda name: catalog.strategy(name, device), name)
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


def find_python(point: GridPoint) -> str | None:
    """The absolute path of the interpreter of --python; None where none was given."""
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
