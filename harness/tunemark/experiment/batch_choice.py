"""How a run's rows are filled, how many form a step, and when it ends: what the user left open, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.mesh_layout import MeshLayout
from tunemark.plugin.descriptors import Dataset, Model

# Seconds of steps of a run without another limit: three attempts of a tiny model then take a minute and a half.
DEFAULT_BUDGET_S = 20.0


def choose_batching(point: GridPoint, model: Model, notes: list[str]) -> GridPoint:
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


def check_training(point: GridPoint, model: Model, dataset: Dataset) -> None:
    """Refuse a sequence, a choice of trained tokens or a schedule that the model, dataset or end does not allow."""
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


def choose_budget(point: GridPoint) -> float | None:
    """Seconds of steps; without --budget, a run with another limit has no time limit."""
    if point["budget"] is not None:
        return float(point["budget"])
    return None if point["steps"] is not None or point["epochs"] is not None else DEFAULT_BUDGET_S


def choose_batches(point: GridPoint, layout: MeshLayout, *, is_searched: bool) -> tuple[int, int]:
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
