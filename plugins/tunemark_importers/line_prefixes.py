"""Strips what precedes a line's own text: launchers' rank labels, time stamps and logging prefixes, in any order.

They are removed one after the other until none is left. Styles: torchrun (`[rank0]:`, `[default0]:`, `[0]:`), srun -l
(`0: `), mpirun (`[1,0]<stdout>:`), Ray (`(Worker pid=12, ip=10.0.0.1) `), Kubernetes and Docker (ISO 8601 with a zone),
Python's logging with its comma before the milliseconds, loguru's bars, glog, NeMo, MMEngine, syslog, and transformers'
examples, whose date is month/day/year.
"""

from __future__ import annotations

import calendar
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_LINE = 1 << 14
"""Maximum length of a trainer's line, characters."""

_MAX_PREFIXES = 12
"""Maximum number of prefixes on one line."""

_DATE = (
    r"(?:(?P<year>[12][0-9]{3})[-/.](?P<month>[01]?[0-9])[-/.](?P<day>[0-3]?[0-9])"
    r"|(?P<one>[0-3]?[0-9])(?P<cut>[/.])(?P<two>[0-3]?[0-9])(?P=cut)(?P<late>[12][0-9]{3}))"
)
_TIME = r"(?P<hour>[0-2]?[0-9]):(?P<minute>[0-5][0-9]):(?P<second>[0-6][0-9](?:[.,][0-9]{1,9})?)"
_ZONE = r"(?:\s?(?P<zone>Z|UTC|GMT|[+-][01][0-9]:?[0-5][0-9])(?![0-9A-Za-z]))?"
_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|SUCCESS|WARN|WARNING|ERROR|CRITICAL|FATAL)"
_LOWER_LEVEL = r"(?:trace|debug|info|notice|warn|warning|error|critical|fatal)"
_END = r"\s*(?:[-|:,]\s+|\|)?\s*"

_DATED = re.compile(rf"(?:\[{_LEVEL}\|)?\[?\s?{_DATE}(?:[T ]|,\s?){{1,2}}{_TIME}{_ZONE}\s?\]?{_END}")
_NEMO = re.compile(rf"\[NeMo [A-Z]\s+{_DATE} {_TIME}(?: [^\]\s]+)?\]\s*")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"
_SYSLOG = re.compile(
    rf"\[?(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?(?P<name>{'|'.join(_MONTHS.split())})\s+(?P<day>[0-3]?[0-9])\s{_TIME}"
    rf"(?: (?P<year>[12][0-9]{{3}}))?\]?(?: (?P<host>[\w.-]+) (?P<process>[\w./-]+)(?:\[[0-9]+\])?:)?\s*"
)
_GLOG = re.compile(rf"[DIWEF](?P<month>[01][0-9])(?P<day>[0-3][0-9]) {_TIME}\s+[0-9]+ [^\]\s]+\]\s*")
# In one piece: [20251202 22:42:56] of Primus, [2025-09-11-140838] of ezpz.
_PACKED = re.compile(
    r"\[(?P<year>20[0-9]{2})(?P<bar>-?)(?P<month>[01][0-9])(?P=bar)(?P<day>[0-3][0-9])[ T-]"
    r"(?P<hour>[0-2][0-9])(?P<colon>:?)(?P<minute>[0-5][0-9])(?P=colon)(?P<second>[0-6][0-9](?:[.,][0-9]{1,9})?)\]\s*"
)
# Without a year, as MMEngine writes.
_SHORT = re.compile(rf"(?P<month>[01][0-9])/(?P<day>[0-3][0-9]) {_TIME} - (?:\w+ - )?{_LEVEL} - ")
_HOURS = re.compile(rf"\[?{_TIME}\]?(?=[\s|\]-]){_END}")
_EPOCH = re.compile(r"\[?(?P<epoch>1[0-9]{9}\.[0-9]{1,9})\]?\s*[-|:]?\s+")

_RANK = re.compile(
    r"\[(?:rank|default|RANK)[\s-]?(?P<a>[0-9]+)(?:/[0-9]+)?\]:?\s?"
    r"|\[(?P<b>[0-9]+)\]:\s?"
    r"|\[(?P<c>[0-9]+,[0-9]+)\](?:<std(?:out|err)>)?:?\s?"
    r"|(?:[Rr]ank|RANK)[ _]?(?P<d>[0-9]+)\s?[:|-]\s"
    r"|\s{0,5}(?P<e>[0-9]{1,5}):\s"
    r"|\((?P<f>[\w.:/ -]*\bpid=[0-9]+[^)]*)\)\s?"
    r"|(?P<g>(?:node|worker|host|pod|gpu|ip)[\w.-]*[0-9][\w.-]*):\s"
)
_LOGGER = re.compile(
    rf"\[(?:titan|{_LEVEL}|{_LOWER_LEVEL})\s?\]:?\s*|info\]\s|\[[DIWEF]\](?=\[)"
    rf"|\|?\s*{_LEVEL}\s*\|\s*"
    # Levels and logger names as joined by Python's logging; a name alone is not a prefix.
    rf"|{_LEVEL}:[\w.]+:\s?"
    rf"|(?:[\w.]+ - )?{_LEVEL} - (?:[\w.]+ - )?"
    rf"|{_LEVEL}:?\s+(?=[\[({{|]|[\w.*<>-]+:[\w<>*-]+:[0-9]+ - )"
    rf"|{_LEVEL}:?\s+(?=[A-Za-z])"
    rf"|{_LEVEL}:\s+"
    r"|\|?\s*[\w.*<>-]+:[\w<>*-]+:[0-9]+\s+-\s+"
    rf"|\[(?:{_LEVEL}\|)?[\w./-]+\.(?:py|sh):[0-9]+\](?:\s*: )?\s*|>> "
    r"|[\w.]+:[0-9]+ >> "
    r"|stdout [FP] "
    # A program's name in brackets, before another bracket.
    r"|\[[A-Z][A-Za-z]{2,15}\](?=\[)"
)


_DATES = (_DATED, _NEMO, _SYSLOG, _GLOG, _EPOCH, _SHORT, _PACKED)
_PATTERNS = (_RANK, *_DATES, _HOURS, _LOGGER)
# The prefixes of lines that are alike in these first characters, digits aside, are the same.
_FORM_CHARACTERS = 120
_MAX_FORMS = 1 << 14
_TO_ZERO = str.maketrans("123456789", "000000000")
_KNOWN_PREFIXES: dict[str, tuple[re.Pattern[str], ...]] = {}
# Whether a date can be read depends on its digits, which lines of one form differ in: 2025-13-01 is none. What begins
# so is looked at again.
_MAY_BE_DATE = re.compile(
    rf"\W{{0,4}}(?:[0-9]|[DIWEF][0-9]{{4}} |NeMo |(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|{_MONTHS.replace(' ', '|')}) )"
)


class Prefix(NamedTuple):
    """A line's own text, and what preceded it.

    rank: the launcher's label in any form, or None. stamp_s: seconds since 1970 in the writer's time zone (in UTC if a
    zone is given), or since midnight if is_dated is False.
    """

    text: str
    rank: str | None = None
    stamp_s: float | None = None
    is_dated: bool = False


_INLINE_DATE = re.compile(
    rf"(?<![0-9/.-])(?P<year>20[0-9]{{2}})-(?P<month>[01][0-9])-(?P<day>[0-3][0-9])(?:[T ]{_TIME}{_ZONE})?"
)
_INLINE_SECONDS = re.compile(
    r"(?<![A-Za-z])_?(?:timestamp|ts|time|date|datetime|created|wall_?time)[\"']?\s*[:=]\s*[\"']?"
    r"(1[0-9]{9}(?:[0-9]{3})?)(\.[0-9]{1,9})?(?![0-9.])",
    re.I,
)


def cut_inline_stamp(prefix: Prefix) -> Prefix:
    """The line without a date or the seconds since 1970 within it, as in JSON lines; these are its time stamp if it
    begins with none."""
    text, stamp = prefix.text, None
    if "-" in text and (match := _INLINE_DATE.search(text)):
        if match["hour"] is not None:
            stamp = _seconds_since_1970(match.groupdict())
        text = f"{text[: match.start()]},{text[match.end() :]}"
    elif match := _INLINE_SECONDS.search(text):
        stamp = float(match[1] + (match[2] or "")) if len(match[1]) == 10 else int(match[1]) / 1000
        text = f"{text[: match.start()]}{text[match.end() :]}"
    else:
        return prefix
    if (prefix.stamp_s is not None and prefix.is_dated) or stamp is None:
        return prefix._replace(text=text)
    return prefix._replace(text=text, stamp_s=stamp, is_dated=True)


def strip_prefixes(text: str) -> Prefix:
    """Remove the prefixes; the first time stamp counts."""
    text = text.lstrip()
    form = text[:_FORM_CHARACTERS].translate(_TO_ZERO)
    known = _KNOWN_PREFIXES.get(form)
    if known is not None:
        found = _take_prefixes(text, known)
        if found is not None and not _MAY_BE_DATE.match(found.text):
            return found
    found, patterns = _find_prefixes(text)
    if len(text) - len(found.text) < _FORM_CHARACTERS - 40:
        if len(_KNOWN_PREFIXES) >= _MAX_FORMS:
            _KNOWN_PREFIXES.clear()
        _KNOWN_PREFIXES[form] = patterns
    return found


def _find_prefixes(text: str) -> tuple[Prefix, tuple[re.Pattern[str], ...]]:
    """The line and its prefixes, each by the first pattern that matches."""
    patterns: list[re.Pattern[str]] = []
    rest = text
    while len(patterns) < _MAX_PREFIXES and rest[:1] and rest[0] not in "{'\"":
        pattern, match = next(((p, m) for p in _PATTERNS if (m := p.match(rest)) is not None), (None, None))
        if pattern is None or match is None or not match.end():
            break
        if pattern in _DATES and _seconds_since_1970(match.groupdict()) is None:
            break
        patterns.append(pattern)
        rest = rest[match.end() :].lstrip()
    found = _take_prefixes(text, patterns)
    assert found is not None
    return found, tuple(patterns)


def _take_prefixes(text: str, patterns: Sequence[re.Pattern[str]]) -> Prefix | None:
    """The line without these prefixes; None if it does not have them."""
    ranks: list[str] = []
    stamp: float | None = None
    dated = False
    for pattern in patterns:
        match = pattern.match(text)
        if match is None:
            return None
        if pattern is _RANK:
            ranks.append(match[match.lastgroup or 0])
        elif pattern is _HOURS:
            if stamp is None:
                stamp = _seconds_of_day(match.groupdict())
        elif pattern is not _LOGGER:
            value = _seconds_since_1970(match.groupdict())
            if value is None:
                return None
            if stamp is None or not dated:
                stamp, dated = value, True
        text = text[match.end() :].lstrip()
    return Prefix(text, "/".join(ranks) or None, stamp, dated)


def _seconds_of_day(fields: dict[str, str | None]) -> float:
    hour, minute, second = (fields[name] or "0" for name in ("hour", "minute", "second"))
    return int(hour) * 3600.0 + int(minute) * 60.0 + float(second.replace(",", "."))


def _seconds_since_1970(fields: dict[str, str | None]) -> float | None:
    """Seconds since 1970 of the fields of a match; None if they are not a valid date."""
    if epoch := fields.get("epoch"):
        return float(epoch)
    # Without a year, assume a leap year: only differences are used.
    year, month, day = fields.get("year") or fields.get("late") or "2000", fields.get("month"), fields.get("day")
    if name := fields.get("name"):
        month = str(_MONTHS.split().index(name) + 1)
    if one := fields.get("one"):
        two = fields["two"] or ""
        # Points separate day.month.year; slashes month/day/year, unless the first is not a month.
        day_first = fields.get("cut") == "." or int(one) > 12
        day, month = (one, two) if day_first else (two, one)
    date = _seconds_of_date(int(year), int(month or 0), int(day or 0))
    if date is None:
        return None
    shift = 0.0
    if (zone := fields.get("zone")) and zone[0] in "+-":
        shift = (int(zone[1:3]) * 3600.0 + int(zone[-2:]) * 60.0) * (1 if zone[0] == "+" else -1)
    return date + _seconds_of_day(fields) - shift


@functools.lru_cache(maxsize=64)
def _seconds_of_date(year: int, month: int, day: int) -> int | None:
    """Seconds from 1970 to a date; None if there is no such date."""
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, 0, 0, 0))
