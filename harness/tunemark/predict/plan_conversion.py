"""Convert a resolved plan, what `tunemark run` would do, to the cost model's inputs: workload, layout and stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from tunemark.data import RowSettings, make_row_settings, measure_widths, prepare_data
from tunemark.errors import TunemarkError
from tunemark.experiment.plan import Plan
from tunemark.physics import ALL_WEIGHTS, NF4_BYTES, TrainedWeights, count_parameters
from tunemark.plugin.descriptors import (
    Architecture,
    Dataset,
    LayoutSettings,
    MeshDegree,
    Model,
    Strategy,
    StrategyAxis,
)
from tunemark.predict import worker_step_costs
from tunemark.predict.layout import TORCH, RankLayout, Recompute, SoftwareStack, Workload
from tunemark.predict.memory_model import layer_activation_bytes
from tunemark.predict.software_stacks import CHUNKED_HEAD_BYTES, change_states, find_state_bits
from tunemark.predict.trainer_settings import apply_trainer
from tunemark_worker.training_settings import IN_BACKWARD

_RECOMPUTE: dict[str, Recompute] = {"none": "none", "off": "none", "selective": "selective", "full": "full"}


def convert_plan(plan: Plan) -> tuple[Workload, RankLayout] | str:
    """A plan's workload and layout; a sentence with the reason where the cost model covers not its model or strategy.

    Rows of different widths are those of the run's data, which are read for it. The device is separate:
    `device_facts(plan.accelerator.chip)`, or a calibration of the machine.
    """
    spec = plan.spec
    if not plan.model.architecture.num_hidden_layers:
        return f"the cost model is of decoder layers, and {plan.model.name} has none"
    unknown = [strategy.name for strategy in plan.strategies if strategy.layout is None]
    if unknown:
        return f"the cost model does not know the strategy {unknown[0]!r}"
    layout = make_layout(plan.axes, plan.strategies, micro_batch=spec.micro_batch, checkpointing=spec.checkpointing)
    try:
        work = make_plan_workload(plan)
    except TunemarkError as error:
        return f"how wide rows are is not known: {error.one_line()}"
    if spec.activations == "host":
        layout = replace(layout, offloaded=_count_offloaded_bytes(work, layout))
    return work, layout


def _count_offloaded_bytes(work: Workload, layout: RankLayout) -> float:
    """Activations of all layers but the one whose backward pass is under way."""
    layers = work.architecture.num_hidden_layers
    kept = layers * layer_activation_bytes(work, layout, layout.micro_batch * work.sequence)
    if worker_step_costs.has_step_costs(work):
        kept = max(kept, worker_step_costs.compute_step_costs(work, layout).bytes.activations)
    return kept * (layers - 1) / layers


def make_plan_workload(plan: Plan) -> Workload:
    """The workload of a plan, which does not depend on its layout. A `TunemarkError` where it depends on data that
    cannot be read."""
    spec = plan.spec
    work = make_workload(
        plan.model.architecture,
        sequence=spec.sequence,
        global_batch=spec.global_batch,
        precision=spec.precision,
        optimizer=spec.optimizer,
        trained_fraction=plan.trainable_parameters / plan.parameters if plan.parameters else 1.0,
        trained=plan.method.trained(plan.model.architecture),
        packed=spec.batching == "pack" and spec.attention != "varlen",
        loss=spec.loss,
        optimizer_impl=spec.optimizer_impl,
        update=spec.update,
        quantized=plan.method.quantized_parameters(plan.model.architecture),
    )
    work = widen_rows(work, plan.dataset, plan.dataset_options, plan.model, spec.train_on, make_row_settings(spec))
    return apply_trainer(work, plan.prediction, spec.loss)


def widen_rows(
    work: Workload,
    dataset: Dataset,
    options: Mapping[str, str],
    model: Model,
    train_on: str,
    rows: RowSettings,
) -> Workload:
    """The workload with the rows of its data where they differ in width: steps take as long as rows of the mean, and
    memory is that of the widest."""
    if rows.batching != "bucket":
        return work
    widths = measure_widths(prepare_data(dataset, options, model, train_on), rows)
    return replace(work, sequence=round(widths.mean), widest=widths.widest)


def make_layout(
    axes: Sequence[StrategyAxis], strategies: Sequence[Strategy], *, micro_batch: int, checkpointing: str
) -> RankLayout:
    """The layout of a mesh. strategies: of the axes. Zero-bubble schedules are timed as interleaved ones."""
    degrees = dict.fromkeys(get_args(MeshDegree), 1)
    settings = dict.fromkeys(get_args(MeshDegree), LayoutSettings())
    for axis, strategy in zip(axes, strategies, strict=False):
        assert strategy.layout is not None, "other strategies are refused earlier"
        degrees[strategy.layout.degree] *= axis.degree
        settings[strategy.layout.degree] = strategy.layout.settings(axis.options)
    pipeline = degrees["pipeline"]
    return RankLayout(
        data=degrees["data"] * degrees["shard"],
        shard=degrees["shard"],
        zero=3 if degrees["shard"] > 1 else 0,
        reshard=settings["shard"].reshard,
        tensor=degrees["tensor"],
        sequence_parallel=settings["tensor"].sequence_parallel,
        pipeline=pipeline,
        virtual=settings["pipeline"].virtual if pipeline > 1 else 1,
        schedule=settings["pipeline"].schedule,
        recompute=_RECOMPUTE.get(checkpointing, "none"),
        micro_batch=micro_batch,
    )


# Many parameters: each is a setting of the run.
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
    loss: str = "plain",
    optimizer_impl: str = "auto",
    update: str = "at-end",
    quantized: int = 0,
) -> Workload:
    """The workload of a step that our worker trains. packed: rows hold several documents, and attention
    takes a mask. loss, optimizer_impl, update: as the settings of these names. quantized: frozen parameters that are
    kept in 4 bits."""
    stack = change_states(
        _choose_stack(precision, loss), optimizer_bits=find_state_bits(optimizer), is_in_backward=update == IN_BACKWARD
    )
    if quantized:
        # Embedding, norms and head are as they were.
        share = quantized / count_parameters(a).total
        frozen_bytes = share * NF4_BYTES + (1.0 - share) * stack.parameter_bytes
        stack = replace(stack, frozen_bytes=frozen_bytes, base_bits=4)
    return Workload(
        architecture=a,
        sequence=sequence,
        global_batch=global_batch,
        precision={"bf16-autocast": "bf16"}.get(precision, precision),
        optimizer=optimizer,
        trained_fraction=trained_fraction,
        trained=trained,
        packed=packed,
        loss=loss,
        optimizer_impl=optimizer_impl,
        update=update,
        stack=stack,
    )


def _choose_stack(precision: str, loss: str) -> SoftwareStack:
    # Our tensor parallelism gathers the logits.
    ours = replace(TORCH, scores_gathered=True, own=precision if precision in worker_step_costs.PRECISION_BYTES else "")
    if loss != "plain":
        ours = replace(ours, head_bytes=CHUNKED_HEAD_BYTES)
    if precision == "bf16":
        # Weights, gradients and both moments in 16 bits, no copy in 32.
        return replace(ours, parameter_bytes=2.0, gradient_bytes=2.0, main_bytes=4.0, reduce_bytes=2.0)
    if precision == "fp32":
        return replace(ours, gather_bytes=4.0)
    # FSDP gathers parameters in 32 bits; autocast casts them in each micro-batch: 4 bytes read, 2 written.
    return replace(ours, gather_bytes=4.0, touched_bytes=TORCH.touched_bytes + 6.0)
