"""Reads a claim that is one sentence: "Mistral 7B on 16 MI250: 390,000 tokens/s".

Model, chip, count, rate and what else it states are taken from its words, and said again, so that the reader sees how
it was understood. Where two readings remain, it asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunemark.errors import BadData
from tunemark.physics.chip_peaks import parse_precision
from tunemark.plugin.claims import Claim
from tunemark_importers.chinese_sentences import put_han_into_english
from tunemark_importers.figure_names import NameMeaning, meaning_of
from tunemark_importers.json_documents import pop_layout
from tunemark_importers.korean_sentences import put_into_english
from tunemark_importers.named_things import find_chip_words, find_sized_words, models_in
from tunemark_importers.numbers import multiply_exactly, parse_number

MEANING = "tokens per second as somebody states them; what they count is unknown"

_MAX_LENGTH = 600
_NUMBER = re.compile(r"(?<![\w.])(?<![0-9],)([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)\s?([kKMBT]?)(?![\w])")
_NUMBER_WORDS = {
    "one": 1, "a single": 1, "single": 1, "two": 2, "four": 4, "eight": 8, "sixteen": 16, "a": 1, "an": 1,
}  # fmt: skip
_DEVICE_WORD = r"(?:gpus?|devices?|chips?|accelerators?|npus?|cards?|tpus?)"
_PRECISION = re.compile(r"\b(?:bf16|bfloat16|fp16|float16|fp8|mxfp8|fp32|float32|tf32|nvfp4|fp4|mxfp4)\b", re.I)
_METHOD = re.compile(r"\b(q?lora|qdora|dora|full(?: parameter)?(?: fine-?tun\w*)?|pre-?train\w*)\b", re.I)
_SEQUENCE = (
    re.compile(r"\b(?:sequence|seq|context|ctx|block)[ _-]?(?:length|len|size|window)?s?\s*(?:of|is|=|:)?\s*"
               r"([0-9]+(?:,[0-9]{3})*)\s?([kK]?)\b", re.I),
    re.compile(r"\b([0-9]+(?:,[0-9]{3})*)\s?([kK]?)[ -](?:tokens?[ -])?(?:context|sequences?|seq(?:len)?)\b", re.I),
    re.compile(
        r"\b(?:at|samples? of|sequences? of|examples? of|rows of)\s+([0-9]+(?:,[0-9]{3})*)\s?([kK]?) tokens\b"
        r"(?!\s*(?:/|per|a |each|every))", re.I,
    ),
    re.compile(r"\b([0-9]+(?:,[0-9]{3})*)([kK]?)-tokens? (?:samples?|examples?|rows?|documents?)\b", re.I),
)  # fmt: skip
_BATCH = re.compile(
    r"\b((?:global|total|effective|micro|local|per[- ]device|per[- ]gpu)[ -]?)?(?:batch(?:[ _-]?size)?|bs|gbs|mbs)\s*"
    rf"(?:of|is|=|:)?\s*([0-9]+(?:,[0-9]{{3}})*)(\s*(?:sequences?|seqs)?\s*(?:/|per|each|on each)\s*{_DEVICE_WORD}?)?",
    re.I,
)
# The length behind a batch, as in `global batch 64 x 4096`; a shorter number may be of devices or of passes.
_BY_LENGTH = re.compile(
    r"(?:\s*[xX\u00d7*]\s*|\s+(?:and|of)\s+(?=[0-9,kK]+ tokens\b))"
    r"([0-9]{4,7}|[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,4}(?=[kK]\b))([kK]?)\b(?!\s*(?:GPU|device|[A-Z]{1,3}[0-9]))"
)
# The tokens of a step, as in `a batch of 16M tokens`.
_SCALED = r"([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)\s?([kKM]?)"
_BATCH_OF_TOKENS = re.compile(
    rf"\b(?:(?:global|total|effective)[ -]?)?(?:batch(?:[ _-]?size)?|gbs)\s*(?:of|is|=|:)?\s*{_SCALED}[ -]tokens?\b"
    rf"(?!\s*(?:/|per|on each|each))|\b{_SCALED}[ -]tokens?[ -](?:(?:global|total)[ -])?batch(?:es)?\b"
    rf"|\b{_SCALED} tokens? (?:per|a|each) (?:step|batch|iteration)\b", re.I,
)  # fmt: skip
_GENERATION = re.compile(
    r"\b(?:inference|generat(?:es?|ed|ing|ion)|decod(?:es?|ed|ing)|prefill|serv(?:es?|ed|ing)|vllm|sglang|tensorrt-llm|"
    r"llama\.cpp|ollama|output tokens?)\b", re.I,
)  # fmt: skip
_TRAINING = re.compile(
    r"\b(?:(?:pre-?)?train(?:s|ed|ing)?|fine-?tun(?:es?|ed|ing)|q?lora|q?dora|sft|dpo|grpo|ppo|rlhf|mfu|backward|steps?)\b",
    re.I,
)
_NODES = re.compile(r"\b([0-9]{1,5})\s*(?:x\s*)?(?:nodes?|hosts?|machines?|servers?)\b", re.I)
# Words that people use for what the grammar calls by one name.
_PLAIN = (
    (re.compile(r"\bhalf a million\b", re.I), "500k"),
    (re.compile(r"(?<=[0-9]) ?(?:million|mn|mio)\b", re.I), "M"),
    (re.compile(r"(?<=[0-9]) ?(?:thousand)\b", re.I), "k"),
    (re.compile(r"(?<=[0-9]) ?(?:billion|bn)\b", re.I), "B"),
    (re.compile(r"(?<=[0-9]) ?(?:trillion)\b", re.I), "T"),
    (re.compile(r"\b(tokens?|samples?|sequences?|steps?) (?:every|each|a) (second|minute|hour|day)\b", re.I),
     r"\1 per \2"),
    # A card by its number alone.
    (re.compile(r"\b(an?|one|single|on|two|four|eight|[0-9]{1,3} ?[x\u00d7]?) ?([345]0[6-9]0)(?= ?Ti\b|s\b|\b)"
                r"(?! ?(?:[kKM]?\b ?)?(?:tok|sample|seq|step|s\b|ms\b))", re.I), r"\1 RTX \2"),
    # A name before its number, as in `tokens/s: 390000`.
    (re.compile(r"\b((?:tokens?|toks?|samples?|seqs?)(?: ?/ ?| per )(?:s|sec|second)"
                r"(?:(?: ?/ ?| per )(?:gpu|device|chip))?)\s*[:=]\s*([0-9][0-9.,]*[kM]?)(?![\w%])", re.I), r"\2 \1"),
)  # fmt: skip
_SECONDS_OF = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME_WORD = r"(?:seconds?|secs?|s|minutes?|mins?|hours?|hrs?|h|days?)"
_COUNT_OF_TOKENS = r"(?P<tokens>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)\s?(?P<scale>[kKMBT]?) tokens\b"
_TIME_OF = rf"(?P<time>[0-9]+(?:\.[0-9]+)?)\s?(?P<unit>{_TIME_WORD})\b"
_TOKENS_IN = re.compile(
    rf"{_COUNT_OF_TOKENS} (?:\w+ ){{0,3}}(?:in|within|took|takes|over) (?:about |around )?{_TIME_OF}", re.I
)
_TIME_FOR = re.compile(rf"{_TIME_OF} (?:for|to train(?: on)?|to process) {_COUNT_OF_TOKENS}", re.I)
_RANGE = re.compile(
    r"(?:between )?([0-9][0-9.,]*)\s?[kM]? ?(?:and|to|-|\u2013|or) ?([0-9][0-9.,]*)\s?[kM]? ?(?:tokens?|toks?|samples?)"
    r" ?(?:/|per) ?(?:s|sec|second)\b", re.I,
)  # fmt: skip
_PER_NODE = r"\s*\(?(?:per|/|a|on each|for each)\s*(?:nodes?|hosts?|machines?|servers?)\b\)?"
_COUNT = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,6}"
# `2.664M H800 GPU hours`, `1,720,320 GPU-hours`, `1.7M A100 hours`.
_DEVICE_HOURS = re.compile(
    r"(?<![\w.,])([0-9][0-9.,]*\s?[kKMB]?)\s+((?:[A-Z][\w-]*\s?){0,3}?)(?:(?:GPU|TPU|NPU|chip|accelerator|device|card)s?)?"
    r"[ -]?hours?\b", re.I,
)  # fmt: skip
_HOURS_MARK = "gpuhours"
_TOKENS_OF_HOURS = re.compile(rf"{_COUNT_OF_TOKENS}(?!\s*(?:/|per|a (?:second|step|batch)|each|every))", re.I)
_MORE = rf"\s*(?:per|/|a|on each)\s*{_DEVICE_WORD}\b|\s*each\b|\s*apiece\b"


@dataclass
class _Reading:
    """What is understood so far: facts of a claim, the words of each, the places that are used, and the devices of one
    node, where nodes are counted."""

    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    used: list[tuple[int, int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    node_devices: int | None = None
    step_tokens: float | None = None

    def take(self, name: str, value: Any, match: tuple[int, int], said: str) -> None:
        known = self.facts.get(name)
        if known is not None and known != value:
            raise BadData(
                what=f"the sentence states two values of one thing: {self.words[name]!r} and {self._cut(match)!r}",
                why=f"both would be its {name.replace('_', ' ')}",
                next="state one claim at a time",
            )
        if known is None:
            self.facts[name] = value
            self.words[name] = self._cut(match)
            self.said.append(said)
        self.used.append(match)

    def is_free(self, start: int, end: int) -> bool:
        return all(end <= a or start >= b for a, b in self.used)

    def _cut(self, match: tuple[int, int]) -> str:
        return self.text[match[0] : match[1]].strip()


def is_document(head: str) -> bool:
    """Whether a text is one sentence that states a rate, and of what or on what."""
    text = head.strip()
    if not text or len(text) > _MAX_LENGTH or "\n" in text or text[0] in "{[<|":
        return False
    if re.search(r"\b(?:step|iter(?:ation)?|loss|epoch)\b\s*[:=\[]?\s*[0-9]", text, re.I) or text.count("=") > 2:
        return False
    text = _plain(text)
    known = (*_UNITS, "mfu")
    rates = (
        [meaning for *_, meaning in _figures(text) if meaning.quantity in known]
        or _find_whole(text)
        or _find_hours(text)
    )
    on = re.search(rf"\b{_DEVICE_WORD}\b", text, re.I) or find_chip_words(text) is not None
    return bool(rates) and bool(on or find_sized_words(text))


def document(id: str, source: str, text: str) -> Sequence[Claim]:
    """The claim of a sentence. Raises `BadData`, with a question, where it can be understood in two ways."""
    text = _plain(" ".join(text.split()))
    reading = _Reading(text)
    _take_model(reading)
    _take_device(reading)
    _take_settings(reading)
    _take_whole(reading)
    _take_figures(reading)
    _refuse_generation(reading)
    if reading.step_tokens and "step_time_s" in reading.facts and "tokens_total" not in reading.facts:
        # The tokens of one step over its time.
        reading.facts["tokens_total"], reading.facts["train_s"] = reading.step_tokens, reading.facts["step_time_s"]
    if not any(name in reading.facts for name in ("tokens_per_s", "tokens_per_s_per_device", "tflops_per_device", "mfu",
                                                  "samples_per_s", "step_time_s", "tokens_total")):  # fmt: skip
        raise BadData(
            what="the sentence states no rate",
            why=repr(text[:200]),
            next="state one with its unit, such as 390,000 tokens/s",
        )
    facts = reading.facts
    lacks = [words for name, words in (
        ("model", "the model"), ("device", "the chip"), ("count", "how many"), ("precision", "the precision"),
        ("sequence", "the sequence length"), ("global_batch", "the global batch"), ("method", "what is trained"),
    ) if name not in facts and not (name == "global_batch" and "micro_batch" in facts)]  # fmt: skip
    rest = [m[0].strip() for m in _NUMBER.finditer(text) if reading.is_free(*m.span())]
    note = f"understood as: {'; '.join(reading.said)}"
    note += f". Not stated: {', '.join(lacks)}" if lacks else ""
    note += f". Not used: {', '.join(rest)}" if rest else ""
    origin = {name: f"{words!r} in the sentence" for name, words in reading.words.items()}
    layout = pop_layout(facts)
    return [
        Claim(
            id=id, source=source, tool="sentence", meaning=MEANING, layout=layout, origin=origin, notes=(note,), **facts
        )
    ]


def _refuse_generation(reading: _Reading) -> None:
    """A rate of inference is no rate of training: no FLOPs of a backward pass stand behind it."""
    text = reading.text
    if "tokens_per_s" not in reading.facts and "tokens_per_s_per_device" not in reading.facts:
        return
    words = reading.words.get("tokens_per_s") or reading.words["tokens_per_s_per_device"]
    clause = next((one for one in re.split(r"[;]|[,.:](?=\s)", text) if words in one), text)
    about = text if not _TRAINING.search(text) else clause if not _TRAINING.search(clause) else ""
    if found := _GENERATION.search(about):
        raise BadData(
            what=f"{found[0]!r}: {words!r} is said of generating text",
            why="audit holds rates against the work of training, which is three times that of reading a token",
            next="state a rate of training",
        )


def _plain(text: str) -> str:
    text = put_han_into_english(put_into_english(text))
    for pattern, by in _PLAIN:
        text = pattern.sub(by, text)
    text = _DEVICE_HOURS.sub(_device_hours, text)
    chip = find_chip_words(text)
    if chip is not None and re.search(r"(?:\bper|/|\bon each|\beach)\s*$", text[: chip[0]], re.I):
        # A rate `per A100` is one of each device.
        text = f"{text[: chip[0]].rstrip()} GPU{text[chip[1] :]}; {text[chip[0] : chip[1]]}"
    return text


def _device_hours(match: re.Match[str]) -> str:
    """`2.664M H800 GPU hours` as `2.664M gpuhours`, and the chip's name if it is not named elsewhere."""
    words = match[2].strip()
    is_device = re.search(rf"{_DEVICE_WORD}\W*hours?$", match[0], re.I) is not None
    if not is_device and find_chip_words(words) is None:
        return match[0]
    elsewhere = match.string[: match.start()] + " , " + match.string[match.end() :]
    shown = f", {words}," if words and find_chip_words(elsewhere) is None else ""
    return f"{match[1]} {_HOURS_MARK}{shown}"


def _find_hours(text: str) -> tuple[re.Match[str], re.Match[str]] | None:
    """The hours of single devices that a training took, and its tokens."""
    hours = re.search(rf"(?<![\w.,])([0-9][0-9.,]*[0-9]|[0-9])\s?([kKMB]?) {_HOURS_MARK}", text)
    tokens = _TOKENS_OF_HOURS.search(text)
    return (hours, tokens) if hours is not None and tokens is not None else None


def _find_whole(text: str) -> re.Match[str] | None:
    return _TOKENS_IN.search(text) or _TIME_FOR.search(text)


def _take_whole(reading: _Reading) -> None:
    """Tokens of a whole training and its time; a range of rates is asked about."""
    match = _find_whole(reading.text)
    if match is not None:
        tokens, time = parse_number(match["tokens"]), parse_number(match["time"])
        if tokens is not None and time is not None:
            total = multiply_exactly(
                tokens, {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "": 1.0}[match["scale"]]
            )
            seconds = multiply_exactly(time, _SECONDS_OF[match["unit"][0].lower()])
            reading.take("tokens_total", total, match.span(), f"{total:,.10g} tokens in all")
            reading.take("train_s", seconds, match.span(), f"{seconds:,.10g} s for them")
    elif (both := _find_hours(reading.text)) is not None:
        hours, match = both
        spent, tokens = parse_number(hours[1]), parse_number(match["tokens"])
        if spent and tokens:
            scale = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12, "": 1.0}
            seconds = multiply_exactly(spent, scale[hours[2].lower()]) * 3600
            rate = multiply_exactly(tokens, scale[match["scale"].lower()]) / seconds
            reading.used.append(hours.span())
            said = f"{hours[1]}{hours[2]} device-hours for {match[0]}: {rate:,.6g} tokens/s of each device"
            reading.take("tokens_per_s_per_device", rate, match.span(), said)
    if found := _RANGE.search(reading.text):
        raise BadData(
            what=f"{found[0].strip()!r} is a range of rates",
            why=repr(reading.text[:200]),
            next="state one claim at a time",
        )


def _take_model(reading: _Reading) -> None:
    """The longest words that name an installed or a published model, else words that end in a size."""
    text = reading.text
    found: dict[str, tuple[int, int]] = {}
    for start, end, name in models_in(text):
        if all(end <= a or start >= b for a, b in found.values()):
            found.setdefault(name, (start, end))
    if len(found) > 1:
        raise BadData(
            what=f"the sentence names two models: {' and '.join(found)}",
            why=repr(text[:200]),
            next="state one claim at a time",
        )
    for name, span in found.items():
        reading.take("model", name, span, f"model {name} ({text[slice(*span)]!r})")
        return
    if (sized := find_sized_words(text)) is not None:
        words = text[slice(*sized)]
        known = f"model {words!r}, which is not installed: its size is all that is known"
        reading.take("model", words, sized, known)


def _take_device(reading: _Reading) -> None:
    text = reading.text
    chip = find_chip_words(text)
    if chip is not None:
        start, end, name = chip
        other = find_chip_words(f"{text[:start]} , {text[end:]}")
        if other is not None and not (other[2].startswith(name) or name.startswith(other[2])):
            raise BadData(
                what=f"the sentence names two chips: {name} and {other[2]}",
                why=repr(text[:200]),
                next="state one claim at a time",
            )
        reading.take("device", name, (start, end), f"chip {name}")
        before, after = text[:start], text[end:]
    else:
        match = re.search(rf"\b{_DEVICE_WORD}\b", text, re.I)
        before, after = (text[: match.start()], text[match.end() :]) if match else ("", "")
        start = end = match.start() if match else 0
        if match is None:
            return
    number = re.search(
        rf"(?<![\w.,])({_COUNT})\s*(?:[xX\u00d7*]|of the|of)?\s*(?:nvidia|amd|intel|google)?\s*$", before, re.I
    )
    times = re.match(
        rf"\s*(?:{_DEVICE_WORD}\s*)?[xX\u00d7*]\s*([0-9]{{1,6}})\b|\s*\(([0-9]{{1,6}})\s*{_DEVICE_WORD}\)", after, re.I
    )
    word = re.search(
        r"\b(a single|single|one|two|four|eight|sixteen|an?)\s+(?:nvidia|amd|intel|google)?\s*$", before, re.I
    )
    count: int | None = None
    span = (start, end)
    if number:
        count, span = int(number[1].replace(",", "")), (number.start(1), end)
    elif times:
        count, span = int(times[1] or times[2]), (start, end + times.end())
    elif counted := re.search(rf"(?<![\w.,-])({_COUNT})\s*[xX\u00d7*]?\s*{_DEVICE_WORD}\b", text, re.I):
        count, span = int(counted[1].replace(",", "")), counted.span()
    elif counted := re.search(rf"\b(one|a single|single|two|four|eight|sixteen)\s+{_DEVICE_WORD}\b", text, re.I):
        count, span = _NUMBER_WORDS[counted[1].lower()], counted.span()
    elif word:
        count, span = _NUMBER_WORDS[word[1].lower()], (word.start(1), end)
    nodes = _NODES.search(text)
    if nodes and count is not None and int(nodes[1]) > 0 and count % int(nodes[1]) == 0 and (
        re.search(r"\(\s*(?:on |over |across )?$", text[: nodes.start()])
        or re.search(rf"{count}[^.;()]{{0,40}}\b(?:in total|in all|altogether)", text)
    ):  # fmt: skip
        # 64 H100 (8 nodes): they are all of them.
        reading.used.append(nodes.span())
        reading.node_devices = count // int(nodes[1])
    elif nodes and int(nodes[1]) > 1:
        per_node = re.search(r"\b(?:each|per (?:node|host|machine|server)|every)\b", text, re.I) or re.match(
            r"\s*(?:x|\u00d7|\*|of|with)\s*[0-9]", text[nodes.end() :], re.I
        )
        if count is None or not per_node:
            raise BadData(
                what=f"the sentence says {nodes[0]!r}, and not how many chips in all",
                why=repr(text[:200]),
                next="state the chips of the whole job, or how many each node has: 4 nodes with 8 H100 each",
            )
        reading.used.append(nodes.span())
        reading.node_devices = count
        count *= int(nodes[1])
    if count is not None:
        reading.facts.pop("count", None)
        reading.take("count", count, span, f"{count} of them")


def _take_settings(reading: _Reading) -> None:
    text = reading.text
    for match in _PRECISION.finditer(text):
        reading.take(
            "precision",
            parse_precision(match[0].lower()) or match[0].lower(),
            match.span(),
            f"precision {match[0].lower()}",
        )
    for match in _METHOD.finditer(text):
        word = match[1].lower()
        method = "lora" if "ora" in word else "full"
        reading.take("method", method, match.span(), "adapters trained" if method == "lora" else "all weights trained")
    for pattern in _SEQUENCE:
        for match in pattern.finditer(text):
            value = parse_number(match[1])
            if value is not None and reading.is_free(*match.span()):
                sequence = int(value) * (1024 if match[2] else 1)
                reading.take("sequence", sequence, match.span(), f"sequences of {sequence:,} tokens")
    for match in _BATCH_OF_TOKENS.finditer(text):
        printed, scale = next((match[at], match[at + 1]) for at in (1, 3, 5) if match[at])
        tokens = multiply_exactly(parse_number(printed) or 0.0, {"k": 1e3, "m": 1e6}.get(scale.lower(), 1.0))
        reading.used.append(match.span())
        reading.step_tokens = tokens
        reading.said.append(f"{tokens:,.10g} tokens a step")
    for match in _BATCH.finditer(text):
        value = parse_number(match[2])
        if value is None or not reading.is_free(*match.span()):
            continue
        kind = (match[1] or "").lower()
        times = _BY_LENGTH.match(text, match.end())
        if times is not None and (length := parse_number(times[1])) is not None:
            sequence = int(length) * (1024 if times[2] else 1)
            reading.take("sequence", sequence, times.span(), f"sequences of {sequence:,} tokens")
        if re.match(r"global|total|effective", kind):
            reading.take("global_batch", int(value), match.span(), f"a global batch of {int(value):,}")
        elif kind or match[3]:
            reading.take("micro_batch", int(value), match.span(), f"{int(value):,} sequences per device and pass")
        elif reading.facts.get("count") == 1:
            reading.take("global_batch", int(value), match.span(), f"a batch of {int(value):,}")
        else:
            raise BadData(
                what=f"{match[0].strip()!r} may be the batch of the whole job, or of each device",
                why=repr(text[:200]),
                next="write 'global batch' or 'batch per GPU'",
            )


def _figures(text: str) -> Iterator[tuple[int, int, float, NameMeaning]]:
    """Numbers with the unit or the name of a figure: place, value as printed, meaning."""
    for match in _NUMBER.finditer(text):
        value = parse_number(match[1])
        if value is None:
            continue
        value = multiply_exactly(value, {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "": 1.0}[match[2]])
        words = list(re.finditer(r"[^\s,;:()]+", text[match.end() : match.end() + 80]))
        ends = [w.end() for w in words[:7]]
        behind = text[match.end() :]
        if behind[:1] == "%":
            around = text[max(0, match.start() - 30) : match.end() + 30]
            if re.search(r"\bmfu\b", around, re.I):
                yield match.start(), match.end() + 1, value / 100, NameMeaning(quantity="mfu")
            continue
        for end in reversed(ends):
            unit = behind[:end].strip()
            # What parentheses hold is a unit only if it goes on with it, as `tok/s (per GPU)`.
            if re.search(r"[0-9]|\((?!\s*(?:per|/|each|on each)\b)", unit):
                continue
            meaning = meaning_of("", unit) or (meaning_of(unit) if "/" in unit or "per" in unit.split() else None)
            if meaning is not None and meaning.quantity in _UNITS:
                if not re.fullmatch(_UNIT_END, unit, re.I):
                    continue
                yield match.start(), match.end() + end, multiply_exactly(value, meaning.scale or 1.0), meaning
                break


_UNITS = ("tokens_per_s", "samples_per_s", "steps_per_s", "tflops", "duration")
# A unit ends in a time, a step, a device or a rate's short name, so that no word of the sentence is taken for it.
_UNIT_END = (
    r".*(?:\bs|sec|secs|second|seconds|minute|min|hour|day|tps|flops?(?:/s)?|tflops|step|it|iter|iteration|"
    rf"{_DEVICE_WORD})\.?"
)


def _take_figures(reading: _Reading) -> None:
    text = reading.text
    last: str | None = None
    for start, end, value, meaning in _figures(text):
        if not reading.is_free(start, end):
            continue
        behind = text[end:]
        more = re.match(_MORE, behind, re.I)
        is_device = meaning.scope == "device" or more is not None
        end += more.end() if more else 0
        if meaning.quantity == "tokens_per_s":
            is_total = meaning.scope == "job" or re.match(
                r"\s*(?:in total|total|altogether|combined|overall)", behind, re.I
            )
            if of_node := re.match(_PER_NODE, behind, re.I):
                nodes = reading.facts["count"] // reading.node_devices if reading.node_devices else None
                if nodes is None:
                    raise BadData(
                        what=f"{text[start:end].strip()}{of_node[0]} is the rate of one node",
                        why=repr(text[:200]),
                        next="state how many nodes there are and the chips of each: 4 nodes with 8 H100 each",
                    )
                place, value = (start, end + of_node.end()), multiply_exactly(value, float(nodes))
                reading.take("tokens_per_s", value, place, f"{value:,.10g} tokens/s of all {nodes} nodes")
            elif is_device and not is_total:
                reading.take("tokens_per_s_per_device", value, (start, end), f"{value:,.10g} tokens/s of each device")
            else:
                reading.take("tokens_per_s", value, (start, end), f"{value:,.10g} tokens/s of the whole job")
            last = "tokens"
        elif meaning.quantity == "samples_per_s":
            name = "samples_per_s"
            if is_device and reading.facts.get("count") is None:
                continue
            value *= reading.facts["count"] if is_device else 1
            reading.take(name, value, (start, end), f"{value:,.10g} sequences/s of the whole job")
        elif meaning.quantity == "tflops":
            reading.take("tflops_per_device", value, (start, end), f"{value:,.10g} TFLOP/s of each device")
        elif meaning.quantity == "mfu":
            reading.take("mfu", value, (start, end), f"an MFU of {100 * value:.4g} %")
        elif meaning.quantity == "duration":
            reading.take("step_time_s", value, (start, end), f"{value:,.6g} s a step")
        elif meaning.quantity == "steps_per_s" and value > 0:
            reading.take("step_time_s", 1 / value, (start, end), f"{value:,.6g} steps/s")
    if last == "tokens":
        # `390,000 tokens/s (24,375 per GPU)`.
        for match in re.finditer(
            rf"(?<![\w.])(?<![0-9],)([0-9]+(?:,[0-9]{{3}})*(?:\.[0-9]+)?)\s?([kKM]?)(?:{_MORE})", text, re.I
        ):
            number = parse_number(match[1])
            if number is not None and reading.is_free(*match.span()) and "tokens_per_s_per_device" not in reading.facts:
                number = multiply_exactly(number, {"k": 1e3, "K": 1e3, "M": 1e6}.get(match[2], 1.0))
                reading.take("tokens_per_s_per_device", number, match.span(), f"{number:,.10g} tokens/s of each device")
