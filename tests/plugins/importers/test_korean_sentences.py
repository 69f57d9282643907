"""Claims in Korean say what the same claims say in English, in any order of their parts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunemark.errors import BadData
from tunemark_importers.korean_sentences import put_into_english
from tunemark_importers.sentence import document, is_document

_NUMBERS = {
    "31,200": 31200.0, "3만 1200": 31200.0, "3만 1,200": 31200.0, "3.12만": 31200.0, "3만 1천": 31000.0, "9천": 9000.0,
    "9,200": 9200.0, "12만": 120000.0, "120k": 120000.0, "1천5백": 1500.0,
}  # fmt: skip
_COUNTS = {"16장": 16, "16개": 16, "16대": 16, "여덟 장": 8, "한 장": 1, "8장": 8}
_RATES = {
    "초당 {} 토큰": False, "초당 {}토큰을": False, "{} 토큰/초": False, "{} tokens/s": False,
    "초당 약 {}개의 토큰": False,
    "GPU당 초당 {} 토큰": True, "장당 {} 토큰/초": True, "1장당 {} tokens/s": True, "각 GPU가 초당 {} 토큰": True,
}  # fmt: skip


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(_NUMBERS)),
    st.sampled_from(sorted(_COUNTS)),
    st.sampled_from(sorted(_RATES)),
    st.sampled_from([("{}에서 {}를 학습하면 {} 나온다", "ABC"), ("{1}, {0}, {2}", "ABC"), ("{2} ({1}, {0})", "ABC")]),
)
def test_what_is_written_in_korean_is_what_is_read(number: str, count: str, rate: str, form: tuple[str, str]) -> None:
    text = form[0].format(f"A100 80GB {count}", "Mistral 7B", rate.format(number))
    assert is_document(text), put_into_english(text)
    (claim,) = document("s", "s", text)
    assert (claim.model, claim.device, claim.count) == ("mistral-7b", "A100-80GB", _COUNTS[count]), text
    found = (claim.tokens_per_s, claim.tokens_per_s_per_device)
    assert found == ((None, _NUMBERS[number]) if _RATES[rate] else (_NUMBERS[number], None)), put_into_english(text)


def test_nodes_days_steps_and_settings() -> None:
    (claim,) = document("s", "s", "노드 4대(노드당 H100 8장)에서 Mistral 7B 학습, 노드당 초당 9만 토큰")
    assert (claim.count, claim.tokens_per_s) == (32, 360000.0)
    (claim,) = document("s", "s", "A100 8장으로 Mistral 7B를 하루에 17억 2800만 토큰 학습한다")
    assert claim.tokens_per_s == pytest.approx(20000.0)
    (claim,) = document("s", "s", "Mistral 7B, H100 64장, 전체 배치 256, 시퀀스 길이 4096, 스텝당 2.5초")
    assert (claim.layout.global_batch, claim.sequence, claim.step_time_s) == (256, 4096, 2.5)
    (claim,) = document("s", "s", "10억 토큰을 4시간 만에 학습 (미스트랄 7B, H100 16장(노드 2대))")
    assert (claim.model, claim.tokens_total, claim.train_s, claim.count) == ("mistral-7b", 1e9, 14400.0, 16)
    (claim,) = document("s", "s", "Mistral 7B 전체 파인튜닝, MI250 16장, 39만 토큰/초")
    assert (claim.method, claim.tokens_per_s) == ("full", 390000.0)


@pytest.mark.parametrize(
    "text",
    [
        "Mistral 7B, H100 8장, 초당 6만~7만 토큰", "H100 한 장에서 Mistral 7B 추론은 초당 12,000 토큰",
        "Mistral 7B, H100 8장, 배치 64, 초당 6만 토큰", "H100 8장과 A100 16장, Mistral 7B, 초당 6만 토큰",
    ],
)  # fmt: skip
def test_what_has_no_single_reading_in_korean_is_refused(text: str) -> None:
    if is_document(text):
        with pytest.raises(BadData):
            document("s", "s", text)


def test_a_number_whose_parts_do_not_fall_stays() -> None:
    assert "3천 2만" in put_into_english("3천 2만 토큰") or "32" not in put_into_english("3천 2만 토큰")
    assert put_into_english("Mistral 7B on 8 H100") == "Mistral 7B on 8 H100"
