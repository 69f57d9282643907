"""The table of peaks: names, figures against arithmetic on published clocks, and reasons where a figure is missing."""

from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunemark.errors import UnknownName
from tunemark.physics import explain_missing_peak, find_chip, find_peak, parse_precision
from tunemark.physics.chip_peaks import PRECISIONS
from tunemark.physics.chips import read_chip_table

CHIPS, UNCONFIRMED = read_chip_table()


@pytest.mark.parametrize(
    ("stated", "chip"),
    [
        ("MI250", "MI250"),
        ("AMD Instinct MI250", "MI250"),
        ("amd instinct™ mi250", "MI250"),
        ("MI250 GCD", "MI250 die"),
        # What torch calls one die.
        ("AMD Instinct MI250X / MI250", "MI250X die"),
        ("AMD Instinct MI300X OAM", "MI300X"),
        ("H100 SXM", "H100-SXM-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("h100", "H100"),
        ("A100-SXM4-80GB", "A100-SXM-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIe-40GB"),
        ("A100 80 GB", "A100-80GB"),
        ("Tesla V100-SXM2-32GB", "V100-SXM"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("TPU v5 lite", "TPU-v5e"),
        ("Gaudi 3", "Gaudi3"),
        ("H100 SXM5 80GB HBM3", "H100-SXM-80GB"),
        ("NVIDIA H100 PCIe HBM2e", "H100-PCIe-80GB"),
        ("A100 SXM4 40GB HBM2", "A100-SXM-40GB"),
        ("MI300X 192GB HBM3", "MI300X"),
        ("NVIDIA GH200 Grace Hopper Superchip", "GH200"),
        ("rtx4090", "RTX-4090"),
        ("DGX H100", "H100"),
        ("tpuv5p", "TPU-v5p"),
        ("NVIDIA A800-SXM4-80GB", "A800-80GB"),
        ("NVIDIA H800", "H800-80GB"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A30", "A30"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L20", "L20"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("RTX 4080", "RTX-4080"),
        ("NVIDIA GeForce RTX 5090", "RTX-5090"),
        ("NVIDIA GeForce RTX 5060 Ti", "RTX-5060Ti"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX-PRO-6000"),
        ("NVIDIA GB10", "GB10"),
    ],
)
def test_a_chip_is_found_under_its_common_spellings(stated, chip):
    assert find_chip(stated).name == chip


@given(st.sampled_from([n for c in CHIPS for n in (c.name, *c.aliases)]), st.randoms())
def test_case_and_the_order_of_words_do_not_matter(name, random):
    words = re.split(r"[ -]", name)
    random.shuffle(words)
    shuffled = " ".join(random.choice([w.upper(), w.lower()]) for w in words)
    # A number and its unit are one word.
    if not re.search(r"\d [gG]", f"{name} {shuffled}"):
        assert find_chip(shuffled) == find_chip(name)


def test_no_spelling_means_two_chips():
    spelled = [find_chip(name) for chip in CHIPS for name in (chip.name, *chip.aliases)]
    assert spelled == [chip for chip in CHIPS for _ in (chip.name, *chip.aliases)]


@pytest.mark.parametrize(
    ("chip", "precision", "units", "flop_per_clock", "clock_hz"),
    [
        # Tensor cores, twice their multiply-adds, clock: NVIDIA's A100 white paper (256, 1410 MHz), H100's (512, 1830).
        ("A100", "bf16", 432, 512, 1410e6),
        ("A100", "tf32", 432, 256, 1410e6),
        ("H100-SXM-80GB", "bf16", 528, 1024, 1830e6),
        ("H100-SXM-80GB", "fp8", 528, 2048, 1830e6),
        # V100 white paper: 640 tensor cores x 64 multiply-adds, 1530 MHz.
        ("V100-SXM", "fp16", 640, 128, 1530e6),
        # GA102 white paper: 336 x 128, 1800 and 1740 MHz.
        ("RTX-A6000", "bf16", 336, 256, 1800e6),
        ("A40", "bf16", 336, 256, 1740e6),
        # RTX 4090: 512 tensor cores x 64 multiply-adds with fp32 accumulation, 2520 MHz.
        ("RTX-4090", "bf16", 512, 128, 2520e6),
        # Compute units x FLOPs a clock, ROCm's microarchitecture pages: MI100 120 at 1502 MHz, MI250 2 x 104 at 1700.
        ("MI100", "fp16", 120, 1024, 1502e6),
        ("MI100", "bf16", 120, 512, 1502e6),
        ("MI250", "bf16", 208, 1024, 1700e6),
        ("MI250", "fp32", 208, 256, 1700e6),
        ("MI210", "bf16", 104, 1024, 1700e6),
        ("MI250X", "bf16", 220, 1024, 1700e6),
        ("MI300X", "bf16", 304, 2048, 2100e6),
        ("MI300X", "fp8", 304, 4096, 2100e6),
        ("MI355X", "bf16", 256, 4096, 2400e6),
        ("MI350X", "bf16", 256, 4096, 2200e6),
        # Two MMEs of 256 x 256 at 1.65 GHz; eight at 1.75.
        ("Gaudi2", "bf16", 2 * 256 * 256, 2, 1650e6),
        ("Gaudi3", "bf16", 8 * 256 * 256, 2, 1750e6),
    ],
)
def test_a_peak_is_units_times_clock(chip, precision, units, flop_per_clock, clock_hz):
    # Vendors round to three digits.
    assert find_peak(chip, precision).flops == pytest.approx(units * flop_per_clock * clock_hz, rel=0.003)


def test_an_mi250_is_two_dies_and_counted_as_it_is_sold():
    # AMD: 362.1 TFLOP/s for the package of two dies, 181 for each.
    package, die = find_peak("MI250", "bf16", 16), find_peak("MI250 GCD", "bf16", 32)
    assert (package.flops, package.dies) == (pytest.approx(16 * 362.1e12), 2)
    assert (die.flops, die.dies) == (pytest.approx(package.flops), 1)
    assert find_chip("MI250 GCD").memory_bytes == 64 * 2**30


def test_dense_is_not_sparse():
    # H100 SXM data sheet: 1,979 TFLOP/s in bf16 "with sparsity".
    found = find_peak("H100 SXM", "bf16", 8)
    assert (found.flops, found.sparse_flops) == (pytest.approx(8 * 989.4e12), pytest.approx(8 * 1979e12, rel=1e-3))
    assert find_peak("MI250", "bf16").sparse_flops is None


@pytest.mark.parametrize("chip", CHIPS, ids=lambda c: c.name)
def test_an_entry_is_sourced_and_sound(chip):
    assert re.search(r"https://|[ (]via |data sheet", chip.source)
    assert datetime.date.fromisoformat(chip.checked) <= datetime.date(2026, 11, 30)
    assert set(chip.flops) <= set(PRECISIONS)
    for precision, sparse in chip.sparse_flops.items():
        # Structured sparsity drops two of four values.
        assert sparse == pytest.approx(2 * chip.flops[precision], rel=0.005)
    if chip.memory_bytes:
        assert chip.memory_bytes % 2**30 == 0
    # A lower precision is never slower.
    order = [chip.flops[p] for p in ("tf32", "fp16", "fp8", "fp4") if p in chip.flops]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("stated", "precision"),
    [
        ("bf16", "bf16"),
        ("bf16-autocast", "bf16"),
        ("amp_bf16", "bf16"),
        ("BFloat16", "bf16"),
        ("bf16-mixed", "bf16"),
        ("amp_fp16", "fp16"),
        ("fp16", "fp16"),
        ("fp32", "fp32"),
        ("32-true", "fp32"),
        ("TF32", "tf32"),
        ("mxfp8", "fp8"),
        ("fp8-rowwise", "fp8"),
        ("nvfp4", "fp4"),
        ("int8", None),
        ("", None),
    ],
)
def test_a_precision_is_what_matrices_are_multiplied_in(stated, precision):
    assert parse_precision(stated) == precision


@pytest.mark.parametrize(
    ("chip", "precision", "words"),
    [
        ("MI250", "bf16", ""),
        ("MI25O", "bf16", "no chip named 'MI25O' in the table of peaks; did you mean 'MI250'?"),
        ("Tesla P100", "fp16", "no chip named 'Tesla P100' in the table of peaks"),
        ("MI308X", "bf16", "the peak of 'MI308X' is not confirmed: AMD publishes no data sheet"),
        ("Ascend-910B", "bf16", "variants differ from 280 to 414"),
        ("Huawei Ascend 910B3", "bf16", "no vendor's page was found; 313 TFLOP/s"),
        ("GB10", "bf16", "no confirmed peak of GB10 in bf16, only in fp4"),
        ("T4", "bf16", "no confirmed peak of T4 in bf16, only in fp32, fp16 (no bf16 and no TF32)"),
        ("B300", "fp4", "published figures differ, 12.6 to 15 PFLOP/s"),
        ("MI250", "fp8", "no confirmed peak of MI250 in fp8, only in fp32, bf16, fp16"),
        ("MI250", "bf61", "no precision 'bf61'; did you mean 'bf16'?"),
    ],
)
def test_a_missing_peak_has_its_reason(chip, precision, words):
    assert words in explain_missing_peak(chip, precision)
    assert (find_peak(chip, precision) is None) == bool(words)


@pytest.mark.parametrize(
    # Multiply-adds of a multiprocessor in a cycle, accumulating in fp32: 256 of GeForce cards and the L40, 512 of
    # workstation cards.
    ("chip", "multiprocessors", "clock", "each_cycle"),
    [
        ("RTX 3090", 82, 1.695e9, 256),
        ("RTX 4080", 76, 2.505e9, 256),
        ("RTX 4090", 128, 2.52e9, 256),
        ("RTX 5090", 170, 2.407e9, 256),
        ("RTX 5060 Ti", 36, 2.572e9, 256),
        ("L40", 142, 2.49e9, 256),
        ("RTX 6000 Ada", 142, 2.505e9, 512),
        ("RTX PRO 6000", 188, 2.617e9, 512),
    ],
)
def test_cards_accumulate_in_fp32_at_the_rate_of_their_cores(chip, multiprocessors, clock, each_cycle):
    found = find_peak(chip, "bf16")
    assert found is not None
    assert found.flops == pytest.approx(2 * each_cycle * multiprocessors * clock, rel=0.002)


def test_what_is_not_confirmed_is_not_shipped():
    for name in UNCONFIRMED:
        assert find_peak(name, "bf16") is None


def test_an_unknown_chip_is_an_error_with_a_suggestion():
    with pytest.raises(UnknownName) as caught:
        find_chip("H10O")
    assert "did you mean 'H100'" in str(caught.value)


def test_a_card_whose_clock_passes_the_rated_one_says_so():
    assert not find_peak("RTX 4090", "bf16").is_ceiling
    cards = re.compile(r"RTX-(\d|PRO)")
    assert all(chip.is_ceiling is not bool(cards.match(chip.name)) for chip in CHIPS)
