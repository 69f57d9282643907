"""Descriptions of the logs of programs that mostly pretrain: names, units, meaning, and the files that say so."""

from __future__ import annotations

from tunemark.plugin.log_formats import FigureDescription, FormatDescription

NANOGPT = FormatDescription(
    name="nanogpt",
    title="lines of nanoGPT's train.py",
    meaning="no tokens per second is printed, but the time of the last iteration, with all its micro-batches, as the "
    "first process sees it",
    sources=("karpathy/nanoGPT: train.py", "karpathy/nanoGPT: model.py (estimate_mfu)"),
    begins=r"iter (?P<step>[0-9]{1,15}): loss ",
    marks=("iter ", "tokens per iteration", "number of parameters"),
    joint=r" ",
    requires=("loss", "time"),
    figures=(
        FigureDescription("loss", "loss"),
        FigureDescription("time", "step_time", "ms", over="step"),
        FigureDescription(
            "mfu", "mfu", "%", "device", over="window",
            note="Of the 312 TFLOP/s of an A100, on any device; smoothed; -100 % in the first lines.",
        ),
    ),
    header=(
        r"tokens per iteration will be: (?P<step_tokens>[0-9,]+)\s*",
        r"number of parameters: (?P<parameters>[0-9.]+M)\s*",
    ),
)  # fmt: skip

NANOCHAT = FormatDescription(
    name="nanochat",
    title="lines of nanochat's training scripts",
    meaning="slots of the total batch size over the time of the last step, whole job; forks have counted only one "
    "micro-batch of each step",
    sources=("karpathy/nanochat: scripts/base_train.py, scripts/chat_sft.py",),
    begins=r"step (?P<step>[0-9]{1,15})(?:/(?P<steps_total>[0-9]{1,15}))? \([0-9.]+%\) \| loss: ",
    marks=("tok/sec:", "Total batch size"),
    requires=("tok/sec", "dt"),
    figures=(
        FigureDescription("loss", "loss"),
        FigureDescription("dt", "step_time", "ms", over="step"),
        FigureDescription("tok/sec", "tokens_per_s", "", "job", "slots", "step"),
        FigureDescription("mfu", "mfu", "%", "device", over="step", note="Of an H100's 989 TFLOP/s in old versions."),
        FigureDescription("bf16_mfu", "mfu", "%", "device", over="step"),
    ),
    header=(
        r"Total batch size (?P<step_tokens>[0-9,]+) => "
        r"gradient accumulation steps: (?P<gradient_accumulation>[0-9]+)\s*",
    ),
)

LLMC = FormatDescription(
    name="llm.c",
    title="lines of llm.c's train_gpt2",
    meaning="slots of the total batch over a smoothed time of a step, whole job",
    sources=("karpathy/llm.c: train_gpt2.cu, llmc/mfu.h",),
    begins=r"step\s+(?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15}) \| (?:train )?loss ",
    marks=("tok/s",),
    joint=" ",
    requires=("tok/s", "ms"),
    figures=(
        FigureDescription("loss", "loss"),
        FigureDescription("norm", "gradient_norm"),
        FigureDescription("ms", "step_time", "ms", over="step", pattern=r"\| {} \|"),
        FigureDescription("MFU", "mfu", "%", "device", over="step", pattern=r"\| {} [\w ]+ MFU \|"),
        FigureDescription("tok/s", "tokens_per_s", "", "job", "slots", "window", pattern=r"\| {} tok/s\s*$"),
    ),
)  # fmt: skip

MAXTEXT = FormatDescription(
    name="maxtext",
    title="step lines of MaxText",
    meaning="slots of one device's batch over the wall time of the step, per device (of a TPU: per chip or core as JAX "
    "counts devices)",
    sources=("AI-Hypercomputer/maxtext: src/MaxText/metric_logger.py, maxtext_utils.py (calculate_tflops)",),
    begins=r"completed step: (?P<step>[0-9]{1,15}), seconds: ",
    marks=("completed step:",),
    requires=("seconds", "Tokens/s/device"),
    figures=(
        FigureDescription("seconds", "step_time", "s", over="step"),
        FigureDescription("TFLOP/s/device", "tflops", "TFLOP/s", "device", over="step"),
        FigureDescription("Tokens/s/device", "tokens_per_s", "", "device", "slots", "step"),
        FigureDescription("total_weights", "step_tokens", "", "job", "trained", "step"),
        FigureDescription("loss", "loss"),
    ),
)

FMS_FSDP = FormatDescription(
    name="fms-fsdp",
    title="blocks of fms-fsdp's training",
    meaning="slots of one device over wall time, per device: overall since this start, current since the block before",
    sources=("foundation-model-stack/fms-fsdp: fms_fsdp/utils/train_utils.py (train)",),
    begins=r"step: (?P<step>[0-9]{1,15})\s*$",
    marks=("step:",),
    is_block=True,
    joint=r": ",
    others=r"(?:LR|allocated memory|overall token per day): .*",
    requires=("overall token per gpu per sec",),
    figures=(
        FigureDescription("overall token per gpu per sec", "tokens_per_s", "", "device", "slots", "start"),
        FigureDescription("current token per gpu per sec", "tokens_per_s", "", "device", "slots", "line"),
        FigureDescription("overall step time", "step_time", "s", over="start"),
        FigureDescription("current step time", "step_time", "s", over="line"),
        FigureDescription("tokens seen", "tokens", "", "job", "slots", "start"),
        FigureDescription("loss", "loss"),
        FigureDescription("gradient norm", "gradient_norm"),
        FigureDescription("reserved memory", "memory", "B", "device"),
        FigureDescription("max reserved memory (GiB)", "memory", "GiB", "device"),
    ),
)

COMPOSER = FormatDescription(
    name="composer",
    title="console blocks of MosaicML's Composer and llm-foundry",
    meaning="slots of the batch over a window of recent batches, whole job and per device; evaluation is left out of "
    "the time",
    sources=("mosaicml/composer: composer/callbacks/speed_monitor.py, composer/loggers/console_logger.py",),
    begins=r"\[(?:epoch=[0-9]+(?:/[0-9]+)?\]\[)?batch=(?P<step>[0-9]{1,15})(?:/(?P<steps_total>[0-9]{1,15}))?\]:\s*$",
    marks=("batch=",),
    is_block=True,
    before=r"\s*Train ",
    others=r"\s*(?:Train|Eval) \S+: .*",
    joint=r": ",
    figures=(
        FigureDescription("throughput/tokens_per_sec", "tokens_per_s", "", "job", "slots", "window"),
        FigureDescription("throughput/device/tokens_per_sec", "tokens_per_s", "", "device", "slots", "window"),
        FigureDescription("throughput/samples_per_sec", "samples_per_s", "", "job", over="window"),
        FigureDescription("throughput/device/samples_per_sec", "samples_per_s", "", "device", over="window"),
        FigureDescription("throughput/batches_per_sec", "steps_per_s", "", "job", over="window"),
        FigureDescription("throughput/device/flops_per_sec", "tflops", "FLOP/s", "device", over="window"),
        FigureDescription("throughput/flops_per_sec", "tflops", "FLOP/s", "job", over="window"),
        FigureDescription("throughput/device/mfu", "mfu", "", "device", over="window"),
        FigureDescription("time/token", "tokens", "", "job", "slots", "start", note="Before the batch of the block."),
        FigureDescription("time/sample", "samples", "", "job", over="start"),
        FigureDescription("loss/train/total", "loss"),
        FigureDescription("trainer/device_train_microbatch_size", "micro_batch", "", "device"),
        FigureDescription("memory/peak_reserved_mem", "memory", "GB", "device"),
    ),
)

OLMO_CORE = FormatDescription(
    name="olmo-core",
    title="console blocks of OLMo-core",
    meaning="slots of one device over the time of the last step, per device; data loading is in the actual average "
    "only",
    sources=("allenai/OLMo-core: src/olmo_core/train/callbacks/speed_monitor.py, console_logger.py",),
    begins=r"(?:\S+:[0-9]+\s+\S+:[0-9]+\s+\w+\s+)?\[step=(?P<step>[0-9,]{1,15})/(?P<steps_total>[0-9,]{1,15})(?:,epoch=[0-9]+)?(?:,eta=[^\]]*)?\]",
    marks=("step=",),
    is_block=True,
    joint="=",
    others=r"\s*[\w ]+/[^=]+=\S+",
    figures=(
        FigureDescription("throughput/device/TPS", "tokens_per_s", "K", "device", "slots", "step"),
        FigureDescription("throughput/device/TPS (actual avg)", "tokens_per_s", "K", "device", "slots", "start"),
        FigureDescription("throughput/device/BPS", "steps_per_s", "", "device", over="step"),
        FigureDescription("throughput/device/MFU", "mfu", "%", "device", over="step"),
        FigureDescription("throughput/device/MFU (actual avg)", "mfu", "%", "device", over="start"),
        FigureDescription("throughput/total tokens", "tokens", "K", "job", "slots", "start"),
        FigureDescription("train/CE loss", "loss"),
        FigureDescription("optim/total grad norm", "gradient_norm"),
        FigureDescription("system/GPU active mem (GiB)", "memory", "GiB", "device"),
        FigureDescription("gpu_memory/GPU reserved mem (GiB)", "memory", "GiB", "device"),
    ),
)

NANOTRON = FormatDescription(
    name="nanotron",
    title="iteration lines of nanotron",
    meaning="all slots of the global batch over the time of the last iteration, after waiting for all ranks",
    sources=("huggingface/nanotron: src/nanotron/trainer.py (train_step_logs)",),
    begins=r"(?:\[\w+\|DP=[^\]]*\]:\s*)?iteration: (?P<step>[0-9]{1,15}) / (?P<steps_total>[0-9]{1,15}) \| ",
    marks=("iteration:",),
    requires=("time_per_iteration_ms", "tokens_per_sec"),
    figures=(
        FigureDescription("tokens_per_sec", "tokens_per_s", "K", "job", "slots", "step"),
        FigureDescription("tokens_per_sec_per_gpu", "tokens_per_s", "K", "device", "slots", "step"),
        FigureDescription("time_per_iteration_ms", "step_time", "Kms", over="step"),
        FigureDescription("consumed_tokens", "tokens", "K", "job", "slots", "start"),
        FigureDescription("global_batch_size", "step_tokens", "K", "job", "slots", "step", note="In tokens."),
        FigureDescription("model_tflops_per_gpu", "tflops", "K", "device", over="step"),
        FigureDescription("hardware_tflops_per_gpu", "tflops", "K", "device", over="step", note="With recomputation."),
        FigureDescription("lm_loss", "loss", "K"),
        FigureDescription("grad_norm", "gradient_norm", "K"),
    ),
)

GPT_NEOX = FormatDescription(
    name="gpt-neox",
    title="iteration lines of GPT-NeoX",
    meaning="sequences of the whole job over the mean time of an iteration since the line before",
    sources=("EleutherAI/gpt-neox: megatron/logging.py (training_log, get_flops)",),
    begins=r"(?:samples/sec: \S+ \|\s+)?iteration\s+(?P<step>[0-9]{1,15})/\s*(?P<steps_total>[0-9]{1,15}) \| "
    r"elapsed time per iteration \(ms\): ",
    marks=("approx flops per GPU",),
    joint=r":\s*",
    requires=("samples/sec", "elapsed time per iteration (ms)", "approx flops per GPU"),
    figures=(
        FigureDescription("samples/sec", "samples_per_s", "", "job", "slots", "line"),
        FigureDescription("elapsed time per iteration (ms)", "step_time", "ms", over="line"),
        FigureDescription(
            "approx flops per GPU", "tflops", "FLOPS", "device", over="line",
            note="With recomputation where activations are checkpointed, by a formula of dense models.",
        ),
        FigureDescription("lm_loss", "loss"),
    ),
)  # fmt: skip

NEMO_1 = FormatDescription(
    name="nemo-1",
    title="progress bars of NeMo 1 (megatron_gpt)",
    meaning="no tokens per second is printed, but the time of the last step and the bar's clock",
    sources=(
        "NVIDIA/NeMo r1.23: nemo/collections/nlp/models/language_modeling/megatron_base_model.py, nemo/utils/timers.py",
    ),
    begins=r"Epoch [0-9]+:\s*:?\s*(?:[0-9]{1,3}%)?\|[^|]*\| (?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15}) "
    r"\[(?P<elapsed>[0-9:]+)<",
    marks=("train_step_timing in s",),
    joint="=",
    requires=("train_step_timing in s",),
    figures=(
        FigureDescription("train_step_timing in s", "step_time", "s", over="step"),
        FigureDescription("reduced_train_loss", "loss"),
        FigureDescription("consumed_samples", "samples", "", "job", over="start"),
    ),
)

NEMO_2 = FormatDescription(
    name="nemo-2",
    title="step lines of NeMo 2",
    meaning="slots of the global batch over the time of the last step that the first rank sees, per device; time "
    "between steps is not in it",
    sources=("NVIDIA/NeMo: nemo/lightning/pytorch/callbacks/progress_printer.py, nemo/lightning/megatron_parallel.py",),
    begins=r"(?:[\w.-]+/[0-9]+ )?(?:\[default[0-9]+\]:)?(?:rank_[0-9]+: )?Training epoch (?:[0-9]+), "
    r"iteration (?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15}) \| ",
    marks=("Training epoch",),
    joint=": ",
    requires=("train_step_timing in s",),
    figures=(
        FigureDescription("tokens_per_sec_per_gpu", "tokens_per_s", "", "device", "slots", "step"),
        FigureDescription("train_step_timing in s", "step_time", "s", over="step"),
        FigureDescription("TFLOPS_per_GPU", "tflops", "TFLOP/s", "device", over="step"),
        FigureDescription("tflops_per_sec_per_gpu", "tflops", "TFLOP/s", "device", over="step"),
        FigureDescription("reduced_train_loss", "loss"),
        FigureDescription("global_batch_size", "global_batch", "", "job"),
        FigureDescription("consumed_samples", "samples", "", "job", over="start"),
    ),
)

NEMO_AUTOMODEL = FormatDescription(
    name="nemo-automodel",
    title="step lines of NeMo Automodel",
    meaning="tokens of the batch without the padding at the end of each row, over the time of the last step, whole job "
    "and per device",
    sources=("NVIDIA-NeMo/Automodel: nemo_automodel/recipes/llm/train_ft.py (log_train_metrics)",),
    begins=r"(?:root \| )?step (?P<step>[0-9]{1,15}) \| epoch [0-9]+ \| loss ",
    marks=("num_label_tokens",),
    joint=" ",
    requires=("tps", "num_label_tokens"),
    figures=(
        FigureDescription("tps", "tokens_per_s", "", "job", "content", "step", pattern=r"\| tps {}\("),
        FigureDescription("tps/gpu", "tokens_per_s", "", "device", "content", "step", pattern=r"\({}/gpu\)"),
        FigureDescription("loss", "loss"),
        FigureDescription("grad_norm", "gradient_norm"),
        FigureDescription("mem", "memory", "GiB", "device"),
        FigureDescription("num_label_tokens", "step_tokens", "", "job", "trained", "step"),
    ),
)

INTERNEVO = FormatDescription(
    name="internevo",
    title="step lines of InternLM's InternEvo",
    meaning="slots of the packed batch over the time of the last step, per device (tgs: tokens per GPU and second)",
    sources=("InternLM/InternEvo: internlm/train/pipeline.py (record_current_batch_training_metrics)",),
    begins=r"(?:INFO\s+)?(?:[\w./]+\.py:[0-9]+ in \w+ -- )?tflops=",
    marks=("tgs (tokens/gpu/second)",),
    joint="=",
    requires=("tgs (tokens/gpu/second)", "step"),
    figures=(
        FigureDescription("step", "step"),
        FigureDescription("tgs (tokens/gpu/second)", "tokens_per_s", "", "device", "slots", "step"),
        FigureDescription("tflops", "tflops", "TFLOP/s", "device", over="step"),
        FigureDescription("loss", "loss"),
        FigureDescription("micro_num", "gradient_accumulation", ""),
        FigureDescription("num_consumed_tokens", "tokens", "", "job", "slots", "start"),
    ),
)
FORMATS = (
    NANOGPT, NANOCHAT, LLMC, MAXTEXT, FMS_FSDP, COMPOSER, OLMO_CORE, NANOTRON, GPT_NEOX, NEMO_1, NEMO_2,
    NEMO_AUTOMODEL, INTERNEVO,
)  # fmt: skip
