"""Descriptions of what Hugging Face's Trainer prints, and of what the programs that are built on it print besides.

They share the Trainer's header, progress bar and summary, so one reader reads them all; the names in a line tell which
program it is.
"""

from __future__ import annotations

from tunemark.plugin.log_formats import FigureDescription, FormatDescription

SUMMARY = (
    "In the summary, samples and steps of the run over train_runtime, which includes set-up, first step, evaluation "
    "and saving. Releases of transformers before 5 count the planned steps, whether done or not."
)
_LINES = (
    FigureDescription("loss", "loss"),
    FigureDescription("grad_norm", "gradient_norm"),
    FigureDescription("epoch", "epoch"),
    FigureDescription("step", "step", note="In trainer_state.json only."),
)

TRAINER = FormatDescription(
    name="huggingface",
    title="the dictionaries that transformers' Trainer prints, trainer_state.json and train_results.json; also TRL's",
    meaning="if enabled, all input tokens of the whole job since this start over all time since then; whether padding "
    f"is counted is set by the user (include_num_input_tokens_seen). {SUMMARY}",
    sources=(
        "huggingface/transformers: src/transformers/trainer.py, trainer_callback.py, trainer_utils.py (speed_metrics)",
        "huggingface/trl: trl/trainer/sft_trainer.py (num_tokens)",
    ),
    figures=(
        *_LINES,
        FigureDescription("train_tokens_per_second", "tokens_per_s", "", "job", None, "start"),
        FigureDescription("num_input_tokens_seen", "tokens", "", "job", None, "start"),
        FigureDescription("num_tokens", "tokens", "", "job", None, "start", note="TRL's."),
        FigureDescription("train_runtime", "elapsed", "s", over="start"),
        FigureDescription(
            "train_samples_per_second", "samples_per_s", "", "job", over="start",
            note="In the summary only, as is train_steps_per_second.",
        ),
    ),
)  # fmt: skip

AXOLOTL = FormatDescription(
    name="axolotl",
    title="the dictionaries that axolotl prints",
    meaning="trained tokens of one device over the wall time of the last step; padding is not counted. " + SUMMARY,
    sources=("axolotl-ai-cloud/axolotl: src/axolotl/utils/callbacks/tokens_per_second.py",),
    requires=("tokens/train_per_sec_per_gpu",),
    figures=(
        *_LINES,
        FigureDescription("tokens/train_per_sec_per_gpu", "tokens_per_s", "", "device", "trained", "step"),
        FigureDescription("tokens/trainable", "tokens", "", "job", "trained", "start"),
        FigureDescription("tokens/total", "tokens", "", "job", "slots", "start"),
        FigureDescription("memory/max_active (GiB)", "memory", "GiB", "device"),
        FigureDescription("memory/device_reserved (GiB)", "memory", "GiB", "device"),
    ),
)

PER_GPU = FormatDescription(
    name="huggingface-per-gpu",
    title="dictionaries of the Trainer with tokens_per_second_per_gpu, as earlier releases of axolotl print them",
    meaning="trained tokens of one device over the wall time since the line before; padding is not counted. " + SUMMARY,
    sources=("axolotl-ai-cloud/axolotl: src/axolotl/core/trainers/base.py",),
    requires=("tokens_per_second_per_gpu",),
    figures=(
        *_LINES,
        FigureDescription("tokens_per_second_per_gpu", "tokens_per_s", "", "device", "trained", "line"),
    ),
)

LLAMA_FACTORY = FormatDescription(
    name="llama-factory",
    title="the dictionaries of LLaMA-Factory's running_log.txt, and its all_results.json",
    meaning="in a line all input tokens of the whole job since this start, padding counted, over all time since then; "
    "in all_results.json tokens without padding over train_runtime, per device. " + SUMMARY,
    sources=(
        "hiyouga/LLaMA-Factory: src/llamafactory/train/callbacks.py (LogCallback)",
        "hiyouga/LLaMA-Factory: src/llamafactory/extras/misc.py (calculate_tps)",
    ),
    requires=("throughput",),
    figures=(
        *_LINES,
        FigureDescription("throughput", "tokens_per_s", "", "job", "slots", "start"),
        FigureDescription(
            "effective_tokens_per_sec", "tokens_per_s", "", "device", "content", "start",
            note="In all_results.json only.",
        ),
    ),
)  # fmt: skip

LLAMA_FACTORY_LOG = FormatDescription(
    name="llama-factory-trainer-log",
    title="LLaMA-Factory's trainer_log.jsonl",
    meaning="all input tokens of the whole job since this start, padding counted, over all time since then, evaluation "
    "too",
    sources=("hiyouga/LLaMA-Factory: src/llamafactory/train/callbacks.py (LogCallback)",),
    begins=r"\{\"current_steps\": (?P<step>[0-9]{1,15}), \"total_steps\": (?P<steps_total>[0-9]{1,15}), .*\}\s*$",
    marks=('"current_steps"',),
    # Until 2024 the rate was written as a text.
    joint=r"\": \"?",
    requires=("loss", "elapsed_time"),
    figures=(
        FigureDescription("throughput", "tokens_per_s", "", "job", "slots", "start"),
        FigureDescription("total_tokens", "tokens", "", "job", "slots", "start"),
        FigureDescription("elapsed_time", "elapsed", "clock", over="start"),
        FigureDescription("loss", "loss"),
        FigureDescription("epoch", "epoch"),
        FigureDescription("vram_reserved", "memory", "GiB", "device"),
    ),
)

SWIFT = FormatDescription(
    name="ms-swift",
    title="the dictionaries that ms-swift prints, and its logging.jsonl",
    meaning="no tokens per second is printed, but steps and the time since the start. " + SUMMARY,
    sources=("modelscope/ms-swift: swift/trainers/mixin.py, swift/trainers/callback.py",),
    requires=("global_step/max_steps",),
    figures=(
        FigureDescription("global_step/max_steps", "step", note="And after the bar the planned steps."),
        FigureDescription("loss", "loss"),
        FigureDescription("grad_norm", "gradient_norm"),
        FigureDescription("epoch", "epoch"),
        FigureDescription("elapsed_time", "elapsed", "words", over="start"),
        FigureDescription("train_speed(iter/s)", "steps_per_s", "", "job", over="start"),
        FigureDescription("train_speed(s/it)", "step_time", "s", over="start"),
        FigureDescription("memory(GiB)", "memory", "GiB", "device"),
    ),
)

DIALECTS = (SWIFT, AXOLOTL, PER_GPU, LLAMA_FACTORY, TRAINER)
"""In the order in which the names of a line are looked at; the Trainer itself last."""
