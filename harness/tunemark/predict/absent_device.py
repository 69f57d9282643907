"""Layout search for hardware absent from this machine: a number of chips by name, with the vendor's published data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunemark.data import make_point_rows
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.finetuning_method import parse_method
from tunemark.experiment.kernel_choice import check_float8
from tunemark.experiment.mesh_layout import parse_strategy_terms
from tunemark.experiment.named_parts import SEARCHED_SETTINGS, find_dataset, resolve_search_options
from tunemark.experiment.planning import read_prediction_settings
from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.physics.chip_peaks import explain_missing_peak
from tunemark.physics.chips import read_chip_table
from tunemark.plugin.catalog import Catalog
from tunemark.plugin.descriptors import Model, Strategy
from tunemark.plugin.protocols import DrivesChips
from tunemark.predict.candidates import CandidateSpace
from tunemark.predict.chip_facts import device_facts, find_any_chip
from tunemark.predict.matrix_products import find_peak_name
from tunemark.predict.plan_conversion import make_workload, widen_rows
from tunemark.predict.search import HardwareModel
from tunemark.predict.search_problem import (
    USABLE_MEMORY_FRACTION,
    SearchProblem,
    declare_facts,
    find_searchable_strategies,
    make_refusal,
)
from tunemark.predict.trainer_settings import NETWORK_ASSUMED, apply_network, apply_trainer
from tunemark_worker.training_settings import CHECKPOINTING

# Largest number of packages that can be searched: the number of factorisations grows with it.
MAX_PACKAGES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class AbsentDeviceSearch:
    """A search to be made. size: number of packages; dies: of one package, each of which is a rank."""

    model: Model
    chip: str
    size: int
    dies: int
    precision: str
    sequence: int
    global_batch: int
    method: str
    optimizer: str
    question: SearchProblem

    @property
    def title(self) -> str:
        return f"{self.model.name} on {self.size} x {self.chip}"


def is_absent_device(point: GridPoint, catalog: Catalog) -> bool:
    """Whether a grid point asks for a search on a chip by name instead of on a plugin's device."""
    if point["device"] == "auto" or point["device"] in catalog.devices():
        return False
    try:
        terms = parse_strategy_terms(point["strategy"])
        find_any_chip(point["device"])
    except (ValueError, TunemarkError):
        return False
    return [term.name for term in terms] in [[name] for name in catalog.search_names()]


# Long: one assignment for each thing that a plan would resolve, in its order.
def make_absent_device_search(point: GridPoint, catalog: Catalog) -> AbsentDeviceSearch:
    """The search for such a grid point. Raises `BadExperiment` for impossible settings."""
    chip = find_any_chip(point["device"])[0]
    model = catalog.model(point["model"])
    a = model.architecture
    size = _parse_size(point)
    (factor,) = parse_strategy_terms(point["strategy"])
    asked_point = point
    point, (factor,), free = resolve_search_options(point, factor)
    ranks = size * chip.dies
    precision, sequence = str(point["precision"]), int(point["sequence"])
    if sequence > a.max_position_embeddings:
        raise BadExperiment(
            what=f"a sequence of {sequence} is longer than {model.name} can take, which is {a.max_position_embeddings}",
            why=point.place("sequence"),
            next=f"--sequence {a.max_position_embeddings} or less",
        )
    for name, value in (("activations", "device"), ("update", "at-end")):
        if point[name] != value:
            setting = SETTINGS_BY_NAME[name]
            raise BadExperiment(
                what=f"{setting.flag} {point[name]} is not part of a search of layouts",
                why=point.place(name),
                next=f"{setting.flag} {value}; or predict one strategy: --device cuda:1 --oversubscribe --chip NAME",
            )
    method = parse_method(point["method"])
    total, trainable = method.parameters(a)
    given = point["global_batch"]
    global_batch = int(given) if given is not None else int(point["micro_batch"]) * ranks
    said = read_prediction_settings(point)
    facts = apply_network(device_facts(f"{chip.name} die" if chip.dies > 1 else chip.name), said)
    facts = declare_facts(facts, point.values, precision, chip.dies)
    work = make_workload(
        a,
        sequence=sequence,
        global_batch=global_batch,
        precision=precision,
        optimizer=str(point["optimizer"]),
        trained_fraction=trainable / total,
        trained=method.trained(a),
        packed=point["batching"] == "pack" and point["attention"] not in ("varlen", "flash"),
        loss=point["loss"],
        optimizer_impl=point["optimizer_impl"],
        quantized=method.quantized_parameters(a),
    )
    if point["batching"] == "bucket":
        rows = make_point_rows(point.values, global_batch)
        work = widen_rows(work, *find_dataset(point, catalog), model, point["train_on"], rows)
    work = apply_trainer(work, said, point["loss"])
    if find_peak_name(work.precision) not in facts.peak_flops:
        raise BadExperiment(
            what=f"{chip.name} cannot be predicted in {precision}",
            why=explain_missing_peak(chip.name, work.precision) or point.place("precision"),
            next=f"--precision with one of: {', '.join(facts.peak_flops)}",
        )
    check_float8(point, a, facts.peak_flops, chip.name)
    each = None if facts.memory_bytes is None else USABLE_MEMORY_FRACTION * facts.memory_bytes
    # What drives a chip whose figures are only assumed drives any of its vendor's.
    known = [other.name for other in read_chip_table()[0] if other.vendor == chip.vendor]
    strategies = _find_strategies(catalog, known[0] if facts.is_chip_assumed and known else chip.name)
    settings = {"sequence": sequence, "method": str(method), "precision": precision, "batching": point["batching"]}
    name = ":".join([factor.name, *(f"{k}={v}" for k, v in sorted(factor.options.items()))])
    asked = SearchProblem(
        work=work,
        space=CandidateSpace(
            ranks=ranks,
            strategies=tuple(strategies.values()),
            global_batch=global_batch,
            micro_batches=None if "micro_batch" in free else (int(point["micro_batch"]),),
            checkpointings=CHECKPOINTING if "checkpointing" in free else (str(point["checkpointing"]),),
            alone=ranks == 1,
        ),
        hardware=HardwareModel(
            facts=facts,
            memory_bytes=each,
            alone=facts if ranks == 1 else None,
            alone_bytes=each,
            source="; ".join(
                [
                    "published figures and shares fitted to published rows",
                    *facts.assumptions,
                    *([NETWORK_ASSUMED] if ranks > facts.node and not facts.is_network_known else []),
                ]
            ),
        ),
        refusal=make_refusal(strategies, a, settings),
        requested={"strategy": name, "global_batch": global_batch, **{n: point[n] for n in SEARCHED_SETTINGS}},
        free=free,
        batch_follows=given is None,
        ranks_each=chip.dies,
        vary=lambda changed: (
            make_absent_device_search(replace(asked_point, values={**asked_point.values, **changed}), catalog).question
        ),
    )
    return AbsentDeviceSearch(
        model=model,
        chip=chip.name,
        size=size,
        dies=chip.dies,
        precision=precision,
        sequence=sequence,
        global_batch=global_batch,
        method=str(method),
        optimizer=str(point["optimizer"]),
        question=asked,
    )


def _find_strategies(catalog: Catalog, chip: str) -> dict[str, Strategy]:
    """The strategies of the device that drives such chips."""
    drivers = (each for each in catalog.devices().values() if isinstance(each, DrivesChips) and each.drives(chip))
    return find_searchable_strategies(catalog, next((each.name for each in drivers), ""))


def _parse_size(point: GridPoint) -> int:
    word = point["size"]
    if word is None:
        raise BadExperiment(
            what=f"how many {point['device']}?",
            why="a machine that is not here has no default size",
            next=f"--device {point['device']} --size 8,64",
        )
    if not str(word).isdecimal() or not 1 <= int(word) <= MAX_PACKAGES:
        raise BadExperiment(
            what=f"size cannot be {word!r}",
            why=f"{point.place('size' if 'size' in point.sources else 'device')}: it is a number of {point['device']}, "
            f"from 1 to {MAX_PACKAGES:,}",
            next=f"--device {point['device']} --size 8,64",
        )
    return int(word)
