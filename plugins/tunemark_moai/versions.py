"""Versions in the titles above a table: `Current Version: 24.5.0  Latest Version: 24.5.0`, and its older forms."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput

_LABEL = re.compile(
    r"(Current|Latest|Client|Server|Accelerator platform|MoAI Framework) Version\b\s*:?|(Moreh-SMI)(?=\s+[0-9]|\s*$)",
    re.I,
)
_VERSION = re.compile(r"v?[0-9]+(?:\.[0-9A-Za-z]+)*(?:[-+][0-9A-Za-z.+-]+)?")


def parse_versions(titles: Iterable[TerminalLine]) -> dict[str, str]:
    """Versions by their label in lower case: "current", "latest", "client", "server", "moreh-smi" ...

    A label with no value or a dash is left out: the tool does not know it. Titles without a label are ignored.
    """
    versions: dict[str, str] = {}
    for title in titles:
        labels = list(_LABEL.finditer(title.text))
        ends = [*(label.start() for label in labels[1:]), len(title.text)]
        for label, end in zip(labels, ends, strict=False):
            value = title.text[label.end() : end].strip()
            if value in ("", "-"):
                continue
            if not _VERSION.fullmatch(value):
                raise UnreadableOutput(
                    what=f"the version {value!r} is not understood", line=title, expected="a version like 24.5.0"
                )
            versions[(label.group(1) or label.group(2)).casefold()] = value
    return versions
