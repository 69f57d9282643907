"""Tables of every frame, and records of facts, are one and the same table."""

from __future__ import annotations

import json

import pytest

from tunemark_importers.everyday_table import document, is_document

_NAMES = ("model", "gpu", "num_gpus", "tokens/s")
_ROWS = (("llama-3.1-8b", "H100", "8", "72000"), ("llama-3.1-8b", "H100", "16", "141000"))
_HTML = "<p>x</p><table>{}</table>".format(
    "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in (_NAMES, *_ROWS))
)
_ALIGNED = "\n".join(" ".join(f"{cell:<14}" for cell in row) for row in (_NAMES, *_ROWS))
_RST = _ALIGNED.replace("\n", f"\n{'=' * 13}  {'=' * 13}\n", 1)
_PANDAS = "\n".join(f"{'' if at == 0 else at - 1:<3}{line}" for at, line in enumerate(_ALIGNED.splitlines()))
_OBJECTS = [dict(zip(_NAMES, row, strict=True)) for row in _ROWS]
_TURNED = "\n".join(",".join(cells) for cells in zip(_NAMES, *_ROWS, strict=True))
_FORMS = {
    "csv": "\n".join(",".join(row) for row in (_NAMES, *_ROWS)),
    "tabs": "\n".join("\t".join(row) for row in (_NAMES, *_ROWS)),
    "html": _HTML,
    "aligned": _ALIGNED,
    "rst": _RST,
    "pandas": _PANDAS,
    "json": json.dumps(_OBJECTS, indent=1),
    "json in an object": json.dumps({"date": "today", "results": _OBJECTS}),
    "turned": _TURNED,
    "turned markdown": "\n".join(
        (
            f"| {_TURNED.splitlines()[0].replace(',', ' | ')} |",
            "|---|---|---|",
            *(f"| {line.replace(',', ' | ')} |" for line in _TURNED.splitlines()[1:]),
        )
    ),
    "yaml list": "".join(
        "".join(f"{'- ' if at == 0 else '  '}{name}: {cell}\n" for at, (name, cell) in enumerate(one.items()))
        for one in _OBJECTS
    ),
    "yaml list below a fact": "gpu: H100\nruns:\n"
    + "".join(
        "".join(
            f"  {'- ' if at == 0 else '  '}{name}: {one[name]}\n" for at, name in enumerate(_NAMES) if name != "gpu"
        )
        for one in _OBJECTS
    ),
    "json by name": json.dumps({f"run {at}": one for at, one in enumerate(_OBJECTS)}),
    "json, a fact of all": json.dumps(
        {"gpu": "H100", "rows": [{name: one[name] for name in _NAMES if name != "gpu"} for one in _OBJECTS]}
    ),
    "csv below a remark": "# measured in March\n\n" + "\n".join(",".join(row) for row in (_NAMES, *_ROWS)),
    "in a text": f"# Results\n\nWe measured:\n\n{_ALIGNED}\n\nThat is all.\n",
}


@pytest.mark.parametrize("form", sorted(_FORMS))
def test_a_table_is_read_in_any_frame(form: str) -> None:
    text = _FORMS[form]
    assert is_document(text)
    found = [(c.model, c.device, c.count, c.tokens_per_s) for c in document("t", "t", text)]
    assert found == [("llama-3.1-8b", "H100", 8, 72000.0), ("llama-3.1-8b", "H100", 16, 141000.0)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"setup": {"model": "gpt2", "num_gpus": 8}, "result": {"tokens_per_second": 72000}}, indent=1),
        "model: gpt2\nnum_gpus: 8\n# by hand\ntokens_per_second: 72000\n",
        "model = gpt2\nnum_gpus = 8\ntokens_per_second = 72000\n",
        '[run]\nmodel = "gpt2"\nnum_gpus = 8\n\n[result]\ntokens_per_second = 72000.0\n',
        "| Metric | Value |\n|---|---|\n| Model | gpt2 |\n| GPUs | 8 |\n| Throughput | 72,000 tokens/s |\n",
        json.dumps({"model_name_or_path": "gpt2", "world_size": 8, "throughput": "72k tok/s"}),
    ],
)
def test_a_record_of_facts_is_a_table_of_one_row(text: str) -> None:
    assert is_document(text)
    (claim,) = document("r", "r", text)
    assert (claim.model, claim.count, claim.tokens_per_s, claim.id) == ("gpt2", 8, 72000.0, "r")


@pytest.mark.parametrize(
    "text",
    [
        # One name with two values is left out, and then nothing is a rate.
        json.dumps({"a": {"model": "gpt2", "tokens_per_second": 1}, "b": {"num_gpus": 8, "tokens_per_second": 2}}),
        # A log under a line of names is a log.
        "step   loss   tok/s   ms\n1      2.3    4096    88\n2      2.2    4096    88\n",
        '{"step": 1, "loss": 2.3}\n{"step": 2, "loss": 2.2}\n',
        "[" * 50_000,
        "<table><tr><td>model</td></tr></table>",
    ],
)
def test_what_is_no_table_is_none(text: str) -> None:
    assert not is_document(text)


def test_numbers_between_semicolons_are_read_where_the_table_shows_how() -> None:
    head = "model;gpu;n;tokens_s;step time (s)\n"
    (claim,) = document("t", "t", f"{head}gpt2;MI250;16;390.000;1,35\n")
    assert (claim.tokens_per_s, claim.step_time_s, claim.count) == (390000.0, 1.35, 16)
    (claim,) = document("t", "t", f"{head}gpt2;MI250;16;390.000;2\n")
    assert claim.tokens_per_s is None
    assert any("cannot be read as one number" in note for note in claim.notes)


def test_names_that_end_in_a_size_are_those_of_models_and_8k_is_a_length() -> None:
    (claim,) = document(
        "t", "t", "name,accelerator,# chips,ms_per_step,global_bs,seqlen\nllama-2-7b,H100,8,1410,32,8k\n"
    )
    assert (claim.model, claim.count, claim.step_time_s, claim.sequence) == ("llama-2-7b", 8, 1.41, 8192)


@pytest.mark.parametrize("name", ["epoch 0 step {} tokens/sec (per GPU)", "step {} tok/s", "[{}] tokens/s"])
def test_lines_that_differ_in_their_number_alone_are_those_of_a_log(name: str) -> None:
    assert not is_document("".join(f"{name.format(step)}: {4096 + step}\n" for step in range(1, 9)))
