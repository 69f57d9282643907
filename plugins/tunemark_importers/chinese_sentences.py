"""Puts a claim in Chinese or Japanese into the English words that the grammar of sentences reads.

As `korean_sentences` does: numbers (`3.9万`), counts of devices (`8卡 H100`, `H100 8枚`), rates whose unit stands
before the number (`每秒 4096 个 token`, `毎秒 4096 トークン`) and the names of figures are put into English; what
remains says nothing that is read here, and is left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from tunemark_importers.myriads import in_digits
from tunemark_importers.numbers import parse_number

_By = str | Callable[[re.Match[str]], str]
_HAN = re.compile(r"[\u4e00-\u9fff]")
_KANA = re.compile(r"[\u3041-\u30fa\u30fc]")
_REST = re.compile(r"(?:\s*[\u3005\u4e00-\u9fff\u3041-\u30ff\u00b7\u30fb]+[\s.\u3002]*)+")
# With a blank behind them, so that a comma is none within a number.
_PUNCTUATION = {ord(mark): f"{by} " for mark, by in zip("，、；：。", ",,;:.", strict=True)}
_N = r"(?<![0-9][ ~-])(?<![0-9.,~])([0-9][0-9.,]*[0-9kKMBT]*|[0-9])"
_NUMERALS = {
    "一": 1, "单": 1, "単": 1, "两": 2, "二": 2, "双": 2, "三": 3, "四": 4, "五": 5, "六": 6, "八": 8, "十": 10,
    "十六": 16, "三十二": 32, "六十四": 64,
}  # fmt: skip
_NUMERAL = "|".join(sorted(_NUMERALS, key=len, reverse=True))
_TOKENS = r"(?:tokens?|toks?|词元|トークン)"
_SECOND = r"(?:秒钟?|sec(?:ond)?|s)(?![a-z])"
_TIMES = {"小时": "hours", "时间": "hours", "時間": "hours", "分钟": "minutes", "分": "minutes", "天": "days",
          "日": "days", "秒": "seconds"}  # fmt: skip
_IS = r"(?:\s|,|:|为|是|约|大约|达到?|可达|可以?|能够?|有|在|平均|接近|は|が|約|で|に)*"
_SPEED = r"(?:的|の)?(?:平均)?(?:训练|処理|学習)?(?:吞吐(?:量|率)?|速度|速率|性能|スループット)?"
_PER_DEVICE = (
    r"(?:每(?:一)?(?:个|张|块|片)? ?(?:GPU|NPU|卡|加速卡|设备)|单(?:张|块|个)? ?(?:GPU|NPU|卡)"
    r"|(?:1 ?)?GPU ?(?:1 ?枚)?あたり|(?:1 ?)?枚あたり|各 ?GPU)"
)
_PER_NODE = r"(?:每(?:一)?(?:个|台)? ?(?:节点|机器|服务器|机)|每台|単?(?:1 ?)?ノードあたり)"
_BATCH = r"(?:批次|批量|批处理|批|batch|バッチ)(?: ?(?:大小|size|サイズ))?"


def _in_time(tokens: int, time: int) -> Callable[[re.Match[str]], str]:
    return lambda match: f" {match[tokens]} tokens in {match[time]} {_TIMES[match[time + 1]]} "


def _parameters(match: re.Match[str]) -> str:
    value = parse_number(match[1])
    return match[0] if value is None else f" {value / 1e9:.6g}B model "


def _machines(match: re.Match[str]) -> str:
    """`8机64卡` are all of them; `4机8卡` may be those of each machine, and is asked about."""
    nodes, devices = int(match[1]), int(match[2])
    if nodes == 1:
        return f" {devices} GPUs "
    return f" {devices} GPUs ({nodes} nodes) " if devices >= 8 * nodes else f" {nodes} nodes {devices} GPUs "


_EACH_S = rf"(?:每秒钟?|毎秒|秒間|1 ?秒あたり){_IS}(?:处理|処理|训练|跑|生成)?{_IS}"
_COUNTED = rf"{_N} ?个?(?:的)? ?{_TOKENS}"
_OVER_S = rf" ?(?:/|每|per) ?{_SECOND}"
_EACH_STEP = r"(?:每一?步|单步|每次迭代|迭代|1 ?ステップ|ステップ)(?:あたり)?(?:耗时|用时|时间)?"
_SAMPLES = r" ?个?(?:条)? ?(?:样本|序列|サンプル)"
_RATES: Sequence[tuple[str, _By]] = (
    *(
        (pattern, rf" \1 tokens/s {by} ")
        for of, by in ((_PER_DEVICE, "per GPU"), (_PER_NODE, "per node"))
        for pattern in (
            rf"(?:每秒钟?|毎秒|秒間) ?{of}{_IS}(?:处理|処理)?{_IS}{_COUNTED}",
            rf"{of}{_SPEED}{_IS}{_EACH_S}{_COUNTED}(?: ?/ ?{_SECOND})?",
            rf"{of}{_SPEED}{_IS}{_COUNTED}{_OVER_S}",
        )
    ),
    (rf"{_COUNTED} ?/ ?{_SECOND} ?/ ?(?:卡|枚)", r" \1 tokens/s per GPU "),
    (rf"{_COUNTED} ?/ ?(?:卡|枚|GPU) ?/ ?{_SECOND}", r" \1 tokens/s per GPU "),
    (rf"{_EACH_S}{_COUNTED}(?: ?/ ?{_SECOND})?", r" \1 tokens/s "),
    (rf"{_COUNTED}{_OVER_S}", r" \1 tokens/s "),
    (rf"(?:每秒|毎秒) ?{_TOKENS} ?数?{_IS}{_N}", r" \1 tokens/s "),
    (rf"(?:每天|一天|每日|1日(?:あたり)?){_IS}(?:处理|训练)?{_IS}{_COUNTED}", r" \1 tokens per day "),
    (rf"(?:每小时|1時間あたり){_IS}(?:处理|训练)?{_IS}{_COUNTED}", r" \1 tokens per hour "),
    (rf"(?:每分钟|毎分){_IS}(?:处理|训练)?{_IS}{_COUNTED}", r" \1 tokens per minute "),
    (rf"{_EACH_S}{_N}{_SAMPLES}", r" \1 samples/s "),
    (rf"{_N}{_SAMPLES} ?(?:/|每) ?{_SECOND}", r" \1 samples/s "),
    (rf"{_EACH_STEP}{_IS}{_N} ?(?:毫秒|ミリ秒|ms)", r" \1 ms/step "),
    (rf"{_EACH_STEP}{_IS}{_N} ?(?:秒|s)(?![a-z])", r" \1 s/step "),
    (rf"{_N} ?秒 ?(?:/|每) ?(?:步|ステップ)", r" \1 s/step "),
)


_TIME = r"([0-9]+(?:\.[0-9]+)?) ?(个?小时|時間|分钟|分|天|日|秒)"
_WORDS: Sequence[tuple[str, _By]] = (
    ("通义千问|千问", "Qwen"), ("百川", "Baichuan"), ("书生[·・]?浦语", "InternLM"), ("昇腾", " Ascend "),
    ("英伟达", " "),
    (rf"{_N} ?(?:个)?参数(?:量)?(?:的)?(?:模型)?", _parameters),
    (r"个(?=小时)", ""),
    (rf"{_COUNTED} ?(?:を|共|总共|一共)? ?(?:耗时|用时|用了|花了|需要?|花费|要)?{_IS}{_TIME}", _in_time(1, 2)),
    (rf"{_TIME}(?:内|里|で)?(?:训练|处理|跑|完成|学習)(?:了|完)?{_IS}{_COUNTED}",
     lambda match: f" {match[3]} tokens in {match[1]} {_TIMES[match[2]]} "),
    *_RATES,
    # Machines and the devices of each.
    (r"([0-9]{1,5}) ?(?:机|台) ?,? ?([0-9]{1,6}) ?(?:卡|张)", _machines),
    (rf"{_PER_NODE} ?(?:有|配)? ?([0-9]{{1,3}}) ?(?:张|块|卡|枚|基|个) ?(?:的|の)? ?"
     r"([A-Z][A-Za-z0-9-]*(?: [0-9]+ ?GB)?)?",
     lambda match: f" with {match[1]} x {match[2] or 'GPUs'} each "),
    (rf"{_PER_NODE} ?(?:有)?((?:[A-Za-z][\w -]{{0,30}}? ?)?)([0-9]{{1,3}}) ?(?:张|块|卡|枚|基|个)",
     r" with \1 x \2 each "),
    (r"([0-9]{1,5}) ?(?:个|台)?(?:节点|机器|服务器|ノード)", r" \1 nodes "),
    (r"(?:节点|机器|服务器|ノード) ?([0-9]{1,5}) ?(?:个|台)", r" \1 nodes "),
    # The settings.
    (rf"(?:全局|总|整体|グローバル) ?{_BATCH}{_IS}", " global batch "),
    (rf"(?:{_PER_DEVICE}|微|マイクロ) ?{_BATCH}{_IS}", " micro batch "),
    (rf"{_BATCH}{_IS}(?=[0-9])", " batch "),
    (rf"(?:序列|上下文|シーケンス|系列|コンテキスト)(?:长度?|長)?{_IS}(?=[0-9])", " sequence length "),
    (r"(?:模型)?(?:算力|FLOPs?) ?利用率", " MFU "),
    (r"全(?:量|参数?|パラメータ) ?(?:微调|训练|ファインチューニング)", " full fine-tuning "),
    (r"フル ?ファインチューニング", " full fine-tuning "),
    (r"微调|ファインチューニング|微調整", " fine-tuning "),
    (r"预训练|事前学習", " pretraining "),
    (r"训练|学習", " training "),
    (r"推理|生成|解码|部署|推論", " inference "),
    # Counts of devices, before their name, behind it or alone.
    (r"([0-9]{1,6}) ?(?:张|块|卡|片|枚|基|台)(?:的|の)? ?(?=[A-Za-z]|[345]0[6-9]0)(?!GPU|NPU|卡)", r" \1 x "),
    (r"(?<=[A-Za-z0-9]) ?(?:を|が)? ?(?<![0-9.])([0-9]{1,6}) ?(?:张|块|卡|片|枚|基|台)卡?", r" x \1 "),
    (r"([0-9]{1,6}) ?(?:张|块|卡|片|枚|基|台)(?:GPU|NPU|卡)?", r" \1 GPUs "),
)  # fmt: skip
_PATTERNS: Sequence[tuple[re.Pattern[str], _By]] = tuple((re.compile(pattern, re.I), by) for pattern, by in _WORDS)
_COUNT_WORD = re.compile(
    rf"(?<![\u4e00-\u9fff])({_NUMERAL}) ?(?=张|块|片|枚|基|台|机|个节点)|(?<=机)({_NUMERAL})(?=卡)"
    rf"|(?<![\u4e00-\u9fff])((?!单){'(?:' + _NUMERAL + ')'})(?=卡)|({_NUMERAL})(?=机)"
)


def put_han_into_english(text: str) -> str:
    """The sentence in English words; one without Chinese or Japanese comes back as it is."""
    if not _HAN.search(text) and not _KANA.search(text):
        return text
    text = unicodedata.normalize("NFKC", text.translate(_PUNCTUATION))
    # A single card that is trained on, and not one of which a rate is.
    text = re.sub(
        r"((?:在|用|使用)?单(?:张|块)? ?(?:卡|GPU) ?(?=[A-Z]{1,3}[0-9]|RTX|MI|[345]0[6-9]0))"
        r"|(?:在|用|使用)单(?:张|块)? ?(?:卡|GPU)(?:上|训练)",
        lambda match: " one " if match[1] else " one GPU ",
        text,
    )
    text = _COUNT_WORD.sub(lambda match: str(_NUMERALS[next(part for part in match.groups() if part)]), text)
    text = in_digits(text)
    for pattern, by in _PATTERNS:
        text = pattern.sub(by, text)
    # A comma keeps apart what particles and verbs stood between.
    return " ".join(_REST.sub(", ", text).split()).strip(" ,")
