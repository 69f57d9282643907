"""Binds the numbers of a line to names, by one grammar for all programs.

`name: value`, `name=value`, `name value`, `value unit`, dictionaries and fields between bars are read by one rule: a
name is bound to the number that follows it, or to the one before it, such that as many names as possible are bound.
Where two such readings remain, the number has no name. Only the words of a line decide, so the decision is made once
for all lines of the same words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunemark_importers.figure_names import (
    NameMeaning,
    is_name_of_number,
    is_unit,
    meaning_of,
    unit_factor,
    unit_meaning,
)
from tunemark_importers.numbers import parse_clock, parse_number

_UNIT = r"[kKMBGT]|ms|us|µs|s|sec|secs|m|min|h|it|[kKMGT]i?B|[TGP]?FLOPs?|TFLOPS|[a-z]*/[a-zA-Z]+"
# Digits with what separates them, also in a clock; whether they make one number is decided when they are parsed.
_DIGITS = r"[0-9](?:[0-9.,:'_\u2019\u00a0\u2009\u202f]*[0-9])?(?:[eE][+-]?[0-9]+)?"
_END = rf"(?=(?:{_UNIT})?(?![A-Za-z0-9_]|\.[0-9]))"
_NUMBER = re.compile(rf"((?=[0-9])(?<![A-Za-z0-9_.])(?<!\w-){_DIGITS}{_END})")
# The same for the few lines that have one of these.
_SPECIAL = re.compile(r"[nNiI](?<!\w\w)(?:[aA][nN]|[nN][fF])(?:inity)?(?!\w)")
_SPECIAL_WORDS = ("nan", "NaN", "NAN", "inf", "Inf", "INF", "nAN", "Nan")
_NUMBER_OR_SPECIAL = re.compile(
    rf"((?=[0-9])(?<![A-Za-z0-9_.])(?<!\w-){_DIGITS}{_END}|(?<![A-Za-z0-9_.])(?:nan|NaN|NAN|inf|Inf|INF|Infinity)(?!\w))"
)
_UNREAD_DIGITS = re.compile(r"[0-9]+")
_PLAIN = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_MARK = "\x00"
_QUOTED_PAIR = re.compile(rf"[\"']([^\"'{_MARK}\n]{{1,120}})[\"']\s*:\s*[\"']?{_MARK}[\"']?\s*(?=[,}}\]])")
_INDEX = re.compile(rf"(?<=\w)[\[(#]\s*({_MARK}(?:\s*(?:/|of)\s*{_MARK})?)\s*[\])]?")
_SIGN = re.compile(rf"(?<=[\s=:])[+-](?={_MARK})")
# Between these no name reaches its number: bars, commas, bullets, brackets, a dash between blanks, a ratio as 1.42x,
# bytes per second.
_BORDER = re.compile(
    r"[kKMGT]i?B(?:/s(?:ec)?|ps)(?!\w)|"
    r"[|,;\t\n\u2022\u2192{}\[\]<>]|\s[-\u2013\u2014\u00b7*]+\s|(?<![\w.])[0-9]+(?:\.[0-9]+)?[xX\u00d7](?!\w)"
)
_WORD = re.compile(r"[^\s]+")
_JOINT = re.compile(r"\s*(?::=|->|[:=])\s*[+-]?\Z")
# Units with a product below the bar, as `tok/(gpu*s)`.
_PRODUCT = re.compile(r"/ ?\(\s*([A-Za-z]+)\s*[*\u00b7\u00d7x.]\s*([A-Za-z]+)\s*\)")
# 40.019 is forty thousand where a comma stands before decimals.
_DECIMAL_COMMA = re.compile(r"[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})")
# Cells that hold names and numbers in turn: a name belongs to the cell behind it.
_CELL = r"[^\x00\t|,;0-9:=]{1,60}"
_IN_TURN = re.compile(rf"(?:\s*{_MARK}\s*[\t])?(?:\s*{_CELL}[\t]\s*{_MARK}[ %]*(?:\t|\s*\Z)){{2,}}")
# 1h 2m 3.5s is one duration.
_COMPOUND = re.compile(
    r"(?<![\w.])(?:([0-9]{1,4})d ?)?(?:([0-9]{1,4})h(?:rs?)? ?)?([0-9]{1,4})m(?:in)? ?"
    r"([0-9]{1,2}(?:\.[0-9]{1,9})?)s(?:ec)?(?!\w)"
)
_JOINED = re.compile(rf"/ ?\(|[0-9{_MARK}] ?m(?:in)? ?[0-9{_MARK}]")
# key=word pairs, as in logfmt, name no number.
_WORD_PAIR = re.compile(r"(?<![\w\x00])[A-Za-z_][\w.]*=(?:\"[^\"\x00]*\"|[A-Za-z_/][^\s\x00=,;|]*)(?=[\s,;|]|\Z)")
_IDENTIFIER = re.compile(r"[a-z]_[a-z]", re.I)
_POSITIVE = (
    "tokens_per_s",
    "samples_per_s",
    "steps_per_s",
    "tflops",
    "mfu",
    "duration",
    "elapsed",
    "tokens",
    "samples",
)
_PIECES = 64
_NAME_WORDS = 8
_CACHED = 4096
_MAX_TEXT = 4096


class NamedValue(NamedTuple):
    """A number and the name that it is bound to. of: the total in `3/100`; None if there is none. text: as printed."""

    name: str
    meaning: NameMeaning
    value: float
    text: str
    of: float | None = None


@dataclass(frozen=True, slots=True)
class _Binding:
    at: int
    name: str
    meaning: NameMeaning
    of: int | None


class NamedValues:
    """Finds the named values of lines; remembers the bindings of each kind of line.

    ambiguous: an example of a line with two readings, and how many there were.
    """

    def __init__(self) -> None:
        self._bindings: dict[str, _LineWords] = {}
        self.ambiguous: tuple[int, str] | None = None

    def find(self, text: str) -> list[NamedValue]:
        """The values of a line whose names have a meaning here."""
        if len(text) > _MAX_TEXT:
            text = text[:_MAX_TEXT]
        is_special = any(word in text for word in _SPECIAL_WORDS) and _SPECIAL.search(text)
        pieces = (_NUMBER_OR_SPECIAL if is_special else _NUMBER).split(text)
        if len(pieces) < 3 or len(pieces) > 2 * _PIECES:
            return []
        words = _MARK.join(pieces[::2])
        known = self._bindings.get(words)
        if known is None:
            kind = _UNREAD_DIGITS.sub("0", words)
            known = self._bindings.get(kind) or _LineWords.of(words, is_readable=_MARK not in text)
            if len(self._bindings) >= _CACHED:
                self._bindings.clear()
            self._bindings[words] = self._bindings[kind] = known
        if known.is_joined:
            plain = _COMPOUND.sub(_compound_seconds, _PRODUCT.sub(r"/\1/\2", text))
            if plain != text:
                return self.find(plain)
        bindings, is_ambiguous = known.bindings, known.is_ambiguous
        if known.is_spaced and bindings:
            bindings, is_ambiguous = _without_spaced(bindings, pieces)
        if is_ambiguous:
            self.ambiguous = ((self.ambiguous or (0, ""))[0] + 1, text.strip()[:120])
        printed = [pieces[2 * one.at + 1] for one in bindings]
        if "," in text and any(_DECIMAL_COMMA.fullmatch(number) for number in printed):
            # A figure beside it has a comma before its decimals, so a point separates thousands here.
            printed = [_with_decimal_comma(number) for number in printed]
        found = []
        for one, number in zip(bindings, printed, strict=True):
            value = _parse(number, one.meaning)
            if value is not None:
                if pieces[2 * one.at].endswith("-"):
                    value = -value
                if value < 0 and one.meaning.quantity in _POSITIVE:
                    # Some programs print so that they do not know it yet.
                    continue
                total = None if one.of is None else parse_number(pieces[2 * one.of + 1])
                found.append(NamedValue(one.name, one.meaning, value, number, total))
        return found


@dataclass(frozen=True, slots=True)
class _LineWords:
    """What the words of a line tell, whatever its numbers are. is_ambiguous: whether some numbers have two readings.
    is_joined: whether it may hold a product or a duration of several units; is_spaced: numbers apart by a blank."""

    bindings: tuple[_Binding, ...]
    is_ambiguous: bool
    is_joined: bool
    is_spaced: bool

    @classmethod
    def of(cls, words: str, *, is_readable: bool) -> _LineWords:
        bindings, is_ambiguous = _bind(words) if is_readable else ((), False)
        return cls(bindings, is_ambiguous, _JOINED.search(words) is not None, f"{_MARK} {_MARK}" in words)


def _compound_seconds(match: re.Match[str]) -> str:
    days, hours, minutes = (int(part or 0) for part in match.groups()[:3])
    return f"{days * 86400 + hours * 3600 + minutes * 60 + float(match[4]):.15g}s"


def _without_spaced(bindings: Sequence[_Binding], pieces: Sequence[str]) -> tuple[tuple[_Binding, ...], bool]:
    """The bindings but for numbers that may be one number with the next or the last, as in 40 000; whether some are."""

    def may_join(first: int) -> bool:
        one, blank, other = pieces[2 * first + 1 : 2 * first + 4]
        return blank == " " and one.isdigit() and len(one) <= 3 and other.isdigit() and len(other) == 3

    joined = {at for at in range((len(pieces) - 1) // 2 - 1) if may_join(at)}
    kept = tuple(one for one in bindings if one.at not in joined and one.at - 1 not in joined)
    return kept, len(kept) < len(bindings)


def _with_decimal_comma(printed: str) -> str:
    if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,([0-9]+))?", printed):
        return match[1].replace(".", "") + (f".{match[2]}" if match[2] else "")
    return printed


def _parse(printed: str, meaning: NameMeaning) -> float | None:
    if ":" in printed:
        return parse_clock(printed) if meaning.quantity in ("elapsed", "time", "duration") else None
    if _PLAIN.fullmatch(printed):
        value = float(printed)
        return value if math.isfinite(value) else None
    return parse_number(printed)


def _bind(words: str) -> tuple[tuple[_Binding, ...], bool]:
    """The bindings of all lines of these words, in which each number is a mark; whether some have two readings."""
    found: list[_Binding] = []
    is_ambiguous = False
    at = 0
    # Numbers keep their place in the line: a quoted pair is replaced by as many marks as it holds, behind a border.
    pieces, last = [], 0
    for match in _QUOTED_PAIR.finditer(words):
        before = words[last : match.start()]
        place = words.count(_MARK, 0, match.start())
        meaning = meaning_of(match[1])
        if meaning is not None and meaning.quantity not in ("other", "speed"):
            found.append(_Binding(place, match[1], meaning, None))
        pieces += [before, f"|{_MARK}|"]
        last = match.end()
    rest = "".join([*pieces, words[last:]])
    if "\t" in rest and _IN_TURN.fullmatch(rest):
        # A number in the first cell, without a name, is that of the line.
        rest = re.sub(rf"\t(?=\s*{_MARK})", " ", rest)
    if "=" in rest:
        rest = _WORD_PAIR.sub("|", rest)
    rest = _INDEX.sub(r" \1", _SIGN.sub("", rest))
    for segment in _segments(rest):
        count = segment.count(_MARK)
        if count:
            bound, tie = _bind_segment(segment)
            found += [_Binding(at + one.at, one.name, one.meaning, one.of and at + one.of) for one in bound]
            is_ambiguous = is_ambiguous or tie
        at += count
    return tuple(found), is_ambiguous


def _segments(words: str) -> Iterator[str]:
    """The parts of a line within which a name can reach a number; what parentheses hold is a part if it has numbers."""
    for part in _BORDER.split(words):
        if "(" not in part or _MARK not in part:
            yield part
            continue
        depth, last = 0, 0
        for at, character in enumerate(part):
            if character in "()":
                inner = part[last:at]
                opens = character == "("
                closing = part.find(")", at)
                if opens and _MARK not in part[at : closing if closing > 0 else len(part)]:
                    # A qualifier of the name, such as (per GPU).
                    continue
                if not opens and depth == 0:
                    continue
                depth += 1 if opens else -1
                yield inner
                last = at + 1
        yield part[last:]


class _Gap(NamedTuple):
    """The words between two numbers, as a unit or name of the one before and a name of the one after.

    score: of the split by itself. is_joined: whether the name is joined to its number by a colon or the like.
    """

    behind: str
    ahead: str
    is_joined: bool
    score: float


def _bind_segment(segment: str) -> tuple[list[_Binding], bool]:
    """The bindings within one part of a line. Each gap between two numbers is split in two in the way that binds most
    names (Viterbi's algorithm over the splits)."""
    texts = segment.split(_MARK)
    numbers = len(texts) - 1
    totals: dict[int, int] = {}
    kept = [0]
    gaps = [texts[0]]
    for at in range(1, numbers):
        if re.fullmatch(r"\s*(?:/|of|out of)\s*", texts[at]) and kept[-1] == at - 1:
            totals[at - 1] = at
        else:
            kept.append(at)
            gaps.append(texts[at])
    gaps.append(texts[numbers])
    splits = [_splits(gap, is_first=i == 0, is_last=i == len(gaps) - 1) for i, gap in enumerate(gaps)]
    best = [[gap.score for gap in splits[0]]]
    for i in range(1, len(splits)):
        best.append([
            max(best[i - 1][j] + _score(left, right) for j, left in enumerate(splits[i - 1])) + right.score
            for right in splits[i]
        ])  # fmt: skip
    after = [[0.0] * len(splits[-1])]
    for i in range(len(splits) - 2, -1, -1):
        after.insert(0, [
            max(after[0][j] + _score(left, right) + right.score for j, right in enumerate(splits[i + 1]))
            for left in splits[i]
        ])  # fmt: skip
    total = max(best[-1])
    found, is_ambiguous = [], False
    for i, at in enumerate(kept):
        readings: dict[tuple[str, str, bool], float] = {}
        for j, left in enumerate(splits[i]):
            for k, right in enumerate(splits[i + 1]):
                score = best[i][j] + _score(left, right) + right.score + after[i + 1][k]
                key = (left.ahead, right.behind, left.is_joined)
                readings[key] = max(score, readings.get(key, -99.0))
        (name, unit, is_joined), score = max(readings.items(), key=lambda item: item[1])
        sides = {_side(*key) for key, value in readings.items() if value > total - 0.5}
        named = name if is_joined or is_name_of_number(name) else ""
        binding = _binding(at, named, unit, totals.get(at))
        if len(sides - {""}) > 1 or ("" in sides and len(sides) > 1):
            is_ambiguous = is_ambiguous or binding is not None
        elif binding is not None:
            found.append(binding)
    return found, is_ambiguous


def _splits(gap: str, *, is_first: bool, is_last: bool) -> list[_Gap]:
    """The ways to split the words of a gap. What comes before an inner colon is no name of the number after it."""
    joint = _JOINT.search(gap)
    body = gap[: joint.start()] if joint else gap.removesuffix("-").removesuffix("+")
    is_joined = joint is not None and not is_last
    words = list(_WORD.finditer(body))
    if len(words) > 2 * _NAME_WORDS:
        words = [*words[:_NAME_WORDS], *words[-_NAME_WORDS:]]
    # (per GPU) behind a number belongs to it.
    qualifier = next((at for at, word in enumerate(words, 1) if word[0].endswith(")")), 0)
    cuts = [at for at, word in enumerate(words, 1) if word[0].endswith((":", "="))]
    found = []
    for at in range(len(words) + 1):
        behind = body[: words[at - 1].end()].strip() if at else ""
        ahead = body[words[at].start() :].strip() if at < len(words) else ""
        if is_last and at == 1 and unit_factor(behind) is not None:
            # `181.34 ms (opt.step)`: what follows the unit is a remark.
            ahead = ""
        if (is_joined and not ahead and not is_first) or (is_first and behind) or (is_last and ahead and words):
            continue
        if body.startswith("(") and 0 <= at < qualifier:
            continue
        if at == 0 and not is_first and words and body[:1].isalpha():
            # What is glued to a number is its unit: 1.9s/it.
            continue
        if is_joined and cuts and at <= cuts[-1] - 1:
            ahead = body[words[cuts[-1] - 1].end() :].strip()
        name = ahead.strip(" :=*#\u2022/")
        # A longer name says more, if both are names.
        unit = behind if "(" in behind else behind.strip(" ,:").removesuffix(")")
        score = sum(0.01 * len(part.split()) for part in (name, unit) if part and meaning_of(part))
        # A unit is read as far as it goes.
        score += 0.01 * len(unit.split()) if is_unit(unit) else 0.0
        found.append(_Gap(unit, name, is_joined, score))
    if is_first:
        # Words before the first number that name nothing that is bound are a loss.
        name = found[-1].ahead if found else ""
        known = meaning_of(_last_words(name)) is not None
        found.append(_Gap("", "", False, -1.0 if known and not is_joined else -3.0 if known else 0.0))
    elif is_last:
        found.append(_Gap("", "", False, -1.0 if words and meaning_of(body.strip()) is not None else 0.0))
    return found or [_Gap("", "", is_joined, 0.0)]


def _last_words(name: str) -> str:
    return " ".join(name.split()[-_NAME_WORDS:])


def _score(left: _Gap, right: _Gap) -> float:
    """How well a number is read by the name before it and the unit or name after it."""
    name, unit = left.ahead, right.behind
    if name and unit:
        both = meaning_of(name, unit)
        if both is not None and both.quantity != "other":
            alone = meaning_of(name)
            if alone is None and not left.is_joined and both.quantity not in ("duration", "time"):
                # Some words, and then a number with its unit. They count where they say of what it is: per GPU, eval.
                by_unit = unit_meaning(unit)
                if by_unit is None:
                    return 0.5
                kinds = [(one.scope, one.counts, one.is_training) for one in (both, by_unit)]
                return 1.9 if kinds[0] == kinds[1] else 2.1
            return (3.0 if left.is_joined else 2.0) + 0.3
        if meaning_of(name) is None:
            return 0.5 * left.is_joined + (0.4 if unit_factor(unit) is not None else 0.0)
        if meaning_of(unit) is not None:
            # Two names, and one of them has no number.
            return -2.0
        # A known name, and words of no unit.
        return (3.0 if left.is_joined else 2.0) - (0.1 if unit_factor(unit) is None else -0.1)
    if name:
        known = meaning_of(name)
        if known is not None and known.quantity == "speed":
            # Without its unit it names no figure.
            return 1.0
        if known is not None and not left.is_joined and not is_name_of_number(name):
            return 0.0
        return (3.0 if left.is_joined else 2.0) if known is not None else 0.5 * left.is_joined
    if unit:
        is_known = unit_meaning(unit) is not None
        # An identifier, such as train/tokens_per_sec, is a name rather than a unit: it stands before its number.
        return (1.4 if _IDENTIFIER.search(unit) else 2.0) if is_known else 0.0
    return 0.0


def _side(name: str, unit: str, is_joined: bool) -> str:
    """From where a number gets its meaning: the words before it, or after it, or none."""
    if name and meaning_of(name) is not None and (is_joined or is_name_of_number(name)):
        return "before"
    if name and is_joined:
        return "before"
    if unit and (unit_meaning(unit) is not None):
        return "after"
    return ""


def _binding(at: int, name: str, unit: str, of: int | None) -> _Binding | None:
    meaning = meaning_of(name, unit) if name else None
    alone = meaning_of(name) if name else None
    if meaning is None and unit_factor(unit) is None and meaning_of(unit) is None:
        # What stands behind the number are other words.
        meaning = alone
    shown = f"{name} {unit}" if name and alone is None and meaning is not None else name
    if meaning is None and unit and alone is None:
        meaning = unit_meaning(unit)
        if name and meaning is not None and not meaning.quantity.endswith("_per_s"):
            # Only the unit of a rate says what an unknown name is.
            return None
        shown = f"{name} {unit}".strip()
    if meaning is None or meaning.quantity in ("other", "speed"):
        return None
    if of is not None and meaning.quantity not in ("step", "epoch", "tokens", "samples", "memory"):
        # Two figures of one name: 18210/17690 tok/s.
        return None
    return _Binding(at, re.sub(r"^(?:[kKMBT]|%)\s+", "", shown.strip()), meaning, of)
