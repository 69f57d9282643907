"""A resolved plan as the cost model takes it: the bridge from what `tunemark run` would do to what it should take."""

from __future__ import annotations

from dataclasses import replace

from tunemark.experiment.plan import Plan
from tunemark.predict.layout import TORCH, Layout, Recompute, Stack, Workload

_RECOMPUTE: dict[str, Recompute] = {"none": "none", "off": "none", "selective": "selective", "full": "full"}


def of_plan(plan: Plan) -> tuple[Workload, Layout] | str:
    """What a plan does and how it lies on its ranks; a sentence where the cost model has no words for its strategy.

    The device is not part of it: `device_facts(plan.accelerator.chip)`, or what was calibrated on the machine.
    """
    spec = plan.spec
    degrees = {axis.strategy: axis.degree for axis in plan.axes}
    options = {axis.strategy: axis.options for axis in plan.axes}
    strange = [name for name in degrees if name not in ("ddp", "fsdp", "tp", "pp")]
    if strange or (not degrees and plan.strategy.name != "none"):
        return f"the cost model does not know the strategy {(strange or [plan.strategy.name])[0]!r}"
    sharded = degrees.get("fsdp", 1)
    pipe = options.get("pp", {})
    schedule = pipe.get("schedule", "1f1b")
    virtual = int(pipe.get("virtual", "2")) if schedule in ("interleaved", "zb", "zbv") else 1
    pipeline = degrees.get("pp", 1)
    layout = Layout(
        data=degrees.get("ddp", 1) * sharded,
        shard=sharded,
        zero=3 if sharded > 1 else 0,
        reshard=options.get("fsdp", {}).get("reshard", "true") == "true",
        tensor=degrees.get("tp", 1),
        sequence_parallel=options.get("tp", {}).get("sequence_parallel", "false") == "true",
        pipeline=pipeline,
        virtual=virtual if pipeline > 1 else 1,
        schedule="gpipe" if schedule == "gpipe" else "interleaved" if virtual > 1 else "1f1b",
        recompute=_RECOMPUTE.get(spec.checkpointing, "none"),
        micro_batch=spec.micro_batch,
    )
    work = Workload(
        architecture=plan.model.architecture,
        sequence=spec.sequence,
        global_batch=spec.global_batch,
        precision={"bf16-autocast": "bf16"}.get(spec.precision, spec.precision),
        optimizer=spec.optimizer.partition("-")[0],
        trained_fraction=plan.trainable_parameters / plan.parameters,
        stack=_stack(spec.precision),
    )
    return work, layout


def _stack(precision: str) -> Stack:
    if precision == "bf16":
        # Weights, gradients and both moments in 16 bits, no copy in 32.
        return replace(TORCH, parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=4.0, reduce_bytes=2.0)
    # FSDP gathers the 32 bits that it keeps; autocast narrows them in each operation.
    return replace(TORCH, gather_bytes=4.0)
