"""Calibrate the predictor against this machine: measure kernels and whole steps in worker processes. No torch here.

A size that can be used in two ways is calibrated twice: by one process with every core, and by one process for each
unit. With several processes all ranks measure at once, because they share the machine in training too.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tunemark.data import prepare_data
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment import Plan, format_named_options, make_experiment, make_grid_points, make_plan
from tunemark.launch import POLL_S, copy_code
from tunemark.launch.attempt_end import read_stderr_tail
from tunemark.launch.local_launcher import LocalJob
from tunemark.plugin import Catalog, JobSpec, Model
from tunemark.plugin.descriptors import Architecture, Strategy, StrategyAxis
from tunemark.predict.calibration import Calibration, count_mechanism_units, store_calibration
from tunemark.predict.calibration_fit import ProbeStep, fit_calibration, make_facts_from_kernels
from tunemark.predict.plan_conversion import make_layout, make_workload
from tunemark.predict.search_problem import find_base_facts, find_searchable_strategies, make_calibration_fingerprint
from tunemark.results.measurement import read_measurement
from tunemark.runner.device_lock import hold_devices, list_device_names
from tunemark.temporary import temporary_folder
from tunemark_worker.contract import Assignment
from tunemark_worker.precision import PRECISIONS

# The model by whose dimensions plans are checked, and the dataset; the probes' own dimensions are below.
_PLANNED_MODEL, _DATASET = "llama-2-7b", "synthetic"
# Timed steps of a probe, and its warm-up steps.
_STEPS, _WARMUP = 4, 1
# Seconds for the kernels of one shape of a job; beyond, they are repeated less often.
_KERNELS_S = 15.0
# Seconds for whole steps of each shape; probes beyond are left out.
_PROBES_S = 70.0
# Share of our cores' time that other processes may use before the user is warned.
_MAX_OTHER_LOAD = 0.1
# Seconds after which a job is ended.
_TIMEOUT_S = 400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _ProbeSpec:
    """A step to be measured. strategy: with its options; None where each process trains by itself, all at once."""

    name: str
    architecture: Architecture
    strategy: str | None
    sequence: int
    micro_batch: int
    global_batch: int
    checkpointing: str = "none"


def calibrate(
    device: str,
    size: str | None,
    catalog: Catalog,
    *,
    precision: str,
    oversubscribe: bool = False,
    say: Callable[[str], None],
) -> list[Calibration]:
    """Measure, fit and store one calibration for each shape of a job, under the fingerprints that searches look for.

    Raises a `TunemarkError` where the device is not on this machine or its processes fail.
    """
    plans = _shape_plans(device, size, catalog, precision, oversubscribe)
    found = []
    for plan in plans:
        words = f"{plan.launch.processes} process(es) of {plan.launch.threads} thread(s)"
        say(f"calibrating {plan.device.name}:{plan.accelerator.name} by {words}")
        began_s = time.monotonic()
        with temporary_folder("calibrate") as folder:
            kernels, steps = _measure_probes(plan, catalog, folder, precision, say)
        if not steps:
            raise BadExperiment(
                what=f"{plan.device.name}:{plan.accelerator.name} could not be calibrated",
                why=f"no probe finished within {_PROBES_S:.0f} s of whole steps",
                next="calibrate when nothing else runs on this machine",
            )
        others = next((r["fraction"] for r in kernels if r["kind"] == "others"), None)
        if others is not None and others > _MAX_OTHER_LOAD and not plan.accelerator.oversubscribed:
            say(f"other processes used {100 * others:.0f} % of these cores: calibrate again when nothing else runs")
        facts, mechanisms, probes = fit_calibration(make_facts_from_kernels(kernels, find_base_facts(plan)), steps)
        one = Calibration(
            fingerprint=make_calibration_fingerprint(plan, plan.launch),
            facts=facts,
            mechanisms=mechanisms,
            probes=probes,
            made_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=time.monotonic() - began_s,
            kernels=tuple(kernels),
        )
        say(f"kept as {store_calibration(one)} after {one.seconds:.0f} s")
        found.append(one)
    return found


def _shape_plans(device: str, size: str | None, catalog: Catalog, precision: str, oversubscribe: bool) -> list[Plan]:
    """A plan for each way to use the size: one process, and one process for each unit."""
    plans = []
    errors: list[TunemarkError] = []
    known = find_searchable_strategies(catalog, device).values()
    several = next((each.name for each in known if each.distributed), None)
    for strategy in filter(None, (_find_single_process(known), several)):
        flags = {"model": _PLANNED_MODEL, "dataset": _DATASET, "device": device, "strategy": strategy,
                 "precision": precision, "size": size, "oversubscribe": oversubscribe}  # fmt: skip
        try:
            (point,) = make_grid_points(make_experiment({k: v for k, v in flags.items() if v is not None}))
            plans.append(make_plan(point, catalog))
        except TunemarkError as error:
            errors.append(error)
    shapes = {(p.launch.processes, p.launch.threads): p for p in reversed(plans)}
    if not shapes:
        raise errors[0]
    return list(reversed(list(shapes.values())))


def _find_single_process(strategies: Iterable[Strategy]) -> str | None:
    """The name of the first strategy of one process."""
    return next((each.name for each in strategies if each.layout and each.layout.degree == "single"), None)


def _make_probes(plan: Plan, strategies: dict[str, Strategy]) -> list[_ProbeSpec]:
    """Probes with two small models: one dominated by its layers, one by its vocabulary."""
    ranks = plan.launch.processes
    models = _make_probe_models(plan)
    found: list[_ProbeSpec] = []
    chosen = _list_multi_process_probes(strategies) if ranks > 1 else _SINGLE_PROCESS_PROBES
    for name, strategy, micro_batch, checkpointing in chosen:
        architecture, sequence = models[name]
        words = f"{name} {strategy or 'alone'} x {micro_batch}"
        words += f" {checkpointing}" if checkpointing != "none" else ""
        found.append(
            _ProbeSpec(
                name=words,
                architecture=architecture,
                strategy=strategy,
                sequence=sequence,
                micro_batch=micro_batch,
                global_batch=4 * ranks,
                checkpointing=checkpointing,
            )
        )
    return found


# (model, strategy, micro-batch, checkpointing) of the probes, most important first; a data rank has four sequences a
# step. Crossing two micro-batches with two models separates a mechanism's cost for each micro-batch from that for each
# byte; the other two combinations follow later.
_PROBE_MODELS = ("layers", "vocabulary")
_Probe = tuple[str, str | None, int, str]
_SINGLE_PROCESS_PROBES: tuple[_Probe, ...] = tuple(
    (model, None, micro_batch, checkpointing)
    for micro_batch, checkpointing in ((4, "none"), (1, "none"), (4, "selective"), (4, "full"), (2, "none"))
    for model in _PROBE_MODELS
)


def _list_multi_process_probes(strategies: dict[str, Strategy]) -> list[_Probe]:
    """The probes of several processes, with the first strategy of each degree."""
    first = {s.layout.degree: s for s in reversed(strategies.values()) if s.layout is not None and s.distributed}
    chosen = [(each, layout) for each in strategies.values() if (layout := each.layout) and each in first.values()]
    # A pipeline needs several micro-batches.
    batches = [(each.name, 2 if layout.degree == "pipeline" else 4) for each, layout in chosen]
    crossed = [
        (model, strategy, 1 if model == more_of else many, "none")
        for more_of in reversed(_PROBE_MODELS)
        for strategy, many in batches
        for model in _PROBE_MODELS
    ]
    options = [format_named_options(each.name, some) for each, layout in chosen for some in layout.calibration_options]
    optional = [(model, strategy, 2, "none") for strategy in options for model in _PROBE_MODELS]
    return [*_SINGLE_PROCESS_PROBES[:5], *crossed, *optional, *_SINGLE_PROCESS_PROBES[5:]]


def _make_probe_models(plan: Plan) -> dict[str, tuple[Architecture, int]]:
    """The probes' models with their sequence lengths; the device takes a fraction of a second for a step."""
    ranks = plan.launch.processes
    layers = 4 if ranks <= 2 else 2 * ranks
    if find_base_facts(plan).shares_memory:  # cores of a host
        return {
            "layers": (_make_llama(layers, hidden=256, intermediate=704, heads=8, vocab=4096), 256),
            "vocabulary": (_make_llama(layers, hidden=128, intermediate=320, heads=8, vocab=49152), 128),
        }
    return {
        "layers": (_make_llama(layers, hidden=4096, intermediate=11008, heads=32, vocab=8192), 1024),
        "vocabulary": (_make_llama(layers, hidden=2048, intermediate=5632, heads=32, vocab=131072), 1024),
    }


def _make_llama(layers: int, *, hidden: int, intermediate: int, heads: int, vocab: int) -> Architecture:
    return Architecture(
        model_type="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=4096,
    )


def _measure_probes(
    plan: Plan, catalog: Catalog, folder: Path, precision: str, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[ProbeStep]]:
    """Measure: returns records of the kernels, and the probes that finished."""
    strategies = find_searchable_strategies(catalog, plan.device.name)
    probes, refused = _make_probes(plan, strategies), []
    folders: list[tuple[_ProbeSpec, Assignment, Path]] = []
    for i, probe in enumerate(probes):
        try:
            assignment = _make_assignment(plan, probe, catalog, precision, _find_single_process(strategies.values()))
        except TunemarkError as error:
            refused.append(f"{probe.name}: {error.next or error.what}")
            continue
        where = folder / f"probe-{i}"
        where.mkdir()
        (where / "plan.json").write_text(assignment.to_json())
        folders.append((probe, assignment, where))
    if refused:
        say(f"not measured here: {'; '.join(refused)}")
    job = {
        "folder": str(folder),
        "folders": [str(where) for _, _, where in folders],
        "precisions": list(dict.fromkeys([PRECISIONS[precision].products, "bf16", "fp32"])),
        "budget_s": _KERNELS_S,
        "probes_s": _PROBES_S,
    }
    _run_job(plan, folder, job, say)
    kernels = [json.loads(line) for line in (folder / "kernels.0.jsonl").read_text().splitlines()]
    steps = [step for probe, assignment, where in folders if (step := _read_step(probe, assignment, where, strategies))]
    if len(steps) < len(folders):
        say(f"{len(folders) - len(steps)} of {len(folders)} probes did not finish in time and are left out")
    return kernels, steps


def _run_job(plan: Plan, folder: Path, job: dict[str, Any], say: Callable[[str], None]) -> None:
    """Run the job in processes of its own; raises a `TunemarkError` where not even the kernels were measured."""
    (folder / "job.json").write_text(json.dumps(job))
    assert plan.model.runtime is not None, "the probes' model has a runtime"
    runtimes = [json.loads(Path(where, "plan.json").read_text())["strategy_runtime"] for where in job["folders"]]
    code = copy_code([plan.model.runtime, plan.device.runtime, *runtimes], folder)
    names = list_device_names(plan.device, plan.accelerator)
    with hold_devices(names, say=say), plan.device.occupy(plan.accelerator, folder) as variables:
        started = LocalJob(
            JobSpec(
                name="calibration",
                python=plan.spec.python or sys.executable,
                processes=plan.launch.processes,
                threads=plan.launch.threads,
                environment={**plan.launch.environment, **(variables or {})},
                code=code.folder,
                folder=folder,
            ),
            ("-m", "tunemark_worker.calibration", "job.json"),
        )
        until_s = time.monotonic() + _TIMEOUT_S
        try:
            while (code_of_end := started.exit_code()) is None and time.monotonic() < until_s:
                time.sleep(POLL_S)
        finally:
            # Every rank leaves its process id as the suffix of a file's name.
            pids = dict(enumerate(int(path.suffix[1:]) for path in folder.glob("pid.*")))
            started.stop(pids, graceful=True)
    kernels = folder / "kernels.0.jsonl"
    if code_of_end != 0:
        last = read_stderr_tail(folder).strip().splitlines()[-8:]
        words = "it took too long" if code_of_end is None else f"it ended with code {code_of_end}"
        if not kernels.exists() or not kernels.read_text().strip():
            raise BadExperiment(
                what=f"{plan.device.name}:{plan.accelerator.name} could not be calibrated",
                why=f"{words}: {' | '.join(last)}",
                next="`tunemark run` on the same device says more",
            )
        say(f"{words}; using the measurements from before that: {' | '.join(last[-2:])}")


def _make_assignment(plan: Plan, probe: _ProbeSpec, catalog: Catalog, precision: str, single: str | None) -> Assignment:
    """The worker's assignment for a probe. single: the strategy of one process."""
    strategy = probe.strategy or plan.spec.strategy
    flags: dict[str, Any] = {
        "model": _PLANNED_MODEL, "dataset": f"{_DATASET}:documents=400", "device": plan.device.name,
        "size": plan.accelerator.name, "strategy": strategy, "precision": precision, "sequence": probe.sequence,
        "micro_batch": probe.micro_batch, "global_batch": probe.global_batch, "checkpointing": probe.checkpointing,
        "steps": _STEPS, "warmup": _WARMUP, "target_interval": 0.0, "oversubscribe": plan.accelerator.oversubscribed,
    }  # fmt: skip
    (point,) = make_grid_points(make_experiment(flags))
    found = make_plan(point, catalog)
    model: Model = replace(found.model, architecture=probe.architecture)
    found = replace(found, model=model)
    tokens = prepare_data(found.dataset, found.dataset_options, model, "all").token_file
    assignment = found.assignment(tokens, "calibration", measure_peak=False)
    if probe.strategy is None and plan.launch.processes > 1:
        assert single is not None, "without it there are no probes of single processes"
        runtime = catalog.strategy(single, plan.device.name).runtime
        assignment = replace(assignment, strategy=single, strategy_runtime=runtime, axes=[])
    return assignment


def _read_step(
    probe: _ProbeSpec, assignment: Assignment, where: Path, strategies: Mapping[str, Strategy]
) -> ProbeStep | None:
    """A probe with the median step time of its slowest rank; None where the probe did not finish."""
    try:
        found = read_measurement(where)
    except TunemarkError:
        return None
    if len(found.ranks) < assignment.processes or any(rank.end is None for rank in found.ranks):
        return None
    slowest = 0.0
    for rank in found.ranks:
        edges = [edge for edge in rank.edges if edge.steps >= _WARMUP]
        each = sorted((b.instant_s - a.instant_s) / (b.steps - a.steps) for a, b in itertools.pairwise(edges))
        if not each:
            return None
        slowest = max(slowest, each[len(each) // 2])
    axes = [StrategyAxis(**axis) for axis in assignment.axes] if probe.strategy is not None else []
    ranks = assignment.processes if probe.strategy is None else 1
    used = [strategies[axis.strategy] for axis in axes]
    layout = make_layout(axes, used, micro_batch=probe.micro_batch, checkpointing=probe.checkpointing)
    work = make_workload(
        probe.architecture,
        sequence=probe.sequence,
        global_batch=probe.global_batch // ranks,
        precision=assignment.precision,
        optimizer=assignment.optimizer,
    )
    names = tuple(count_mechanism_units(work, layout))
    return ProbeStep(name=probe.name, work=work, layout=layout, mechanisms=names, measured_s=slowest)
