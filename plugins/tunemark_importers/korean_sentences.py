"""Puts a claim in Korean into the English words that the grammar of sentences reads.

Numbers (`6만 2천`), counts of devices (`H100 8장`), rates whose unit stands before the number (`초당 72,000 토큰`) and
the names of figures are put into English; what remains in Korean says nothing that is read here, and is left out.
"""

from __future__ import annotations

import re

from tunemark_importers.myriads import in_digits

_WORDS_OF_COUNTS = {
    "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5, "여섯": 6, "일곱": 7, "여덟": 8, "아홉": 9, "열": 10, "열여섯": 16,
    "서른두": 32,
}  # fmt: skip
_COUNT_WORD = re.compile(
    rf"(?<![가-힣])({'|'.join(sorted(_WORDS_OF_COUNTS, key=len, reverse=True))}) ?(?=[장대개](?![가-힣]*당))"
)
# No number that another stands before, as in a range.
_N = r"(?<![0-9][ ~-])(?<![0-9.,~])([0-9][0-9,.]*[0-9kKMB]*|[0-9])"
_DEVICE = r"(?:GPU|NPU|TPU|칩|카드|장치|디바이스|가속기)"
_PER_DEVICE = (
    rf"(?:(?:{_DEVICE}? ?(?:1|한) ?(?:장|대|개)|{_DEVICE}|장) ?당"
    rf"|각 ?{_DEVICE}(?:가|는|에서|이)?|{_DEVICE} ?하나(?:가|에서|당)|각각)"
)
_PER_NODE = r"(?:노드|서버|머신) ?(?:(?:1|한) ?대 ?)?당"
_TOKENS = r"(?:tokens?|tok|toks|토큰)"
_OF_TOKENS = rf"(?: ?(?:개(?:의)? ?)?{_TOKENS}(?: ?(?:을|를|씩))?(?: ?(?:/|per) ?(?:초|s|sec|second))?)"
_PATTERNS = tuple(
    (re.compile(pattern, re.I), by)
    for pattern, by in (
        # Names of models.
        (r"라마(?= ?[0-9])", "Llama"), (r"미스트랄", "Mistral"), (r"젬마(?= ?[0-9])", "Gemma"), (r"큐[원웬]", "Qwen"),
        (r"엑사원", "EXAONE"),
        # Tokens of a whole training and its time.
        (rf"{_N} ?토큰(?:을|를)? ?(?:약 )?([0-9]+(?:\.[0-9]+)?) ?시간", r" \1 tokens in \2 hours "),
        (rf"{_N} ?토큰(?:을|를)? ?(?:약 )?([0-9]+(?:\.[0-9]+)?) ?분", r" \1 tokens in \2 minutes "),
        (rf"{_N} ?토큰(?:을|를)? ?(?:약 )?([0-9]+(?:\.[0-9]+)?) ?일", r" \1 tokens in \2 days "),
        # Nodes and the devices of each.
        (r"(?:노드|서버|머신) ?([0-9]{1,5}) ?[대개]", r" \1 nodes "),
        (r"([0-9]{1,5}) ?(?:개|대)?(?:의)? ?(?:노드|서버|머신)(?! ?당)", r" \1 nodes "),
        (rf"{_PER_NODE} ?((?:[A-Za-z][\w -]{{0,30}}? ?)?)([0-9]{{1,3}}) ?[장대개](?! ?당)", r" with \1 x \2 each "),
        # Rates whose unit stands before the number.
        *(
            (rf"{of}[ ,:]*{how}", rf" \1 tokens/s {by} ".replace("  ", " "))
            for of, by in ((_PER_DEVICE, "per GPU"), (_PER_NODE, "per node"), ("", ""))
            for how in (
                rf"초당 ?(?:평균 |약 |대략 )?{_N}{_OF_TOKENS}",
                rf"(?:평균 |약 |대략 )?{_N} ?(?:{_TOKENS}|개) ?(?:/|per) ?(?:초|s|sec|second)(?![a-z/])",
            )
        ),
        (rf"초당 ?(?:처리 ?)?토큰 ?(?:수)?(?:은|는|이|가)? ?:? ?(?:약 )?{_N}(?:개)?", r" \1 tokens/s "),
        (rf"토큰 ?/ ?초 ?[:은는]? ?{_N}", r" \1 tokens/s "),
        (rf"(?:하루|1일)(?:에|당)? ?(?:약 )?{_N}{_OF_TOKENS}", r" \1 tokens per day "),
        (rf"분당 ?(?:약 )?{_N}{_OF_TOKENS}", r" \1 tokens per minute "),
        (rf"시간당 ?(?:약 )?{_N}{_OF_TOKENS}", r" \1 tokens per hour "),
        (rf"초당 ?{_N} ?(?:개의? ?)?(?:샘플|시퀀스|예제)", r" \1 samples/s "),
        (rf"스텝 ?(?:당|마다|시간(?:은|이)?) ?(?:약 )?{_N} ?초", r" \1 s/step "),
        (rf"스텝 ?(?:당|마다|시간(?:은|이)?) ?(?:약 )?{_N} ?(?:밀리초|ms)", r" \1 ms/step "),
        # The settings.
        (r"(?:전체|전역|글로벌|총) ?배치(?: ?크기)?(?:는|은)? ?", " global batch "),
        (rf"(?:{_PER_DEVICE}|마이크로) ?배치(?: ?크기)?(?:는|은)? ?", " micro batch "),
        (r"배치(?: ?크기)?(?:는|은)? ?", " batch "),
        (r"(?:시퀀스|문맥|컨텍스트)(?: ?길이)?(?:는|은)? ?", " sequence length "),
        (r"(?:전체|풀|전) ?(?:파인 ?튜닝|미세 ?조정)", " full fine-tuning "),
        (r"파인 ?튜닝|미세 ?조정", " fine-tuning "),
        (r"사전 ?학습", " pretraining "),
        (r"학습|훈련", " training "),
        (r"추론|생성|서빙|디코딩", " inference "),
        # Counts of devices, behind their name or alone.
        (r"(?<=[A-Za-z0-9]) ([0-9]{1,6}) ?(?:장|대|개)(?! ?당)", r" x \1 "),
        (r"(?:총 ?)?([0-9]{1,6}) ?(?:장|대)(?! ?당)", r" \1 GPUs "),
    )
)  # fmt: skip
_KOREAN = re.compile(r"[가-힣]+")


def put_into_english(text: str) -> str:
    """The sentence in English words; one without Korean comes back as it is."""
    if not _KOREAN.search(text):
        return text
    text = _COUNT_WORD.sub(lambda match: str(_WORDS_OF_COUNTS[match[1]]), text)
    text = in_digits(text)
    for pattern, by in _PATTERNS:
        text = pattern.sub(by, text)
    # A comma keeps apart what particles and verbs stood between.
    return " ".join(re.sub(r"(?:\s*[가-힣]+[\s.]*)+", ", ", text).split()).strip(" ,")
