"""Tables with everyday headers: each cell under the column that its header means, or left out and said so."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunemark.errors import BadData, BadExperiment
from tunemark_importers.everyday_table import document, is_document

_MARKDOWN = """# Results

| model | GPUs | seq | global batch | **tokens/s/GPU** | MFU |
|---|---|---:|---:|---:|---:|
| llama-3.1-8b | 8x H100 | 8192 | 64 | 7,105 | 37.6% |
| llama-3.1-8b | 16x H100 | 8192 | 128 | 6,990 | 37.0% |

Some text, and | a bar.
"""


def test_a_markdown_table_in_a_text() -> None:
    assert is_document(_MARKDOWN)
    first, second = document("README.md", "README.md", _MARKDOWN)
    assert (first.model, first.device, first.count, first.sequence) == ("llama-3.1-8b", "H100", 8, 8192)
    assert (first.tokens_per_s_per_device, first.tokens_per_s, first.mfu) == (7105.0, None, 0.376)
    assert (second.count, second.layout.global_batch, second.id) == (16, 128, "README.md#2")
    assert first.origin["tokens_per_s_per_device"] == "'7,105' in column 'tokens/s/GPU', line 5"
    assert "tokens/s/GPU = tokens_per_s_per_device" in first.notes[0]


def test_what_a_header_leaves_open_is_said_and_can_be_stated() -> None:
    text = "model,gpu,num_gpus,batch_size,tokens/s,step time (ms)\nllama-2-7b,A100,8,64,20000,3276.8\n"
    (claim,) = document("t.csv", "t.csv", text)
    assert (claim.tokens_per_s, claim.step_time_s, claim.layout.global_batch) == (20000.0, 3.2768, None)
    assert "'batch_size' may be of a step or of each device's forward pass" in claim.notes[0]
    assert "'tokens/s' is read as of the job; it does not say so" in claim.notes[0]
    given_ = {"batch_size": "global_batch_seqs", "tokens/s": "tokens_per_s_per_device", "gpu": "-"}
    (claim,) = document("t.csv", "t.csv", text, given_)
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.layout.global_batch) == (None, 20000.0, 64)
    assert claim.device is None
    for wrong in ({"nothing": "model"}, {"gpu": "colour"}):
        with pytest.raises(BadExperiment):
            document("t.csv", "t.csv", text, wrong)


def test_a_box_that_a_program_prints() -> None:
    rule = "+-------+------+---------+"
    box = "\n".join([rule, "| Model | GPUs | tok/s   |", rule, "| gpt2  | 8    | 123,456 |", rule])
    (claim,) = document("a", "a", box)
    assert (claim.model, claim.count, claim.tokens_per_s) == ("gpt2", 8, 123456.0)


def test_a_table_of_steps_is_a_log() -> None:
    rows = "\n".join(f"{n},{3 - n / 10},{4000 + n},0.41" for n in range(1, 6))
    (claim,) = document("m.csv", "m.csv", f"step,loss,tokens_per_second_per_gpu,mfu\n{rows}\n")
    assert [s.tokens_per_s for s in claim.steps] == [4001, 4002, 4003, 4004, 4005]
    assert (claim.scope, {s.mfu for s in claim.steps}) == ("device", {0.41})


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "| a | b |\n|---|---|\n| 1 | 2 |", "JobID|JobName|Elapsed\n1|sft|02:11\n", "hello | world"],
)
def test_what_is_no_table_of_rates_is_none(text: str) -> None:
    assert not is_document(text)


@pytest.mark.parametrize(
    ("header", "cell", "rate"),
    [
        ("tokens/s", "64,080 ± 320", 64080.0), ("tokens/s", "64.1k +/- 0.3k", 64100.0),
        ("tokens/s", "64,080 (+33%)", 64080.0), ("tok/s", "~64k (1.33x)", 64000.0),
        ("k tokens/s", "64.08 ± 0.3", 64080.0), ("tokens/s (x1000)", "64.08", 64080.0),
        ("tokens/s (in thousands)", "64.08", 64080.0), ("tokens/s (\u00d710\u00b3)", "64.08", 64080.0),
        ("M tokens/s (total)", "1.5", 1.5e6), ("throughput", "64,080 tokens/s", 64080.0),
        ("토큰/초", "64,080", 64080.0), ("吞吐 (tokens/s)", "64080", 64080.0),
    ],
)  # fmt: skip
def test_what_stands_beside_a_figure_or_is_counted_in_its_header(header: str, cell: str, rate: float) -> None:
    (claim,) = document("t", "t", f"| model | {header} |\n|---|---|\n| gpt2 | {cell} |\n")
    assert claim.tokens_per_s == pytest.approx(rate)


@pytest.mark.parametrize("cell", ["60k-66k", "OOM", "64,080 / 61,000", "64 080 or 61 000"])
def test_a_cell_of_two_figures_is_none(cell: str) -> None:
    text = f"| model | tokens/s |\n|---|---|\n| gpt2 | {cell} |\n| gpt2 | 5 |\n"
    assert [claim.tokens_per_s for claim in document("t", "t", text)] == [None, 5.0]


@pytest.mark.parametrize(
    ("headers", "cells"),
    [
        (("nodes", "GPUs/node"), ("4", "8")), (("GPUs per node", "num_nodes"), ("8", "4")), (("集群",), ("4x8",)),
        (("count",), ("32",)), (("#",), ("32",)), (("GPU 개수",), ("32",)), (("卡数",), ("32",)),
    ],
)  # fmt: skip
def test_the_count_under_other_headers(headers: tuple[str, ...], cells: tuple[str, ...]) -> None:
    text = f"model\t{chr(9).join(headers)}\ttokens/s/GPU\ngpt2\t{chr(9).join(cells)}\t100\n"
    (claim,) = document("t", "t", text)
    assert (claim.count, claim.tokens_per_s_per_device) == (32, 100.0)


def test_two_columns_of_one_rate_are_asked_about() -> None:
    text = "model,before tok/s/GPU,after tok/s/GPU\ngpt2,100,200\n"
    assert is_document(text)
    with pytest.raises(BadData, match="rates of one kind"):
        document("t.csv", "t.csv", text)
    (claim,) = document("t.csv", "t.csv", text, {"before tok/s/GPU": "-"})
    assert claim.tokens_per_s_per_device == 200.0
    # The same figure twice is one figure.
    (claim,) = document("t.csv", "t.csv", "model,tok/s,total tok/s\ngpt2,100,100\n")
    assert claim.tokens_per_s == 100.0


def test_lines_of_a_log_are_no_table_of_rates() -> None:
    for separator in (";", ", ", ",000 INFO "):
        lines = "".join(f"step:{n}{separator}loss:2.{n}{separator}tok/s 4,096\n" for n in range(9))
        assert not is_document(lines)
    emoji = "".join(f"\U0001f680 step {n} \u00b7 loss 2.{n} \u00b7 32,{n}66 tok/s \u00b7 61.2 GB\n" for n in range(9))
    assert not is_document(emoji)
    bars = "".join(f"step {n} | loss 2.{n} | step_time 5.2s | tok/s/chip 6,{n}01 | MFU 33%\n" for n in range(9))
    assert not is_document(bars)


# A header, the attribute that its cell becomes, and the factor between them.
_COLUMNS = (
    ("tokens/s/GPU", "tokens_per_s_per_device", 1.0), ("Tokens per second per GPU", "tokens_per_s_per_device", 1.0),
    ("tgs", "tokens_per_s_per_device", 1.0), ("total tokens/s", "tokens_per_s", 1.0),
    ("tokens_per_sec", "tokens_per_s", 1.0), ("K tokens/s", "tokens_per_s", 1000.0),
    ("step time (s)", "step_time_s", 1.0), ("step_time_ms", "step_time_s", 0.001),
    ("TFLOP/s/GPU", "tflops_per_device", 1.0), ("seq_len", "sequence", 1.0), ("Sequence length", "sequence", 1.0),
    ("#GPUs", "count", 1.0), ("num_gpus", "count", 1.0), ("Peak memory (GB)", "memory_bytes", 1e9),
    ("samples/s", "samples_per_s", 1.0), ("params (B)", "parameters", 1e9),
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(_COLUMNS), min_size=2, max_size=6, unique_by=lambda column: column[1]),
    st.lists(st.integers(1, 9999), min_size=6, max_size=6),
    st.sampled_from(["csv", "tabs", "semicolons", "markdown", "box"]),
)
def test_what_stands_in_a_table_is_what_is_read(
    columns: list[tuple[str, str, float]], values: list[int], form: str
) -> None:
    header, row = ["model", *(name for name, *_ in columns)], ["gpt2", *map(str, values[: len(columns)])]
    delimiter = {"csv": ",", "tabs": "\t", "semicolons": ";"}.get(form)
    if delimiter:
        text = f"{delimiter.join(header)}\n{delimiter.join(row)}\n"
    else:
        rule = "|---" * len(header) + "|" if form == "markdown" else "+---" * len(header) + "+"
        lines = [f"| {' | '.join(header)} |", rule, f"| {' | '.join(row)} |"]
        text = "\n".join([rule, *lines, rule] if form == "box" else lines)
    rates = {"tokens_per_s", "tokens_per_s_per_device", "step_time_s", "tflops_per_device", "samples_per_s"}
    if not rates & {field for _, field, _ in columns}:
        return
    assert is_document(text), text
    (claim,) = document("t", "t", text)
    for (_, field, factor), value in zip(columns, values, strict=False):
        assert getattr(claim, field) == pytest.approx(value * factor), (field, text)
