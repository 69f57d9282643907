"""The words of figures in Korean, Chinese and Japanese, put into the English ones that the readers of names understand.

Only words of figures, units and scopes are known; what else a text says stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_DEVICE_KO = r"(?:GPU|NPU|TPU|gpu|npu|디바이스|장치|가속기|카드|칩|대|장)"
# In this order: longer words before those that they contain.
_WORDS: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (rf"(?:{_DEVICE_KO} ?(?:한|1) ?(?:장|대|개) ?당|{_DEVICE_KO} ?당|每(?:张)?(?:卡|GPU|gpu)|单卡)", " per gpu "),
        (r"노드 ?당|서버 ?당|每(?:个)?节点", " per node "),
        (r"초당 ?(?:처리 ?)?토큰 ?수?|토큰 ?/ ?초|每秒 ?(?:token|词元)s? ?数?", " tokens/s "),
        (r"トークン ?/ ?秒|(?:毎秒|秒間) ?トークン数?", " tokens/s "),
        (r"スループット", " throughput "),
        (r"検証 ?損失", " val loss "),
        (r"損失", " loss "),
        (r"学習率", " lr "),
        (r"ステップ ?時間", " step time "),
        (r"ステップ", " step "),
        (r"エポック", " epoch "),
        (r"(?:1 ?)?GPU ?(?:1 ?枚)?あたり", " per gpu "),
        (r"トークン", " tokens "),
        (r"초당 ?(?:처리 ?)?(?:샘플|시퀀스|예제) ?수?|(?:샘플|시퀀스|예제) ?/ ?초|每秒样本数?", " samples/s "),
        (r"초당 ?(?:스텝|반복) ?수?|(?:스텝|반복) ?/ ?초", " steps/s "),
        (r"초 ?/ ?(?:스텝|반복)", " s/step "),
        (r"(?:스텝|반복) ?(?:당 ?)?(?:소요 ?)?시간|每步(?:时间|耗时)|单步(?:时间|耗时)|迭代时间", " step time "),
        (r"[천千]\s*(?=tokens|토큰|词元|个? ?tok)", " thousand "),
        (r"[만万]\s*(?=tokens|토큰|词元|个? ?tok)", " tenthousand "),
        (r"[억亿]\s*(?=tokens|토큰|词元|个? ?tok)", " hundredmillion "),
        (r"밀리초|毫秒", " ms "),
        (r"\((?:초|秒)\)", " (s) "),
        (r"(?:처리량|처리 ?속도|학습 ?속도|훈련 ?속도|속도)|吞吐(?:量|率)?|训练速度|速度", " throughput "),
        (r"검증 ?손실|验证损失", " val loss "),
        (r"손실(?:값)?|损失", " loss "),
        (r"학습률|学习率", " lr "),
        (r"기울기 ?(?:노름|크기)|梯度范数", " grad norm "),
        (r"전체 ?배치(?: ?크기)?|글로벌 ?배치(?: ?크기)?|全局(?:批次|batch)(?:大小)?", " global batch size "),
        (r"마이크로 ?배치(?: ?크기)?|微批次(?:大小)?", " micro batch size "),
        (r"배치(?: ?크기)?|批(?:次)?大小", " batch size "),
        (r"(?:시퀀스|문맥|컨텍스트) ?길이|시퀀스|序列长度|序列|上下文长度", " sequence length "),
        (r"스텝|步数|步", " step "),
        (r"에폭|轮次", " epoch "),
        (r"경과 ?시간|已用时间", " elapsed "),
        (r"(?:최대 ?)?메모리|显存", " memory "),
        (r"모델 ?명|모델|模型", " model "),
        (r"(?:GPU|장비|하드웨어|가속기) ?(?:종류|모델)|장비|하드웨어|가속기|硬件", " device "),
        (
            r"(?:GPU|장비|카드|칩) ?(?:개수|수|대수|장수)|개수|대수|장수|(?:GPU|卡)(?:数量?|数)|卡数|设备数",
            " num gpus ",
        ),
        (r"노드 ?(?:수|개수)|노드|节点数?|机器数", " nodes "),
        (r"集群|클러스터", " cluster "),
        (r"정밀도|精度", " precision "),
        (r"(?:학습 ?)?(?:방법|방식)|训练方式", " method "),
        (r"비고|메모|备注", " notes "),
        (r"샘플|样本", " samples "),
        (r"토큰|词元", " tokens "),
    )
)


# A rate around its number: `每秒 4096 个 token`, `GPU당 초당 4,096 토큰`.
_AROUND = re.compile(
    rf"(?P<device>(?:{_DEVICE_KO} ?(?:(?:한|1) ?(?:장|대|개) ?)?당|每(?:张|个)?(?:卡|GPU)|单卡"
    r"|(?:1 ?)?GPU ?あたり)\s*)?"
    r"(?:每秒钟?|초당|毎秒|秒間)(?:处理|処理|约|약)?\s*(?P<number>[0-9](?:[0-9.,]*[0-9])?\s?[kKM]?)\s*个?(?:개의?)?\s*"
    r"(?:tokens?|toks?|词元|토큰|トークン)(?!\s*/)", re.I,
)  # fmt: skip


def turn_rates(text: str) -> str:
    """The text with rates that stand around their number behind it: `每秒 4096 个 token` as `4096 tokens/s`."""
    if "秒" not in text and "초당" not in text:
        return text
    return _AROUND.sub(lambda match: f"{match['number']} tokens/s{'/gpu' if match['device'] else ''} ", text)


def translate_words(text: str) -> str:
    """The text with the words of figures in English; a text without such words comes back as it is."""
    if text.isascii():
        return text
    for pattern, by in _WORDS:
        text = pattern.sub(by, text)
    return text
