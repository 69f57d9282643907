"""Convert a resolved plan, what `tunemark run` would do, to the cost model's inputs: workload, layout and stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunemark.experiment.plan import Plan
from tunemark.physics import ALL_WEIGHTS, TrainedWeights
from tunemark.plugin.descriptors import Architecture, StrategyAxis
from tunemark.predict import worker_footprint
from tunemark.predict.layout import TORCH, RankLayout, Recompute, Schedule, SoftwareStack, Workload

_SCHEDULES: dict[str, Schedule] = {"gpipe": "gpipe", "interleaved": "interleaved", "zb": "zb", "zbv": "zbv"}
_RECOMPUTE: dict[str, Recompute] = {"none": "none", "off": "none", "selective": "selective", "full": "full"}


def convert_plan(plan: Plan) -> tuple[Workload, RankLayout] | str:
    """A plan's workload and layout; a sentence with the reason where the cost model does not cover its strategy.

    The device is separate: `device_facts(plan.accelerator.chip)`, or a calibration of the machine.
    """
    spec = plan.spec
    strange = [axis.strategy for axis in plan.axes if axis.strategy not in ("ddp", "fsdp", "tp", "pp")]
    if strange or (not plan.axes and plan.strategy.name != "none"):
        return f"the cost model does not know the strategy {(strange or [plan.strategy.name])[0]!r}"
    return make_plan_workload(plan), make_layout(
        plan.axes, micro_batch=spec.micro_batch, checkpointing=spec.checkpointing
    )


def make_plan_workload(plan: Plan) -> Workload:
    """The workload of a plan, which does not depend on its layout."""
    spec = plan.spec
    return make_workload(
        plan.model.architecture,
        sequence=spec.sequence,
        global_batch=spec.global_batch,
        precision=spec.precision,
        optimizer=spec.optimizer,
        trained_fraction=plan.trainable_parameters / plan.parameters if plan.parameters else 1.0,
        trained=plan.method.trained(plan.model.architecture),
        packed=spec.batching == "pack",
    )


def make_layout(axes: Sequence[StrategyAxis], *, micro_batch: int, checkpointing: str) -> RankLayout:
    """The layout of a mesh of our strategies. Zero-bubble schedules are timed as interleaved ones."""
    degrees = {axis.strategy: axis.degree for axis in axes}
    options = {axis.strategy: axis.options for axis in axes}
    sharded = degrees.get("fsdp", 1)
    pipe = options.get("pp", {})
    schedule = _SCHEDULES.get(pipe.get("schedule", "1f1b"), "1f1b")
    virtual = int(pipe.get("virtual", "2")) if schedule in ("interleaved", "zb", "zbv") else 1
    pipeline = degrees.get("pp", 1)
    return RankLayout(
        data=degrees.get("ddp", 1) * sharded,
        shard=sharded,
        zero=3 if sharded > 1 else 0,
        reshard=options.get("fsdp", {}).get("reshard", "true") == "true",
        tensor=degrees.get("tp", 1),
        sequence_parallel=options.get("tp", {}).get("sequence_parallel", "false") == "true",
        pipeline=pipeline,
        virtual=virtual if pipeline > 1 else 1,
        schedule=schedule,
        recompute=_RECOMPUTE.get(checkpointing, "none"),
        micro_batch=micro_batch,
    )


def make_workload(
    a: Architecture,
    *,
    sequence: int,
    global_batch: int,
    precision: str,
    optimizer: str,
    trained_fraction: float = 1.0,
    trained: TrainedWeights = ALL_WEIGHTS,
    packed: bool = False,
) -> Workload:
    """The workload of a step that our worker trains. packed: rows hold several documents."""
    return Workload(
        architecture=a,
        sequence=sequence,
        global_batch=global_batch,
        precision={"bf16-autocast": "bf16"}.get(precision, precision),
        optimizer=optimizer.partition("-")[0],
        trained_fraction=trained_fraction,
        trained=trained,
        packed=packed,
        stack=_choose_stack(precision),
    )


def _choose_stack(precision: str) -> SoftwareStack:
    # Our tensor parallelism gathers the logits.
    ours = replace(TORCH, scores_gathered=True, own=precision if precision in worker_footprint.PRECISION_BYTES else "")
    if precision == "bf16":
        # Weights, gradients and both moments in 16 bits, no copy in 32.
        return replace(ours, parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=4.0, reduce_bytes=2.0)
    if precision == "fp32":
        return replace(ours, gather_bytes=4.0)
    # FSDP gathers parameters in 32 bits; autocast casts them in each micro-batch: 4 bytes read, 2 written.
    return replace(ours, gather_bytes=4.0, touched_bytes=TORCH.touched_bytes + 6.0)
