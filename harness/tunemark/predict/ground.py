"""Make a plan's layout search problem: its workload, the layouts that may be chosen, and the machine's hardware model.

The hardware model comes from a calibration of the machine if one matches, else from the chip's published figures, else
(a CPU) from assumptions; its `source` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment.plan import Plan
from tunemark.experiment.resolve import SEARCHED
from tunemark.physics.peaks import find_chip, why_no_peak
from tunemark.plugin.catalog import Catalog
from tunemark.plugin.descriptors import Accelerator, Architecture, Launch, Strategy
from tunemark.predict.calibration import Fingerprint, find, formulas, torch_version
from tunemark.predict.candidates import Candidate, Space
from tunemark.predict.facts import device_facts
from tunemark.predict.layout import Workload
from tunemark.predict.machine import DeviceFacts, Efficiency
from tunemark.predict.planned import work_of
from tunemark.predict.search import Ground, fits

# Share of a device's memory that training can use: the rest is the runtime's context, the communication library's
# buffers, and what the allocator loses to fragmentation.
USABLE = 0.92
# Strategies that the cost model covers; others that plugins provide are not searched.
KNOWN = ("none", "ddp", "fsdp", "tp", "pp")

# On a CPU no thread runs ahead of the kernels, and no core communicates while it computes.
_CPU_EFFICIENCY = Efficiency(
    gemm={"bf16": 0.6, "fp32": 0.6},
    attention=0.1,
    memory=0.7,
    host_s=20e-6,
    host_order=1.0,
    data_hidden=0.0,
    step_s=5e-3,
    straggle=0.0,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Inputs of a layout search. refusal: why a candidate cannot train the model, or None. requested: settings as given
    or by default; free: those of them that the search may change. batch_follows: no global batch was given, so that it
    grows with the size. ranks_each: ranks of one package, the unit of a size."""

    work: Workload
    space: Space
    ground: Ground
    refusal: Callable[[Candidate], str | None]
    requested: dict[str, int | str]
    free: tuple[str, ...]
    batch_follows: bool
    ranks_each: int = 1


def question(plan: Plan, catalog: Catalog) -> Question:
    """The search problem of a plan whose strategy is `auto`. Raises `BadExperiment` where the machine is unknown."""
    spec = plan.spec
    if not plan.model.architecture.num_hidden_layers:
        raise BadExperiment(
            what=f"strategy auto cannot predict {plan.model.name}",
            why="the cost model is of decoder layers, and it has none",
            next="choose a strategy by hand: see `tunemark list strategies`",
        )
    work = work_of(plan)
    strategies = known_strategies(catalog, plan.device.name)
    ranks = plan.launch.processes
    alone = "none" in strategies and is_alone(plan, strategies["none"])
    space = Space(
        ranks=ranks,
        strategies=frozenset(strategies),
        global_batch=spec.global_batch,
        micro_batches=None if "micro_batch" in plan.free else (spec.micro_batch,),
        checkpointings=("none", "selective", "full") if "checkpointing" in plan.free else (spec.checkpointing,),
        alone=alone,
    )
    ground = ground_of(plan, ranks, strategies["none"] if alone else None)
    for facts in filter(None, (ground.facts, ground.alone)):
        if work.precision not in facts.peak_flops:
            raise BadExperiment(
                what=f"{facts.name} cannot be predicted in {spec.precision}",
                why=why_no_peak(facts.name, work.precision) or f"only in {', '.join(facts.peak_flops)}",
                next="another --precision, or `tunemark calibrate` on the device itself",
            )
    requested: dict[str, int | str] = {name: getattr(spec, name) for name in ("strategy", "global_batch", *SEARCHED)}
    settings = {name: getattr(spec, name) for name in ("sequence", "method", "precision", "batching")}
    return Question(
        work=work,
        space=space,
        ground=ground,
        refusal=refusal_of(strategies, plan.model.architecture, settings),
        requested=requested,
        free=plan.free,
        batch_follows=spec.global_batch == spec.micro_batch * ranks,
    )


def smallest(asked: Question) -> int | None:
    """The smallest size on which some layout fits in memory: tries 1 to a node, then whole nodes, then doubles up to a
    million nodes. None where none fits, and where all ranks share one memory, so that a larger size does not help."""
    if asked.ground.is_shared:
        return None
    node = asked.ground.facts.node
    # Sequences of each rank, where no global batch was given.
    space = asked.space
    each = space.global_batch // space.ranks if asked.batch_follows else None
    sizes: list[int] = [*range(1, node), *range(node, 64 * node, node), *(node << n for n in range(6, 21))]
    for ranks in (n for n in sizes if n % asked.ranks_each == 0):
        batch = space.global_batch if each is None else each * ranks
        trial = replace(space, ranks=ranks, global_batch=batch, alone=ranks == 1 and "none" in space.strategies)
        ground = replace(asked.ground, alone=asked.ground.facts, alone_bytes=asked.ground.memory_bytes)
        if fits(replace(asked.work, global_batch=batch), trial, ground, asked.refusal):
            return ranks // asked.ranks_each
    return None


def refusal_of(
    strategies: Mapping[str, Strategy], a: Architecture, settings: Mapping[str, Any]
) -> Callable[[Candidate], str | None]:
    """A function that says why a candidate's strategies refuse to train the model; None where they do not."""

    def refusal(candidate: Candidate) -> str | None:
        given = {**settings, **candidate.settings}
        for axis in candidate.axes:
            if why := strategies[axis.strategy].refusal(candidate.axes, a, given):
                return why
        return None

    return refusal


def known_strategies(catalog: Catalog, device: str) -> dict[str, Strategy]:
    """The device's strategies that the cost model covers, by name."""
    found = {}
    for name in KNOWN:
        try:
            found[name] = catalog.strategy(name, device)
        except TunemarkError:
            continue
    return found


def is_alone(plan: Plan, none: Strategy) -> bool:
    """Whether one process can use the whole size."""
    try:
        return plan.device.launch(plan.accelerator, none).processes == 1
    except TunemarkError:
        return False


def ground_of(plan: Plan, ranks: int, none: Strategy | None, where: Path | None = None) -> Ground:
    """The hardware model of a plan's machine. none: the strategy `none` of one process, or None where that cannot use
    the size. where: the folder of calibrations, by default the user's."""
    accelerator = plan.accelerator
    whole = accelerator.memory_bytes
    is_cpu = plan.device.name == "cpu"
    each = None if whole is None else USABLE * whole / ranks
    found = [find(fingerprint_of(plan, plan.launch), where)]
    alone = None
    if none is not None:
        launch = plan.device.launch(accelerator, none)
        found.append(find(fingerprint_of(plan, launch), where))
        alone = found[-1].facts if found[-1] else _find_uncalibrated_facts(plan, launch)
    facts = found[0].facts if found[0] else _find_uncalibrated_facts(plan, plan.launch)
    if each is None and not is_cpu and facts.memory_bytes is not None:
        # Published memory of a chip that is declared and not present on this machine.
        each = USABLE * facts.memory_bytes
    dates = sorted({one.made_utc for one in found if one})
    source = f"measured on this machine ({', '.join(dates)})" if dates else ""
    if not all(found):
        word = "for one process, " if found[0] else "for several processes, " if dates else ""
        source = "; ".join(filter(None, [source, f"{word}{facts_words(plan)}"]))
    return Ground(
        facts=facts,
        memory_bytes=each,
        alone=alone,
        alone_bytes=(None if whole is None else USABLE * whole) if is_cpu else each,
        source=source,
        is_shared=is_cpu,
        mechanisms=found[0].mechanisms if found[0] else {},
    )


def fingerprint_of(plan: Plan, launch: Launch) -> Fingerprint:
    """The fingerprint that a calibration must have to be valid for such a job of the plan."""
    return Fingerprint(
        device=plan.device.name,
        chip=plan.accelerator.chip,
        processes=launch.processes,
        threads=launch.threads,
        torch=torch_version(plan.spec.python),
        allocator=launch.environment.get("GLIBC_TUNABLES", ""),
        formulas=formulas(),
    )


def facts_words(plan: Plan) -> str:
    """What predictions are based on where nothing was calibrated, and how to calibrate."""
    advice = f"`tunemark calibrate --device {plan.device.name} --size {plan.accelerator.name}` measures this machine"
    if plan.device.name == "cpu":
        return f"figures assumed of a CPU core; {advice}"
    return f"published figures of {plan.accelerator.chip}, and shares fitted to published rows; {advice}"


def base_facts(plan: Plan) -> DeviceFacts:
    """Facts that a calibration starts from: the chip's published figures where they are known, else assumed ones."""
    try:
        return _find_uncalibrated_facts(plan, plan.launch)
    except BadExperiment:
        return replace(cpu(1, plan.launch.processes), name=plan.accelerator.chip, kind="unknown")


def _find_uncalibrated_facts(plan: Plan, launch: Launch) -> DeviceFacts:
    if plan.device.name == "cpu":
        return cpu(launch.threads, launch.processes)
    return of_chip(plan.accelerator, plan)


def cpu(threads: int, ranks: int) -> DeviceFacts:
    """Assumed facts of one of `ranks` processes with `threads` threads each on a CPU: rough figures of server cores of
    2020 to 2025, good enough to rank layouts. Computation and communication share the cores and do not overlap."""
    return DeviceFacts(
        name=f"{threads} CPU cores",
        kind="cpu",
        peak_flops={"fp32": 1e11 * threads, "bf16": 2e11 * threads},
        memory_bytes=None,
        bandwidth_bytes_per_s=10e9 * threads,
        node=max(ranks, 1),
        intra_bytes_per_s=1.5e9,
        inter_bytes_per_s=1.5e9,
        intra_s=100e-6,
        inter_s=100e-6,
        efficiency=_CPU_EFFICIENCY,
        residual=0.5,
        source="assumed",
    )


def of_chip(accelerator: Accelerator, plan: Plan) -> DeviceFacts:
    """Published facts of what one rank occupies of an accelerator: its chip, or one of the chip's dies."""
    try:
        chip = find_chip(accelerator.chip)
        is_die = chip.dies > 1 and plan.launch.processes == chip.dies * (accelerator.chips or 0)
        return device_facts(f"{chip.name} die" if is_die else chip.name)
    except TunemarkError as error:
        raise BadExperiment(
            what=f"strategy auto cannot predict {plan.device.name}:{accelerator.name}",
            why=f"nothing is known of the chip {accelerator.chip!r}: {error.what}",
            next="--chip and --chips say what it is made of; or calibrate it: "
            f"tunemark calibrate --device {plan.device.name} --size {accelerator.name}",
        ) from error
