"""What is written is what is read, or it is refused: names, scopes, units and orders are generated."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunemark_importers.figure_names import NamedQuantity, meaning_of
from tunemark_importers.named_values import NamedValues

_TOKENS = ("tokens", "tok", "toks", "token", "Tokens")
_SECONDS = ("s", "sec", "second")
_DEVICES = ("gpu", "GPU", "device", "rank", "chip", "npu")
# A name by its parts, without and with the words that say that it is of one device.
_RATES = (
    "{t}/{s}", "{t}_per_{s}", "{t} per {s}", "train/{t}_per_{s}", "throughput/{t}_per_{s}", "train_{t}_per_{s}",
)  # fmt: skip
_DEVICE_RATES = (
    "{t}/{s}/{d}", "{t}/{d}/{s}", "{t}_per_{s}_per_{d}", "{t} per {s} per {d}", "{t}/{s} (per {d})", "per-{d} {t}/{s}",
    "throughput/{d}/{t}_per_{s}", "{t} per {d} per {s}", "{t}_per_{d}_per_{s}", "{t}_per_{s}/{d}",
)  # fmt: skip
_SHORT: tuple[tuple[str, str], ...] = (("tps", "unknown"), ("TPS", "unknown"), ("tgs", "device"), ("TGS", "device"),
                                       ("TPS/device", "device"))  # fmt: skip


@st.composite
def _rate_names(draw: st.DrawFn) -> tuple[str, str]:
    """A name of a rate of tokens, and its scope."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(_SHORT))
    is_device = draw(st.booleans())
    form = draw(st.sampled_from(_DEVICE_RATES if is_device else _RATES))
    parts = {"t": _TOKENS, "s": _SECONDS, "d": _DEVICES}
    name = form.format(**{key: draw(st.sampled_from(words)) for key, words in parts.items()})
    return name, "device" if is_device else "unknown"


@given(_rate_names())
def test_a_scope_is_read_from_the_name(named: tuple[str, str]) -> None:
    name, scope = named
    meaning = meaning_of(name)
    assert meaning is not None, name
    assert (meaning.quantity, meaning.scope, meaning.scale, meaning.is_training) == ("tokens_per_s", scope, 1.0, True)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("B tokens/day", 1e9 / 86400), ("M tokens per day", 1e6 / 86400), ("k tokens/min", 1e3 / 60),
        ("tokens/s (x1000)", 1e3), ("tokens per second (thousands)", 1e3), ("tokens/s (M)", 1e6), ("토큰/초", 1.0),
        ("초당 토큰 수", 1.0),
    ],
)  # fmt: skip
def test_what_a_name_counts_in(name: str, scale: float) -> None:
    meaning = meaning_of(name)
    assert meaning is not None
    assert (meaning.quantity, meaning.scale) == ("tokens_per_s", pytest.approx(scale))


@pytest.mark.parametrize("word", ["peak", "max", "best", "highest"])
def test_an_extreme_is_no_rate_of_the_training(word: str) -> None:
    meaning = meaning_of(f"{word} tokens/s")
    assert meaning is not None
    assert not meaning.is_training


@pytest.mark.parametrize(
    ("name", "scope", "is_training"),
    [
        ("per-GPU throughput", "device", True), ("throughput per device", "device", True), ("speed", "unknown", True),
        ("eval throughput", "unknown", False), ("\uc804\uccb4 \ucc98\ub9ac\ub7c9", "unknown", True),
        ("\u5355\u5361\u541e\u5410", "device", True), ("GPU\ub2f9 \uc18d\ub3c4", "device", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("joint", [" ", ": ", "="])
@pytest.mark.parametrize("behind", ["", " | step 3", " remaining 0:20:11"])
def test_words_before_a_number_say_of_what_its_rate_is(
    name: str, scope: str, is_training: bool, joint: str, behind: str
) -> None:
    found = NamedValues().find(f"loss 2.5 | {name}{joint}4,096 tokens/s{behind}")
    rates = [value for value in found if value.meaning.quantity == "tokens_per_s"]
    if joint == " " and behind.startswith(" rem"):
        # Without a joint it may be refused, and is not misread.
        rates = rates or []
        assert all(value.value == 4096.0 for value in rates)
        return
    (rate,) = rates
    assert (rate.value, rate.meaning.scope, rate.meaning.is_training) == (4096.0, scope, is_training)


@pytest.mark.parametrize("factor", ["Tsd.", "Mio", "lakh", "kilo", "\ucc9c\ub9cc", "dozen"])
def test_an_unknown_word_before_a_unit_may_be_a_factor(factor: str) -> None:
    found = NamedValues().find(f"loss 2.5 | 32.8 {factor} tokens/s")
    assert [value.meaning.quantity for value in found] == ["loss"]


@pytest.mark.parametrize(("word", "scale"), [("\ub9cc", 1e4), ("\u4e07", 1e4), ("\ucc9c", 1e3), ("k", 1e3), ("M", 1e6)])
def test_numerals_before_a_unit_are_factors(word: str, scale: float) -> None:
    (rate,) = NamedValues().find(f"3.2{word} tokens/s")
    assert (rate.value, rate.meaning.quantity, rate.meaning.scale) == (3.2, "tokens_per_s", scale)


@given(
    st.lists(st.sampled_from(("on", "one", "with", "our", "machine", "using", "of", "Llama")), min_size=2, max_size=6),
    st.integers(2, 99),
)
def test_the_words_of_a_sentence_name_no_number(words: list[str], number: int) -> None:
    found = NamedValues().find(f"fast, in tokens per second {' '.join(words)} {number} and more")
    assert "tokens_per_s" not in [value.meaning.quantity for value in found]


@pytest.mark.parametrize("behind", ["remaining: 5:17:00", "ETA: 0:20", "left 0:31:02"])
def test_a_unit_that_is_glued_to_its_number_belongs_to_it(behind: str) -> None:
    found = NamedValues().find(f"loss 2.5, rate: 1.9s/it {behind}")
    assert [value.value for value in found if value.meaning.quantity == "duration"] in ([1.9], [])


def test_bytes_per_second_are_no_name_of_the_next_number() -> None:
    found = NamedValues().find("loss 2.5 io 820 MB/s net 2.1 GB/s tok/s 4096 mem 61G")
    assert [(v.meaning.quantity, v.value) for v in found] == [("loss", 2.5), ("tokens_per_s", 4096.0), ("memory", 61.0)]


def test_ratios_and_negative_rates_are_no_figures() -> None:
    found = NamedValues().find("step 3 loss 1.9 speedup 1.42x tok/s 4096")
    assert [value.value for value in found] == [3.0, 1.9, 4096.0]
    assert [value.value for value in NamedValues().find("step 3 loss -1.9 tok/s -1")] == [3.0, -1.9]


@pytest.mark.parametrize("unknown", ["reward", "margin 0.1 kl"])
def test_an_identifier_names_the_number_behind_it(unknown: str) -> None:
    values = NamedValues()
    found = values.find(f"step 3 {unknown} 0.31 train/tokens_per_sec 4096")
    assert [(value.meaning.quantity, value.value) for value in found] == [("step", 3.0), ("tokens_per_s", 4096.0)]
    # A unit may be that of the number before it.
    assert "tokens_per_s" not in [v.meaning.quantity for v in values.find(f"step 3 {unknown} 0.31 tok/s 4096")]
    assert values.ambiguous is not None


_OTHERS: tuple[tuple[str, NamedQuantity, str], ...] = (
    ("step", "step", ""), ("iter", "step", ""), ("global_step", "step", ""), ("loss", "loss", ""),
    ("train_loss", "loss", ""), ("train/loss", "loss", ""), ("grad_norm", "gradient_norm", ""), ("epoch", "epoch", ""),
    ("lr", "other", ""), ("learning_rate", "other", ""), ("step_time", "duration", "s"), ("dt", "duration", "ms"),
    ("iter time", "duration", "ms"), ("mfu", "mfu", "%"), ("samples/s", "samples_per_s", ""),
    ("memory", "memory", "GiB"),
    ("TFLOP/s/device", "tflops", ""), ("tokens_seen", "tokens", ""), ("val_loss", "other", ""),
)  # fmt: skip
_JOINTS = (": ", "=", " ", ":", " = ", ":  ")
_BORDERS = (" ", ", ", " | ", "; ", " - ", "\t", ",")


@st.composite
def _lines(draw: st.DrawFn) -> tuple[str, dict[NamedQuantity, float], str]:
    """A line of several named values in any order, what it says by quantity, and the scope of its rate."""
    name, scope = draw(_rate_names())
    others = draw(st.lists(st.sampled_from(_OTHERS), max_size=5, unique_by=lambda other: other[1]))
    fields: list[tuple[str, NamedQuantity, str]] = [(name, "tokens_per_s", ""), *others]
    fields = draw(st.permutations(fields))
    border, joint = draw(st.sampled_from(_BORDERS)), draw(st.sampled_from(_JOINTS))
    style = draw(st.sampled_from(("name first", "value first", "json", "dict", "brackets")))
    words, said = [], {}
    for label, quantity, unit in fields:
        value = (
            draw(st.integers(1, 10**7)) if quantity == "step" else draw(st.floats(0.01, 1e6).map(lambda x: round(x, 2)))
        )
        said[quantity] = value
        shown = (
            draw(st.sampled_from((f"{value}", f"{value:,}")))
            if style == "name first" and quantity == "tokens_per_s"
            else f"{value}"
        )
        if style == "value first":
            words.append(f"{shown} {label}" if not unit else f"{label}{joint}{shown} {unit}")
        elif style in ("json", "dict"):
            quote = '"' if style == "json" else "'"
            words.append(f"{quote}{label}{quote}: {shown}")
        else:
            words.append(f"{label}{joint}{shown}{draw(st.sampled_from(('', ' '))) if unit else ''}{unit}")
    if style in ("json", "dict"):
        return "{" + ", ".join(words) + "}", said, scope
    line = border.join(words)
    return f"[{line}]" if style == "brackets" else line, said, scope


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(_lines())
def test_what_is_written_is_what_is_read_or_refused(written: tuple[str, dict[NamedQuantity, float], str]) -> None:
    line, said, scope = written
    for value in NamedValues().find(line):
        quantity = value.meaning.quantity
        assert quantity in said, (line, value)
        assert math.isclose(value.value, said[quantity]), (line, value)
        if quantity == "tokens_per_s":
            assert value.meaning.scope == scope, line


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(_lines())
def test_a_rate_that_is_written_plainly_is_read(written: tuple[str, dict[NamedQuantity, float], str]) -> None:
    line, said, _ = written
    # Only where every value follows its name; a value before its name may have two readings.
    if not line[0].isdigit() and ":" in line:
        found = {value.meaning.quantity: value.value for value in NamedValues().find(line)}
        assert found.get("tokens_per_s") == said["tokens_per_s"], line


@pytest.mark.parametrize(
    ("line", "rate"),
    [
        ("step 3 loss 2.3 tok/s 4096", 4096),
        ("epoch 0 step 3 tokens/sec (per GPU): 4096", 4096),
        ("loss 2.3 lr 1e-5 tokens_per_sec 4096", 4096),
        ("step 3 loss 2.3 4096 tok/s", 4096),
        ("4096 tok/s 2.3 loss", 4096),
        ("throughput: 4,096 tok/s step time: 3.2 s", 4096),
        ("loss: 2.3 tok/s 4096", 4096),
        ("step 7/100 (7.00%) | 52.1% bf16 MFU | 466888 tok/s", 466888),
        ("tokens/s 4.1K", 4.1),
        ("epoch 1 tok/s 4096 loss 2.3 lr", None),
        ("https://example.org/tokens/sec/12", None),
        ("max tokens per second unknown", None),
        ("tokens/s: 1.2.3", None),
    ],
)
def test_the_lines_that_were_once_read_wrongly(line: str, rate: float | None) -> None:
    found = [v.value for v in NamedValues().find(line) if v.meaning.quantity == "tokens_per_s"]
    assert found == ([] if rate is None else [rate])


@pytest.mark.parametrize("remark", ["", " (opt.step)", " total", " per", " avg of ten"])
def test_a_remark_behind_a_unit_leaves_the_unit(remark: str) -> None:
    (value,) = NamedValues().find(f"iter time: 181.34 ms{remark}")
    assert (value.value, value.meaning.quantity, value.meaning.scale) == (181.34, "duration", 1e-3)


@pytest.mark.parametrize("name", ["learning_rate", "dropout rate", "error_rate", "acceptance rate"])
def test_a_rate_that_is_no_speed_takes_no_unit_of_the_next_name(name: str) -> None:
    found = NamedValues().find(f"[loss 1.0 {name} 1.5 samples/s 2.0 dt 1.0ms step 1]")
    assert all(value.value == 2.0 for value in found if value.meaning.quantity == "samples_per_s")
