"""The training loops of other programs, measured by the same witnesses as tunemark's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.plugin import Architecture, Trainer, TrainerEnvironment, hookimpl
from tunemark_worker.row_packing import WIDTH_MULTIPLE, round_width

_PRECISIONS = ("bf16-autocast", "fp32", "bf16")
_BATCHING = ("pack", "pad", "bucket")
_OPTIMIZERS = ("adamw", "sgd", "adafactor")
# What a loop takes whose optimizer, schedule and clipping are the run's.
_COMMON: Mapping[str, tuple[Any, ...]] = {
    "precision": _PRECISIONS,
    "batching": _BATCHING,
    "optimizer": _OPTIMIZERS,
    "schedule": (),
    "clip_norm": (),
}


def _refuse_but_plain(architecture: Architecture, settings: Mapping[str, Any]) -> str | None:
    """Loops that build the model from modules of their own: those of Llama's and Mistral's kind."""
    a = architecture
    is_plain = a.model_type in ("llama", "mistral") and a.traced is None and not (a.qkv_bias or a.attention_bias)
    if not is_plain or a.tie_word_embeddings or a.num_local_experts:
        return "it trains models of Llama's and Mistral's kind, with a head of their own, from its own modules"
    return None


def _refuse_for_torchtune(architecture: Architecture, settings: Mapping[str, Any]) -> str | None:
    window = architecture.sliding_window
    if window is not None and settings["sequence"] > window:
        return f"its modules have no sliding window, and the model's is {window:,} tokens: --sequence {window} or less"
    if architecture.head_dim * architecture.num_attention_heads != architecture.hidden_size:
        return "its modules have heads whose dimensions add up to the hidden size"
    return _refuse_but_plain(architecture, settings)


def _refuse_for_trl(architecture: Architecture, settings: Mapping[str, Any]) -> str | None:
    if settings["batching"] == "bucket" and settings["sequence"] % WIDTH_MULTIPLE:
        wanted = round_width(settings["sequence"])
        return f"its collator pads to a multiple of {WIDTH_MULTIPLE}, beyond --sequence: --sequence {wanted}"
    return None


_TRAINERS = [
    Trainer(
        name="script",
        runtime="tunemark_trainers.script_trainer:ScriptTrainer",
        description="a script with a training loop of its own, whose model --model names",
        license="yours",
        options={"path": "the script; it calls `lap`, or uses transformers' Trainer"},
        file_options=("path",),
        honours=dict.fromkeys(("precision", "batching", "optimizer", "schedule", "clip_norm"), ()),
    ),
    Trainer(
        name="hf",
        runtime="tunemark_trainers.transformers_trainer:HfTrainer",
        description="transformers' Trainer",
        package="transformers",
        license="Apache-2.0",
        requires=("torch", "transformers", "accelerate"),
        minimum_versions={"transformers": "4.53"},
        honours=_COMMON,
    ),
    Trainer(
        name="accelerate",
        runtime="tunemark_trainers.accelerate_trainer:AccelerateLoop",
        description="a plain loop with accelerate's Accelerator, as its documentation shows it",
        package="accelerate",
        license="Apache-2.0",
        requires=("torch", "transformers", "accelerate"),
        minimum_versions={"transformers": "4.53"},
        honours=_COMMON,
    ),
    Trainer(
        name="trl",
        runtime="tunemark_trainers.trl_trainer:TrlTrainer",
        description="TRL's SFTTrainer; rows are padded or packed by its own collator",
        package="trl",
        license="Apache-2.0",
        requires=("torch", "transformers", "trl"),
        minimum_versions={"transformers": "4.56.2"},
        options={"padding_free": "true: rows of a micro-batch are flattened into one (false)"},
        honours=_COMMON,
        refusal=_refuse_for_trl,
        environment=TrainerEnvironment(requirements=("trl==1.16.0", "accelerate==1.15.0"), bytes=1_600_000_000),
    ),
    Trainer(
        name="lightning",
        runtime="tunemark_trainers.lightning_trainer:LightningTrainer",
        description="PyTorch Lightning's Trainer",
        package="lightning",
        license="Apache-2.0",
        requires=("torch", "transformers", "lightning"),
        minimum_versions={"transformers": "4.53"},
        honours=_COMMON,
        environment=TrainerEnvironment(
            requirements=("lightning==2.6.6",), bytes=1_400_000_000, as_here=("torch", "transformers")
        ),
    ),
    Trainer(
        name="litgpt",
        runtime="tunemark_trainers.litgpt_trainer:LitgptTrainer",
        description="LitGPT's fit loop on its own GPT class",
        package="litgpt",
        license="Apache-2.0",
        requires=("torch", "transformers", "litgpt", "lightning"),
        honours=_COMMON,
        refusal=_refuse_but_plain,
        environment=TrainerEnvironment(
            # It pins a client of the hub with which transformers 5 does not work.
            requirements=("lightning==2.6.6", "jsonargparse[signatures]==4.41.0", "psutil", "safetensors", "tqdm"),
            without_dependencies=("litgpt==0.5.13",),
            bytes=1_400_000_000,
        ),
    ),
    Trainer(
        name="torchtune",
        runtime="tunemark_trainers.torchtune_trainer:TorchtuneTrainer",
        description="torchtune's full fine-tuning recipe for one device, on its own modules",
        package="torchtune",
        license="BSD-3-Clause",
        requires=("torch", "transformers", "torchtune", "torchao"),
        honours=_COMMON,
        refusal=_refuse_for_torchtune,
        environment=TrainerEnvironment(requirements=("torchtune==0.6.1", "torchao==0.9.0"), bytes=1_600_000_000),
    ),
]


@hookimpl
def tunemark_trainers() -> Sequence[Trainer]:
    return _TRAINERS
