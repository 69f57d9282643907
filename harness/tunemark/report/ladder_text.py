"""Ladders in a sentence and as a Markdown table for a terminal."""

from __future__ import annotations

from collections.abc import Callable

from tunemark.analysis.ladder import Ladder, LadderStep
from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_gib, format_number, format_significant
from tunemark.report.estimate_format import format_estimate, format_ratio
from tunemark.report.translation import Translate
from tunemark.results.ratio import Ratio


def ladder_note(tr: Translate) -> str:
    """How the factors of a ladder are computed."""
    return tr(
        "Each rung stands on those before it. Its factor is its content tokens/s over those of the rung below it, with "
        "the 95 % interval of paired attempts; slots/s count padding too."
    )


def ladder_sentence(ladder: Ladder, tr: Translate) -> str:
    """What each climbed rung gives, whether it pays back, and what all give together."""
    parts = []
    for step in ladder.steps[1:]:
        if not step.is_climbed or step.ratio is None:
            continue
        name = f"{_title(step, tr)} {step.value}"
        if step.ratio.contains_one:
            parts.append(tr("{name} shows no difference", name=name))
        elif step.pays_back_steps is not None:
            factor, n = _times(step.ratio), f"{step.pays_back_steps:,.0f}"
            parts.append(tr("{name} gives {factor} and pays back after {n} steps", name=name, factor=factor, n=n))
        else:
            parts.append(tr("{name} gives {factor}", name=name, factor=_times(step.ratio)))
    if not parts:
        return tr("No rung was climbed.")
    words = ", ".join(parts)
    if ladder.total is not None and len(parts) > 1 and not ladder.total.contains_one:
        words = tr("{words}; together {factor}", words=words, factor=_times(ladder.total))
    return f"{words}."


def _times(ratio: Ratio) -> str:
    return f"{format_significant(ratio.value, 2 if ratio.value < 10 else 3)}x"


def ladder_text(ladder: Ladder, tr: Translate) -> str:
    """A title, a table of the rungs, the reasons of those that were not climbed, and the sentence."""
    rows = [[escape(step_name(step, tr)), *(read(step) for read in _COLUMNS.values())] for step in ladder.steps]
    lines = [f"## {escape(ladder.title)}: {ladder.recipe}", "", markdown_table(["rung", *_COLUMNS], rows, "<<>"), ""]
    left = [step for step in ladder.steps if step.reason]
    lines += [f"- {escape(f'{step.setting} {step.value} was not climbed: {step.reason}')}" for step in left]
    lines += [""] if left else []
    return "\n".join([*lines, escape(ladder_sentence(ladder, tr)), ""])


def step_name(step: LadderStep, tr: Translate) -> str:
    """Such as "batching pad → pack"."""
    return f"{_title(step, tr)} {step.plain} → {step.value}" if step.setting else tr("plain settings")


def _title(step: LadderStep, tr: Translate) -> str:
    """The setting's title; its name where another version had it."""
    setting = SETTINGS_BY_NAME.get(step.setting)
    return tr(setting.title) if setting is not None and setting.is_in_label else step.setting.replace("_", " ")


_COLUMNS: dict[str, Callable[[LadderStep], str]] = {
    "run": lambda step: step.run_id or "-",
    "tokens/s (content)": lambda step: format_estimate(step.tokens_per_s),
    "factor (95 %)": lambda step: format_ratio(step.ratio),
    "over plain": lambda step: format_ratio(step.total),
    "slots/s": lambda step: format_estimate(step.slot_tokens_per_s),
    "factor on slots/s": lambda step: format_ratio(step.slot_ratio),
    "memory (GiB)": lambda step: format_gib(step.peak_memory_bytes),
    "to first step (s)": lambda step: format_number(step.time_to_first_step_s, ".1f"),
    "status": lambda step: step.status,
    "verdict": lambda step: step.verdict,
}
