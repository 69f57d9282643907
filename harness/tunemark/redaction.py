"""What a text says of whose machine it was: hidden in what leaves the house. Secrets are hidden in whatever is written.

A host's name, the folder of a path and an address become `sha256:` and twelve digits of their hash: equal ones stay
equal, so runs can still be told apart and compared. Whoever guesses the original can see that the guess is right.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_MARK = "sha256:"
_DIGITS = 12
HIDDEN = "(hidden)"
# The kernel's own folders are the same everywhere.
_PUBLIC = re.compile(r"/(?:proc|sys|dev)\b")
# A path of two parts or more in a text, or a text that is a path; of POSIX, of a home, and of Windows.
_PART = r"[^\s/\\\"'`<>|,;:()\[\]{}]"
_PATH = re.compile(rf"(?:(?<![\w./~:\\-])(?:~|[A-Za-z]:)?[/\\]|(?<=[=:])/)(?:{_PART}+[/\\])+{_PART}*")
_WHOLE_PATH = re.compile(r"(?:~|[A-Za-z]:)?[/\\][^\n]+")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:[0-9a-fA-F:]*:[0-9a-fA-F]{1,4})(?![\w:])")
_MAC = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])")

_PHRASE = r"[\w-]*(?:passw(?:or)?d|secret|api[_-]?key|access[_-]?key|private[_-]?key|credential)[\w-]*"
_NAME = rf"(?:{_PHRASE}|[\w-]*token(?!s|iz)[\w-]*)"
_QUERY = r"[?&][\w.-]*(?:key|sig|signature|auth|code|session)[\w.-]*="
_SECRETS = (
    # An option of a command line; a variable and a field with its value.
    (re.compile(rf"(--?{_NAME})([ =])(?!-|\(hidden)([^\s\"'`]+)", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(rf"\b({_NAME})=(?!=|\(hidden)([^\s\"'`,;&)]+)", re.IGNORECASE), rf"\1={HIDDEN}"),
    (re.compile(rf"\b({_PHRASE})(: ?)(?!\(hidden)([^\s\"'`,;&)]+)", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # In a URL: who asks, and what its query proves.
    (re.compile(r"(?<=://)[^/\s@\"'`]+@"), f"{HIDDEN}@"),
    (re.compile(rf"({_QUERY})[^&\s\"'`#]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Keys that show by their form: Hugging Face, GitHub, GitLab, OpenAI, Slack, AWS, and JSON Web Tokens.
    (re.compile(r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abprs]-)[\w-]{16,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"), HIDDEN),
)


def hide_secrets(text: str) -> str:
    """The text without passwords, tokens and keys, wherever it goes: they are recognised by names and by forms."""
    for pattern, hidden in _SECRETS:
        text = pattern.sub(hidden, text)
    return text


@functools.lru_cache(maxsize=4096)
def hide_paths(text: str) -> str:
    """The text with the folders of its paths hidden. Hiding again changes nothing."""
    if "/" not in text and "\\" not in text:
        return text
    if _WHOLE_PATH.fullmatch(text) and "://" not in text:
        return _hide_path(text)
    return _PATH.sub(lambda found: _hide_path(found[0]), text)


def redact_text(text: str, names: Collection[str] = ()) -> str:
    """The text without paths, addresses and secrets. names: of hosts and users, hidden where they stand as words."""
    text = hide_paths(hide_secrets(text))
    text = _MAC.sub(lambda found: make_digest(found[0]), text)
    for pattern in (_IPV4, _IPV6):
        text = pattern.sub(lambda found: _hide_address(found[0]), text)
    for name in names:
        if name in text:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", make_digest(name), text)
    return text


def redact(value: T, names: Collection[str] = ()) -> T:
    """The value with all texts in it redacted: of containers, dataclasses and structs."""
    found: Any = _map_texts(value, names)
    return found  # type: ignore[no-any-return]  # of the same type


def make_digest(text: str) -> str:
    """What a name becomes; the same for the same name."""
    return text if text.startswith(_MARK) else _MARK + hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _map_texts(value: Any, names: Collection[str]) -> Any:
    if isinstance(value, str):
        return redact_text(value, names)
    if isinstance(value, Mapping):
        return {key: _map_texts(each, names) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_map_texts(each, names) for each in value)
    if isinstance(value, msgspec.Struct):
        fields = {name: _map_texts(getattr(value, name), names) for name in value.__struct_fields__}
        changed = {name: each for name, each in fields.items() if each is not getattr(value, name)}
        return msgspec.structs.replace(value, **changed) if changed else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _map_texts(getattr(value, f.name), names) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value


def _hide_path(path: str) -> str:
    if _PUBLIC.match(path):
        return path
    folder, separator, name = path.rstrip("/\\").rpartition("\\" if "\\" in path and "/" not in path else "/")
    return f"{make_digest(folder or separator)}/{name}"


def _hide_address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    return text if address.is_loopback or address.is_unspecified else make_digest(text)
