"""Registers the importers of other tools' logs and documents."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import FormatDescription, Importer, hookimpl
from tunemark_importers import other_formats
from tunemark_importers.framework_formats import FORMATS, attribute_of
from tunemark_importers.huggingface_formats import DIALECTS


@hookimpl
def tunemark_importers() -> Sequence[Importer]:
    return (*_DOCUMENTS, *_LOGS, *(_described(format) for format in FORMATS))


_DOCUMENTS = (
    Importer(
        name="huggingface",
        document="tunemark_importers.huggingface:document",
        is_document="tunemark_importers.huggingface:is_document",
        meaning="samples of the whole job over train_runtime, including set-up, first step and evaluation; before "
        "transformers 5, planned samples, whether done or not",
        description="trainer_state.json, train_results.json and all_results.json of Hugging Face's Trainer",
    ),
    Importer(
        name="optimum-benchmark",
        document="tunemark_importers.optimum_benchmark:document",
        is_document="tunemark_importers.optimum_benchmark:is_document",
        meaning="samples of one process in all steps after warm-up over the mean time of one step: too high by a "
        "factor of the number of steps",
        description="benchmark_report.json and benchmark.json of Hugging Face's optimum-benchmark, training",
        formats=(other_formats.OPTIMUM_BENCHMARK,),
    ),
    Importer(
        name="pytest-benchmark",
        document="tunemark_importers.pytest_benchmark:document",
        is_document="tunemark_importers.pytest_benchmark:is_document",
        meaning="all slots of the timed steps over their wall time, whole job; the rounds are the steps of all "
        "attempts",
        description="pytest-benchmark's JSON of tests with the fixture tunemark",
        formats=(other_formats.PYTEST_BENCHMARK,),
    ),
    Importer(
        name="claims",
        document="tunemark_importers.claims_csv:document",
        is_document="tunemark_importers.claims_csv:is_document",
        meaning="tokens per second of the whole job and per device as each row's source states them; which tokens, "
        "and whether warm-up is inside, the table leaves open",
        description="a table of claims, one per row: CSV, also with semicolons or tabs",
    ),
    Importer(
        name="wandb-summary",
        document="tunemark_importers.wandb_summary:document",
        is_document="tunemark_importers.wandb_summary:is_document",
        meaning="the last value of each metric, by its name",
        description="wandb-summary.json of a run of Weights & Biases",
        priority=1,
    ),
    Importer(
        name="metrics",
        document="tunemark_importers.metric_tables:document",
        is_document="tunemark_importers.metric_tables:is_document",
        meaning="metrics by their names; what they count is unknown where the name does not say it",
        description="metrics.csv of Lightning and LitGPT; CSVs that W&B, TensorBoard and MLflow export",
        priority=-1,
    ),
    Importer(
        name="sentence",
        document="tunemark_importers.sentence:document",
        is_document="tunemark_importers.sentence:is_document",
        meaning="tokens per second as somebody states them; what they count is unknown",
        description='a claim in a sentence: "Mistral 7B on 16 MI250: 390,000 tokens/s"',
        priority=-1,
    ),
    Importer(
        name="everyday-table",
        document="tunemark_importers.everyday_table:document",
        is_document="tunemark_importers.everyday_table:is_document",
        takes_columns=True,
        meaning="tokens per second of the job or of each device, as the table's header says; which tokens, and "
        "whether warm-up is inside, the table leaves open",
        description="tables with everyday headers: CSV, tabs, Markdown, boxes; --columns says what they mean",
        priority=-2,
    ),
    Importer(
        name="tensorboard",
        document="tunemark_importers.tensorboard_events:document",
        is_document="tunemark_importers.tensorboard_events:is_document",
        is_binary=True,
        meaning="scalars by their tags; what they count is unknown where the tag does not say it",
        description="TensorBoard's event files; needs the package tensorboard",
    ),
)
_LOGS = (
    Importer(
        name="mlperf",
        log="tunemark_importers.mllog:MllogReader",
        meaning="sequences per second of the whole job as a submission states them (in gpt3 tokens), without "
        "evaluation; rows are packed",
        description="result files of MLPerf Training (:::MLLOG)",
        formats=(other_formats.MLPERF,),
    ),
    Importer(
        name="moai",
        log="tunemark_importers.moai:MoaiReader",
        meaning="batch x block length, padding counted, of the whole job over host time, which in early formats "
        "ends before waiting for the device; the first step has its own line",
        description="logs of the tutorials for Moreh's MoAI platform",
        formats=(other_formats.MOAI,),
    ),
    Importer(
        name="huggingface-log",
        log="tunemark_importers.huggingface:HuggingFaceReader",
        meaning="in the summary, samples of the whole job over train_runtime, including the first step; in a line, "
        "if enabled, all tokens over all time since the start",
        description="console logs of Hugging Face's Trainer, TRL, axolotl, LLaMA-Factory, ms-swift and Unsloth",
        formats=DIALECTS,
    ),
    Importer(
        name="torchtitan",
        log="tunemark_importers.torchtitan:TorchtitanReader",
        meaning="slots since the last line, padding counted, over wall time, per device; the first line includes "
        "the first step",
        description="torchtitan's console log (tps, earlier wps)",
        formats=(other_formats.TORCHTITAN,),
    ),
    Importer(
        name="torchtune",
        log="tunemark_importers.torchtune:TorchtuneReader",
        meaning="trained labels of one step, without padding and masked prompts, over its wall time, per device; "
        "the first step has a line like all others",
        description="torchtune's step lines, text and JSON lines",
        formats=(other_formats.TORCHTUNE,),
    ),
    Importer(
        name="megatron",
        log="tunemark_importers.megatron:MegatronReader",
        meaning="mean time of an iteration since the last line, after waiting for all ranks, and model TFLOP/s per "
        "GPU by its own formula; all slots of the global batch; the first line includes the first iteration",
        description="iteration lines of Megatron-LM, Megatron-Bridge and their forks",
        formats=(other_formats.MEGATRON,),
    ),
    Importer(
        name="anything",
        log="tunemark_importers.generic_log:GenericLogReader",
        meaning="tokens per second as the program prints them; what they count is unknown",
        description="any other program's lines that print a rate with its unit",
        priority=-1,
    ),
)


def _described(format: FormatDescription) -> Importer:
    own = {"litgpt": "tunemark_importers.litgpt:LitgptReader"}
    return Importer(
        name=format.name,
        log=own.get(format.name, f"tunemark_importers.framework_readers:{attribute_of(format.name)}"),
        meaning=format.meaning,
        description=format.title,
        formats=(format,),
    )
