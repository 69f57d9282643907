"""Descriptions of the formats that have readers of their own: what their figures count, for the page that compares all.

The readers state the same; see `megatron`, `torchtitan`, `torchtune`, `moai`, `optimum_benchmark`, `pytest_benchmark`,
`mllog`.
"""

from __future__ import annotations

from tunemark.plugin.log_formats import FigureDescription, FormatDescription

MEGATRON = FormatDescription(
    name="megatron",
    title="iteration lines of Megatron-LM, Megatron-Bridge and their forks",
    meaning="no tokens per second is printed (forks: per GPU), but the mean time of an iteration since the line "
    "before, after waiting for all ranks, and model TFLOP/s per GPU; all slots of the global batch are counted",
    sources=(
        "NVIDIA/Megatron-LM: megatron/training/training.py (training_log)",
        "NVIDIA-NeMo/Megatron-Bridge: src/megatron/bridge/training/utils/train_utils.py (training_log)",
    ),
    figures=(
        FigureDescription("tokens per gpu per second", "tokens_per_s", "", "device", "slots", "line", note="Of forks."),
        FigureDescription("tokens per GPU", "tokens_per_s", "", "device", "slots", "line", note="Of forks."),
        FigureDescription("elapsed time per iteration", "step_time", "ms", over="line"),
        FigureDescription("samples per second", "samples_per_s", "", "job", over="line", note="Of Megatron-DeepSpeed."),
        FigureDescription("throughput per GPU (TFLOP/s/GPU)", "tflops", "TFLOP/s", "device", over="line"),
        FigureDescription("consumed tokens", "tokens", "", "job", "slots", "start"),
        FigureDescription("global batch size", "global_batch", "", "job"),
        FigureDescription("lm loss", "loss"),
    ),
)

TORCHTITAN = FormatDescription(
    name="torchtitan",
    title="step lines of torchtitan",
    meaning="slots of the labels since the line before, padding counted, over wall time and the devices that share a "
    "sequence; the first line has the first step in it",
    sources=("pytorch/torchtitan: torchtitan/components/metrics.py (MetricsProcessor.log)",),
    figures=(
        FigureDescription("tps", "tokens_per_s", "", "device", "slots", "line"),
        FigureDescription("wps", "tokens_per_s", "", "device", "slots", "line", note="Until 2024."),
        FigureDescription(
            "tflops", "tflops", "TFLOP/s", "device", over="line", note="Full attention, no recomputation."
        ),
        FigureDescription("mfu", "mfu", "%", "device", over="line"),
        FigureDescription("memory", "memory", "GiB", "device"),
        FigureDescription("loss", "loss"),
    ),
)

TORCHTUNE = FormatDescription(
    name="torchtune",
    title="step lines of torchtune, text and JSON",
    meaning="trained labels of one step, neither padding nor masked prompts, over its wall time; until October 2024 "
    "all slots",
    sources=("meta-pytorch/torchtune: recipes/full_finetune_distributed.py, torchtune/training/metric_logging.py",),
    figures=(
        FigureDescription("tokens_per_second_per_gpu", "tokens_per_s", "", "device", "trained", "step"),
        FigureDescription("tokens_per_second", "tokens_per_s", "", "device", "slots", "step", note="Until May 2024."),
        FigureDescription("peak_memory_reserved", "memory", "GiB", "device"),
        FigureDescription("loss", "loss"),
    ),
)

MOAI = FormatDescription(
    name="moai",
    title="logs of the tutorials for Moreh's MoAI platform",
    meaning="batch x block length, padding counted, over the host's time, which in early formats ends before the "
    "device is done",
    sources=("docs.moreh.io: fine-tuning tutorials 24.2 to 24.9",),
    figures=(
        FigureDescription("Throughput", "tokens_per_s", "", "job", "slots", "line"),
        FigureDescription("tps", "tokens_per_s", "", "job", "slots", "line"),
        FigureDescription("Duration", "step_time", "s", over="line"),
        FigureDescription("Loss", "loss"),
    ),
)

OPTIMUM_BENCHMARK = FormatDescription(
    name="optimum-benchmark",
    title="benchmark_report.json and benchmark.json of optimum-benchmark, training",
    meaning="samples of one process in all steps after warm-up over the mean time of one step: too high by a factor of "
    "the number of steps",
    sources=("huggingface/optimum-benchmark: optimum_benchmark/scenarios/training/scenario.py, trackers/latency.py",),
    figures=(
        FigureDescription("train.throughput", "samples_per_s", "", "device", over="step"),
        FigureDescription("train.latency", "step_time", "s", over="step"),
    ),
)

PYTEST_BENCHMARK = FormatDescription(
    name="pytest-benchmark",
    title="pytest-benchmark's JSON of tests with the fixture tunemark",
    meaning="all slots of the timed steps over their wall time; the rounds are the steps of all attempts",
    sources=("tunemark: docs/pytest.md",),
    figures=(
        FigureDescription("slot_tokens_per_s", "tokens_per_s", "", "job", "slots", "window"),
        FigureDescription("stats.mean", "step_time", "s", over="window"),
    ),
)

MLPERF = FormatDescription(
    name="mlperf",
    title="result files of MLPerf Training (:::MLLOG)",
    meaning="sequences per second as a submission states them, in the benchmark gpt3 tokens, without evaluation; rows "
    "of the LoRA benchmark are packed to max_sequence_length",
    sources=(
        "mlcommons/logging: mlperf_logging/mllog",
        "mlcommons/training_policies: training_rules.adoc (run_start, run_stop)",
    ),
    figures=(
        FigureDescription("tracked_stats.throughput", "samples_per_s", "", "job", over="line"),
        FigureDescription("samples_count", "samples", "", "job", over="start"),
        FigureDescription("global_batch_size", "global_batch", "", "job"),
        FigureDescription("max_sequence_length", "sequence"),
        FigureDescription("run_stop - run_start", "train_s", "ms", over="start", note="With evaluation."),
    ),
)
