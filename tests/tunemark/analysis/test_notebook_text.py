"""What the cells of a notebook printed is read like any log."""

from __future__ import annotations

import json

import pytest

from tunemark.analysis import read_claims
from tunemark.errors import BadData
from tunemark.plugin import Catalog


def _notebook(outputs: list[dict[str, object]]) -> bytes:
    cell = {"cell_type": "code", "source": ["train()"], "metadata": {}, "outputs": outputs}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def _read(content: bytes) -> list[float | None]:
    found = read_claims([(content, None)], "n.ipynb", "n.ipynb", list(Catalog().importers().values()))
    return [value for claim in found.claims for value in (claim.tokens_per_s, *claim.steps.column("tokens_per_s"))]


def test_the_output_of_a_notebook_is_a_log() -> None:
    lines = [f"step {n} loss 2.{n} tok/s {4096 + n}\n" for n in range(1, 6)]
    outputs: list[dict[str, object]] = [{"output_type": "stream", "name": "stdout", "text": lines}]
    assert _read(_notebook(outputs)) == [None, 4097.0, 4098.0, 4099.0, 4100.0, 4101.0]


def test_the_table_of_a_notebook_is_a_table() -> None:
    head = "<table><tr><th>model</th><th>GPUs</th><th>tokens/s</th></tr>"
    html = f"{head}<tr><td>gpt2</td><td>8</td><td>72000</td></tr></table>"
    outputs: list[dict[str, object]] = [{"output_type": "display_data", "data": {"text/html": [html]}}]
    assert _read(_notebook(outputs)) == [72000.0]


@pytest.mark.parametrize("content", [_notebook([]), _notebook([{"text": "tok/s 4096"}])[:80]])
def test_a_notebook_without_output_or_cut_off_is_refused(content: bytes) -> None:
    with pytest.raises(BadData):
        _read(content)
