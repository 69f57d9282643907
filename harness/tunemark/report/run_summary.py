"""The summary of runs at the end of a command: a Markdown table, a line for each run, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_gib, format_number, format_percent, format_significant
from tunemark.report.definitions import NOTES
from tunemark.report.estimate_format import format_estimate
from tunemark.report.labels import USUAL_READERS, device_of, make_labels
from tunemark.report.translation import make_translator
from tunemark.results.imported_claims import ImportedClaim
from tunemark.results.result import Estimate, Result

# Relative difference up to which the content rate is shown instead of slot and trained rates, too.
_DIFFERS = 0.01


def runs_table(results: Sequence[Result]) -> str:
    """One row for each run, with the settings that all runs share above it and notes below."""
    if not results:
        return "no runs"
    several = len(results) > 1
    identity = dict(_IDENTITY)
    for name, (default, read) in _OPTIONAL.items():
        if any(read(r) != default for r in results):
            identity[name] = read
    shared = {n: read(results[0]) for n, read in identity.items() if len({read(r) for r in results}) == 1}
    names = {n: read for n, read in identity.items() if not (several and n in shared)}
    if not several:
        names = {n: _IDENTITY[n] for n in ("model", "device", "strategy")}
    numbers: dict[str, Callable[[Result], str]] = {"tokens/s (content)": lambda r: format_estimate(r.tokens_per_s)}
    if any(_differs(r, r.slot_tokens_per_s) for r in results):
        numbers["tokens/s (slots)"] = lambda r: format_estimate(r.slot_tokens_per_s)
    if any(_differs(r, r.trained_tokens_per_s) for r in results):
        numbers["tokens/s (trained)"] = lambda r: format_estimate(r.trained_tokens_per_s)
    numbers["n"] = _n
    if any(r.held_out for r in results):
        numbers["held-out loss before (nat)"] = lambda r: format_number(getattr(r.held_out, "loss_before", None), ".4f")
        numbers["held-out loss after (nat)"] = lambda r: format_number(getattr(r.held_out, "loss_after", None), ".4f")
    numbers["padding (%)"] = lambda r: format_percent(r.padding_fraction)
    numbers["MFU (%)"] = lambda r: format_percent(r.mfu)
    if any(r.checkpointing != "none" for r in results):
        numbers["HFU (%)"] = lambda r: format_percent(r.hfu)
    texts: dict[str, Callable[[Result], str]] = {"status": lambda r: r.status, "verdict": lambda r: r.verdict}
    if any(r.queue_s is not None for r in results):
        numbers["queued (s)"] = lambda r: format_number(r.queue_s, ".1f")
    if any(r.search_s is not None for r in results):
        numbers["search (s)"] = lambda r: format_number(r.search_s, ".1f")
    if any(_selected(r) for r in results):
        texts["selected"] = lambda r: escape(_selected(r))
    if any(r.simulated for r in results):
        texts["origin"] = lambda r: "simulated" if r.simulated else "measured"
    heading = {n: v for n, v in shared.items() if n not in names}
    lines = ["; ".join(f"{n} {escape(v)}" for n, v in heading.items()), ""] if heading else []
    others = (numbers | texts).values()
    rows = [[*(escape(read(r)) for read in names.values()), *(read(r) for read in others)] for r in results]
    table = markdown_table([*names, *numbers, *texts], rows, "<" * len(names) + ">" * len(numbers) + "<")
    return "\n".join([*lines, table, "", *NOTES, ""])


def verdict_lines(results: Sequence[Result]) -> list[str]:
    """`verdict_line` of each run, with more settings in the titles where they would be the same."""
    titles = [_title(r) for r in results]
    if len(set(titles)) < len(titles):
        more = make_labels(results, make_translator("en"), without=("model", "device", "strategy", "breakdown"))
        titles = [f"{title} · {each}" for title, each in zip(titles, more, strict=True)]
    return [verdict_line(r, title) for r, title in zip(results, titles, strict=True)]


def verdict_line(result: Result, title: str | None = None) -> str:
    """A run in one line, then a line for each finding that is not just a note. title: by default model, device and
    strategy."""
    r = result
    parts = []
    if r.tokens_per_s is not None:
        parts.append(f"{format_estimate(r.tokens_per_s, percent=True)} tokens/s (content, {_n(r)})")
    else:
        parts.append("tokens/s unknown")
    if r.padding_fraction is not None:
        parts.append(f"padding {format_percent(r.padding_fraction)} %")
    if r.mfu is not None:
        peak = "measured peak" if r.peak_flops_source == "measured" else "peak"
        parts.append(f"MFU {format_percent(r.mfu)} % of {peak}")
    if r.status != "ok":
        parts.append(r.status)
    if r.requested_bytes is not None:
        parts.append(f"{format_gib(r.requested_bytes)} GiB asked for")
    if r.available_bytes is not None:
        parts.append(f"{format_gib(r.available_bytes)} GiB available")
    if r.simulated:
        parts.append("SIMULATED")
    lines = [f"{title or _title(r)}: {', '.join([*parts, r.verdict.upper()])}"]
    if r.completion:
        for moment, text in (("before", r.completion.before), ("after", r.completion.after)):
            lines.append(f"  {moment}: {r.completion.prompt!r} -> {'unknown' if text is None else repr(text)}")
    if r.saved:
        lines.append(f"  saved to {r.saved.path}")
    lines += [f"  {f.severity}: {f.rule}: {f.message}" for f in r.findings if f.severity != "note"]
    return "\n".join(lines)


def _title(r: Result) -> str:
    return f"{r.model} {r.device}:{r.size} {r.strategy_requested}" + (" breakdown" if r.breakdown else "")


def claims_table(rows: Sequence[ImportedClaim]) -> str:
    """One row for each imported claim: its printed and re-derived rates, implied MFU, verdict and first reason."""
    cells = []
    for row in rows:
        ways = "; ".join(f"{way} {format_significant(rate)}" for way, rate in row.tokens_per_s_rederived.items())
        printed = format_significant(row.tokens_per_s_claimed) if row.tokens_per_s_claimed is not None else "unknown"
        first = next((f.rule for f in row.findings if f.severity != "note"), "")
        cells.append([escape(row.id), printed, ways, format_percent(row.mfu_implied), row.verdict, first])
    header = ["claim", "printed (tokens/s)", "re-derived (tokens/s)", "implied MFU (%)", "verdict", "first reason"]
    return markdown_table(header, cells, "<><><")


def claim_lines(row: ImportedClaim) -> str:
    """A claim's verdict, then each finding and each way of deriving its rate with the arithmetic."""
    lines = ["", f"{row.id}: {row.verdict.upper()}"]
    lines += [f"  its figure: {row.meaning}"] if row.meaning else []
    lines += [f"  {f.severity}: {f.rule}: {f.message}" for f in row.findings]
    lines += [f"  {way}: {words}" for way, words in row.arithmetic.items()]
    lines += [f"  implied MFU by {row.mfu_convention}"] if row.mfu_convention else []
    lines += [f"  read: {note}" for note in row.notes]
    return "\n".join(lines)


_IDENTITY: dict[str, Callable[[Result], str]] = {
    "model": lambda r: r.model,
    "dataset": lambda r: r.dataset,
    "device": device_of,
    "strategy": lambda r: r.strategy_requested,
    **{name: attrgetter(name) for name in ("precision", "checkpointing", "batching")},
    "train on": lambda r: r.train_on,
    "sequence (tokens)": lambda r: str(r.sequence),
    "micro batch (sequences)": lambda r: str(r.micro_batch),
    "global batch (sequences)": lambda r: str(r.global_batch),
    "optimizer": lambda r: r.optimizer,
    "breakdown": lambda r: "yes" if r.breakdown else "no",
    "seed": lambda r: str(r.seed),
}


# Shown only where a run differs from the default.
_OPTIONAL: dict[str, tuple[str, Callable[[Result], str]]] = {
    "method": ("full", lambda r: r.method),
    "weights": ("random", lambda r: r.weights),
    **USUAL_READERS,
}


def _differs(result: Result, other: Estimate | None) -> bool:
    content = result.tokens_per_s
    return content is not None and other is not None and abs(other.value - content.value) > _DIFFERS * content.value


def _selected(result: Result) -> str:
    """The strategy that the platform selected, if it spells it out."""
    return str((result.strategy_selected or {}).get("spelled") or "")


def _n(result: Result) -> str:
    if result.tokens_per_s is None:
        return _plural(result.attempts, "attempt")
    n = result.tokens_per_s.n
    measured = sum(row.status == "ok" for row in result.each_attempt) or len(result.each_attempt)
    if measured > 1:
        return _plural(measured, "attempt")
    return f"1 attempt, {_plural(n, 'window')}"


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
