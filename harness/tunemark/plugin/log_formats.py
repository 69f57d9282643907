"""What the figures are that a program prints: their names, units, what they count, and where the program says so.

An importer states its formats with these types. The page that compares the frameworks (docs/log-formats.md) is made
from them, and most of the built-in importers read logs by nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quantity = Literal[
    "step", "iteration", "steps_total", "epoch", "loss", "gradient_norm", "step_time", "line_time", "elapsed",
    "tokens_per_s", "samples_per_s", "steps_per_s", "tokens", "samples", "step_tokens", "tflops", "mfu", "memory",
    "global_batch", "micro_batch", "gradient_accumulation", "sequence", "count", "parameters", "train_s",
    "tokens_total", "padding",
]  # fmt: skip
"""What a figure is. iteration: micro-batches of a rank since the start, where a step has several. step_time: seconds of
one step, or of one iteration where the format has those; line_time: of all steps since the line before. tokens,
samples: since the start; step_tokens: of one step; tokens_total, train_s: of the whole training. tflops: 10^12 per
second."""

FigureScope = Literal["job", "device"]
FigureClock = Literal["step", "line", "window", "start"]
"""The time that a rate or a mean is taken over: the last step, the steps since the line before, the last few steps, or
all since the start."""
TokensCounted = Literal["slots", "content", "trained"]


@dataclass(frozen=True, slots=True)
class FigureDescription:
    """A figure that a program prints.

    name: as it is printed. unit: what stands behind the value, or is meant by it: "s", "ms", "%", "TFLOP/s", "GiB" and
    the like; "K" where the value may be followed by K, M, G, B or T; "clock" for hours:minutes:seconds; "words" for
    1h 2m 3s. scope: of the whole job or of one device; None where the figure has none. counts: slots (padding too),
    content tokens, or trained tokens; None where the program does not define it; of sequences "slots" where all are
    padded or packed to one length. over: the time of a rate or a mean.
    pattern: where the value does not follow the name: a regular expression with {} for the value. is_training: False
    for a figure of generation, evaluation and the like. note: what else one has to know, a sentence.
    """

    name: str
    quantity: Quantity
    unit: str = ""
    scope: FigureScope | None = None
    counts: TokensCounted | None = None
    over: FigureClock | None = None
    pattern: str | None = None
    is_training: bool = True
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatDescription:
    """A kind of line, block of lines, table or document that a program writes.

    name: of the program, as in `tunemark audit`'s output. title: what the text is. meaning: what its rate counts, a
    sentence. sources: the program's files or documentation that say so. figures: those that are read; of several of one
    quantity the first is the one that is claimed.

    The rest is for `tunemark_importers.described_log`, which reads a log by its description. begins: a regular
    expression that a line of this format matches from its start, without time stamps and ranks before it; its groups
    may be named as a quantity. It has to be so particular that no other program's line matches. marks: of which a line
    has one; all others are passed over quickly. requires: names of figures without which a line is not of this format.
    joint: a regular expression for what stands between a name and its value. is_block: the figures follow in lines of
    their own, each beginning with its name after `before`, up to the next line that begins. has_other_work: between two
    lines a program does more than train, so their time stamps are no clock of the rate. header: regular expressions of
    other lines, whose groups are named as quantities, or as model, device, method or precision. others: a regular
    expression of lines of this program that hold nothing to read.
    """

    name: str
    title: str
    meaning: str
    sources: tuple[str, ...]
    figures: tuple[FigureDescription, ...]
    begins: str = ""
    marks: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    joint: str = r"\s*[:=]\s*"
    is_block: bool = False
    before: str = r"\W*"
    has_other_work: bool = False
    header: tuple[str, ...] = ()
    others: str = ""
