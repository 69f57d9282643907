"""Chain the lines of a file of records, so that a line that was cut, changed, moved or put in shows.

Each line ends with a link: the beginning of the SHA-256 of the previous link and of the line itself. The first link is
of the attempt's assignment and the file's name, so that no file of another attempt or rank takes its place. There is no
secret in it: whoever can write the file can also chain it anew, and only a signature says who did not.
"""

from __future__ import annotations

import hashlib
from typing import Optional, Tuple

_BEGIN, _END = b',"chain":"', b'"}'
# Hexadecimal digits of a link: 64 bits, against accidents and edits by hand.
_DIGITS = 16


def first_link(plan: bytes, name: str) -> bytes:
    """The link before the first line. plan: the content of plan.json. name: of the file of records."""
    return _digest(hashlib.sha256(plan).digest() + name.encode())


def add_link(link: bytes, line: bytes) -> Tuple[bytes, bytes]:
    """(the line with its link, the link). line: a JSON object, not empty, and its line feed."""
    body = line[: -len(b"}\n")]
    new = _digest(link + body)
    return body + _BEGIN + new + _END + b"\n", new


def check_link(link: bytes, line: bytes) -> Optional[bytes]:
    """The link of a line without its line feed; None if it does not follow the previous one, or if it has none."""
    body, new = line[: -len(_BEGIN) - _DIGITS - len(_END)], line[-_DIGITS - len(_END) : -len(_END)]
    return new if line == body + _BEGIN + _digest(link + body) + _END else None


def has_link(line: bytes) -> bool:
    """Whether a line without its line feed ends with a link, right or wrong."""
    return line[-_DIGITS - len(_END) - len(_BEGIN) : -_DIGITS - len(_END)] == _BEGIN


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:_DIGITS].encode()
