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


def _refuse_for_own_padding(architecture: Architecture, settings: Mapping[str, Any]) -> str | None:
    if settings["batching"] == "bucket" and settings["sequence"] % WIDTH_MULTIPLE:
        wanted = round_width(settings["sequence"])
        return f"its collator pads to a multiple of {WIDTH_MULTIPLE}, beyond --sequence: --sequence {wanted}"
    return None


_LICENSES = {"axolotl": "Apache-2.0", "megatron": "BSD-3-Clause", "torchtitan": "BSD-3-Clause", "unsloth": "Apache-2.0"}
# Known programs without a runtime here: their name, package, what runs, and what was tried.
_ABSENT = (
    (
        "axolotl",
        "axolotl",
        "axolotl's AxolotlTrainer",
        "version 0.19.0 pins 55 packages, among them triton, xformers and bitsandbytes; it was not tried further",
    ),
    ("megatron", "megatron-core", "Megatron-LM's training loop", "it trains on NVIDIA GPUs only, and none was here"),
    (
        "torchtitan", "torchtitan", "torchtitan's Trainer",
        "version 0.3.0 trains on accelerators only: where there is none its Trainer sets the device cuda, by which "
        "torch for CPUs says that torch._C has no _cuda_setDevice; no GPU was here",
    ),
    (
        "unsloth", "unsloth", "unsloth's trainer",
        "without a GPU it ends with 'Unsloth cannot find any torch accelerator? You need a GPU.'; none was here",
    ),
)  # fmt: skip

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
        refusal=_refuse_for_own_padding,
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
    Trainer(
        name="llamafactory",
        runtime="tunemark_trainers.llamafactory_trainer:LlamaFactoryTrainer",
        description="LLaMA-Factory's trainer of its stage sft, with its own collator",
        package="llamafactory",
        license="Apache-2.0",
        requires=("torch", "transformers", "llamafactory"),
        minimum_versions={"transformers": "4.55"},
        honours=_COMMON,
        refusal=_refuse_for_own_padding,
        environment=TrainerEnvironment(
            # Without the packages of its web page, its server, and its models of sound and pictures.
            requirements=(
                "transformers==5.6.0",
                "trl==0.24.0",
                "peft==0.18.1",
                "accelerate==1.11.0",
                "datasets==4.0.0",
                "omegaconf==2.3.0",
                "pillow",
            ),
            without_dependencies=("llamafactory==0.9.5",),
            bytes=1_500_000_000,
            as_here=("torch",),
        ),
    ),
    *(
        Trainer(name=name, runtime="", description=description, package=package, license=_LICENSES[name], absent=why)
        for name, package, description, why in _ABSENT
    ),
]


@hookimpl
def tunemark_trainers() -> Sequence[Trainer]:
    return _TRAINERS
