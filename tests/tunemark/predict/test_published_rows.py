"""Rows of published throughput: what they state, what is derived, what is assumed, and why some cannot be expressed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunemark.cli.main import main
from tunemark.errors import BadData
from tunemark.physics.chip_peaks import find_chip
from tunemark.physics.chips import find_interconnect, read_chip_table
from tunemark.plugin import Catalog
from tunemark.predict import device_facts, predict
from tunemark.predict.assumed_chips import ASSUMED_CHIPS
from tunemark.predict.efficiency_constants import CONSTANTS, find_class_efficiency
from tunemark.predict.layout import RankLayout
from tunemark.predict.published_rows import (
    ConvertedRow,
    UnconvertibleRow,
    convert_row,
    format_layout,
)
from tunemark.predict.row_cells import read_published_rows
from tunemark.predict.row_layout import read_sharding

# Llama 3 8B on eight H100s, fully sharded.
_ROW = {
    "id": "a", "device": "H100-SXM-80GB", "n_devices": "8", "precision": "bf16", "n_layers": "32", "hidden": "4096",
    "intermediate": "14336", "mlp_gated": "1", "n_heads": "32", "n_kv_heads": "8", "vocab": "128256",
    "seq_len": "4096.0", "global_batch_seqs": "16", "micro_batch": "1", "fsdp": "3", "act_ckpt": "full",
    "framework": "torch", "compile": "N",
}  # fmt: skip


def _expressed(**changed: str) -> ConvertedRow:
    found = convert_row({**_ROW, **changed})
    assert isinstance(found, ConvertedRow), found
    return found


def _reason(**changed: str) -> str:
    found = convert_row({**_ROW, **changed})
    assert isinstance(found, UnconvertibleRow)
    return found.reason


def test_a_row_says_its_layout() -> None:
    found = _expressed()
    assert format_layout(found.layout) == "fsdp:8"
    assert (found.layout.recompute, found.work.global_batch, found.work.sequence) == ("full", 16, 4096)
    assert found.assumptions == ()


def test_what_was_measured_is_never_read() -> None:
    measured = {"tokens_per_s_total": "1e9", "step_time_s": "3", "tflops_per_device_reported": "900"}
    assert _expressed(**measured).predict() == _expressed().predict()


def test_missing_cells_are_derived_or_told() -> None:
    found = _expressed(global_batch_seqs="", micro_batch="2", grad_accum="4", n_kv_heads="", mlp_gated="", vocab="")
    assert found.work.global_batch == 2 * 4 * 8
    assert found.work.architecture.num_key_value_heads == 32
    assert found.work.architecture.gated_mlp
    assert [words.split()[1] for words in found.assumptions] == ["MLP", "vocabulary"]


def test_words_of_a_spreadsheet_are_numbers() -> None:
    assert _expressed(mlp_gated="TRUE", fsdp="full_shard") == _expressed()
    assert format_layout(_expressed(fsdp="No").layout) == "ddp:8"


def test_what_cannot_fit_by_the_prediction_is_said() -> None:
    small = _expressed(device="TPU v5e")
    assert any(words.startswith("that it fits: by this prediction it needs") for words in small.assumptions)


def test_recomputation_is_the_least_that_fits() -> None:
    small, large = _expressed(act_ckpt=""), _expressed(act_ckpt="", seq_len="65536")
    assert (small.layout.recompute, large.layout.recompute) == ("none", "full")
    assert small.assumptions[-1].startswith("recomputation: none")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"device": "H900"},
            "no chip named 'H900'; the table of peaks only has chips that a vendor's page confirms; did you mean",
        ),
        ({"device": "A10B"}, "no chip named 'A10B'"),
        ({"device": ""}, "device is not stated"),
        ({"seq_len": ""}, "seq_len is not stated"),
        ({"seq_len": "nan"}, "seq_len is no number: 'nan'"),
        ({"hidden": "4096.5"}, "hidden is 4096.5, not a whole number of at least 1"),
        ({"hidden": "1e200"}, "hidden is 1e+200, not a whole number"),
        ({"hidden": "x"}, "hidden is no number: 'x'"),
        ({"n_layers": ""}, "n_layers not stated, and no model named '' is installed"),
        ({"precision": "int3"}, "no precision 'int3' is known"),
        ({"precision": "fp4"}, "no confirmed peak of H100-SXM-80GB in fp4"),
        ({"n_heads": "33"}, "33 heads do not divide a hidden size of 4096"),
        ({"tp": "3"}, "tp x pp x cp = 3 does not divide 8 devices"),
        ({"dp": "4"}, "dp x tp x pp x cp = 4, but there are 8 devices"),
        ({"global_batch_seqs": "12"}, "8 replicas x 1 sequences do not divide a batch of 12"),
        ({"params_b": "46.7"}, "a mixture of experts, whose n_experts"),
        ({"act_ckpt": "some"}, "no checkpointing 'some' is known"),
        ({"grad_accum": "4"}, "micro_batch 1 x grad_accum 4 x 8 data ranks = 32, but global_batch_seqs is 16"),
        ({"n_experts": "8"}, "8 experts, but no experts_per_token"),
        ({"n_experts": "0", "experts_per_token": "2"}, "2 experts for each token, of an unknown number"),
    ],
)
def test_a_row_that_cannot_be_expressed_says_why(changed: Mapping[str, str], reason: str) -> None:
    assert reason in _reason(**changed)


def test_a_mixture_whose_experts_are_stated_is_expressed() -> None:
    found = _expressed(params_b="46.7", n_experts="8", experts_per_token="2", vocab="32000")
    dense = _expressed(vocab="32000")
    # Two experts of eight are active: more work than one MLP, far less than eight.
    assert 1.5 < found.predict().flops / dense.predict().flops < 2.5


def test_an_installed_model_says_what_a_row_does_not() -> None:
    models = Catalog().models()
    known = {"llama-3-8b": models["llama-3-8b"].architecture}
    row = {**_ROW, **dict.fromkeys(("intermediate", "mlp_gated", "n_kv_heads", "vocab"), "")}
    found = convert_row({**row, "model": "Llama 3 8B"}, known)
    assert isinstance(found, ConvertedRow)
    assert found.work.architecture == known["llama-3-8b"]
    other = convert_row({**row, "model": "llama-3-8b", "n_layers": "16", "hidden": ""}, known)
    assert isinstance(other, UnconvertibleRow)
    assert other.reason.endswith("the installed model of that name has another shape: n_layers 16, not 32")
    # Whoever states all of a model of that name has the last word.
    whole = convert_row({**_ROW, "model": "llama-3-8b", "n_layers": "16"}, known)
    assert isinstance(whole, ConvertedRow)
    assert whole.work.architecture.num_hidden_layers == 16


@pytest.mark.parametrize(
    ("layout", "spelled"),
    [
        (RankLayout(), "none"),
        (RankLayout(data=8, shard=4, zero=3, tensor=2), "ddp:2+fsdp:4+tp:2:sequence_parallel=true"),
        (
            RankLayout(data=2, pipeline=4, virtual=4, schedule="interleaved"),
            "pp:4:schedule=interleaved:virtual=4+ddp:2",
        ),
        (RankLayout(data=8, shard=8, zero=3, reshard=False), "fsdp:8:reshard=false"),
        (RankLayout(data=8, shard=8, zero=1), "zero1:8"),
    ],
)
def test_a_layout_is_spelled_as_a_strategy_is(layout: RankLayout, spelled: str) -> None:
    assert format_layout(layout) == spelled


def test_a_device_without_published_rows_has_wider_bounds_and_says_so() -> None:
    seen, unseen = _expressed(), _expressed(device="MI250", n_devices="8")
    widths = [high / low for low, high in (one.predict().step_time_bounds_s for one in (seen, unseen))]
    assert widths[0] < widths[1]
    assert any("no published row of cdna2" in words for words in unseen.assumptions)


def test_every_chip_with_a_bandwidth_can_be_predicted() -> None:
    for name in (chip.name for chip in read_chip_table()[0] if chip.interconnect):
        facts = device_facts(name)
        assert facts.intra_bytes_per_s >= facts.inter_bytes_per_s > 0, name
        assert find_chip(name).name == name


def test_a_die_has_half_of_its_package() -> None:
    whole, die = device_facts("MI250"), device_facts("MI250 GCD")
    assert die.peak_flops["bf16"] == whole.peak_flops["bf16"] / 2
    assert (die.node, die.intra_bytes_per_s) == (2 * whole.node, whole.intra_bytes_per_s / 2)
    assert find_interconnect("no chip") is None


def test_no_constant_belongs_to_a_row_or_a_publisher() -> None:
    names = [constant.name for constant in CONSTANTS]
    assert len(set(names)) == len(names) <= 32
    for constant in CONSTANTS:
        assert constant.source, constant.name
        # Within three times what was believed before any row was seen.
        assert abs(constant.value / constant.prior - 1) < 3, constant.name
    slower = {c.name: c.value * (0.5 if c.name.startswith("gemm.hopper") else 1.0) for c in CONSTANTS}
    one = _expressed()
    half = find_class_efficiency("H100-SXM-80GB", constants=slower).efficiency
    assert half.gemm["bf16"] == pytest.approx(find_class_efficiency("H100-SXM-80GB").efficiency.gemm["bf16"] / 2)
    assert find_class_efficiency("A100", constants=slower).efficiency == find_class_efficiency("A100").efficiency
    assert one.predict().step_time_s > 0


def test_the_page_shows_the_constants_that_are_shipped() -> None:
    page = (Path(__file__).parents[3] / "docs/auto.md").read_text(encoding="utf-8")
    for c in CONSTANTS:
        assert f"| `{c.name}` | {c.prior:.3g} | {c.value:.3g} |" in page, c.name
    assert f"{len(CONSTANTS)} constants" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "has no column 'device'"),
        ("device,device\nA100,A100\n", "has the column 'device' twice"),
        ("id,device\na\n", "line 2 has fewer cells"),
        ("id,device\na,A100,9\n", "line 2 has more cells"),
        ('id,device\n"a,A100\n', "is no CSV"),
        ("id;device\na;A100\n", "has no column 'device'\n  why:  its header is separated by ';'"),
    ],
)
def test_a_bad_file_is_told_before_anything_else(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadData) as error:
        read_published_rows(path)
    assert words in str(error.value)


def _file(tmp_path: Path, *rows: Mapping[str, str]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(row.get(name, "") for name in names) for row in rows)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_command_prints_one_object_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, _ROW, {**_ROW, "id": "b", "device": "H900"}, {**_ROW, "id": ""})
    assert main(["predict", "--rows", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    first, second, third = (json.loads(line) for line in out.splitlines())
    assert first["id"] == "a"
    assert first["step_time_low_s"] < first["step_time_s"] < first["step_time_high_s"]
    tokens = 16 * 4096 / 8
    assert first["tokens_per_s_per_device"] == pytest.approx(tokens / first["step_time_s"])
    assert sum(first["seconds"].values()) == pytest.approx(first["step_time_s"])
    assert sum(first["bytes"].values()) == pytest.approx(first["memory_bytes"])
    # A third to four fifths of the peak: a step of 16 x 4096 tokens, 6 and once more 2 FLOPs for 8.03 - 0.53 billion.
    floor = 8 * 7.5e9 * tokens / 989e12
    assert 1.2 < first["step_time_s"] / floor < 3
    assert second["step_time_s"] is None
    assert second["reason"].startswith("no chip named 'H900'")
    assert third["id"] == "line 4"
    assert err.strip() == "1 of 3 rows cannot be expressed"


def test_the_table_names_what_cannot_be_expressed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, _ROW, {**_ROW, "id": "b", "device": "H900"})
    assert main(["predict", "--rows", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("| a | fsdp:8 |")
    assert lines[-1].startswith("| b | cannot be expressed: no chip")


def test_an_experiment_is_predicted_as_it_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"model": "mistral-tiny", "device": "cpu", "size": "1", "sequence": "128", "micro-batch": "2"}
    assert main(["predict", *(f"--{name}={value}" for name, value in given.items()), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["model"], row["strategy"], row["device"]) == ("mistral-tiny", "none", "cpu:1")
    assert row["tokens_per_s_per_device"] == pytest.approx(2 * 128 / row["step_time_s"])
    assert row["step_time_low_s"] < row["step_time_s"] < row["step_time_high_s"]
    assert "CPU core" in row["assumptions"][0] or "measured on this machine" in row["assumptions"][0]


@pytest.mark.parametrize("arguments", [["--rows", "/nowhere/rows.csv"], ["--rows", "a.csv", "--model", "mistral-tiny"]])
def test_what_cannot_be_read_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("tunemark: ")


def test_slower_links_never_make_a_step_faster() -> None:
    row: dict[str, Any] = {**_ROW, "n_devices": "32", "tp": "4", "pp": "2", "fsdp": "1", "act_ckpt": "none"}
    found = _expressed(**row)
    slow = device_facts("H100-SXM-80GB", inter_bytes_per_s=5e9, intra_bytes_per_s=30e9)
    assert predict(found.work, found.layout, slow).step_time_s > found.predict().step_time_s


def test_selective_recomputation_in_torch_repeats_every_second_product() -> None:
    # Of a layer's products keys, output and up come again: of 4096 x (4096 + 2 x 1024 + 4096 + 3 x 14336) a token
    # they are 4096 x (1024 + 4096 + 14336). Attention does not.
    none, again, full = (_expressed(compile="Y", act_ckpt=kind) for kind in ("none", "selective", "full"))
    more = again.predict().flops - none.predict().flops
    tokens = 32 * 4096 * 16 / 8
    assert more == pytest.approx(2 * tokens * 4096 * (1024 + 4096 + 14336))
    least, middle, most = (one.predict().bytes.activations for one in (full, again, none))
    assert least < middle < most / 2
    assert none.predict().step_time_s < again.predict().step_time_s < full.predict().step_time_s


def test_torch_runs_attention_by_kernels_of_no_class() -> None:
    # Of one class of devices alone there were kernels before: on A100 both stacks have the same.
    long = {"seq_len": "65536", "global_batch_seqs": "8", "act_ckpt": "none"}
    torch, megatron = _expressed(**long, compile="Y"), _expressed(**long, framework="megatron")
    assert not torch.work.stack.native_attention
    assert megatron.work.stack.native_attention
    shares = [find_class_efficiency(chip).efficiency.attention_portable for chip in ("H100-SXM-80GB", "A100-SXM-80GB")]
    assert shares[0] < 1.0 == shares[1]
    assert torch.predict().step_time_s > 1.2 * megatron.predict().step_time_s


def test_virtual_stages_that_are_not_stated_have_two_layers_or_more() -> None:
    piped = {"fsdp": "", "pp": "4", "act_ckpt": "none", "global_batch_seqs": "64", "framework": "megatron"}
    found = _expressed(**piped)
    assert (found.layout.virtual, found.layout.schedule) == (4, "interleaved")
    assert found.assumptions[-1] == "4 virtual stages of 2 layers, because none are stated"
    assert _expressed(**piped, vp="1").layout.virtual == 1
    # Six micro-batches are not dealt to four stages evenly; fp16 is of the years before.
    assert _expressed(**{**piped, "global_batch_seqs": "12"}).layout.virtual == 1
    assert _expressed(**piped, precision="fp16").layout.virtual == 1


def test_software_is_of_its_year() -> None:
    old = {"fsdp": "", "tp": "8", "date_or_version": "v2.5 2022-06-01", "framework": "", "compile": ""}
    assert not _expressed(**old).work.stack.flash_attention
    assert _expressed(**{**old, "date_or_version": "f2021a 2024-09"}).work.stack.flash_attention
    # A run of 2022 that was documented in 2024 is of 2022; a year of the run has the last word.
    assert not _expressed(**{**old, "date_or_version": "2024-03, run of 2022"}).work.stack.flash_attention
    assert _expressed(**old, year="2024").work.stack.flash_attention
    assert _expressed(date_or_version="2021", fsdp="3").work.stack.flash_attention


@pytest.mark.parametrize(
    ("changed", "framework"),
    [
        ({"notes": "HF Trainer, gradient checkpointing"}, "hf"),
        ({"notes": "LoRA + DeepSpeed ZeRO 3"}, "deepspeed"),
        ({"notes": "Megatron-DeepSpeed"}, "megatron"),
        ({"source": "some MaxText page"}, "xla"),
        ({"framework": "torch-compiled", "notes": "MaxText"}, "torch"),
        ({"device": "TPU-v5p"}, "xla"),
        ({"fsdp": "1", "tp": "4"}, "megatron"),
        ({"n_devices": "1", "fsdp": ""}, "torch"),
    ],
)
def test_software_is_what_the_row_says_else_assumed(changed: Mapping[str, str], framework: str) -> None:
    found = _expressed(**{"framework": "", "compile": "", **changed})
    assert found.framework == framework
    is_said = bool(changed.keys() & {"notes", "source", "framework"}) or "TPU" in changed.get("device", "")
    assert ("framework" in found.assumed) == (not is_said)


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ("3", (3, None)), ("3.0", (3, None)), ("zero-1", (1, None)), ("1(8-way)", (1, 8)), ("1 (8 ranks)", (1, 8)),
        ("HSDP", (3, 4)), ("HSDP(16)", (3, 16)), ("zero2(size 8)", (2, 8)), ("hybrid_shard", (3, 4)),
        ("SHARD_GRAD_OP", (2, None)), ("ddp", (0, None)), ("", (None, None)),
    ],
)  # fmt: skip
def test_groups_that_shard_are_read(stated: str, read: tuple[int | None, int | None]) -> None:
    assert read_sharding(stated, node=4) == read


def test_smaller_groups_that_shard_send_less_between_nodes() -> None:
    # InternEvo's documentation (doc/en/train_performance.md): 1,024 A100s, with 50 GB/s of network for a node of eight,
    # reach 2,271 tokens/s with states divided over all of them, and 3,625 with groups of eight.
    evo = {
        "device": "A100-SXM-80GB", "n_devices": "1024", "intermediate": "11008", "n_kv_heads": "32", "vocab": "103168",
        "seq_len": "2048", "global_batch_seqs": "8192", "micro_batch": "2", "act_ckpt": "none", "node_devices": "8",
        "inter_gb_s": "6.25",
    }  # fmt: skip
    wide, near = (_expressed(**evo, fsdp=stated).predict().tokens_per_s_per_device for stated in ("1", "1(8-way)"))
    assert near > 1.05 * wide
    assert near == pytest.approx(3625, rel=0.2)


def test_a_named_cluster_has_its_node_and_its_network() -> None:
    far = {"n_devices": "64", "global_batch_seqs": "64"}
    assumed, named, stated = (
        _expressed(**far),
        _expressed(**far, cluster="p5.48xlarge"),
        _expressed(**far, inter_gb_s="5"),
    )
    assert "network" in assumed.assumed
    assert "network" not in named.assumed | stated.assumed
    assert named.device.inter_bytes_per_s == 50e9
    assert stated.predict().step_time_s > named.predict().step_time_s
    assert "p5 has no A100-SXM-80GB; its chips: H100" in _reason(**far, cluster="p5", device="A100-SXM-80GB")
    assert "no cluster named 'q5'" in _reason(**far, cluster="q5")


def test_frozen_weights_of_few_bits_take_less_memory_and_more_time() -> None:
    lora = {"task": "lora", "n_devices": "1", "fsdp": "", "global_batch_seqs": "1", "lora_rank": "64",
            "lora_targets": "all-linear", "framework": "hf"}  # fmt: skip
    whole, four = _expressed(**lora), _expressed(**{**lora, "task": "qlora"})
    assert 6.5e9 < whole.predict().bytes.parameters - four.predict().bytes.parameters - 4.3e9 < 7.5e9
    assert four.predict().step_time_s > whole.predict().step_time_s
    # Rank 64 on all seven matrices of 32 layers: 64 x (4 x 4096 + 2 x 1024 + 2 x 4096 + 3 x (4096 + 14336)) each.
    assert whole.work.trained_fraction == pytest.approx(
        32 * 64 * (4 * 4096 + 2 * (4096 + 1024) + 3 * 18432) / 8.03e9, 0.01
    )


def test_what_is_not_said_widens_the_bounds() -> None:
    far = {"n_devices": "64", "global_batch_seqs": "64"}
    known = _expressed(**far, inter_gb_s="50")

    def width(one: ConvertedRow, side: int) -> float:
        predicted = one.predict()
        return abs(math.log(predicted.step_time_bounds_s[side] / predicted.step_time_s))

    for changed in ({"framework": "", "compile": "", "inter_gb_s": ""}, {"framework": "hf"}, {"device": "MI250"},
                    {"params_b": "46.7", "n_experts": "8", "experts_per_token": "2"}):  # fmt: skip
        other = _expressed(**{**far, "inter_gb_s": "50", **changed})
        assert width(other, 1) > 1.1 * width(known, 1), changed
    # Unknown software is slower than predicted, not faster.
    guessed = _expressed(**{**far, "framework": "", "compile": ""})
    assert width(guessed, 1) > width(guessed, 0)


def test_every_chip_that_is_only_assumed_can_be_predicted_and_says_so() -> None:
    for chip in ASSUMED_CHIPS:
        found = _expressed(device=chip.name, n_devices="1", global_batch_seqs="1")
        assert "chip" in found.assumed
        assert any("no vendor's page" in words for words in found.assumptions)


def test_what_does_not_fit_beside_a_processor_s_memory_is_not_computed_again() -> None:
    large = {"act_ckpt": "", "seq_len": "65536", "micro_batch": "2", "framework": "megatron"}
    found = _expressed(**large, device="GB200")
    assert found.layout.recompute == "none"
    # What stays behind is what the device has room for, and what goes takes time.
    assert found.device.memory_bytes is not None
    assert found.predict().memory_bytes == pytest.approx(found.device.memory_bytes)
    stays = replace(found, layout=replace(found.layout, offloaded=0.0))
    assert found.predict().step_time_s > stays.predict().step_time_s
    assert _expressed(**large, device="B200").layout.recompute != "none"


def test_scores_that_no_fused_kernel_takes_cost_more() -> None:
    # Two heads of one sequence are no multiple of four.
    old = {"precision": "fp16", "device": "A100", "tp": "8", "fsdp": "", "seq_len": "2048"}
    old |= {"n_heads": "16", "n_kv_heads": "16", "framework": "megatron"}
    one, two = (_expressed(**old, micro_batch=n).predict().seconds.compute for n in ("1", "2"))
    assert one > two * 1.05
