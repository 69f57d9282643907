"""Claims in Chinese and Japanese say what the same claims say in English, in any order of their parts."""

from __future__ import annotations

import itertools

import pytest

from tunemark.errors import BadData
from tunemark_importers.chinese_sentences import put_han_into_english
from tunemark_importers.sentence import document, is_document

_NUMBERS = {
    "31,200": 31200.0,
    "3万1200": 31200.0,
    "3.12 万": 31200.0,
    "3万1千": 31000.0,
    "9千": 9000.0,
    "120k": 120000.0,
}
_COUNTS = {
    "{} 16 卡": 16, "16张 {}": 16, "八卡 {}": 8, "{} 8块": 8, "单机八卡 {}": 8, "8机64卡 {}": 64,
    "{} 16枚": 16, "8枚の{}": 8, "8 台 {}": 8,
}  # fmt: skip
_RATES = {
    "每秒 {} 个 token": False, "每秒处理{}个token": False, "吞吐量为 {} tokens/秒": False, "{} token/s": False,
    "总吞吐约 {} tokens/s": False, "单卡吞吐 {} tokens/s": True, "每卡每秒 {} 个 token": True,
    "每秒每卡 {} tokens": True,
    "单卡 {} tokens/s": True, "{} tokens/s/卡": True, "每张卡 {} 词元/秒": True,
    "毎秒 {} トークン": False, "スループットは {} トークン/秒": False, "GPUあたり毎秒 {} トークン": True,
    "1枚あたり {} トークン/秒": True,
}  # fmt: skip
_FORMS = ("用 {0} 训练 {1}，{2}。", "{1}、{0}、{2}", "{2}（{1}，{0}）")


@pytest.mark.parametrize("rate", sorted(_RATES))
def test_what_is_written_is_what_is_read(rate: str) -> None:
    number = itertools.cycle(sorted(_NUMBERS))
    for count, form in itertools.product(sorted(_COUNTS), _FORMS):
        printed = next(number)
        text = form.format(count.format("A100 80GB"), "Mistral 7B", rate.format(printed))
        assert is_document(text), (text, put_han_into_english(text))
        (claim,) = document("s", "s", text)
        assert (claim.model, claim.device, claim.count) == ("mistral-7b", "A100-80GB", _COUNTS[count]), text
        found = (claim.tokens_per_s, claim.tokens_per_s_per_device)
        wanted = (None, _NUMBERS[printed]) if _RATES[rate] else (_NUMBERS[printed], None)
        assert found == wanted, (text, put_han_into_english(text))


def test_settings_steps_and_whole_trainings() -> None:
    text = "Llama 3 8B 全参数微调，8 张 H100，单步耗时 2.5 秒，全局批次大小 64，序列长度 4096，算力利用率 41%"
    (claim,) = document("s", "s", text)
    assert (claim.method, claim.step_time_s, claim.layout.global_batch, claim.sequence) == ("full", 2.5, 64, 4096)
    assert claim.mfu == 0.41
    (claim,) = document("s", "s", "用 64 张 H100 训练 Llama 3 8B，100亿 token 用了 5 小时")
    assert (claim.tokens_total, claim.train_s, claim.count) == (1e10, 18000.0, 64)
    (claim,) = document("s", "s", "H100 64枚、Llama 3 8B、100億トークンを5時間で学習")
    assert (claim.tokens_total, claim.train_s, claim.count) == (1e10, 18000.0, 64)
    (claim,) = document("s", "s", "4 个节点，每个节点 8 张 A100，Llama-2-7B，每卡 3700 tokens/s")
    assert (claim.count, claim.tokens_per_s_per_device) == (32, 3700.0)
    (claim,) = document("s", "s", "通义千问 2.5 7B 在单卡 A100 上 LoRA 微调，每秒处理 3200 个 token")
    assert (claim.model, claim.count, claim.method) == ("qwen2.5-7b", 1, "lora")
    (claim,) = document("s", "s", "2台服务器，每台8卡 H800，训练 Qwen2.5-32B，总吞吐 3.2万 tokens/s")
    assert (claim.count, claim.tokens_per_s) == (16, 32000.0)
    (claim,) = document("s", "s", "单卡 4090 LoRA 微调 Llama-3.1-8B，每秒 2000 个 token")
    assert (claim.device, claim.count, claim.tokens_per_s) == ("RTX-4090", 1, 2000.0)
    (claim,) = document("s", "s", "70亿参数模型，8 张 A100，每秒 2.9 万个 token")
    assert (claim.model, claim.tokens_per_s) == ("7B", 29000.0)


@pytest.mark.parametrize(
    "text",
    [
        "4机8卡 H100 训练 Llama 3 8B，每秒 30 万 token", "推理：单张 H100 上 Llama 3 8B 每秒 12000 token",
        "Llama 3 8B，8 卡 H100，batch size 64，每秒 6 万 token", "H100 8 卡和 A100 16 卡，Mistral 7B，每秒 6 万 token",
    ],
)  # fmt: skip
def test_what_has_no_single_reading_is_refused(text: str) -> None:
    if is_document(text):
        with pytest.raises(BadData):
            document("s", "s", text)
