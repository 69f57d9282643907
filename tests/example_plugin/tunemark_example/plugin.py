"""Describes what this distribution offers. Every `tunemark` command imports this module, so it must not import torch.

`toy` is a CPU core. `toy-async` works asynchronously like a GPU, at an exactly known speed, so that a measurement of it
can be checked. `toy-async-lying` reports that it has finished when it has not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tunemark.plugin import (
    Accelerator,
    Architecture,
    Dataset,
    Device,
    LaunchConfig,
    Model,
    MonitorTarget,
    Strategy,
    StrategyLayout,
    TokenizerSpec,
    Trainer,
    hookimpl,
)


class Toy:
    """A device with the single size "1", present on every machine."""

    def __init__(self, name: str, runtime: str) -> None:
        self.name, self.runtime = name, runtime

    def accelerators(self) -> Sequence[Accelerator]:
        return [Accelerator(name="1", chip=self.name, chips=1, memory_bytes=None)]

    def accelerator(self, size: str) -> Accelerator | None:
        return next((a for a in self.accelerators() if a.name == size), None)

    def default_size(self) -> str:
        return "1"

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        """Nothing to do. A shared accelerator would be reserved here and checked to be idle."""
        return contextlib.nullcontext({})

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """`options` reach the runtime as `assignment.device_options` and are stored with the run."""
        step_s = float(os.environ.get("TOY_STEP_S", "0.02"))
        return LaunchConfig(processes=1, threads=1, environment={"OMP_NUM_THREADS": "1"}, options={"step_s": step_s})

    def monitor_target(self, accelerator: Accelerator) -> MonitorTarget | None:
        """Which monitor tunemark reads while a job runs on the device, and the device's names there."""
        monitor = os.environ.get("TOY_MONITOR")
        return MonitorTarget(monitor=monitor, devices=("0", "1")) if monitor else None


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [
        Toy("toy", "tunemark_example.runtime:Toy"),
        Toy("toy-async", "tunemark_example.runtime:ToyAsync"),
        Toy("toy-async-lying", "tunemark_example.runtime:ToyAsyncLying"),
    ]


@hookimpl
def tunemark_models() -> Sequence[Model]:
    return [
        Model(
            name="toy-lm",
            description="predicts a byte from the byte before it; 8304 parameters",
            # No layers: an embedding, a norm and a head.
            architecture=Architecture(
                model_type="toy",
                vocab_size=259,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=0,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=16,
                max_position_embeddings=4096,
            ),
            tokenizer=TokenizerSpec(name="bytes", loader="tunemark_example.text:ByteTokenizer"),
            runtime="tunemark_example.runtime:ToyLm",
            requires=("torch",),
        )
    ]


@hookimpl
def tunemark_datasets() -> Sequence[Dataset]:
    return [
        Dataset(
            name="toy-text",
            loader="tunemark_example.text:ToyText",
            description="sums of small numbers, a question and an answer each",
            options={"examples": "how many (48)"},
        )
    ]


@hookimpl
def tunemark_trainers() -> Sequence[Trainer]:
    return [
        Trainer(
            name="toy-loop",
            runtime="tunemark_example.runtime:ToyLoop",
            description="the shortest loop that trains as tunemark's own does",
            package="tunemark-example",
            license="MIT",
            honours={"precision": ("fp32",), "batching": ("pad", "pack"), "clip_norm": ()},
        )
    ]


@hookimpl
def tunemark_strategies() -> Sequence[Strategy]:
    return [
        Strategy(
            name="toy-wrap",
            runtime="tunemark_example.runtime:ToyWrap",
            description="one process; wraps the model and changes nothing",
            distributed=False,
        ),
        Strategy(
            name="toy-copies",
            runtime="tunemark_example.runtime:ToyCopies",
            description="a copy of the model in each process, synchronized by torch's DistributedDataParallel",
            layout=StrategyLayout(degree="data"),
        ),
    ]
