"""Make a plan's layout search problem: its workload, the layouts that may be chosen, and the machine's hardware model.

The hardware model comes from a calibration of the machine if one matches, else from the chip's published figures or
what its device assumes; its `source` says which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment.named_parts import SEARCHED_SETTINGS
from tunemark.experiment.plan import Plan
from tunemark.experiment.planning import derive_plan
from tunemark.number_format import GIB
from tunemark.physics.chip_peaks import explain_missing_peak, parse_precision
from tunemark.plugin.catalog import Catalog
from tunemark.plugin.descriptors import Accelerator, Architecture, LaunchConfig, Strategy
from tunemark.plugin.hardware import DeviceFacts, Efficiency
from tunemark.plugin.protocols import StatesDeviceFacts
from tunemark.predict.calibration import CalibrationFingerprint, digest_cost_model, find_calibration, find_torch_version
from tunemark.predict.candidates import Candidate, CandidateSpace
from tunemark.predict.chip_facts import device_facts, find_any_chip
from tunemark.predict.layout import Workload
from tunemark.predict.learned_constants import find_learned
from tunemark.predict.matrix_products import find_peak_name
from tunemark.predict.plan_conversion import make_plan_workload
from tunemark.predict.search import HardwareModel, has_fitting_candidate
from tunemark.predict.trainer_settings import NETWORK_ASSUMED, apply_network
from tunemark.version_order import is_older, version_numbers
from tunemark_worker.training_settings import CHECKPOINTING

# Share of a device's memory that training can use: the rest is the runtime's context, the communication library's
# buffers, and what the allocator loses to fragmentation.
USABLE_MEMORY_FRACTION = 0.92


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchProblem:
    """Inputs of a layout search. refusal: why a candidate cannot train the model, or None. requested: settings as given
    or by default; free: those of them that the search may change. batch_follows: no global batch was given, so that it
    grows with the size. ranks_each: ranks of one package, the unit of a size. vary: the same search with other settings
    of its plan."""

    work: Workload
    space: CandidateSpace
    hardware: HardwareModel
    refusal: Callable[[Candidate], str | None]
    requested: dict[str, int | str]
    free: tuple[str, ...]
    batch_follows: bool
    ranks_each: int = 1
    vary: Callable[[Mapping[str, Any]], SearchProblem] | None = None


def make_search_problem(plan: Plan, catalog: Catalog) -> SearchProblem:
    """The search problem of a plan whose strategy is `auto`. Raises `BadExperiment` where the machine is unknown."""
    spec = plan.spec
    if not plan.model.architecture.num_hidden_layers:
        raise BadExperiment(
            what=f"strategy auto cannot predict {plan.model.name}",
            why="the cost model is of decoder layers, and it has none",
            next="choose a strategy by hand: see `tunemark list strategies`",
        )
    work = make_plan_workload(plan)
    strategies = find_searchable_strategies(catalog, plan.device.name)
    ranks = plan.launch.processes
    single = find_single_process(plan, strategies.values())
    space = CandidateSpace(
        ranks=ranks,
        strategies=tuple(strategies.values()),
        global_batch=spec.global_batch,
        micro_batches=None if "micro_batch" in plan.free else (spec.micro_batch,),
        checkpointings=CHECKPOINTING if "checkpointing" in plan.free else (spec.checkpointing,),
        alone=single is not None,
    )
    hardware = make_hardware_model(plan, ranks, single)
    for facts in filter(None, (hardware.facts, hardware.alone)):
        if find_peak_name(work.precision) not in facts.peak_flops:
            raise BadExperiment(
                what=f"{facts.name} cannot be predicted in {spec.precision}",
                why=explain_missing_peak(facts.name, work.precision) or f"only in {', '.join(facts.peak_flops)}",
                next="another --precision, or `tunemark calibrate` on the device itself",
            )
    requested: dict[str, int | str] = {
        name: getattr(spec, name) for name in ("strategy", "global_batch", *SEARCHED_SETTINGS)
    }
    settings = {name: getattr(spec, name) for name in ("sequence", "method", "precision", "batching", "device")}
    return SearchProblem(
        work=work,
        space=space,
        hardware=hardware,
        refusal=make_refusal(strategies, plan.model.architecture, settings, find_torch_version(spec.python)),
        requested=requested,
        free=plan.free,
        batch_follows=spec.global_batch == spec.micro_batch * ranks,
        vary=lambda changed: make_search_problem(derive_plan(plan, catalog, **changed), catalog),
    )


def find_smallest_size(asked: SearchProblem) -> int | None:
    """The smallest size on which some layout fits in memory: tries 1 to a node, then whole nodes, then doubles up to a
    million nodes. None where none fits, and where all ranks share one memory, so that a larger size does not help."""
    if asked.hardware.is_shared:
        return None
    node = asked.hardware.facts.node
    # Sequences of each rank, where no global batch was given.
    space = asked.space
    each = space.global_batch // space.ranks if asked.batch_follows else None
    sizes: list[int] = [*range(1, node), *range(node, 64 * node, node), *(node << n for n in range(6, 21))]
    for ranks in (n for n in sizes if n % asked.ranks_each == 0):
        batch = space.global_batch if each is None else each * ranks
        trial = replace(space, ranks=ranks, global_batch=batch, alone=ranks == 1 and bool(space.of_degree("single")))
        hardware = replace(asked.hardware, alone=asked.hardware.facts, alone_bytes=asked.hardware.memory_bytes)
        if has_fitting_candidate(replace(asked.work, global_batch=batch), trial, hardware, asked.refusal):
            return ranks // asked.ranks_each
    return None


def make_refusal(
    strategies: Mapping[str, Strategy], a: Architecture, settings: Mapping[str, Any], torch: str = ""
) -> Callable[[Candidate], str | None]:
    """A function that says why a candidate's strategies refuse to train the model; None where they do not. torch: the
    interpreter's version; empty if unknown."""

    def refusal(candidate: Candidate) -> str | None:
        given = {**settings, **candidate.settings}
        for name in candidate.names:
            if why := strategies[name].refusal(candidate.axes, a, given):
                return why
            if (
                torch
                and (minimum := _find_newest_torch(strategies[name], candidate, given))
                and is_older(torch, minimum)
            ):
                return f"{candidate.strategy} needs torch {minimum} or newer, and the interpreter has {torch}"
        return None

    return refusal


def _find_newest_torch(strategy: Strategy, candidate: Candidate, settings: Mapping[str, Any]) -> str:
    """The newest torch that the strategy needs for a candidate; empty if it needs none."""
    found = [strategy.minimum_versions, strategy.layout_versions(candidate.axes, settings)]
    return max((each["torch"] for each in found if "torch" in each), key=version_numbers, default="")


def find_searchable_strategies(catalog: Catalog, device: str) -> dict[str, Strategy]:
    """The device's strategies that describe their layout, by name."""
    found = {}
    for name in dict.fromkeys(strategy.name for strategy in catalog.strategies().values()):
        with contextlib.suppress(TunemarkError):
            found[name] = catalog.strategy(name, device)
    return {name: strategy for name, strategy in found.items() if strategy.layout is not None}


def find_single_process(plan: Plan, strategies: Iterable[Strategy]) -> Strategy | None:
    """The first of these strategies of one process, if that can use the whole size."""
    for strategy in strategies:
        if strategy.layout is not None and strategy.layout.degree == "single":
            with contextlib.suppress(TunemarkError):
                return strategy if plan.device.launch(plan.accelerator, strategy).processes == 1 else None
    return None


def make_hardware_model(plan: Plan, ranks: int, single: Strategy | None, where: Path | None = None) -> HardwareModel:
    """The hardware model of a plan's machine. single: a strategy of one process, or None where that cannot use the
    size. where: the folder of calibrations, by default the user's."""
    accelerator = plan.accelerator
    whole = accelerator.memory_bytes
    each = None if whole is None else USABLE_MEMORY_FRACTION * whole / ranks
    found = [find_calibration(make_calibration_fingerprint(plan, plan.launch), where)]
    alone = None
    if single is not None:
        launch = plan.device.launch(accelerator, single)
        found.append(find_calibration(make_calibration_fingerprint(plan, launch), where))
        alone = found[-1].facts if found[-1] else find_uncalibrated_facts(plan, launch)
        alone = apply_network(alone, plan.prediction)
    facts = apply_network(found[0].facts if found[0] else find_uncalibrated_facts(plan, plan.launch), plan.prediction)
    if each is None and facts.memory_bytes is not None:
        # Published memory of a chip that is declared and not present on this machine.
        each = USABLE_MEMORY_FRACTION * facts.memory_bytes
    dates = sorted({one.made_utc for one in found if one})
    source = f"measured on this machine ({', '.join(dates)})" if dates else ""
    if not all(found):
        word = "for one process, " if found[0] else "for several processes, " if dates else ""
        source = "; ".join(filter(None, [source, f"{word}{describe_uncalibrated_facts(plan)}"]))
    if ranks > facts.node and facts.is_published and not facts.is_network_known:
        source += f"; {NETWORK_ASSUMED}"
    return HardwareModel(
        facts=facts,
        memory_bytes=each,
        alone=alone,
        alone_bytes=(None if whole is None else USABLE_MEMORY_FRACTION * whole) if facts.shares_memory else each,
        source=source,
        is_shared=facts.shares_memory,
        mechanisms=found[0].mechanisms if found[0] else {},
    )


def make_calibration_fingerprint(plan: Plan, launch: LaunchConfig) -> CalibrationFingerprint:
    """The fingerprint that a calibration must have to be valid for such a job of the plan."""
    return CalibrationFingerprint(
        device=plan.device.name,
        chip=plan.accelerator.chip,
        processes=launch.processes,
        threads=launch.threads,
        torch=find_torch_version(plan.spec.python),
        allocator=launch.environment.get("GLIBC_TUNABLES", ""),
        formulas=digest_cost_model(),
    )


def describe_uncalibrated_facts(plan: Plan) -> str:
    """What predictions are based on where nothing was calibrated, and how to calibrate."""
    advice = f"`tunemark calibrate --device {plan.device.name} --size {plan.accelerator.name}` measures this machine"
    if isinstance(plan.device, StatesDeviceFacts):
        facts = plan.device.assumed_facts(plan.launch)
        return f"{facts.source}{describe_learned(plan, facts.name)}; {advice}"
    learned = describe_learned(plan, plan.accelerator.chip)
    return f"published figures of {plan.accelerator.chip}, and shares fitted to published rows{learned}; {advice}"


def describe_learned(plan: Plan, chip: str) -> str:
    """How many runs the constants of a chip were learned from, as the end of a sentence; empty where from none."""
    learned = find_learned(chip, plan.prediction.framework or "ours")
    return f", corrected by {learned.runs} runs of one's own" if learned else ""


def find_base_facts(plan: Plan) -> DeviceFacts:
    """Facts that a calibration starts from: the chip's published figures where they are known, else assumed ones, of
    work that does not overlap."""
    try:
        return find_uncalibrated_facts(plan, plan.launch)
    except BadExperiment:
        return DeviceFacts(
            name=plan.accelerator.chip,
            kind="unknown",
            peak_flops={},
            memory_bytes=None,
            bandwidth_bytes_per_s=10e9,
            node=plan.launch.processes,
            intra_bytes_per_s=1.5e9,
            inter_bytes_per_s=1.5e9,
            efficiency=Efficiency(host_order=1.0, data_hidden=0.0, step_s=5e-3, straggle=0.0),
        )


def find_uncalibrated_facts(plan: Plan, launch: LaunchConfig, *, is_learned: bool = True) -> DeviceFacts:
    """What is known of a plan's device without a calibration. is_learned: corrected by what its runs have shown."""
    if isinstance(plan.device, StatesDeviceFacts):
        facts = plan.device.assumed_facts(launch)
    else:
        facts = find_accelerator_facts(plan.accelerator, plan)
    learned = find_learned(facts.name, plan.prediction.framework or "ours") if is_learned else None
    return learned.apply(facts) if learned else facts


def find_accelerator_facts(accelerator: Accelerator, plan: Plan) -> DeviceFacts:
    """Published facts of what one rank occupies of an accelerator: its chip, or one of the chip's dies."""
    try:
        chip, _ = find_any_chip(accelerator.chip)
        is_die = chip.dies > 1 and plan.launch.processes == chip.dies * (accelerator.chips or 0)
        facts = device_facts(f"{chip.name} die" if is_die else chip.name)
        return declare_facts(facts, plan.declared, plan.spec.precision, chip.dies if is_die else 1)
    except TunemarkError as error:
        raise BadExperiment(
            what=f"strategy auto cannot predict {plan.device.name}:{accelerator.name}",
            why=f"nothing is known of the chip {accelerator.chip!r}: {error.what}",
            next="--chip and --chips say what it is made of; or calibrate it: "
            f"tunemark calibrate --device {plan.device.name} --size {accelerator.name}",
        ) from error


def declare_facts(facts: DeviceFacts, declared: Mapping[str, Any], training: str, dies: int) -> DeviceFacts:
    """The facts with what the user declares of a chip, of which a rank occupies one of `dies`. training: the run's
    precision."""
    peak_flops, memory = (declared.get(name) for name in ("peak_flops", "memory"))
    assumptions = list(facts.assumptions)
    if peak_flops is not None:
        precision = parse_precision(training)
        assert precision is not None, "every precision that trains multiplies in a known one"
        facts = replace(facts, peak_flops={**facts.peak_flops, precision: peak_flops / dies})
        assumptions.append(f"the peak of {facts.name} in {precision} is declared, not published")
    if memory is not None:
        facts = replace(facts, memory_bytes=memory * GIB / dies)
        assumptions.append(f"the memory of {facts.name} is declared, not published")
    return replace(facts, assumptions=tuple(assumptions))
