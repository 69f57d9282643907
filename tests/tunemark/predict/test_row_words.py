from collections.abc import Mapping

import pytest

from tunemark.predict.published_rows import ConvertedRow, UnconvertibleRow, convert_row
from tunemark.predict.row_cells import RowError
from tunemark.predict.row_words import read_checkpointing, read_matrices, read_precision

_ROW = {
    "id": "a", "source": "torchtitan", "device": "H100-SXM-80GB", "n_devices": "8", "precision": "bf16",
    "n_layers": "32", "hidden": "4096", "intermediate": "14336", "mlp_gated": "1", "n_heads": "32", "n_kv_heads": "8",
    "vocab": "128256", "seq_len": "4096", "global_batch_seqs": "64", "micro_batch": "1", "fsdp": "3", "compile": "Y",
    "act_ckpt": "full",
}  # fmt: skip
_EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _expressed(**changed: str) -> ConvertedRow:
    found = convert_row({**_ROW, **changed})
    assert isinstance(found, ConvertedRow), found.reason
    return found


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ("BF16", ("bf16", "bf16")), ("MXFP8", ("fp8", "mxfp8")), ("FP8 delayed scaling", ("fp8", "fp8")),
        ("fp8_e4m3", ("fp8", "fp8")), ("FP8-CS", ("fp8", "fp8")), ("float8 rowwise", ("fp8", "fp8-rowwise")),
        ("FP8 blockwise", ("fp8", "fp8-rowwise")), ("NVFP4", ("fp4", "nvfp4")), ("fp8", ("fp8", "fp8")),
    ],
)  # fmt: skip
def test_a_precision_is_read_with_its_recipe(stated: str, read: tuple[str, str]) -> None:
    assert read_precision(stated) == read


@pytest.mark.parametrize("stated", ["int8", "bf16/fp8", "mixed", "nf4"])
def test_a_precision_that_is_none_of_products_is_refused(stated: str) -> None:
    with pytest.raises(RowError, match="precision"):
        read_precision(stated)


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ("full", ("full", 1.0)), ("Y", ("full", 1.0)), ("full (8 layers)", ("full", 0.25)), ("every 2", ("full", 0.5)),
        ("uniform 1", ("full", 1.0)), ("block 16", ("full", 0.5)), ("core_attn", ("selective", 1.0)),
        ("selective op", ("selective", 1.0)), ("layernorm, moe_act", ("selective", 1.0)), ("N", ("none", 1.0)),
        ("no recompute", ("none", 1.0)),
    ],
)  # fmt: skip
def test_recomputation_is_read_with_its_share_of_the_layers(stated: str, read: tuple[str, float]) -> None:
    assert read_checkpointing(stated, layers=32) == read


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ("q,v", ("q_proj", "v_proj")), ("wq wv", ("q_proj", "v_proj")), ("all linear layers", _EVERY),
        ("attention only", _EVERY[:4]), ("attn+mlp", _EVERY), ("linear_qkv, linear_fc2", (*_EVERY[:3], "down_proj")),
        ("self_attn.q_proj", ("q_proj",)), ("W_pack".lower(), _EVERY[:3]), ("nonsense", ("nonsense",)),
    ],
)  # fmt: skip
def test_adapted_matrices_have_many_names(stated: str, read: tuple[str, ...]) -> None:
    assert read_matrices(stated, _EVERY) == read


def test_a_model_s_own_fused_matrix_is_adapted_by_the_names_of_its_parts() -> None:
    assert read_matrices("q,v", ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")) == ("qkv_proj",)
    assert read_matrices("mlp", ("c_attn", "c_proj", "gate_up_proj", "down_proj")) == ("gate_up_proj", "down_proj")


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"seq_len": "4k"}, {}), ({"seq_len": "4,096"}, {}), ({"n_devices": "2x4"}, {}), ({"tp": "-", "pp": "n/a"}, {}),
        ({"mlp_gated": "SwiGLU"}, {}), ({"fsdp": "FSDP=1"}, {}), ({"fsdp": "deepspeed zero3"}, {}),
        ({"fsdp": "dist-opt"}, {"fsdp": "1"}), ({"fsdp": "hsdp-4"}, {"fsdp": "3(4-way)"}),
        ({"device": "H100-SXM5-80GB"}, {}), ({"device": "B200-SXM-180GB"}, {"device": "B200"}),
        ({"fsdp": "ZeRO-3 offload"}, {"offload": "optimizer"}), ({"offload": "Y"}, {"offload": "optimizer"}),
    ],
)  # fmt: skip
def test_other_spellings_mean_the_same(changed: Mapping[str, str], same: Mapping[str, str]) -> None:
    assert _expressed(**changed) == _expressed(**same)


def test_what_is_not_known_by_its_name_is_told_and_widens_the_bounds() -> None:
    known = _expressed()
    for changed, kind in (
        ({"framework": "own trainer", "source": ""}, "framework"), ({"optimizer": "Shampoo"}, "states"),
        ({"optimizer": "Muon"}, "states"), ({"offload": "activations"}, "states"),
    ):  # fmt: skip
        found = _expressed(**changed)
        assert kind in found.assumed - known.assumed, changed
        assert found.predict().spread.high > known.predict().spread.high


def test_an_optimizer_of_one_moment_takes_less() -> None:
    adam, lion = _expressed(), _expressed(optimizer="Lion")
    assert adam.predict().bytes.optimizer == pytest.approx(2.0 * lion.predict().bytes.optimizer)
    assert lion.predict().seconds.optimizer < adam.predict().seconds.optimizer


def test_dora_trains_adapters_and_another_task_is_refused() -> None:
    adapters, magnitudes = (_expressed(task=task, lora_rank="16").work for task in ("lora", "dora"))
    assert magnitudes.trained.lora_magnitudes
    assert adapters.trained_fraction < magnitudes.trained_fraction < 0.1
    found = convert_row({**_ROW, "task": "dpo"})
    assert isinstance(found, UnconvertibleRow)
    assert found.reason == "a step of dpo is not one of training on given tokens"


def test_one_chip_needs_no_links() -> None:
    found = convert_row({**_ROW, "device": "GB10", "n_devices": "1", "precision": "fp4"})
    assert isinstance(found, ConvertedRow)
    assert any("links are not known" in words for words in found.assumptions)


def test_rows_that_are_padded_need_the_memory_of_the_longest() -> None:
    equal = _expressed(seq_len="256", act_ckpt="none")
    padded = _expressed(seq_len="256", act_ckpt="none", notes="mean 256 tokens, padded to the longest of 4")
    assert "lengths" in padded.assumed - equal.assumed
    # Activations grow with the longest row; the time is that of the mean.
    assert padded.predict().bytes.activations == pytest.approx(3.0 * equal.predict().bytes.activations)
    assert padded.predict().step_time_s == equal.predict().step_time_s


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        ({"framework": "hf"}, 4.5), ({"framework": "hf", "notes": "Int4 GPTQ base"}, 18.5),
        ({"framework": "torch", "compile": "N"}, 30.5), ({"framework": "torch", "compile": "Y"}, 4.5),
    ],
)  # fmt: skip
def test_frozen_weights_are_expanded_by_the_software_s_own_operations(changed: Mapping[str, str], moved: float) -> None:
    adapted = {"task": "lora", "lora_rank": "8", "lora_targets": "q,v", "n_devices": "1", "fsdp": "", **changed}
    whole, few = (_expressed(**adapted, base_bits=bits) for bits in ("16", "4"))
    assert few.work.stack.expanded_bytes == moved
    # Forward, recomputed and backward, 64 micro-batches of 32 layers: 3 x 64 x 7 billion weights. Launches may hide it.
    device = few.device
    weights = 32 * 4096 * (4096 * 2 + 2 * 1024 + 3 * 14336)
    most = 3 * 64 * weights * moved / (device.bandwidth_bytes_per_s * device.efficiency.memory)
    more = few.predict().seconds.compute - whole.predict().seconds.compute
    assert 0.4 * most < more < 1.4 * most
