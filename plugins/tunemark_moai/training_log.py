"""Parse the platform's messages in the output of a training program: resources, waiting, the search for a parallel
configuration, its result, and failures.

All other lines of the program are ignored. `parse_messages` parses one line, to follow a running program;
`read_training_log` parses the whole output of a finished one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tunemark_moai.parallel_configuration import ParallelConfiguration, parse_configuration
from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput, split_lines, strip_markup

JobPhase = Literal["requesting", "waiting for a process", "waiting in the queue", "preparing", "running", "failed"]
MessageKind = Literal[
    "requesting", "initializing", "connecting", "linking", "ready", "in use", "holder", "in use until", "queued",
    "update", "version", "job", "databases", "candidates", "compiling", "compile time", "compiled", "possible",
    "choosing", "cost time", "chosen", "selected", "configuration", "train", "batch sizes", "build",
    "out of memory", "requested", "available", "failure", "other",
]  # fmt: skip

_PHASES: dict[MessageKind, JobPhase] = {
    "requesting": "requesting",
    "in use": "waiting for a process",
    "in use until": "waiting for a process",
    "queued": "waiting in the queue",
    "initializing": "preparing",
    "connecting": "preparing",
    "linking": "preparing",
    "ready": "running",
    "out of memory": "failed",
    "failure": "failed",
}

_LEVEL = re.compile(
    r"(?:\[(?P<at>[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)\]\s*)?"
    # At the start of a line the first bracket may be missing, as in one document.
    r"(?:\[|(?<!.)\s*)(?P<level>info|warning|error)\] ?"
)

# Patterns of the text after a level, matched from its start; their ends are open because documents cut the messages.
_LEVEL_PATTERNS: tuple[tuple[MessageKind, str], ...] = (
    ("requesting", r"Requesting resources for (?P<name>.+?) from the server"),
    ("initializing", r"Initializing the worker daemon for (?P<name>.+?)(?:\.\.\.)?$"),
    ("connecting", r"\[(?P<number>[0-9]{1,6})/(?P<of>[0-9]{1,6})\] Connecting to resources on the server"),
    ("linking", r"Establishing links to the resources"),
    ("ready", r"(?P<name>.+?) is ready to use"),
    ("in use", r"(?P<name>.+?) is already in use by another process"),
    ("holder", r"\(pid:\s*(?P<number>[0-9]{1,15})\)\s*(?P<text>.*)"),
    ("update", r"A newer version of Moreh AI Framework is available"),
    ("version", r"Moreh Version\s*:\s*(?P<text>[0-9][0-9A-Za-z.+-]*)"),
    ("job", r"Moreh Job ID\s*:\s*(?P<number>[0-9]{1,15})"),
    ("databases", r"Got DBs from backend for auto config"),
    ("candidates", r"The number of candidates is (?P<number>[0-9]{1,9})"),
    ("compiling", r"Parallel Graph Compile start"),
    ("compile time", r"Elapsed Time to compile all candidates\s*=\s*(?P<number>[0-9]{1,12})\s*\[ms\]"),
    ("compiled", r"Parallel Graph Compile finished"),
    ("possible", r"The number of possible candidates is (?P<number>[0-9]{1,9})"),
    ("choosing", r"SelectBestGraphFromCandidates start"),
    ("cost time", r"Elapsed Time to compute cost for survived candidates\s*=\s*(?P<number>[0-9]{1,12})\s*\[ms\]"),
    ("chosen", r"SelectBestGraphFromCandidates finished"),
    ("selected", r"Configuration for parallelism is selected"),
    ("configuration", r"(?P<text>(?:num_stages\s*:|No PP\s*,).*)"),
    ("train", r"train\s*:\s*(?P<text>true|false)$"),
    ("batch sizes", r"Various batch size detected"),
)
# Messages that have a level only in some versions, or that an exception prints.
_BARE_PATTERNS: tuple[tuple[MessageKind, str], ...] = (
    (
        "in use until",
        r"Two or more processes cannot use (?P<name>.+?) at the same time"
        r"(?:.*? after the process (?P<number>[0-9]{1,15}))?",
    ),
    ("queued", r"Not enough resources are currently available for (?P<name>.+?)\.(?:\s|$)"),
    ("out of memory", r"(?:RuntimeError:\s*)?Error Code 4\s*:\s*OUT_OF_MEMORY"),
    (
        "out of memory",
        r"Moreh solution has detected that the application requires more memory(?:.* of (?P<name>.+?)\.?$)?",
    ),
    ("out of memory", r"(?P<name>.+?) memory not enough"),
    ("requested", r"(?:>>\s*)?Memory requested\s*:\s*(?P<number>[0-9]{1,18})\s*bytes"),
    ("available", r"(?:>>\s*)?Memory available\s*:\s*(?P<number>[0-9]{1,18})\s*bytes"),
    ("failure", r"(?P<text>The connection to the server has been lost.*)"),
    ("failure", r"(?P<text>The current version of Moreh AI Framework is outdated.*)"),
    ("failure", r"(?P<text>Failed to initialize the worker daemon for .*)"),
    ("failure", r"(?P<text>An internal error occurred in the .*)"),
    ("failure", r"(?:RuntimeError:\s*)?(?P<text>Error Code [0-9]{1,9}\s*:.*)"),
    ("failure", r"(?P<text>.*(?:SDA token is not (?:set|given)|moreh::InvalidToken).*)"),
    ("build", r".*?(?P<text>[0-9]+\.[0-9]+\.[0-9]+\+(?:cu[0-9]+\.)?moreh[0-9]+(?:\.[0-9]+)*)"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformMessage:
    """One message of the platform. at: its clock, None where the line has none. name: the accelerator's."""

    what: MessageKind
    at: datetime | None
    line: TerminalLine
    name: str | None = None
    number: int | None = None
    of: int | None = None
    text: str | None = None

    @property
    def phase(self) -> JobPhase | None:
        """The phase that this message starts; None where it starts none."""
        return _PHASES.get(self.what)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseStart:
    """The start of a phase. A waiting program says so once and is then silent until it continues."""

    phase: JobPhase
    at: datetime | None
    line: TerminalLine


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldingProcess:
    """A process that holds the accelerator for which the program waits."""

    pid: int
    command: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationSearch:
    """One search for a parallel configuration. Times in ms, as the platform prints them; None is unknown."""

    candidates: int | None = None
    possible: int | None = None
    compile_ms: int | None = None
    cost_ms: int | None = None
    selected: ParallelConfiguration | None = None
    trains: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceOutOfMemory:
    """Bytes on one physical device, not on the whole accelerator; None in versions that do not print them."""

    accelerator: str | None
    requested_bytes: int | None
    available_bytes: int | None
    line: TerminalLine


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformFailure:
    """A message that ends the program, other than out of memory."""

    text: str
    line: TerminalLine


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingLog:
    """The contents of one log. nodes: servers that the program connected to. build: torch's version string, which
    contains the platform's. searches: in order, one for each graph shape. others: unknown messages of the platform.
    """

    messages: tuple[PlatformMessage, ...]
    phases: tuple[PhaseStart, ...]
    accelerator: str | None
    nodes: int | None
    version: str | None
    job_id: int | None
    build: str | None
    holders: tuple[HoldingProcess, ...]
    searches: tuple[ConfigurationSearch, ...]
    out_of_memory: DeviceOutOfMemory | None
    failure: PlatformFailure | None
    others: tuple[TerminalLine, ...]


def read_training_log(text: str) -> TrainingLog:
    """The platform's messages in a program's output. Raises where a configuration is not understood."""
    return parse_training_log(split_lines(text))


def parse_training_log(lines: Sequence[TerminalLine]) -> TrainingLog:
    messages: list[PlatformMessage] = []
    searches: list[dict[str, Any]] = []
    for at, line in enumerate(lines):
        for message in parse_messages(line):
            messages.append(message)
            selected = _join_configuration(message, lines[at + 1 :]) if message.what == "configuration" else None
            _add_to_searches(searches, message, selected)
    names = [message.name for message in messages if message.name and message.what in _PHASES]
    return TrainingLog(
        messages=tuple(messages),
        phases=_find_phases(messages),
        accelerator=names[0] if names else None,
        nodes=_last(messages, "connecting", "of"),
        version=_last(messages, "version", "text"),
        job_id=_last(messages, "job", "number"),
        build=_last(messages, "build", "text"),
        holders=tuple(
            HoldingProcess(pid=m.number, command=m.text or None)
            for m in messages
            if m.what == "holder" and m.number is not None
        ),
        searches=tuple(ConfigurationSearch(**values) for values in searches),
        out_of_memory=_find_out_of_memory(messages),
        failure=next((PlatformFailure(text=m.text or "", line=m.line) for m in messages if m.what == "failure"), None),
        others=tuple(message.line for message in messages if message.what == "other"),
    )


def parse_messages(line: TerminalLine) -> list[PlatformMessage]:
    """The messages in one line: usually one or none, several where line breaks were lost."""
    text = strip_markup(line.text[:_MAX_CHARACTERS])
    levels = list(_LEVEL.finditer(text))
    if not levels:
        found = _match_first(text.strip(), _BARE_PATTERNS)
        return [_make_message(found, line, None)] if found else []
    messages = []
    ends = [*(level.start() for level in levels[1:]), len(text)]
    for level, end in zip(levels, ends, strict=True):
        said = text[level.end() : end].strip()
        found = _match_first(said, _LEVEL_PATTERNS + _BARE_PATTERNS) or ("other", {"text": said})
        messages.append(_make_message(found, line, level["at"]))
    return messages


# The number of further lines into which a terminal of 30 columns wraps a configuration.
_MAX_LINES = 6

# More characters than any message has. Longer lines, for example of a dump, hold no message beyond them.
_MAX_CHARACTERS = 2000

_COMPILED: dict[str, re.Pattern[str]] = {text: re.compile(text) for _, text in _LEVEL_PATTERNS + _BARE_PATTERNS}


def _match_first(text: str, patterns: Sequence[tuple[MessageKind, str]]) -> tuple[MessageKind, dict[str, Any]] | None:
    for what, pattern in patterns:
        if found := _COMPILED[pattern].match(text):
            return what, found.groupdict()
    return None


def _make_message(found: tuple[MessageKind, dict[str, Any]], line: TerminalLine, at: str | None) -> PlatformMessage:
    what, values = found
    numbers = {key: int(values[key]) for key in ("number", "of") if values.get(key) is not None}
    return PlatformMessage(what=what, at=_parse_timestamp(at), line=line, **{**values, "number": None, **numbers})


def _parse_timestamp(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _find_phases(messages: Sequence[PlatformMessage]) -> tuple[PhaseStart, ...]:
    phases: list[PhaseStart] = []
    for message in messages:
        if message.phase and (not phases or phases[-1].phase != message.phase):
            phases.append(PhaseStart(phase=message.phase, at=message.at, line=message.line))
    return tuple(phases)


def _last(messages: Sequence[PlatformMessage], what: MessageKind, attribute: str) -> Any:
    found = [getattr(message, attribute) for message in messages if message.what == what]
    return found[-1] if found else None


def _find_out_of_memory(messages: Sequence[PlatformMessage]) -> DeviceOutOfMemory | None:
    said = [m for m in messages if m.what in ("out of memory", "requested", "available")]
    if not said:
        return None
    return DeviceOutOfMemory(
        accelerator=next((m.name for m in said if m.name), None),
        requested_bytes=next((m.number for m in said if m.what == "requested"), None),
        available_bytes=next((m.number for m in said if m.what == "available"), None),
        line=said[0].line,
    )


def _join_configuration(message: PlatformMessage, following: Sequence[TerminalLine]) -> ParallelConfiguration:
    """A configuration, joined where its line was wrapped: a line that continues it begins with a comma, or is appended
    until the configuration is complete."""
    whole = message.text or ""
    filled = [line.text for line in following[:_MAX_LINES] if line.text.strip() and not _LEVEL.search(line.text)]
    error: UnreadableOutput | None = None
    for count in range(len(filled) + 1):
        if count < len(filled) and filled[count].lstrip().startswith(","):
            whole += filled[count]
            continue
        try:
            return parse_configuration(TerminalLine(number=message.line.number, text=whole))
        except UnreadableOutput as refused:
            error = error or refused
        if count < len(filled):
            # A terminal wraps at any character, so nothing is inserted; only a blank at the break may be lost.
            joint = " " if re.search(r"\bNo$", whole) else ""
            whole += joint + filled[count]
    assert error
    raise error


_SEARCH_FIELDS: dict[MessageKind, str] = {
    "candidates": "candidates",
    "possible": "possible",
    "compile time": "compile_ms",
    "cost time": "cost_ms",
    "configuration": "selected",
    "train": "trains",
}


def _add_to_searches(
    found: list[dict[str, Any]], message: PlatformMessage, selected: ParallelConfiguration | None
) -> None:
    """Add a message to the last search; a value that occurs a second time begins the next search."""
    key = _SEARCH_FIELDS.get(message.what)
    if not key:
        return
    if not found or key in found[-1]:
        found.append({})
    found[-1][key] = selected if key == "selected" else message.text == "true" if key == "trains" else message.number
