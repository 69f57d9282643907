"""Tables with a chip, a count or a model per column: each figure is held to what its own header says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunemark.errors import BadData
from tunemark_importers.everyday_table import document, is_document

_CHIPS = ("A100-80GB", "H100", "MI300X", "RTX-4090", "L40S")
_MODELS = ("llama-2-7b", "mistral-7b", "Qwen2.5-7B", "Falcon-40B", "70B")
_UNITS = {"tok/s/GPU": True, "tokens/s per GPU": True, "tokens/s": False, "tokens per second": False}


def _markdown(rows: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body]) + "\n"


def _csv(rows: list[list[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(_CHIPS), min_size=2, max_size=4, unique=True),
    st.lists(st.sampled_from(_MODELS), min_size=1, max_size=3, unique=True),
    st.sampled_from(sorted(_UNITS)),
    st.sampled_from(
        [
            "{chip} {unit}",
            "{unit} ({chip})",
            "{unit}, {chip}",
            "8x {chip} {unit}",
            "{chip} (8x)",
            "corner",
            "caption",
            "cells",
        ]
    ),
    st.sampled_from([_markdown, _csv]),
    st.data(),
)
def test_what_stands_under_a_chip_is_that_chips(
    chips: list[str], models: list[str], unit: str, form: str, write: object, data: st.DataObject
) -> None:
    figures = {(m, c): data.draw(st.integers(100, 99_999)) for m in models for c in chips}
    is_device = _UNITS[unit]
    if form == "cells" and not unit.startswith("tok/s/GPU"):
        unit, is_device = "tok/s", False
    heads = {c: form.format(chip=c, unit=unit) if "{" in form else c for c in chips}
    number = "{:,}" if write is _markdown else "{}"
    cell = f"{number} {unit}" if form == "cells" else number
    corner = unit if form == "corner" else "model"
    rows = [[corner, *heads.values()], *([m, *(cell.format(figures[m, c]) for c in chips)] for m in models)]
    text = write(rows)  # type: ignore[operator]
    is_caption = form in ("caption", "{chip} (8x)")
    text = f"Training throughput ({unit}):\n\n{_markdown(rows)}" if is_caption else text
    assert is_document(text), text
    claims = document("t", "t", text)
    found = {(c.model, c.device): (c.tokens_per_s_per_device if is_device else c.tokens_per_s, c.count) for c in claims}
    count = 8 if "8x" in form else None
    assert found == {(m, c): (float(v), count) for (m, c), v in figures.items()}, text


def test_counts_and_models_in_headers() -> None:
    claims = document("t", "t", _markdown([["tokens/s", "8 GPUs", "16x"], ["Llama-2-7B", "72,000", "OOM"]]))
    assert [(c.model, c.count, c.tokens_per_s) for c in claims] == [("Llama-2-7B", 8, 72000.0)]
    claims = document("t", "t", "gpu,num_gpus,Llama-2-7B (tok/s),Mixtral-8x7B (tok/s)\nH100,8,72000,41000\n")
    assert [(c.model, c.device, c.count, c.tokens_per_s) for c in claims] == [
        ("llama-2-7b", "H100", 8, 72000.0), ("mixtral-8x7b", "H100", 8, 41000.0),
    ]  # fmt: skip


def test_each_figure_stays_with_its_chip() -> None:
    rows = [["model", "GPUs", "A100 tokens/s", "A100 MFU", "H100 tokens/s", "H100 MFU"],
            ["llama-2-7b", "8", "29,600", "49%", "72,800", "38%"]]  # fmt: skip
    claims = document("t", "t", _markdown(rows))
    assert [(c.device, c.tokens_per_s, c.mfu) for c in claims] == [("A100", 29600.0, 0.49), ("H100", 72800.0, 0.38)]


def test_chips_above_names_in_the_first_column() -> None:
    rows = [["Metric", "A100", "H100"], ["model", "llama-2-7b", "llama-2-7b"], ["GPUs", "8", "8"],
            ["tokens/s/GPU", "3,700", "9,100"]]  # fmt: skip
    claims = document("t", "t", _markdown(rows))
    assert [(c.device, c.count, c.tokens_per_s_per_device) for c in claims] == [
        ("A100", 8, 3700.0),
        ("H100", 8, 9100.0),
    ]


def test_what_no_unit_is_said_of_is_not_read() -> None:
    assert not is_document(_markdown([["model", "A100", "H100"], ["llama-2-7b", "3,700", "9,100"]]))


def test_a_user_who_explains_a_column_is_followed() -> None:
    text = "model,A100 tok/s/GPU,H100 tok/s/GPU\ngpt2,100,200\n"
    (claim,) = document("t", "t", text, {"A100 tok/s/GPU": "-"})
    assert claim.tokens_per_s_per_device == 200.0
    with pytest.raises(BadData, match="rates of one kind"):
        document("t", "t", text, {"model": "model"})


def test_a_table_in_latex() -> None:
    text = r"""\begin{tabular}{l|r@{}r}
\toprule
\textbf{Model} & GPUs & \multicolumn{1}{c}{Tokens/s} & MFU (\%) \\
\midrule
Llama-2-7B & $8\times$ H100 & 72{,}800 & 31.2 \\ % a remark
Llama-2-13B & 16$\times$H100 & \textbf{98,000} & 40.1 \\ \hline
\end{tabular}
"""
    assert is_document(text)
    claims = document("t", "t", text)
    found = [(c.model, c.device, c.count, c.tokens_per_s, c.mfu) for c in claims]
    assert found == [("Llama-2-7B", "H100", 8, 72800.0, 0.312), ("Llama-2-13B", "H100", 16, 98000.0, 0.401)]
    assert "line 5" in claims[0].origin["tokens_per_s"]
