"""Parse the output of `moreh-switch-model`: its menu of flavors, its prompt and its replies. `moreh-smi device --add`
prints the same menu.

The order of a menu differs between sites and versions, and its heading, star and reply are known to disagree. All three
are returned unchanged, and none of them is trusted: the flavor in effect is read from `moreh-smi`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput, split_lines, strip_markup

# A flavor, optionally with its group of servers: `Small.64GB`, `small mg1`.
_FLAVOR = r"([0-9A-Za-z][\w.+-]*)"
_HEADING = re.compile(rf"\bCurrent (.+?)\s*:\s*(?:{_FLAVOR}(?: at ([\w.+-]+))?)?\s*$")
_VERSION = re.compile(r"\bCurrent Version\s*:", re.I)
_NUMBERED = re.compile(r"\s*([0-9]{1,4})\.\s+(.*)")
_ENTRY = re.compile(rf"{_FLAVOR}(?:\s+([\w.+-]+))?\s*(\\?\*)?")
_PROMPT = re.compile(r"Selection\s*\(\s*([0-9]{1,4})\s*-\s*([0-9]{1,4})\s*,[^)]*\)\s*:\s*(.*)")
_SWITCHED = re.compile(rf'The (.+?) (model|flavor) is successfully switched to\s+"?{_FLAVOR}(?: (?:at )?([\w.+-]+))?"?')
_IN_USE = re.compile(r"The (?:model|flavor) cannot be switched while the (.+?) is in use")
_NO_TOKEN = re.compile(r"InvalidToken|SDA token is not (?:set|given)")


@dataclass(frozen=True, kw_only=True, slots=True)
class MenuEntry:
    """One entry of a menu. index: what to type to select it. group: of servers, where the site has groups."""

    index: int
    flavor: str
    group: str | None
    is_marked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FlavorMenu:
    """One menu. is_asking: its prompt follows it. typed: the text after the prompt, if any."""

    flavors: tuple[MenuEntry, ...]
    is_asking: bool
    typed: str | None

    def index_of(self, flavor: str) -> int | None:
        """What to type to select a flavor, ignoring case; None where the menu has no such flavor or several."""
        found = [each.index for each in self.flavors if each.flavor.casefold() == flavor.casefold()]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchConfirmation:
    """The tool's message that it has switched."""

    accelerator: str
    flavor: str
    group: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchSession:
    """All output of one run of the tool. accelerator, flavor, group: from the heading at the start, else None.

    in_use: the accelerator that cannot be switched because a process holds it. asks: the number of prompts, including
    one without a menu. Undocumented replies, for example to a wrong selection, are ignored: `moreh-smi` shows what
    happened.
    """

    accelerator: str | None
    flavor: str | None
    group: str | None
    menus: tuple[FlavorMenu, ...]
    switched: tuple[SwitchConfirmation, ...]
    in_use: str | None
    asks: int


def read_session(text: str) -> SwitchSession:
    """Raises `UnreadableOutput` where there is no output of the tool, no token, or an inconsistent menu."""
    return parse_session(split_lines(text))


def is_tool_output(line: TerminalLine) -> bool:
    """Whether a line is the tool's heading, prompt or reply."""
    text = strip_markup(line.text)
    return any(sign.search(text) for sign in (_HEADING, _PROMPT, _SWITCHED, _IN_USE))


def parse_session(lines: Sequence[TerminalLine]) -> SwitchSession:
    reader = _MenuReader()
    for line in lines:
        reader.take(line)
    return reader.finish(lines)


@dataclass(kw_only=True, slots=True)
class _MenuReader:
    heading: tuple[str | None, str | None, str | None] | None = None
    entries: list[tuple[TerminalLine, MenuEntry]] = field(default_factory=list)
    menus: list[FlavorMenu] = field(default_factory=list)
    switched: list[SwitchConfirmation] = field(default_factory=list)
    in_use: str | None = None
    asks: int = 0

    def take(self, line: TerminalLine) -> None:
        # A single star marks an entry; two or more are Markdown bold.
        text = strip_markup(line.text)
        if _NO_TOKEN.search(text):
            raise UnreadableOutput(
                what="the tool stopped: it has no token",
                line=line,
                expected="a menu of flavors",
                next="put the token of this machine into /etc/moreh/token, or into MOREH_SDA_TOKEN",
            )
        if entry := _NUMBERED.match(text):
            self._entry(line, int(entry.group(1)), entry.group(2).strip())
        elif question := _PROMPT.search(text):
            self._question(line, int(question.group(1)), int(question.group(2)), question.group(3).strip())
        elif switched := _SWITCHED.search(text):
            self._finish_menu()
            self.switched.append(
                SwitchConfirmation(accelerator=switched.group(1), flavor=switched.group(3), group=switched.group(4))
            )
        elif in_use := _IN_USE.search(text):
            self.in_use = in_use.group(1)
        elif not _VERSION.search(text) and (heading := _HEADING.search(text)) and not self.heading:
            self.heading = (heading.group(1), heading.group(2), heading.group(3))

    def finish(self, lines: Sequence[TerminalLine]) -> SwitchSession:
        self._finish_menu()
        # A heading alone is not enough: any program may print "Current ...: ...".
        if not (self.menus or self.switched or self.in_use or self.asks):
            first = next((line for line in lines if line.text.strip()), None)
            raise UnreadableOutput(
                what="there is no output of moreh-switch-model",
                line=first,
                expected='"Current <accelerator>: <flavor>", a menu, "Selection (1-13, q, Q):", or a reply',
            )
        accelerator, flavor, group = self.heading or (None, None, None)
        return SwitchSession(
            accelerator=accelerator or (self.switched[0].accelerator if self.switched else None),
            flavor=flavor,
            group=group,
            menus=tuple(self.menus),
            switched=tuple(self.switched),
            in_use=self.in_use,
            asks=self.asks,
        )

    def _entry(self, line: TerminalLine, index: int, text: str) -> None:
        found = _ENTRY.fullmatch(text)
        if not found:
            if self.entries and index == self.entries[-1][1].index + 1:
                raise UnreadableOutput(
                    what="an entry of the menu is not understood", line=line, expected="one flavor, and a star or none"
                )
            return  # a numbered line of another program
        if index == 1:
            self._finish_menu()
        flavor = MenuEntry(
            index=index, flavor=found.group(1), group=found.group(2), is_marked=found.group(3) is not None
        )
        if index != len(self.entries) + 1:
            raise UnreadableOutput(
                what=f"entry {index} of the menu follows entry {len(self.entries)}",
                line=line,
                expected="entries numbered from 1 without a gap",
            )
        self.entries.append((line, flavor))

    def _question(self, line: TerminalLine, low: int, high: int, typed: str) -> None:
        self.asks += 1
        # `device --switch` prompts for a device, numbered from 0, below a table.
        if self.entries and (low, high) != (1, len(self.entries)):
            raise UnreadableOutput(
                what=f"the prompt offers {low} to {high}, the menu above it 1 to {len(self.entries)}",
                line=line,
                expected="a prompt for the menu above it",
            )
        self._finish_menu(is_asking=True, typed=typed or None)

    def _finish_menu(self, *, is_asking: bool = False, typed: str | None = None) -> None:
        if not self.entries:
            return
        marked = [line for line, flavor in self.entries if flavor.is_marked]
        if len(marked) > 1:
            raise UnreadableOutput(
                what="more than one flavor is marked as the current one", line=marked[1], expected="one star at most"
            )
        self.menus.append(FlavorMenu(flavors=tuple(f for _, f in self.entries), is_asking=is_asking, typed=typed))
        self.entries = []
