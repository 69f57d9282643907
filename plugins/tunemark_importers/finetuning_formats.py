"""Descriptions of the logs of programs that fine-tune or train by reinforcement: names, units, meaning, sources."""

from __future__ import annotations

from tunemark.plugin.log_formats import FigureDescription, FormatDescription

DEEPSPEED = FormatDescription(
    name="deepspeed",
    title="throughput lines of DeepSpeed's timer",
    meaning="sequences of the whole job per second: running since the third step, current over the last steps; "
    "until 0.7.5 it counted one micro-batch of each step",
    sources=("deepspeedai/DeepSpeed: deepspeed/utils/timer.py (ThroughputTimer)",),
    begins=r"(?:\[Rank [0-9]+\]\s*)?(?:\[timer\.py:[0-9]+:\w+\]\s*)?(?:\[Rank [0-9]+\]\s*)?"
    r"(?:epoch=[0-9]+/micro_step=[0-9]+/global_step=|[0-9]+/)(?P<step>[0-9]{1,15}), ",
    marks=("SamplesPerSec=",),
    joint="=",
    others=r"(?:\[[^\]]*\]\s*)*step=[0-9]+, skipped=.*",
    requires=("RunningAvgSamplesPerSec",),
    figures=(
        FigureDescription("RunningAvgSamplesPerSec", "samples_per_s", "", "job", over="start"),
        FigureDescription("CurrSamplesPerSec", "samples_per_s", "", "job", over="line"),
        FigureDescription("MaxMemAllocated", "memory", "GiB", "device", note="Printed as GB."),
    ),
)

DEEPSPEED_PIPELINE = FormatDescription(
    name="deepspeed-pipeline",
    title="step lines of DeepSpeed's pipeline engine",
    meaning="sequences of the whole job over the mean time of a step since the line before",
    sources=("deepspeedai/DeepSpeed: deepspeed/runtime/pipe/engine.py (train_batch)",),
    begins=r"steps: (?P<step>[0-9]{1,15}) loss: ",
    marks=("iter time (s):",),
    joint=": ",
    requires=("iter time (s)", "samples/sec"),
    figures=(
        FigureDescription("loss", "loss"),
        FigureDescription("iter time (s)", "step_time", "s", over="line"),
        FigureDescription("samples/sec", "samples_per_s", "", "job", over="line"),
    ),
)

DEEPSPEED_CHAT = FormatDescription(
    name="deepspeed-chat",
    title="throughput lines of DeepSpeed-Chat, steps 1 and 2",
    meaning="sequences of the printed batch over the time of one forward and backward pass",
    sources=("deepspeedai/DeepSpeedExamples: applications/DeepSpeed-Chat/dschat/utils/perf.py (print_throughput)",),
    begins=r"Model Parameters: ",
    marks=("Model Parameters:",),
    joint=": ",
    requires=("Latency", "Samples/sec", "Batch Size", "Sequence Length"),
    figures=(
        FigureDescription(
            "Samples/sec", "samples_per_s", "", "job", "slots", "step", note="Rows are padded to the sequence length.",
        ),
        FigureDescription("Latency", "step_time", "s", over="step"),
        FigureDescription(
            "TFLOPs", "tflops", "", "device", over="step",
            note="FLOPs of the printed batch, with recomputation, divided by the count of devices.",
        ),
        FigureDescription(
            "Batch Size", "global_batch", "", "job",
            note="The script passes per_device_train_batch_size: on several devices it is the batch of one.",
        ),
        FigureDescription("Sequence Length", "sequence"),
        FigureDescription("Model Parameters", "parameters", "10^9", pattern=r"Model Parameters: {} B"),
    ),
)  # fmt: skip

DEEPSPEED_PROFILE = FormatDescription(
    name="deepspeed-profile",
    title="blocks of DeepSpeed's flops profiler",
    meaning="sequences of the whole job over the latency of one iteration: forward, backward and update of one "
    "micro-batch, each timed by itself",
    sources=("deepspeedai/DeepSpeed: deepspeed/profiling/flops_profiler/profiler.py (print_model_profile)",),
    begins=r"-{10,}\s*DeepSpeed Flops Profiler\s*-{10,}",
    marks=("DeepSpeed Flops Profiler",),
    is_block=True,
    joint=r":\s+",
    others=r"(?:Profile |Notations|data parallel|number of|params |fwd |bwd |model parallel|step latency).*|-{20,}.*",
    requires=("iter latency",),
    figures=(
        FigureDescription("samples/second", "samples_per_s", "", "job", over="step"),
        FigureDescription("iter latency", "step_time", "time", over="step"),
        FigureDescription(
            "FLOPS per GPU", "tflops", "FLOPS", "device", over="step", pattern=r"^FLOPS per GPU = .*iter latency:\s+{}",
        ),
        FigureDescription(
            "fwd+bwd FLOPS per GPU", "tflops", "FLOPS", "device", over="step",
            pattern=r"^fwd\+bwd FLOPS per GPU = .*latency\):\s+{}", is_training=False,
            note="Without the time of the update.",
        ),
        FigureDescription("world size", "count"),
        FigureDescription("batch size per GPU", "micro_batch", "", "device"),
    ),
)  # fmt: skip

XTUNER = FormatDescription(
    name="xtuner",
    title="step lines of XTuner 1",
    meaning="tokens of this rank's packed rows over the time of the last step, per device (tgs: tokens per GPU and "
    "second)",
    sources=("InternLM/xtuner: xtuner/v1/train/trainer.py (_log_step)",),
    begins=r"Epoch [0-9]+ Step (?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15}) ",
    marks=("tgs:",),
    joint=": ",
    requires=("time", "tgs"),
    figures=(
        FigureDescription("tgs", "tokens_per_s", "", "device", "slots", "step"),
        FigureDescription("e2e_tgs", "tokens_per_s", "", "device", "slots", "start"),
        FigureDescription("time", "step_time", "s", over="step"),
        FigureDescription("loss", "loss"),
        FigureDescription("grad_norm", "gradient_norm"),
        FigureDescription("max_memory", "memory", "GiB", "device", note="Printed as GB."),
    ),
)

MMENGINE = FormatDescription(
    name="mmengine",
    title="iteration lines of MMEngine, as XTuner 0 prints them",
    meaning="slots of one micro-batch of this rank over its time, per device (XTuner's ThroughputHook); an iteration "
    "is a micro-batch, not a step of the optimizer",
    sources=(
        "InternLM/xtuner: xtuner/engine/hooks/throughput_hook.py",
        "open-mmlab/mmengine: docs/en/advanced_tutorials/logging.md",
    ),
    begins=r"(?:- )?(?:mmengine - )?(?:INFO - )?Iter\(train\) "
    r"\[\s*(?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15})\]\s",
    marks=("Iter(train)",),
    joint=": ",
    requires=("time", "memory"),
    figures=(
        FigureDescription("tokens_per_sec", "tokens_per_s", "", "device", "slots", "step"),
        FigureDescription("time", "step_time", "s", over="window", note="Of one micro-batch."),
        FigureDescription("tflops", "tflops", "", "device", over="step"),
        FigureDescription("memory", "memory", "MiB", "device"),
        FigureDescription("loss", "loss"),
        FigureDescription("grad_norm", "gradient_norm"),
    ),
)

PADDLENLP = FormatDescription(
    name="paddlenlp",
    title="lines of PaddleNLP's Trainer",
    meaning="slots of all sequences since the line before over its time, per device",
    sources=("PaddlePaddle/PaddleNLP: paddlenlp/trainer/trainer.py, trainer_utils.py (speed_metrics)",),
    begins=r"(?:\[\s*\w+\]\s*-\s*)?loss: ",
    marks=("interval_runtime",),
    joint=": ",
    requires=("global_step", "interval_runtime"),
    figures=(
        FigureDescription("global_step", "step"),
        FigureDescription("interval_tokens_per_second_per_device", "tokens_per_s", "", "device", "slots", "line"),
        FigureDescription(
            "interval_samples_per_second",
            "samples_per_s",
            "",
            "job",
            over="line",
            note="The rate of tokens is this one times the sequence length over the count of devices.",
        ),
        FigureDescription("interval_steps_per_second", "steps_per_s", "", "job", over="line"),
        FigureDescription("interval_runtime", "line_time", "s", over="line"),
        FigureDescription("interval_hardware_tflops_per_device", "tflops", "TFLOP/s", "device", over="line"),
        FigureDescription("max_memory_reserved", "memory", "GiB", "device"),
        FigureDescription("loss", "loss"),
    ),
)

ARCTIC = FormatDescription(
    name="arctic-training",
    title="iteration lines of ArcticTraining",
    meaning="no tokens per second is printed, but the time of the last iteration and TFLOP/s per GPU",
    sources=("snowflakedb/ArcticTraining: arctic_training/metrics.py",),
    begins=r"iter:\s+(?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15})\s+[0-9.]+% \| loss: ",
    marks=("iter tflops:", "iter time:"),
    joint=": ",
    requires=("iter time",),
    figures=(
        FigureDescription("iter time", "step_time", "s", over="step", note="With data loading and logging."),
        FigureDescription("step time", "step_time", "s", over="step", note="Forward, backward and update only."),
        FigureDescription("iter tflops", "tflops", "", "device", over="step"),
        FigureDescription("step tflops", "tflops", "", "device", over="step"),
        FigureDescription("loss", "loss"),
        FigureDescription("Max_MA", "memory", "GiB", "device", pattern=r"Max_MA {}", note="Printed as GB."),
    ),
)

VERL = FormatDescription(
    name="verl",
    title="console lines of verl's trainers",
    meaning="content tokens of the step's batch over its time and the count of devices; in reinforcement learning the "
    "time holds generation too",
    sources=(
        "volcengine/verl: verl/trainer/ppo/metric_utils.py (compute_throughout_metrics)",
        "volcengine/verl: verl/trainer/sft_trainer.py, verl/utils/logger/aggregate_logger.py",
    ),
    begins=r"(?:[^{}]*\]\s*)?(?:\(\w+ pid=[0-9]+\) )?step:(?P<step>[0-9]{1,15}) - ",
    marks=("perf/", "train/loss", "timing_s/"),
    joint=r":(?:np\.float(?:32|64)\()?",
    figures=(
        FigureDescription("perf/throughput", "tokens_per_s", "", "device", "content", "step"),
        FigureDescription("perf/time_per_step", "step_time", "s", over="step"),
        FigureDescription("train/time(s)", "step_time", "s", over="step"),
        FigureDescription("train/mfu", "mfu", "", "device", over="step"),
        FigureDescription(
            "perf/mfu/actor", "mfu", "", "device", over="step", is_training=False, note="Of the update alone."
        ),
        FigureDescription("perf/total_num_tokens", "step_tokens", "", "job", "content", "step"),
        FigureDescription("train/global_tokens", "step_tokens", "", "job", "content", "step"),
        FigureDescription("train/total_tokens(B)", "tokens", "10^9", "job", "content", "start"),
        FigureDescription("train/loss", "loss"),
        FigureDescription("train/grad_norm", "gradient_norm"),
        FigureDescription("actor/grad_norm", "gradient_norm"),
        FigureDescription("perf/max_memory_reserved_gb", "memory", "GiB", "device"),
        FigureDescription("perf/max_memory_allocated_gb", "memory", "GiB", "device"),
    ),
)

NEMO_RL = FormatDescription(
    name="nemo-rl",
    title="step blocks of NeMo RL",
    meaning="tokens of the step's samples over the time of the policy's training alone, per device; the rate over the "
    "whole step with generation stands beside it",
    sources=("NVIDIA-NeMo/RL: nemo_rl/algorithms/grpo.py, nemo_rl/algorithms/utils.py (print_performance_metrics)",),
    begins=r"=+ Step (?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15}) =+",
    marks=("= Step ",),
    is_block=True,
    has_other_work=True,
    joint=r": ",
    others=r"\W*[A-Z][\w ]+:|\s*[•-] .+: .+",
    figures=(
        FigureDescription("Policy Training (Tokens/sec/gpu)", "tokens_per_s", "", "device", None, "step"),
        FigureDescription("E2E (Tokens/sec/gpu)", "tokens_per_s", "", "device", None, "step", is_training=False),
        FigureDescription(
            "Generation Worker Group (Tokens/sec/gpu)", "tokens_per_s", "", "device", None, "step", is_training=False,
        ),
        FigureDescription("policy_training", "step_time", "s", over="step", pattern=r"^\W*policy_training: {} \("),
        FigureDescription("Total step time", "step_time", "s", over="step", is_training=False),
        FigureDescription(
            "Training FLOPS", "tflops", "TFLOP/s", "device", over="step",
            pattern=r"Training FLOPS: \S+ TFLOPS \({} per rank",
        ),
        FigureDescription("Training Model Floating Point Utilization", "mfu", "%", "device", over="step"),
        FigureDescription("Loss", "loss"),
    ),
)  # fmt: skip

OPENRLHF = FormatDescription(
    name="openrlhf",
    title="progress bars of OpenRLHF's trainers",
    meaning="no tokens per second is printed, but the bar's clock; the bar counts micro-batches of a rank, not steps "
    "of the optimizer",
    sources=("OpenRLHF/OpenRLHF: openrlhf/trainer/sft_trainer.py",),
    begins=r"Train step of epoch(?: [0-9]+)?:\s+[0-9]{1,3}%\|[^|]*\| "
    r"(?P<step>[0-9]{1,15})/(?P<steps_total>[0-9]{1,15}) \[(?P<elapsed>[0-9:]+)<",
    marks=("Train step of epoch",),
    joint="=",
    figures=(FigureDescription("gpt_loss", "loss"), FigureDescription("loss", "loss")),
)

LITGPT = FormatDescription(
    name="litgpt",
    title="iteration lines of LitGPT, and its final counts",
    meaning="in the final counts all slots of the training, padding counted, over its time; the lines print the time "
    "of one micro-batch",
    sources=("Lightning-AI/litgpt: litgpt/finetune/lora.py, litgpt/pretrain.py, litgpt/utils.py",),
    begins=r"Ep(?:och)? [0-9]+ \| iter (?P<iteration>[0-9]{1,15})(?: \|)? st[Ee]p (?P<step>[0-9]{1,15})(?: \||:) "
    r"loss train",
    marks=("iter time:",),
    joint=": ",
    others=r"\| -{20,}|-{20,}|\| (?:Token Counts|Performance|Memory Usage)\s*|\| - Memory Used .*",
    requires=("iter time",),
    figures=(
        FigureDescription("loss train", "loss"),
        FigureDescription("iter time", "step_time", "ms", over="step", note="Of one micro-batch."),
        FigureDescription("Tok/sec", "tokens_per_s", "", "job", "slots", "start"),
        FigureDescription("Training Time", "train_s", "s", over="start"),
        FigureDescription("Total Tokens (w/ Padding)", "tokens_total", "", "job", "slots", "start"),
        FigureDescription(
            "Tokens w/ Prompt", "tokens", "", "job", "content", "start", note="Gives the share of padding."
        ),
    ),
)
FORMATS = (
    DEEPSPEED, DEEPSPEED_PIPELINE, DEEPSPEED_CHAT, DEEPSPEED_PROFILE, XTUNER, MMENGINE, PADDLENLP, ARCTIC, VERL,
    NEMO_RL, OPENRLHF, LITGPT,
)  # fmt: skip
