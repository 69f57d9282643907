"""Each format is told by its content, alone and beside another, and what is nobody's format is nobody's."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tunemark.analysis.claim_reader import ParsedSource, read_claims
from tunemark.plugin.catalog import load_object
from tunemark.plugin.claims import LogLine
from tunemark.plugin.descriptors import Importer

Printed = Callable[[str], str]
Importers = dict[str, Importer]

OWNERS = {
    "nanogpt.txt": "nanogpt",
    "nanochat.txt": "nanochat",
    "llmc.txt": "llm.c",
    "maxtext.txt": "maxtext",
    "fms-fsdp.txt": "fms-fsdp",
    "composer.txt": "composer",
    "olmo-core.txt": "olmo-core",
    "nanotron.txt": "nanotron",
    "gpt-neox.txt": "gpt-neox",
    "nemo-1.txt": "nemo-1",
    "nemo-2.txt": "nemo-2",
    "nemo-automodel.txt": "nemo-automodel",
    "internevo.txt": "internevo",
    "deepspeed.txt": "deepspeed",
    "deepspeed-pipeline.txt": "deepspeed-pipeline",
    "deepspeed-chat.txt": "deepspeed-chat",
    "deepspeed-profile.txt": "deepspeed-profile",
    "xtuner.txt": "xtuner",
    "mmengine.txt": "mmengine",
    "paddlenlp.txt": "paddlenlp",
    "arctic-training.txt": "arctic-training",
    "verl-sft.txt": "verl",
    "verl-ppo.txt": "verl",
    "nemo-rl.txt": "nemo-rl",
    "litgpt.txt": "litgpt",
    "openrlhf.txt": "openrlhf",
    "mlperf-result.txt": "mlperf",
    "wandb-summary.json": "wandb-summary",
    "wandb-summary-trainer.json": "wandb-summary",
    "lightning-metrics.csv": "metrics",
    "litgpt-metrics.csv": "metrics",
    "wandb-chart.csv": "metrics",
    "wandb-runs.csv": "metrics",
    "mlflow-chart.csv": "metrics",
    "llama-factory-trainer_log.jsonl": "llama-factory-trainer-log",
    "llama-factory-running_log.txt": "huggingface-log",
    "llama-factory-all_results.json": "huggingface",
    "ms-swift.txt": "huggingface-log",
    "ms-swift-logging.jsonl": "huggingface-log",
    "axolotl.txt": "huggingface-log",
    "unsloth.txt": "huggingface-log",
    "notebook.txt": "huggingface-log",
    "claims.csv": "claims",
    "claims-semicolon.csv": "claims",
    "claims-tabs.tsv": "claims",
    "everyday-table.csv": "everyday-table",
    "everyday-table.md": "everyday-table",
    "sentence.txt": "sentence",
    "huggingface-console.txt": "huggingface-log",
    "huggingface-trl.txt": "huggingface-log",
    "huggingface-trainer_state.json": "huggingface",
    "huggingface-train_results.json": "huggingface",
    "megatron-bridge.txt": "megatron",
    "megatron-lm.txt": "megatron",
    "moai-baichuan.txt": "moai",
    "moai-dict.txt": "moai",
    "moai-gpt.txt": "moai",
    "moai-plain.txt": "moai",
    "moai-stamped.txt": "moai",
    "moai-tps.txt": "moai",
    "moai-window.txt": "moai",
    "optimum-benchmark.json": "optimum-benchmark",
    "optimum-benchmark_report.json": "optimum-benchmark",
    "pytest-benchmark.json": "pytest-benchmark",
    "torchtitan-2024.txt": "torchtitan",
    "torchtitan-2025.txt": "torchtitan",
    "torchtune-disk.jsonl": "torchtune",
    "torchtune-stdout.txt": "torchtune",
}


def _read(text: str, importers: Importers) -> ParsedSource:
    return read_claims([(text.encode(), None)], id="here", source="a file", importers=list(importers.values()))


@pytest.mark.parametrize("name", OWNERS)
def test_a_format_is_told_by_its_content(name: str, printed: Printed, importers: Importers) -> None:
    reading = _read(printed(name), importers)
    assert reading.importer == OWNERS[name]
    assert reading.claims
    # All but a few lines that are everybody's, such as the command that began it.
    assert reading.lines - reading.understood <= 0.4 * reading.lines


@pytest.mark.parametrize(
    "name", [name for name, owner in OWNERS.items() if not owner.startswith(("claims", "optimum", "pytest"))]
)
def test_one_log_reader_alone_knows_a_log(name: str, printed: Printed, importers: Importers) -> None:
    for importer in importers.values():
        # What reads any program's rates reads these too, where nobody else does.
        if importer.log and importer.name not in (OWNERS[name], "anything"):
            reader = load_object(importer.log)()
            for at, line in enumerate(printed(name).splitlines(), 1):
                reader.read(LogLine(at, line))
            assert not any(claim.steps.seen for claim in reader.claims()), importer.name


def test_two_formats_in_one_file_are_both_read(printed: Printed, importers: Importers) -> None:
    text = printed("torchtitan-2025.txt") + printed("moai-stamped.txt") + printed("huggingface-trl.txt")
    reading = _read(text, importers)
    assert reading.importer == "huggingface-log, moai, torchtitan"
    assert sorted(len(claim.steps) for claim in reading.claims) == [6, 6, 10]


def test_terminal_escapes_do_not_hide_a_line(printed: Printed, importers: Importers) -> None:
    text = printed("torchtitan-2025.txt").replace("step:", "\x1b[31mstep:").replace("tps:", "\x1b[34mtps:")
    (claim,) = _read(text, importers).claims
    assert len(claim.steps) == 6


def test_interleaved_ranks_of_a_launcher_count_once(printed: Printed, importers: Importers) -> None:
    lines = printed("moai-stamped.txt").splitlines()
    text = "\n".join(f"[default{rank}]:{line}" for line in lines for rank in (0, 1, 2, 3))
    (claim,) = _read(text, importers).claims
    assert [s.number for s in claim.steps] == list(range(1, 11))
    assert claim.layout.global_batch == 128


def test_carriage_returns_and_other_encodings(printed: Printed, importers: Importers) -> None:
    text = printed("huggingface-console.txt").replace("\n", "\r\n")
    for encoding in ("utf-8-sig", "utf-16"):
        reading = read_claims([(text.encode(encoding), None)], id="a", source="a", importers=list(importers.values()))
        assert len(reading.claims[0].steps) == 20


@pytest.mark.parametrize("text", ["", "hello\nworld\n", '{"a": 1}', "a,b\n1,2\n", "[]", "{'a': 1}\n"])
def test_what_is_nobodys_is_nobodys(text: str, importers: Importers) -> None:
    reading = _read(text, importers)
    assert (reading.importer, reading.claims, reading.understood) == (None, (), 0)


@pytest.mark.parametrize(
    "filler",
    ["A", "-", "{", "{'", "0", "1,", "9.", "=", "[", "| ", "--a ", "a:", "step: ", "{'loss': 1, ", "%|", "(pid="],
)
def test_a_long_line_costs_little(filler: str, importers: Importers) -> None:
    line = LogLine(1, filler * ((1 << 20) // len(filler)))
    short = [LogLine(2, "iteration | Throughput batch model epoch Step | step: " + filler * (16000 // len(filler)))] * 3
    for importer in importers.values():
        if importer.log:
            reader = load_object(importer.log)()
            began = time.perf_counter()
            for one in (line, *short):
                reader.read(one)
            assert time.perf_counter() - began < 0.5, importer.name
