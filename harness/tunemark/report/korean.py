"""Korean translations of the report's texts, by the English text. CLI options and stored values are not translated."""

from __future__ import annotations

KOREAN: dict[str, str] = {
    # Sections and what is missing in them.
    "tunemark report": "tunemark 보고서",
    "tunemark audit": "tunemark 감사",
    "Throughput by size": "크기별 처리량",
    "Scaling": "확장성",
    "None, manual and automatic parallelization": "병렬화 없음, 수동, 자동 비교",
    "Where a step's time goes": "한 스텝의 시간 구성",
    "Padding, and three ways to count tokens": "패딩과 토큰을 세는 세 가지 방법",
    "Step by step": "스텝별 시간",
    "Memory, power and temperature": "메모리, 전력, 온도",
    "Cost of a million tokens": "백만 토큰당 비용",
    "Environment, and how to measure it again": "환경과 재현 방법",
    "Findings": "확인된 사항",
    "What the words mean": "용어의 뜻",
    "Imported claims": "외부 수치",
    "Findings on imported claims": "외부 수치에서 확인된 사항",
    "Runs one by one": "실행별 상세",
    "Answer": "답",
    "Contents": "목차",
    "All runs share: {common}.": "모든 실행에 공통: {common}.",
    "The same in all:": "모두 같음:",
    "There is no run here. `tunemark run` measures one.": "실행이 없습니다. `tunemark run`으로 측정할 수 있습니다.",
    "No run has a rate: the findings say how each ended.":
        "처리량이 있는 실행이 없습니다. 각 실행이 어떻게 끝났는지는 ‘확인된 사항’에 있습니다.",
    "No run was measured part by part. `tunemark run ... --breakdown` measures a run a second time with every part of its "
    "steps timed.":
        "스텝을 부분별로 측정한 실행이 없습니다. `tunemark run ... --breakdown`은 스텝의 모든 부분을 재며 한 번 더 "
        "측정합니다.",
    "The steps' instants are not at hand: they lie in the store's records, not in this folder. "
    "`tunemark report STORE -o DIR` draws them.":
        "스텝의 시각 기록이 이 폴더에는 없고 저장소의 기록에 있습니다. `tunemark report STORE -o DIR`이 그려 줍니다.",
    "No environment was recorded, so nobody can say what this was measured on.":
        "환경이 기록되지 않아 무엇에서 측정했는지 알 수 없습니다.",
    "{n} entries could not be read, and no figure here counts them.":
        "{n}개 항목을 읽을 수 없었으며, 여기의 어떤 수치에도 들어 있지 않습니다.",
    "One entry could not be read, and no figure here counts it.":
        "항목 1개를 읽을 수 없었으며, 여기의 어떤 수치에도 들어 있지 않습니다.",
    "No price is known. `tunemark report ... --prices FILE` takes yours, for an hour of a size or a chip.":
        "가격을 알 수 없습니다. `tunemark report ... --prices FILE`로 크기나 칩의 시간당 가격을 줄 수 있습니다.",
    "The same steps, three numerators: a figure without its count of tokens cannot be compared.":
        "같은 스텝, 세 가지 분자. 무엇을 토큰으로 셌는지 모르는 수치는 비교할 수 없습니다.",
    "The run of the answer above; every other run's steps are in its own entry below.":
        "위 답의 실행입니다. 다른 실행의 스텝은 아래 실행별 상세에 있습니다.",
    "No device said how much memory a run held.": "실행이 쓴 메모리를 알려 준 디바이스가 없습니다.",
    "The price file has no price for {names}.": "가격 파일에 없는 항목: {names}.",
    "A simulated rate has no cost.": "시뮬레이션한 처리량에는 비용이 없습니다.",
    "What was noticed about each run, in the words of the rule that noticed it, with its arithmetic.":
        "각 실행에서 확인된 사항을 그 규칙의 문장 그대로(영어), 계산과 함께 적었습니다.",
    "Not measured here: read from somebody else's log or table, and derived anew where that is possible.":
        "여기서 측정하지 않았습니다. 남의 로그나 표에서 읽고, 가능하면 다시 계산했습니다.",
    "No run has timed steps, so no token was counted.": "시간을 잰 스텝이 없어 토큰을 세지 못했습니다.",
    "No two strategies were measured alike, so there is nothing to compare. `tunemark run --strategy none,ddp` measures "
    "two.":
        "같은 조건에서 잰 두 전략이 없어 비교할 것이 없습니다. `tunemark run --strategy none,ddp`는 둘을 측정합니다.",
    "No two sizes of one accelerator were measured alike, so nothing can be said of scaling. "
    "`tunemark scale --mode weak --device cpu:1,2` measures two.":
        "같은 조건에서 잰 두 크기가 없어 확장성을 말할 수 없습니다. `tunemark scale --mode weak --device cpu:1,2`는 둘을 "
        "측정합니다.",
    # Tables.
    "Every run": "모든 실행",
    "Three rates": "세 가지 처리량",
    "Settings": "설정",
    "Step times, and what no rate counts": "스텝 시간, 그리고 처리량에 들어가지 않는 시간",
    "Parts of a step": "스텝의 부분",
    "Set-up": "준비 단계",
    "Memory and telemetry": "메모리와 측정 장치",
    "Price and cost": "가격과 비용",
    "Environment that all runs share": "모든 실행에 공통인 환경",
    "Attempts": "시도",
    "Not read": "읽지 못한 항목",
    "Strategies side by side": "전략 비교",
    "What automatic parallelization is worth": "자동 병렬화의 효과",
    "Laws tried": "적합해 본 법칙",
    "Predicted, not measured": "예측(측정하지 않음)",
    "Which size": "어느 크기인가",
    "Parallel efficiency": "병렬 효율",
    "Speed-up x N0 / N with its 95 % interval, in percent; the dashed line is ideal.":
        "속도 향상 x N0 / N과 그 95 % 구간(퍼센트). 점선은 이상적인 경우입니다.",
    "efficiency (%)": "효율(%)",
    "More scalings": "그 밖의 확장성",
    "Findings on these sizes": "이 크기들에서 확인된 사항",
    "none": "없음",
    "cost": "비용",
    "price": "가격",
    "{currency} per million content tokens": "내용 토큰 백만 개당 {currency}",
    "by {way}": "{way} 기준",
    "fact": "항목",
    "value": "값",
    "place": "위치",
    "why": "이유",
    "Of {n:,} more runs none of this is known.": "다른 실행 {n:,}개에 대해서는 알려진 것이 없습니다.",
    "{n:,} more rows are in report.csv and report.md.": "나머지 {n:,}행은 report.csv와 report.md에 있습니다.",
    "{n:,} more runs are in report.csv and runs.jsonl.": "나머지 실행 {n:,}개는 report.csv와 runs.jsonl에 있습니다.",
    "{n:,} more are in the tables and files": "나머지 {n:,}개는 표와 파일에 있습니다",
    # Strategies.
    "the median of the manual layouts": "수동 구성의 중앙값",
    "the best of all others": "나머지 중 최고",
    "the best manual layout": "최고의 수동 구성",
    "automatic": "자동",
    "manual": "수동",
    "Rate by strategy": "전략별 처리량",
    "Content tokens per second with 95 % intervals. A run without a rate says why in its place.":
        "초당 내용 토큰 수와 95 % 구간. 처리량이 없는 실행은 그 자리에 이유를 적습니다.",
    "Runs that differ in the strategy alone, or in the batch that follows from it, and what each chose. The baseline is "
    "none where it has a rate; faster and slower hold for all ratios together (Holm, 95 %). Searching and queueing are "
    "counted in seconds of their own, never in a rate.":
        "전략, 또는 그에 따르는 배치만 다른 실행들과 각각이 고른 구성. 기준은 처리량이 있는 none이며, ‘빠름’과 ‘느림’은 모든 "
        "비율에 대해 함께 성립합니다(Holm, 95 %). 탐색과 대기는 따로 초로 세고 처리량에는 넣지 않습니다.",
    "batches differ: no ratio": "배치가 달라 비율 없음",
    "nothing was timed": "잰 시간이 없음",
    "baseline": "기준",
    "faster": "빠름",
    "slower": "느림",
    "no difference shown": "차이가 보이지 않음",
    "takes no part": "비교 제외",
    "no interval": "구간 없음",
    "(no interval)": "(구간 없음)",
    "to": "~",
    # Scaling.
    "strong scaling": "강한 확장성(strong)",
    "weak scaling": "약한 확장성(weak)",
    "batch per data rank": "데이터 랭크당 배치",
    "batch per rank": "랭크당 배치",
    "Marks are rates with their 95 % intervals; the dashed line is ideal: the smallest size's rate times N / N0.":
        "점은 처리량과 95 % 구간입니다. 점선은 이상적인 경우로, 가장 작은 크기의 처리량에 N / N0을 곱한 값입니다.",
    "The band holds the whole fitted curve with 95 %. Triangles are predicted: nothing ran there.":
        "띠는 적합한 곡선 전체를 95 %로 담습니다. 삼각형은 예측이며, 그곳에서는 아무것도 실행하지 않았습니다.",
    "No law is fitted: {reason}.": "적합한 법칙이 없습니다: {reason}.",
    "fitted": "적합",
    "ideal": "이상",
    "Scaling: strong keeps the global batch at every size, weak that of each data rank. N0: the smallest size that was "
    "measured well. Speed-up: rate over that of N0; efficiency: speed-up x N0 / N.":
        "강한 확장성(strong)은 모든 크기에서 전체 배치를, 약한 확장성(weak)은 데이터 랭크별 배치를 그대로 둡니다. N0은 제대로 측정된 가장 작은 "
        "크기입니다. 속도 향상은 N0에 대한 처리량의 비, 효율은 속도 향상 x N0 / N입니다.",
    "Intervals of speed-ups are of the ratio of attempts, paired where they were taken in rounds. What is predicted was not "
    "measured: its interval is of the fitted law, and holds as far as the law does.":
        "속도 향상의 구간은 시도들의 비율에서 구하며, 번갈아 측정했으면 짝을 지어 비교합니다. 예측은 측정이 아닙니다. 그 구간은 "
        "적합한 법칙의 것이며 법칙이 맞는 만큼만 맞습니다.",
    "N": "N", "N0": "N0", "the size that the others are held against": "다른 크기와 비교하는 기준 크기", "size": "크기", "speed-up": "속도 향상", "rate over that of the base": "기준에 대한 처리량의 비",
    "efficiency": "효율", "speed-up x N0 / N": "속도 향상 x N0 / N",
    "marginal efficiency": "한계 효율", "of the units added last, each": "마지막에 더한 단위 하나당",
    "communication": "통신", "of a step, where it was measured": "스텝에서 차지하는 몫(측정한 경우)",
    "in the fit and in the choices": "적합과 선택에서", "goal": "목표", "shown": "입증",
    "its interval sets it apart from every other size measured": "구간이 다른 모든 크기와 겹치지 않음",
    "evidence": "근거", "law": "법칙", "rate": "처리량", "x1": "x1", "rate of one unit": "단위 하나의 처리량",
    "s": "s", "serial share": "직렬 비율", "k": "k", "coherency cost": "일관성 비용", "AICc": "AICc",
    "Akaike weight": "Akaike 가중치", "residual": "잔차",
    "standard deviation of attempts around the curve": "곡선 주위 시도들의 표준편차",
    "content per device": "디바이스당 내용", "content per unit": "단위당 내용", "devices": "디바이스", "units": "단위",
    # Charts.
    "Throughput": "처리량",
    "tokens/s (content)": "토큰/초(내용)",
    "Content tokens (never padding) over the wall time of the timed steps, whole job. The line through a mark is its 95 % "
    "interval: between attempts where there are two or more, else within the one run.":
        "작업 전체의 내용 토큰(패딩 제외)을 측정 구간의 벽시계 시간으로 나눈 값. 점을 지나는 선은 95 % 구간으로, 시도가 둘 "
        "이상이면 시도 사이에서, 아니면 한 실행 안에서 구합니다.",
    "Price of an hour / 3600 / content tokens per second x 1,000,000, with the interval of the rate.":
        "시간당 가격 / 3600 / 초당 내용 토큰 x 1,000,000. 구간은 처리량의 구간입니다.",
    "{gib} GiB more were refused": "{gib} GiB 추가 할당이 거부됨",
    "Memory": "메모리",
    "The most that the fullest rank held, as its device says it. A CPU's figure holds the interpreter too.":
        "가장 많이 쓴 랭크의 최댓값을 디바이스가 알려 준 대로. CPU에서는 인터프리터도 포함합니다.",
    "Mean seconds of each part over the timed steps, every part waited for: their sum is more than a step takes without "
    "waiting, so it is read for shares, not for speed.":
        "측정한 스텝에서 각 부분의 평균 시간(초). 부분마다 기다리므로 합은 기다리지 않을 때보다 길며, 속도가 아니라 몫을 봅니다.",
    "seconds per step": "스텝당 초",
    "What the slots hold": "슬롯의 내용",
    "Of all slots (batch x sequence) of the timed steps: tokens with a label, content without one, and padding, which is no "
    "work done for anybody.":
        "측정한 스텝의 모든 슬롯(배치 x 시퀀스) 가운데 레이블이 있는 토큰, 레이블이 없는 내용, 그리고 누구의 일도 아닌 패딩.",
    "share of slots": "슬롯 비율",
    "trained": "학습", "content, not trained": "내용(학습 안 함)", "padding": "패딩", "{percent} % padding": "패딩 {percent} %",
    "Seconds per step of each window between two synchronised instants. Shaded: the warm-up, which no rate counts; white: "
    "what was timed.":
        "동기화한 두 시점 사이 각 창의 스텝당 시간(초). 음영은 처리량에 넣지 않는 워밍업, 흰 부분이 측정 구간입니다.",
    "{kept:,} of {windows:,} windows are drawn, the fastest and slowest of each stretch among them.":
        "창 {windows:,}개 중 {kept:,}개를 그렸으며, 구간마다 가장 빠른 창과 가장 느린 창이 들어 있습니다.",
    "Step time: {name}, attempt {number}": "스텝 시간: {name}, 시도 {number}",
    "Rates of a simulator, which say nothing of speed": "시뮬레이터의 처리량(속도를 말하지 않음)",
    "Claimed rates": "주장된 처리량",
    "As their sources state them, each by what its tool counts; nothing of it was measured here.":
        "출처에 적힌 그대로이며, 각 도구가 세는 것을 셉니다. 여기서 측정한 것은 없습니다.",
    "tokens/s, as each source counts them": "토큰/초(출처가 세는 대로)",
    "One claim of others was audited; it was not measured here.": "남의 수치 1개를 감사했습니다. 여기서 측정한 것이 아닙니다.",
    "Of one more run none of this is known.": "다른 실행 1개에 대해서는 알려진 것이 없습니다.",
    "step": "스텝",
    "no rate is stated": "처리량이 적혀 있지 않음",
    "timed: steps {first:,} to {last:,}": "측정 구간: 스텝 {first:,}~{last:,}",
    "median {value} s": "중앙값 {value}초", "step {n:,.0f}: {seconds} s": "스텝 {n:,.0f}: {seconds}초",
    # Answers.
    "{model} on {device} trains at {value} tokens per second.": "{model}, {device}: 초당 {value} 토큰으로 학습합니다.",
    "{model} trains at {value} tokens per second in the fastest of {n} runs: {name}.":
        "{model}: 실행 {n}개 중 가장 빠른 것은 초당 {value} 토큰으로 학습합니다({name}).",
    "No run of {model} can be called valid; the fastest of {n} says {value} tokens per second: {name}.":
        "{model}: 유효하다고 할 수 있는 실행이 없습니다. {n}개 중 가장 빠른 것은 초당 {value} 토큰입니다({name}).",
    "None of {n} runs of {model} has a rate.": "{model}: 실행 {n}개 모두 처리량이 없습니다.",
    "{model} on {device}: no rate, {ended}.": "{model}, {device}: 처리량 없음, {ended}.",
    "Nothing was measured here.": "여기서 측정된 것이 없습니다.",
    "Simulated, so it says nothing of speed: {text}": "시뮬레이션이므로 속도에 대해 말하는 바가 없습니다. {text}",
    "{n} claims of others were audited; none of them was measured here.":
        "남의 수치 {n}개를 감사했습니다. 여기서 측정한 것은 없습니다.",
    "Content tokens; there is no interval ({method}).": "내용 토큰 기준. 구간 없음({method}).",
    "Content tokens; 95 % interval {low} to {high} between {n} attempts.":
        "내용 토큰 기준. 시도 {n}회 사이의 95 % 구간 {low}~{high}.",
    "Content tokens; 95 % interval {low} to {high} within one attempt of {n} windows.":
        "내용 토큰 기준. 한 시도의 창 {n}개에서 구한 95 % 구간 {low}~{high}.",
    "Of {n}: {parts}.": "{n}개 중 {parts}.",
    "How others ended: {parts}.": "다르게 끝난 실행: {parts}.",
    "{n} {verdict}": "{verdict} {n}개",
    "ended well": "정상 종료", "out of memory": "메모리 부족", "failed": "실패", "killed": "강제 종료", "timed out": "시간 초과",
    "valid": "유효", "suspect": "의심", "invalid": "무효", "unknown": "알 수 없음", "note": "참고",
    "measured": "측정", "simulated": "시뮬레이션", "imported": "외부", "predicted": "예측",
    # The page.
    "{title}, {n:,} runs": "{title}, 실행 {n:,}개",
    "What the columns mean": "열의 뜻",
    "Raw steps of attempt {number}": "시도 {number}의 원시 스텝",
    "Raw steps of attempt {number}: {kept:,} of {windows:,} windows, the extremes among them":
        "시도 {number}의 원시 스텝: 창 {windows:,}개 중 {kept:,}개(극값 포함)",
    "This page holds the data of {n:,} of {all:,} runs; all are in runs.jsonl and report.csv beside it.":
        "이 페이지에는 실행 {all:,}개 중 {n:,}개의 데이터가 있습니다. 전체는 함께 있는 runs.jsonl과 report.csv에 있습니다.",
    "This page holds the data of all its runs; nothing is loaded from anywhere.":
        "이 페이지에 모든 실행의 데이터가 들어 있으며, 어디서도 내려받지 않습니다.",
    "timed": "측정", "yes": "예", "no": "아니요", "raw steps": "원시 스텝", "Skip to the numbers": "수치로 건너뛰기",
    "Dark": "어두운 화면", "Print": "인쇄", "Download JSON": "JSON 받기", "Download CSV": "CSV 받기",
    "The exact command": "정확한 명령",
    "Each run's attempts, raw steps, findings and command. A run's name in the store ends in its id.":
        "각 실행의 시도, 원시 스텝, 확인된 사항, 명령. 저장소의 실행 이름은 이 식별자로 끝납니다.",
    "The raw steps are not in this page: they lie in the store's records.":
        "원시 스텝은 이 페이지에 없고 저장소의 기록에 있습니다.",
    "Of its own environment": "이 실행만의 환경",
    # Workings.
    "{rate} tokens/s / {chips} chips": "초당 {rate} 토큰 / 칩 {chips}개",
    "1 - {content:,} content tokens / {slots:,} slots": "1 - 내용 토큰 {content:,} / 슬롯 {slots:,}",
    "{rate} slots/s x {flops} FLOPs per token / {peak} FLOP/s ({source})":
        "초당 슬롯 {rate} x 토큰당 FLOP {flops} / {peak} FLOP/s ({source})",
    "{joules} J / {content:,} content tokens": "{joules} J / 내용 토큰 {content:,}",
    "{bytes:,} bytes / 2^30, the most of any rank and attempt": "{bytes:,}바이트 / 2^30, 모든 랭크와 시도의 최댓값",
    "{bytes:,} bytes / 2^30, the allocation that failed": "{bytes:,}바이트 / 2^30, 실패한 할당",
    "{each} s, between synchronised window edges on the slowest rank": "{each}초, 가장 느린 랭크의 동기화한 창 경계 사이",
    "95 % interval {low} to {high}": "95 % 구간 {low}~{high}",
    "the {share}th percentile of seconds per step over the timed windows of all attempts ({steps:,} steps)":
        "모든 시도의 측정 창에서 스텝당 시간의 {share}번째 백분위수(스텝 {steps:,}개)",
    "{count:,} {what} / {seconds:.3f} s of {steps:,} timed steps = {rate} per second":
        "{what} {count:,} / 측정 스텝 {steps:,}개의 {seconds:.3f}초 = 초당 {rate}",
    "attempts: {rates}; the value is their geometric mean": "시도: {rates}. 값은 이들의 기하 평균",
    "content tokens (no padding)": "내용 토큰(패딩 제외)", "slots (batch x sequence)": "슬롯(배치 x 시퀀스)",
    "tokens with a label": "레이블이 있는 토큰",
    # Columns.
    "run": "실행", "content": "내용", "verdict": "판정", "attempts": "시도", "content per chip": "칩당 내용", "MFU": "MFU",
    "HFU": "HFU", "timed steps": "측정 스텝", "status": "상태", "model": "모델", "device": "디바이스", "strategy": "전략",
    "breakdown": "부분 측정", "step p50": "스텝 p50", "step p95": "스텝 p95", "warm-up steps": "워밍업 스텝",
    "to first step": "첫 스텝까지", "queued": "대기", "search": "탐색", "first loss": "첫 손실", "last loss": "마지막 손실",
    "stopped by": "종료 이유", "slots": "슬롯", "content tokens": "내용 토큰", "trained tokens": "학습 토큰", "memory": "메모리",
    "memory refused": "거부된 메모리", "available for it": "가용 메모리", "of the accelerator": "가속기 전체",
    "energy per token": "토큰당 에너지", "energy": "에너지", "power": "전력", "temperature": "온도", "clock": "클럭",
    "throttled": "성능 제한", "why no energy": "에너지가 없는 이유", "dataset": "데이터셋", "data sha256": "데이터 sha256",
    "train on": "학습 대상", "method": "방법", "precision": "정밀도", "checkpointing": "체크포인팅", "batching": "배치 방식",
    "sequence": "시퀀스", "micro batch": "마이크로 배치", "global batch": "전체 배치", "accumulation": "누적",
    "weights": "가중치", "optimizer": "옵티마이저", "learning rate": "학습률", "schedule": "스케줄", "clip norm": "클립 노름",
    "seed": "시드", "chip": "칩", "chips": "칩", "processes": "프로세스", "threads": "스레드", "data ranks": "데이터 랭크",
    "strategy selected": "선택된 전략", "parameters": "파라미터", "trainable": "학습 파라미터",
    "FLOPs per token": "토큰당 FLOP", "with full attention": "전체 어텐션 기준", "peak": "최대 성능",
    "peak's source": "최대 성능의 출처", "why no MFU": "MFU가 없는 이유", "python": "python", "steps": "스텝", "epochs": "에폭",
    "budget": "시간 한도", "warm-up": "워밍업", "tokens": "토큰", "sequences": "시퀀스", "steps done": "마친 스텝",
    "since the first": "처음부터", "claim": "수치", "source": "출처", "tool": "도구", "counts": "세는 대상", "count": "개수",
    "implied MFU": "역산한 MFU", "claimed": "주장", "chosen": "선택", "times the baseline": "기준의 배수", "judged": "판단",
    "selected": "고른 구성", "measured alike": "같은 조건", "over": "상대", "that is": "대상", "times as fast": "속도 배수",
    "left on the table": "놓친 몫", "severity": "심각도", "rule": "규칙", "what was noticed": "확인된 사항", "attempt": "시도",
    "origin": "출처 구분", "window": "창",
    "content tokens over the wall time of the timed steps, whole job": "작업 전체의 내용 토큰 / 측정 스텝의 벽시계 시간",
    "valid, suspect, invalid or unknown": "유효, 의심, 무효, 알 수 없음",
    "model FLOPs of all slots (causal, nothing recomputed) over peak FLOP/s":
        "모든 슬롯의 모델 FLOP(인과 어텐션, 재계산 제외) / 최대 FLOP/s",
    "the same with what checkpointing computed again": "체크포인팅이 다시 계산한 것을 더한 값",
    "ok, oom, error, killed or timeout": "ok, oom, error, killed, timeout",
    "every part of a step was waited for: its rate is not the run's": "스텝의 모든 부분을 기다렸으므로 처리량이 실행의 것이 아님",
    "the accelerator is a simulator's: no figure says how fast anything is":
        "시뮬레이터의 가속기이므로 어떤 수치도 속도를 말하지 않음",
    "from the launch to the first step's end; part of no rate": "시작부터 첫 스텝의 끝까지. 처리량에 들어가지 않음",
    "waiting for a turn on the device; part of no rate": "디바이스 차례를 기다린 시간. 처리량에 들어가지 않음",
    "choosing a parallel configuration, compiling included; part of no rate":
        "컴파일을 포함해 병렬 구성을 고르는 시간. 처리량에 들어가지 않음",
    "of the rank that held most": "가장 많이 쓴 랭크", "the allocation that failed": "실패한 할당",
    "all that the accelerator has": "가속기가 가진 전부",
    "by the device's own counters, per content token, timed part": "디바이스 자체 계측기, 내용 토큰당, 측정 구간",
    "of the timed part, all devices of the job": "측정 구간, 작업의 모든 디바이스",
    "mean of the timed part, all devices of the job": "측정 구간의 평균, 작업의 모든 디바이스",
    "highest of the timed part": "측정 구간의 최댓값", "mean of the timed part": "측정 구간의 평균",
    "samples of the timed part with a device slowed down": "디바이스가 느려진 표본의 비율(측정 구간)",
    # Terms.
    "Content tokens, never padding, of the whole job over the wall time of the timed steps.":
        "작업 전체의 내용 토큰(패딩 제외)을 측정 스텝의 벽시계 시간으로 나눈 값.",
    "tokens/s (slots)": "토큰/초(슬롯)",
    "Every slot of every batch (batch x sequence), padding included. Most published figures mean this one.":
        "패딩을 포함한 모든 배치의 모든 슬롯(배치 x 시퀀스). 공개된 수치 대부분이 이것입니다.",
    "tokens/s (trained)": "토큰/초(학습)",
    "Tokens that a loss was taken on.": "손실을 계산한 토큰.",
    "95 % interval": "95 % 구간",
    "Between attempts: Student's t on the logarithms of the attempts' rates. Within one run: batch means of its windows, "
    "which says nothing of how processes differ.":
        "시도 사이: 시도들의 처리량 로그에 대한 스튜던트 t. 한 실행 안: 창들의 배치 평균으로, 프로세스 사이의 차이는 알 수 "
        "없습니다.",
    "One life of the training processes, started afresh. It is the unit of replication.":
        "새로 시작한 학습 프로세스의 한 번의 실행. 반복의 단위입니다.",
    "One or more steps between two instants at which the device had finished all its work.":
        "디바이스가 모든 일을 마친 두 시점 사이의 하나 이상의 스텝.",
    "Steps before a change-point test finds the step time settled, or as many as were asked for. Not timed.":
        "변화점 검정이 스텝 시간이 안정되었다고 판단하기 전의 스텝, 또는 요청한 수만큼. 시간에 넣지 않습니다.",
    "The share of slots that hold no content.": "내용이 없는 슬롯의 비율.",
    "Slots per second x model FLOPs per token (causal attention, nothing recomputed) over the dense peak FLOP/s of the "
    "precision in use. Without a known peak there is none.":
        "초당 슬롯 x 토큰당 모델 FLOP(인과 어텐션, 재계산 제외) / 사용한 정밀도의 밀집 최대 FLOP/s. 최대 성능을 모르면 "
        "없습니다.",
    "MFU that counts what checkpointing computes again, too.": "체크포인팅이 다시 계산한 것까지 센 MFU.",
    "The rate over that of N0, the smallest size that was measured well.":
        "제대로 측정된 가장 작은 크기 N0의 처리량에 대한 비.",
    "Speed-up x N0 / N: 100 % where each chip that was added brings as much as one of N0's.":
        "속도 향상 x N0 / N. 더한 칩 하나하나가 N0의 칩만큼 내면 100 %입니다.",
    "Seconds in which a platform chose how to parallelize, compiling included. They are part of no rate.":
        "플랫폼이 병렬 구성을 고르는 데 쓴 초(컴파일 포함). 처리량에 들어가지 않습니다.",
    "Joules of the timed steps, of all devices of the job by their own counters, over content tokens. Without a counter "
    "there is none.":
        "작업의 모든 디바이스가 자체 계측기로 잰 측정 스텝의 에너지(J)를 내용 토큰 수로 나눈 값. 계측기가 없으면 없습니다.",
    "cost of a million tokens": "백만 토큰당 비용",
    "The user's price of an hour of the accelerator over the content tokens of an hour at the rate of the timed steps, x "
    "1,000,000. Setting up, searching and warming up cost besides.":
        "사용자가 준 가속기의 시간당 가격을, 측정 스텝의 처리량으로 한 시간 동안 학습하는 내용 토큰 수로 나누고 1,000,000을 곱한 "
        "값. 준비, 탐색, 워밍업의 비용은 따로 듭니다.",
    "Time in which computing stands still for other ranks, mean over ranks: what they exchange and nothing hides, ranks that "
    "are late, and a pipeline's bubble. Measured with every part of a step waited for.":
        "다른 랭크를 기다리느라 계산이 멈춘 시간(랭크 평균): 계산에 가려지지 않은 통신, 늦은 랭크, 파이프라인의 빈 구간. "
        "스텝의 부분마다 기다리며 잰 값입니다.",
    "The most bytes that the fullest rank held, as the device counts them; 1 GiB = 2^30 bytes.":
        "가장 많이 쓴 랭크의 최대 바이트 수를 디바이스가 센 대로. 1 GiB = 2^30바이트.",
    "valid: nothing contradicts the number. suspect: something disturbed it. invalid: it is no measurement of this "
    "training. unknown: too little is known. The findings say why.":
        "유효: 수치와 어긋나는 것이 없음. 의심: 무언가가 방해함. 무효: 이 학습의 측정이 아님. 알 수 없음: 아는 것이 너무 적음. "
        "이유는 ‘확인된 사항’에 있습니다.",
    "measured: by this harness, on the named device. simulated: on a simulated platform, so it says nothing of speed. "
    "imported: read from somebody else's log or table. predicted: by a model's arithmetic, nothing ran.":
        "측정: 이 도구가 해당 디바이스에서 잰 값. 시뮬레이션: 가상 플랫폼의 값으로 속도를 말하지 않음. 외부: 남의 로그나 표에서 "
        "읽은 값. 예측: 모형의 계산이며 실행하지 않음.",
    # Notes.
    "tokens/s: content tokens (no padding) over the wall time of the timed steps, whole job; slots: batch x sequence; "
    "trained: tokens with a label.":
        "토큰/초: 작업 전체의 내용 토큰(패딩 제외)을 측정 스텝의 벽시계 시간으로 나눈 값. 슬롯: 배치 x 시퀀스. 학습: 레이블이 "
        "있는 토큰.",
    "An interval is 95 %: between attempts where there are two or more, else within the one run.":
        "구간은 95 %이며, 시도가 둘 이상이면 시도 사이에서, 아니면 한 실행 안에서 구합니다.",
    "Not timed: preparing the data, starting, building the model, the peak's measurement, and the warm-up steps.":
        "시간에 넣지 않음: 데이터 준비, 시작, 모델 생성, 최대 성능 측정, 워밍업 스텝.",
    "An imported claim was not measured here. Its rate is as its source states it, and counts what its tool counts; the "
    "re-derived ones count every slot of a batch.":
        "외부 수치는 여기서 측정하지 않았습니다. 처리량은 출처에 적힌 그대로이며 그 도구가 세는 것을 셉니다. 다시 계산한 것은 "
        "배치의 모든 슬롯을 셉니다.",
    "Implied MFU: of the chips' dense peak, model FLOPs with causal attention, nothing recomputed.":
        "역산한 MFU: 칩의 밀집 최대 성능 대비, 인과 어텐션의 모델 FLOP, 재계산 제외.",
    "Valid means that nothing contradicts a claim.": "‘유효’는 수치와 어긋나는 것이 없다는 뜻입니다.",
    # The search of strategy auto.
    "What auto looked at, and what it tried": "auto가 살펴본 배치와 실제로 시험한 배치",
    "How many layouts there were, and why others were left out": "배치의 수와 제외된 이유",
    "Predicted and tried layouts": "예측한 배치와 시험한 배치",
    "Slot tokens per second: as predicted, with bounds of two standard deviations, and as tried.":
        "초당 슬롯 토큰 수. 예측값(표준편차 두 배의 범위)과 시험에서 잰 값.",
    "layout": "배치",
    "search paid back after": "탐색 시간 회수까지",
    "layouts": "배치",
    "micro-batch": "마이크로 배치",
    "at least": "최소",
    "at most": "최대",
    "tried": "시험",
    "trial": "시험 시간",
    "does not fit": "메모리 부족",
    "memory, predicted": "예측 메모리",
    "compute": "계산",
    "bubble": "파이프라인 공백",
    "data": "데이터",
    "outcome": "결과",
    "reason": "이유",
    "all candidates": "모든 후보",
    "possible": "가능",
    "fit in memory": "메모리에 들어감",
    "number": "개수",
    "took": "걸린 시간",
    "left out: {reason}": "제외됨: {reason}",
    # What was done before and after the timed part.
    "Held-out loss": "학습에서 뺀 문서의 손실",
    "held-out documents": "학습에서 뺀 문서",
    "held-out loss before": "학습 전 손실",
    "held-out loss after": "학습 후 손실",
    "documents kept out of training": "학습에 쓰지 않은 문서",
    "Completions": "이어 쓴 글",
    "prompt": "프롬프트",
    "before training": "학습 전",
    "after training": "학습 후",
    "Saved models": "저장된 모델",
    "folder": "폴더",
}  # fmt: skip
