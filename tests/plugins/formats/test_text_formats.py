"""A small report in both formats, against the whole text."""

from __future__ import annotations

import csv
import io

from tunemark.plugin import Catalog
from tunemark.plugin.catalog import load_object
from tunemark.report import Column, Report, ReportTable
from tunemark.report.report import Section
from tunemark.results import Estimate

REPORT = Report(
    title="two runs",
    notes=("a note",),
    sections=(Section(key="all", title="Numbers", intro="read <this>", missing=("no *prices*",), tables=(
        ReportTable(
            title="Rates",
            columns=(
                Column(name="run_id", title="run"),
                Column(name="tokens_per_s", title="content", unit="tokens/s"),
                Column(name="mfu", title="MFU", unit="1"),
                Column(name="peak_memory_bytes", title="memory", unit="bytes"),
                Column(name="chips", title="chips"),
            ),
            rows=(
                ("a|b", Estimate(value=1234.4, low=1219.6, high=1249.2, n=3, method="t"), 0.31, 3 << 30, None),
                ('c,"d"', None, None, None, None),
            ),
        ),
        ReportTable(title="More", columns=(Column(name="run_id", title="run"), Column(name="seed", title="seed")),
              rows=(("a|b", 0), ('c,"d"', 1))),
        ReportTable(title="Findings", columns=(Column(name="rule", title="rule"),), rows=(), per_run=False),
    )),),
)  # fmt: skip

MARKDOWN = r"""# two runs

- a note

## Numbers

read \<this\>

no \*prices\*

### Rates

| run | content (tokens/s) | MFU (%) | memory (GiB) |
|---|---:|---:|---:|
| a\|b | 1,234 ± 15 | 31.00 | 3.000 |

Of one more run none of this is known.

### More

| run | seed |
|---|---:|
| a\|b | 0 |
| c,"d" | 1 |

### Findings

none
"""

CSV = (
    "run_id,tokens_per_s,tokens_per_s_low,tokens_per_s_high,tokens_per_s_n,tokens_per_s_method,"
    "mfu,peak_memory_bytes,chips,seed\r\n"
    "a|b,1234.4,1219.6,1249.2,3,t,0.31,3221225472,,0\r\n"
    '"c,""d""",,,,,,,,,1\r\n'
)


def rendered(name: str) -> str:
    data: bytes = load_object(Catalog().formats()[name].render)(REPORT)
    return data.decode()


def test_markdown_is_rounded_with_units_in_the_header() -> None:
    assert rendered("markdown") == MARKDOWN


def test_csv_is_one_row_a_run_and_unrounded() -> None:
    assert rendered("csv") == CSV
    assert {len(row) for row in csv.reader(io.StringIO(CSV))} == {10}
