"""Why two runs differ in speed, as text and Markdown tables for a terminal."""

from __future__ import annotations

from tunemark.analysis.drift import SLOW_WINDOW, StepTimeSummary
from tunemark.analysis.why import NEGLIGIBLE, Cause, Explanation
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_percent, format_significant
from tunemark.report.estimate_format import format_ratio


def why_text(found: Explanation) -> str:
    """The ratio and its factors, the causes by weight, and the parts of a step."""
    title = f"{escape(found.b)} ({found.b_run}) over {escape(found.a)} ({found.a_run})"
    outcome = f"{format_ratio(found.ratio)} times the content tokens/s" if found.ratio else escape(found.reason)
    if found.ratio is not None and found.ratio.contains_one:
        outcome += ": no difference is shown"
    blocks = [f"{title}: {outcome}"]
    if found.pieces:
        pieces = " x ".join(f"{format_significant(piece.ratio)} ({piece.name})" for piece in found.pieces)
        blocks.append(f"Over all attempts together the ratio is {pieces}.")
    one, other = found.step_time_s
    if one is not None and other is not None:
        steps = [("median", one.p50, other.p50), ("95th percentile", one.p95, other.p95)]
        words = (f"{name} {_three(a)} and {_three(b)} s ({_three(b / a)} x)" for name, a, b in steps)
        blocks.append(f"A step takes at its {', at its '.join(words)}.")
    blocks.append(_causes(found))
    if found.parts:
        rows = [
            [escape(part.name), _three(part.a_s), _three(part.b_s), _change(part.a_s, part.b_s),
             format_percent(part.share, ".0f")]
            for part in found.parts
        ]  # fmt: skip
        header = ["part of a step", "A (s)", "B (s)", "change (s)", "of the whole change (%)"]
        blocks.append(markdown_table(header, rows, "<>"))
    else:
        blocks.append(f"Parts of a step: {found.parts_reason}.")
    a, b = found.pace
    if a is not None and b is not None:
        blocks.append(_pace(a, b))
    lines = [f"- {escape(note)}" for note in found.notes]
    if found.unknown:
        lines.append(f"- not recorded by both runs: {escape(', '.join(found.unknown))}")
    return "\n\n".join([*blocks, "\n".join(lines)] if lines else blocks)


# Share of the mean step's change from which on one of its two parts accounts for most of it.
_MOST_SHARE = 0.7
# Relative change from the first to the last third of the timed steps from which on a run has drifted.
_DRIFT = 0.03


def _pace(a: StepTimeSummary, b: StepTimeSummary) -> str:
    """Split the change of the mean step into that of the median step and that of the slow tail, and interpret it."""
    tails = [each.mean_s - each.median_s for each in (a, b)]
    rows = [
        [name, _three(one), _three(other), _change(one, other)]
        for name, one, other in (
            ("mean step (s)", a.mean_s, b.mean_s),
            ("median step (s)", a.median_s, b.median_s),
            ("what slower steps add to the mean (s)", tails[0], tails[1]),
        )
    ]
    rows.append([f"windows of {SLOW_WINDOW:g} medians and more", *(f"{p.slow} of {p.windows}" for p in (a, b)), "-"])
    drifts = ["-" if p.drift is None else f"{_three(p.drift)} x" for p in (a, b)]
    rows.append(["last third of the steps over the first", *drifts, "-"])
    lines = [markdown_table(["timed steps, one by one", "A", "B", "change"], rows, "<>")]
    change = b.mean_s - a.mean_s
    if abs(change) > NEGLIGIBLE * a.mean_s:
        share = (tails[1] - tails[0]) / change
        if share >= _MOST_SHARE:
            lines.append("Most of the change is in some slow steps: look for a disturbance, not for a difference.")
        elif share <= 1 - _MOST_SHARE:
            lines.append("Most of the change is in every step: look for a difference, not for a disturbance.")
    for name, p in (("A", a), ("B", b)):
        if p.drift is not None and abs(p.drift - 1) > _DRIFT:
            lines.append(
                f"{name} became {'slower' if p.drift > 1 else 'faster'} while it was timed: heat, memory or other load."
            )
    return "\n\n".join(lines)


def _causes(found: Explanation) -> str:
    if not found.causes:
        return "No recorded fact differs: the cause is noise, or is not recorded."
    rows = [
        [str(n), escape(c.name), c.kind, _value(c.a), _value(c.b), _factor(c), _three(c.expected),
         escape(_basis(c))]
        for n, c in enumerate(found.causes, 1)
    ]  # fmt: skip
    header = ["", "what differs", "kind", "A", "B", "can matter", "by itself B/A", "basis"]
    table = markdown_table(header, rows, "><<<<>><")
    words = "Can matter: by at most this factor either way; unknown is not small."
    if found.explained is not None:
        words += f" The computed factors multiply to {_three(found.explained)}."
    if found.ratio is not None:
        size = max(found.ratio.value, 1 / found.ratio.value)
        enough = [
            c.name for c in found.causes if c.factor is not None and c.factor >= size and c.factor > 1 + NEGLIGIBLE
        ]
        open_ones = any(c.factor is None for c in found.causes)
        if not enough and not open_ones:
            words += " No cause here is large enough by itself."
    return f"{table}\n\n{words}"


def _basis(cause: Cause) -> str:
    return cause.basis if cause.weight in ("computed", "unknown") else f"{cause.weight}: {cause.basis}"


def _factor(cause: Cause) -> str:
    if cause.factor is None:
        return "unknown"
    return "no" if cause.factor <= 1 else f"{_three(cause.factor)} x"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "unknown" if value is None or value == "" else f"{value:.4g}" if isinstance(value, float) else str(value)
    return escape(text if len(text) <= 60 else text[:57] + "...")


def _change(a_s: float | None, b_s: float | None) -> str:
    change = (b_s or 0.0) - (a_s or 0.0)
    return f"{'+' if change >= 0 else '-'}{_three(abs(change))}"


def _three(value: float | None) -> str:
    return format_significant(value, 3)
