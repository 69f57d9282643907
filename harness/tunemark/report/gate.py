"""A gate's verdicts as text for a terminal, Markdown for a pull request, and JUnit XML for a CI system."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from tunemark.analysis import comparability
from tunemark.analysis.gate import BaselineSensitivity, Gate, GatedRun, format_sample_size
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_percent, format_significant, percent_text

_MARKS = {"pass": "PASS", "fail": "FAIL", "no verdict": "NO VERDICT"}
# A bot finds its previous comment by this, to replace it.
_MARKER = "<!-- tunemark gate -->"
# Characters that XML 1.0 does not allow, even escaped (section 2.2).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def gate_text(found: Gate) -> str:
    """The verdicts as a table, the reason for each, and the criteria that they are judged by."""
    return "\n\n".join([_headline(found), _table(found.runs), "\n".join(_lines(found)), _criteria(found)])


def gate_comment(found: Gate) -> bytes:
    """A Markdown file for a pull request."""
    details = ["<details><summary>Reasons, and what else differs</summary>", "", *_lines(found), "", _criteria(found)]
    parts = [_MARKER, f"### tunemark: {_headline(found)}", "", _table(found.runs), "", *details, "", "</details>", ""]
    return "\n".join(parts).encode()


def gate_junit(found: Gate) -> bytes:
    """JUnit XML with a test case for each run; "no verdict" is a skipped test, since nothing was tested."""
    verdicts = [one.verdict for one in found.runs]
    counts = {"tests": len(verdicts), "failures": verdicts.count("fail"), "skipped": verdicts.count("no verdict")}
    attributes = {"name": "tunemark gate", **{name: str(n) for name, n in counts.items()}, "errors": "0"}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    for one in found.runs:
        name = {"classname": "tunemark.gate", "name": _xml(f"{one.label} [{one.run_id}]"), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", name)
        ratio = [] if one.ratio is None else [f"{_ratio(one)} of the baseline's rate"]
        text = _xml("\n".join([*ratio, *one.notes, *_differences(one)]))
        if one.verdict != "pass":
            tag = "failure" if one.verdict == "fail" else "skipped"
            ElementTree.SubElement(case, tag, {"message": _xml(one.reason)}).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = f"{_xml(one.reason)}\n{text}"
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def outlook_text(found: Sequence[BaselineSensitivity], power: float, false_alarms: float) -> str:
    """How many attempts it takes to detect each change, for each run of a baseline."""
    changes = list(dict.fromkeys(change for one in found for change in one.needed))
    header = ["run", *(f"to see {percent_text(float(change))} slower" for change in changes)]
    header[1:1] = ["noise (%)", "between", "series", "attempts"]
    rows = []
    for one in found:
        noise = "unknown" if one.noise is None else _noise(one.noise)
        cells = [escape(one.label), noise, one.unit, str(one.series), str(one.attempts)]
        rows.append([*cells, *(_needed(one, change) for change in changes)])
    lines = [markdown_table(header, rows, "<>"), ""]
    lines += [f"- {escape(one.label)}: {escape(one.reason)}" for one in found if one.reason]
    lines.append(
        f"With {percent_text(power)} power, and a false alarm in {percent_text(false_alarms)} of unchanged "
        "runs. Noise: standard deviation of log throughput. The uncertainty of that estimate is accounted for."
    )
    return "\n".join(lines)


def _needed(one: BaselineSensitivity, change: str) -> str:
    return format_sample_size(one.needed[change], one.unit) if change in one.needed else "unknown"


def _headline(found: Gate) -> str:
    verdicts = [one.verdict for one in found.runs]
    words = ", ".join(f"{verdicts.count(v)} {v}" for v in ("fail", "no verdict", "pass") if v in verdicts)
    return f"{_MARKS[found.verdict]} ({words or 'no runs'})"


def _table(runs: Sequence[GatedRun]) -> str:
    header = ["run", "verdict", "ratio to baseline (95 %)", "power (%)", "attempts", "baseline attempts", "noise (%)"]
    rows = [
        [
            escape(one.label) + (" SIMULATED" if one.simulated else ""),
            _MARKS[one.verdict],
            _ratio(one),
            format_percent(one.power, ".0f"),
            str(one.attempts),
            str(one.baseline_attempts),
            _noise(one.noise),
        ]
        for one in runs
    ]
    return markdown_table(header, rows, "<<>")


def _ratio(one: GatedRun) -> str:
    if one.ratio is None or one.low is None or one.high is None:
        return "-"
    return f"{one.ratio:.4f} ({one.low:.4f} to {one.high:.4f})"


def _lines(found: Gate) -> list[str]:
    lines = []
    for one in found.runs:
        lines.append(f"- {escape(one.label)}: {_MARKS[one.verdict]}: {escape(one.reason)}")
        lines += [f"  - {escape(note)}" for note in (*one.notes, *_differences(one))]
    return lines


def _differences(one: GatedRun) -> list[str]:
    lines = [f"compared despite {comparability.format_fields(one.despite)}"] if one.despite else []
    return [*lines, *([f"also different: {comparability.format_fields(one.surroundings)}"] if one.surroundings else [])]


def _criteria(found: Gate) -> str:
    change, power, false_alarms = map(percent_text, (found.change, found.power, found.false_alarms))
    return (
        f"Criteria: a slow-down of {change} is detected with {power} power, and "
        f"at most {false_alarms} of unchanged sets of runs fail. Student's t on log throughput, "
        "one-sided, the noise of baseline and run taken together."
    )


def _noise(noise: float | None) -> str:
    return format_significant(None if noise is None else 100 * noise, 2)


def _xml(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
