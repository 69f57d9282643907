"""The training loops of other programs, measured by the same witnesses as tunemark's own."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Trainer, hookimpl


@hookimpl
def tunemark_trainers() -> Sequence[Trainer]:
    return [
        Trainer(
            name="hf",
            runtime="tunemark_trainers.transformers_trainer:HfTrainer",
            description="transformers' Trainer",
            package="transformers",
            license="Apache-2.0",
            requires=("torch", "transformers", "accelerate"),
            minimum_versions={"transformers": "4.53"},
            honours={
                "precision": ("fp32", "bf16-autocast", "bf16"),
                "batching": ("pad", "pack"),
                "optimizer": ("adamw", "sgd", "adafactor"),
                "schedule": (),
                "clip_norm": (),
            },
        ),
    ]
