"""Whatever happens to a file: nothing is raised but a sentence, and every figure in a claim stands in the text."""

from __future__ import annotations

import bisect
import contextlib
import copy
import dataclasses
import functools
import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunemark.errors import BadData
from tunemark.plugin.catalog import load_object
from tunemark.plugin.claims import Claim, LogLine
from tunemark.plugin.descriptors import Importer
from tunemark_importers.plugin import tunemark_importers

_FIXTURES = Path(__file__).parents[2] / "fixtures/importers"
_IMPORTERS = {importer.name: importer for importer in tunemark_importers()}

# For each importer its fixtures, and the lines to take of them: short texts, so that a thousand mutations are quick.
TEXTS = {
    "moai": [("moai-stamped.txt", 17, 26), ("moai-window.txt", 0, 8), ("moai-tps.txt", 0, 18), ("moai-dict.txt", 0, 7),
             ("moai-baichuan.txt", 7, 11), ("moai-gpt.txt", 0, 3)],
    "huggingface-log": [("huggingface-console.txt", 0, 12), ("huggingface-console.txt", 28, 39),
                        ("huggingface-trl.txt", 3, 7), ("llama-factory-running_log.txt", 0, 99),
                        ("ms-swift.txt", 0, 99), ("ms-swift-logging.jsonl", 0, 99), ("axolotl.txt", 0, 99),
                        ("unsloth.txt", 0, 99), ("notebook.txt", 0, 99)],
    "llama-factory-trainer-log": [("llama-factory-trainer_log.jsonl", 0, 99)],
    "torchtitan": [("torchtitan-2025.txt", 1, 14), ("torchtitan-2024.txt", 0, 6)],
    "torchtune": [("torchtune-stdout.txt", 0, 36), ("torchtune-disk.jsonl", 0, 3)],
    "megatron": [("megatron-lm.txt", 0, 38), ("megatron-bridge.txt", 0, 6)],
    "huggingface": [("huggingface-trainer_state.json", 0, 999), ("huggingface-train_results.json", 0, 99),
                    ("llama-factory-all_results.json", 0, 99)],
    "optimum-benchmark": [("optimum-benchmark.json", 0, 999)],
    "pytest-benchmark": [("pytest-benchmark.json", 0, 999)],
    "wandb-summary": [("wandb-summary.json", 0, 9), ("wandb-summary-trainer.json", 0, 9)],
    "metrics": [("lightning-metrics.csv", 0, 99), ("litgpt-metrics.csv", 0, 99), ("wandb-chart.csv", 0, 99),
                ("wandb-runs.csv", 0, 99), ("mlflow-chart.csv", 0, 99)],
    "mlperf": [("mlperf-result.txt", 0, 99)],
    "anything": [("anything.txt", 0, 12)],
    "nanogpt": [("nanogpt.txt", 0, 99)],
    "nanochat": [("nanochat.txt", 0, 99)],
    "llm.c": [("llmc.txt", 0, 99)],
    "maxtext": [("maxtext.txt", 0, 99)],
    "fms-fsdp": [("fms-fsdp.txt", 0, 27)],
    "composer": [("composer.txt", 0, 44)],
    "olmo-core": [("olmo-core.txt", 0, 26)],
    "nanotron": [("nanotron.txt", 0, 99)],
    "gpt-neox": [("gpt-neox.txt", 0, 99)],
    "nemo-1": [("nemo-1.txt", 0, 99)],
    "nemo-2": [("nemo-2.txt", 0, 99)],
    "nemo-automodel": [("nemo-automodel.txt", 0, 99)],
    "internevo": [("internevo.txt", 0, 99)],
    "deepspeed": [("deepspeed.txt", 0, 99)],
    "deepspeed-pipeline": [("deepspeed-pipeline.txt", 0, 99)],
    "deepspeed-chat": [("deepspeed-chat.txt", 0, 99)],
    "deepspeed-profile": [("deepspeed-profile.txt", 0, 99)],
    "xtuner": [("xtuner.txt", 0, 99)],
    "mmengine": [("mmengine.txt", 0, 99)],
    "paddlenlp": [("paddlenlp.txt", 0, 99)],
    "arctic-training": [("arctic-training.txt", 0, 99)],
    "verl": [("verl-sft.txt", 0, 99), ("verl-ppo.txt", 0, 99)],
    "nemo-rl": [("nemo-rl.txt", 0, 50)],
    "openrlhf": [("openrlhf.txt", 0, 99)],
    "litgpt": [("litgpt.txt", 0, 99)],
    "everyday-table": [("everyday-table.md", 0, 9), ("everyday-table.csv", 0, 9)],
    "sentence": [("sentence.txt", 0, 1)],
    "claims": [("claims.csv", 0, 9), ("claims-semicolon.csv", 0, 9), ("claims-tabs.tsv", 0, 9)],
}  # fmt: skip

_SPLINTERS = (
    *" \n,.;|'\"{}[]:-%/(e07\u0663\u2212\ufffd\x00\u202f\r\tK", "E9", "e-400", "nan", "-inf", "1e999", "1,234",
    "1.234,5", "null", "NaN", "true", "None", " ms", "9" * 400, "[rank3]:", "2024-02-30 25:61:00 ", "step:",
    "[Step 3/9]", "{'loss': 1e5}",
)  # fmt: skip


@functools.cache
def _texts(name: str) -> tuple[str, ...]:
    def lines(file: str, first: int, last: int) -> str:
        return "\n".join((_FIXTURES / file).read_text(encoding="utf-8-sig").split("\n")[first:last])

    return tuple(lines(*of) for of in TEXTS[name])


_ODD: tuple[Any, ...] = (
    None,
    True,
    "x",
    "",
    "1,5",
    "NaN",
    -1,
    0,
    2.5,
    1e308,
    math.nan,
    math.inf,
    [],
    [[1]],
    {},
    {"a": 7},
)


def _replanted(text: str, dice: random.Random) -> str:
    """A JSON document with odd values in some of its places."""
    document = json.loads(text)
    for _ in range(dice.randint(1, 3)):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = dice.choice(list(keys))
            if not isinstance(place[key], dict | list) or dice.random() < 0.1:
                place[key] = copy.deepcopy(dice.choice(_ODD))
                break
            place = place[key]
    return json.dumps(document)


def _mutated(text: str, seed: int) -> str:
    """The text after one to four accidents: cut, bytes flipped, lines doubled, dropped, swapped, glued, or broken."""
    dice = random.Random(seed)
    if text.startswith("{\n") and dice.random() < 0.5:
        return _replanted(text, dice)
    for _ in range(dice.randint(1, 4)):
        lines = text.split("\n")
        at, to = sorted(dice.randrange(len(text) + 1) for _ in range(2))
        i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
        match dice.randrange(9):
            case 0:
                text = text[:at]
            case 1:
                text = text[:at] + text[min(to, at + 12) :]
            case 2 | 3:
                text = text[:at] + dice.choice(_SPLINTERS) + text[at:]
            case 4:
                content = bytearray(text[:at].encode("utf-8", "replace"))
                if content:
                    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
                text = content.decode("utf-8", "replace") + text[at:]
            case 5:
                lines[i], lines[j] = lines[j], lines[i]
                text = "\n".join(lines)
            case 6:
                text = "\n".join([*lines[: i + 1], *lines[j:]])
            case 7:
                lines[i] = lines[i] + lines[j]
                text = "\n".join(lines)
            case _:
                # Digits change most of all, and a point becomes a comma.
                places = [m.start() for m in re.finditer(r"[0-9.]", text)]
                if places:
                    place = dice.choice(places)
                    text = text[:place] + dice.choice("0123456789.,") + text[place + 1 :]
    return text


def _claims(importer: Importer, text: str) -> Sequence[Claim]:
    if importer.document:
        load_object(importer.is_document or "")(text[: 1 << 16])
        with contextlib.suppress(BadData):
            claims: Sequence[Claim] = load_object(importer.document)("here", "a file", text)
            return claims
        return []
    reader = load_object(importer.log or "")()
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        reader.read(LogLine(number, line))
    first = reader.claims()
    # What the lines amount to does not depend on how often one asks.
    assert [len(c.steps) for c in first] == [len(c.steps) for c in reader.claims()]
    found: Sequence[Claim] = first
    return found


_TOKEN = re.compile(r"[0-9](?:[0-9.,'_\u2019\u00a0\u2009\u202f ]*[0-9])?")


_CLOCK = re.compile(r"(?:([0-9]{1,6}) days?, )?(?:([0-9]{1,9}):)?([0-5]?[0-9]):([0-5][0-9](?:[.,][0-9]+)?)")


class _Figures:
    """The figures that stand in a text, as mantissas: a scale by powers of ten leaves those as they are."""

    def __init__(self, text: str) -> None:
        found = {0.0}
        for token in _TOKEN.findall(text):
            groups = re.findall(r"[0-9]+", token)
            for at in range(len(groups)):
                for end in range(at + 1, min(at + 5, len(groups)) + 1):
                    digits = "".join(groups[at:end]).strip("0")[:40]
                    found.add(float(f"0.{digits or 0}"))
        # A timedelta is printed as hours, minutes and seconds.
        for days, hours, minutes, seconds in _CLOCK.findall(text):
            whole = int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes) * 60
            found.add(_mantissa(whole + float(seconds.replace(",", "."))))
        self.mantissas = sorted(found)
        self.has_nan = "nan" in text.lower()
        self.has_infinity = "inf" in text.lower()

    def __contains__(self, value: float) -> bool:
        if math.isnan(value):
            return self.has_nan
        if math.isinf(value):
            return self.has_infinity
        # Memory is also given in units of 2^20 and 2^30, a time in minutes or hours.
        return any(self._has(_mantissa(value / unit)) for unit in (1, 2**20, 2**30, 60, 3600))

    def _has(self, mantissa: float) -> bool:
        at = bisect.bisect(self.mantissas, mantissa)
        near = self.mantissas[max(at - 1, 0) : at + 1]
        return any(math.isclose(mantissa, one, rel_tol=1e-13, abs_tol=1e-300) for one in near)


def _mantissa(value: float) -> float:
    """The figure's digits behind a point, without its sign: 0.25 for -2500."""
    digits = repr(abs(float(value))).partition("e")[0]
    whole, _, decimals = digits.partition(".")
    return float(f"0.{(whole + decimals).strip('0') or 0}")


_STEP_FIELDS = ("tokens_per_s", "samples_per_s", "tokens", "tflops", "mfu", "loss", "epoch", "duration_s")
_CLAIM_FIELDS = (
    "parameters", "trainable_parameters", "sequence", "tokens_per_s", "tokens_per_s_per_device", "samples_per_s",
    "step_time_s", "tflops_per_device", "mfu", "memory_bytes", "train_s", "steps_total", "steps_done", "tokens_total",
)  # fmt: skip
_DIMENSIONS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
)  # fmt: skip


def _stated(claim: Claim) -> Iterator[tuple[str, float]]:
    """Every figure of a claim that was printed. Left out are time stamps, which are dates, and what a line's number or
    a product of printed degrees makes: the steps of a window, the ranks of a mesh."""
    for name in _CLAIM_FIELDS:
        if (value := getattr(claim, name)) is not None:
            yield name, value
    for field in dataclasses.fields(claim.layout):
        value = getattr(claim.layout, field.name)
        if isinstance(value, int) and value != 1 and field.name not in ("dp", "global_batch"):
            yield field.name, value
    if claim.architecture is not None:
        for name in _DIMENSIONS:
            yield name, getattr(claim.architecture, name)
    for step in claim.steps:
        for name in _STEP_FIELDS:
            if (value := getattr(step, name)) is not None:
                yield f"{name} of line {step.line}", value


def _check(importer: Importer, text: str) -> None:
    claims = _claims(importer, text)
    if not claims:
        return
    figures = _Figures(text)
    for claim in claims:
        for name, value in _stated(claim):
            if (importer.name, name) == ("mlperf", "train_s"):
                # The only time that a result file has is between two of its lines.
                times = [int(time) for time in re.findall(r"\b[0-9]{12,14}\b", text)]
                assert value in {(b - a) / 1000 for a in times for b in times}
                continue
            assert value in figures, f"{name} = {value!r} is nowhere in the text"
        layout = claim.layout
        for product, parts in (
            (layout.dp, (layout.fsdp,)),
            (layout.global_batch, (layout.micro_batch, layout.gradient_accumulation)),
            (claim.count, (layout.dp, layout.tp, layout.pp, layout.cp)),
        ):
            made = product is not None and product % math.prod(part or 1 for part in parts) == 0
            assert product in (None, 1) or product in figures or made
        numbers = [step.number for step in claim.steps if step.number is not None]
        assert all(n in figures or importer.name == "optimum-benchmark" or n == 1 for n in numbers)
        for step in claim.steps:
            assert step.duration_steps is None or step.duration_steps <= max([1.0, *numbers])
            assert step.stamp_s is None or math.isfinite(step.stamp_s)


@pytest.mark.parametrize("name", TEXTS)
def test_the_texts_themselves_hold_all_figures(name: str) -> None:
    for text in _texts(name):
        claims = _claims(_IMPORTERS[name], text)
        assert any(True for claim in claims for _ in _stated(claim))
        _check(_IMPORTERS[name], text)


def _damage(name: str, seeds: range) -> None:
    for seed in seeds:
        text = _texts(name)[seed % len(TEXTS[name])]
        try:
            _check(_IMPORTERS[name], _mutated(text, seed))
        except Exception as error:
            raise AssertionError(f"{name}, mutation {seed}: {error}") from error


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_file_never_crashes_and_never_invents_a_number(name: str) -> None:
    _damage(name, range(60))


@pytest.mark.full
@pytest.mark.parametrize("name", TEXTS)
def test_a_thousand_damaged_files_never_crash_and_never_invent_a_number(name: str) -> None:
    _damage(name, range(1000))


def test_every_importer_is_damaged() -> None:
    # A binary file has a test of its own.
    assert set(TEXTS) == {name for name, importer in _IMPORTERS.items() if not importer.is_binary}


def test_the_check_itself_notices_an_invented_figure() -> None:
    figures = _Figures("Duration: 66.07 | Throughput: 7,935.39 tokens/sec")
    assert 7935.39 in figures
    assert 0.06607 in figures
    assert 7935.4 not in figures
    assert 6608.0 not in figures
    assert float("nan") not in figures
