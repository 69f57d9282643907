"""The built-in datasets. Every row here is made up."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunemark.errors import BadData, BadExperiment
from tunemark.plugin import Dataset, DatasetSource, Example
from tunemark.plugin.catalog import load_object
from tunemark_datasets import plugin, python_code_alpaca, python_stdlib, sections_template, synthetic_documents

_ROWS = [
    {"instruction": "Add two numbers", "input": "1, 2", "output": "print(1 + 2)"},
    {"instruction": "Keep {braces} and {input}", "input": "", "output": "x = {}\n### Output:\n# not a heading"},
    {"instruction": "Grüße 😀", "input": "### Output:\nnot yet", "output": "print('ß')"},
]
_FULL = [
    {**row, "prompt": sections_template.format_prompt(row["instruction"], row["input"]) + row["output"]}
    for row in _ROWS
]


def _pieces(source: DatasetSource) -> list[tuple[str, str]]:
    """(prompt, response) of each example."""
    pairs = []
    for example in source.examples():
        assert [p.role for p in example.pieces] == ["prompt", "response"]
        pairs.append((example.pieces[0].text or "", example.pieces[1].text or ""))
    return pairs


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pandas

    if path.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    return path


def _load(path: Path) -> DatasetSource:
    return python_code_alpaca.load({"path": str(path)}, 32000)


def test_descriptors_name_what_is_there() -> None:
    found = {dataset.name: dataset for dataset in plugin.tunemark_datasets()}
    assert sorted(found) == ["alpaca", "chat", "python-code-alpaca", "python-stdlib", "synthetic", "text"]
    for dataset in found.values():
        assert isinstance(dataset, Dataset)
        assert callable(load_object(dataset.loader))
    assert not found["synthetic"].needs_tokenizer
    assert not found["synthetic"].learnable
    assert found["synthetic"].roles == ("response",)


def test_plugin_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'datasets', 'pandas', 'numpy', 'sentencepiece', 'mistral_common', 'pyarrow'}"
    code = f"import sys, tunemark_datasets.plugin, tunemark_mistral.tokenizer; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -- python-code-alpaca


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize("rows", [_ROWS, _FULL], ids=["without prompt", "with prompt"])
def test_rows_of_each_format(tmp_path: Path, suffix: str, rows: list[dict[str, Any]]) -> None:
    source = _load(_write(tmp_path / f"rows{suffix}", rows))
    expected = [(sections_template.format_prompt(row["instruction"], row["input"]), row["output"]) for row in _ROWS]
    assert _pieces(source) == expected
    assert source.facts()["rows"] == 3


def test_the_template_is_the_documented_one() -> None:
    assert sections_template.format_prompt("Do.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nDo.\n\n### Input:\n\n\n### Output:\n"
    )


def test_a_prompt_column_alone_is_split_at_its_first_heading(tmp_path: Path) -> None:
    source = _load(_write(tmp_path / "rows.jsonl", [{"prompt": "Ask\n### Output:\nanswer\n### Output:\nmore"}]))
    assert _pieces(source) == [("Ask\n### Output:\n", "answer\n### Output:\nmore")]


def test_a_json_object_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({name: [row[name] for row in _ROWS] for name in ("instruction", "input", "output")}))
    assert len(_pieces(_load(path))) == 3


def test_a_folder_is_its_files_of_one_format(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / ".git").mkdir()
    _write(tmp_path / "data" / "train-1.parquet", _ROWS[1:])
    _write(tmp_path / "data" / "train-0.parquet", _ROWS[:1])
    _write(tmp_path / ".git" / "other.parquet", _ROWS)
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert [response for _, response in _pieces(_load(tmp_path))] == [row["output"] for row in _ROWS]


def test_fingerprint_follows_the_content_alone(tmp_path: Path) -> None:
    first = _load(_write(tmp_path / "a.jsonl", _ROWS)).fingerprint()
    assert _load(_write(tmp_path / "b.jsonl", _ROWS)).fingerprint() == first
    assert _load(_write(tmp_path / "a.jsonl", _ROWS[:2])).fingerprint() != first


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.jsonl", b"", "it is empty"),
        ("rows.parquet", b"", "it is empty"),
        ("rows.csv", b"a,b\n", "its format .csv is not known"),
        ("rows.parquet", b"garbage", "it is not parquet"),
        ("rows.parquet", b"PAR1garbage", "it is not parquet"),
        ("rows.json", b"garbage", "it is neither JSON nor"),
        ("rows.jsonl", b'{"prompt": "a\\n### Output:\\nb"}\ngarbage\n', "line 2"),
        ("rows.jsonl", b"\xff\xfe\x00", "not text in UTF-8"),
        ("rows.json", b"[1, 2]", "its rows are not JSON objects"),
        ("rows.json", b"[]", "it lacks the columns instruction, input, output"),
        ("rows.json", b'{"instruction": [], "input": [], "output": []}', "it has no rows"),
        ("rows.json", b'{"instruction": ["a"], "input": [], "output": []}', "columns differ in length"),
        ("rows.jsonl", b'{"instruction": "a", "output": "b"}\n', "it lacks the column input"),
        ("rows.jsonl", b'{"instruction": "a", "input": "", "output": 3}\n', "input or output is not text"),
        ("rows.jsonl", b'{"prompt": "no heading"}\n', "row 1: its column prompt is no text with a section"),
        ("rows.jsonl", b'{"prompt": null}\n', "row 1: its column prompt is no text with a section"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = _bytes(tmp_path / name, content)
    with pytest.raises(BadData) as caught:
        list(_load(path).examples())
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there is no file"):
        _load(tmp_path / "nowhere.parquet")
    with pytest.raises(BadData, match="there is no file to read"):
        _load(tmp_path)


def test_path_and_revision_exclude_each_other() -> None:
    with pytest.raises(BadData, match="exclude each other"):
        python_code_alpaca.load({"path": "x.json", "revision": "main"}, 32000)


def _python(code: str, tmp_path: Path) -> str:
    """What code prints where the hub is out of reach and nothing is in its cache."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def test_an_unreachable_hub_is_said_and_not_replaced(tmp_path: Path) -> None:
    printed = _python(
        "from tunemark.errors import BadData\n"
        "from tunemark_datasets.python_code_alpaca import load\n"
        "try: load({}, 32000)\n"
        "except BadData as error: print(error)\n",
        tmp_path,
    )
    assert "is not in the local cache and cannot be downloaded from the hub" in printed
    assert "path=FILE" in printed
    assert "python-stdlib" in printed


def test_rows_of_the_hub(tmp_path: Path) -> None:
    code = f"""
import datasets, json, sys
from tunemark_datasets import python_code_alpaca
def load_dataset(repository, *, split, revision):
    assert (repository, split, revision) == (python_code_alpaca.REPOSITORY, "train", "abc")
    return datasets.Dataset.from_list({_FULL!r})
datasets.load_dataset = load_dataset
source = python_code_alpaca.load({{"revision": "abc"}}, 32000)
assert source.fingerprint()
assert source.facts()["revision"] == "abc"
assert source.facts()["rows"] == 3
assert "torch" not in sys.modules
print(json.dumps([[p.text for p in e.pieces] for e in source.examples()]))
"""
    expected = [[sections_template.format_prompt(row["instruction"], row["input"]), row["output"]] for row in _ROWS]
    assert json.loads(_python(code, tmp_path)) == expected


# -- python-stdlib


def test_stdlib_has_thousands_of_pairs_and_repeats_them() -> None:
    source = python_stdlib.load({}, 32000)
    pairs = _pieces(source)
    assert len(pairs) > 3000
    assert len(set(pairs)) == len(pairs) == source.facts()["pairs"]
    again = python_stdlib.load({}, 32000)
    assert _pieces(again) == pairs
    assert again.fingerprint() == source.fingerprint()
    assert again.facts() == source.facts()
    assert not [p for p, _ in pairs if not p.endswith("### Input:\n\n\n### Output:\n")]
    assert not [r for _, r in pairs if not r.lstrip("# \n").startswith(("def", "class", "async def", "@"))]


_SOURCE = '''
@decorated
class Outer:
    """Say it."""

    def method(self):
        """Answer.

        Or:
            ask.
        """
        return 42

    def alone(self):
        """Nothing but this."""

def one_line(): "Too short."; return 1

if True:
    async def nested():
        "Wait."
        try:
            def inner():
                """Deep."""
                return "\\ud800"
        finally:
            pass
'''


def test_pairs_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(_SOURCE)
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "b.py").write_text('def f():\n    """No."""\n    return 1\n')
    source = python_stdlib.PythonStdlib(tmp_path)
    found = {p.partition("### Instruction:\n")[2].partition("\n\n### Input:")[0]: r for p, r in _pieces(source)}
    assert list(found) == ["Say it.", "Answer.\n\nOr:\n    ask.", "Wait.", "Deep."]
    assert found["Answer.\n\nOr:\n    ask."] == "def method(self):\n    return 42"
    assert found["Say it."].startswith("@decorated\nclass Outer:\n")
    assert '"""Answer.' in found["Say it."]
    assert found["Deep."] == 'def inner():\n    return "\\ud800"'


def test_stdlib_fingerprint_follows_the_sources(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(_SOURCE)
    first = python_stdlib.PythonStdlib(tmp_path).fingerprint()
    assert python_stdlib.PythonStdlib(tmp_path).fingerprint() == first
    (tmp_path / "a.py").write_text(_SOURCE + "\n")
    assert python_stdlib.PythonStdlib(tmp_path).fingerprint() != first


def test_stdlib_without_sources(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no library sources"):
        python_stdlib.PythonStdlib(tmp_path).fingerprint()


# -- synthetic


def _ids(example: Example) -> tuple[int, ...]:
    (piece,) = example.pieces
    assert piece.ids is not None
    return piece.ids


def test_synthetic_lengths_and_ids_are_as_stated() -> None:
    source = synthetic_documents.load({"documents": "4000", "mean": "100", "sigma": "0.5"}, 1000)
    documents = [_ids(example) for example in source.examples()]
    assert len(documents) == 4000
    mean = sum(map(len, documents)) / 4000
    # Standard error of the mean: 100 * sqrt(exp(0.25) - 1) / sqrt(4000) = 0.84.
    assert abs(mean - 100) < 4
    ids = [i for document in documents for i in document]
    assert (min(ids), max(ids)) == (0, 999)
    assert abs(sum(ids) / len(ids) - 499.5) < 5


def test_synthetic_repeats_itself_and_follows_its_options() -> None:
    first = synthetic_documents.load({"documents": "20"}, 500)
    again = synthetic_documents.load({"documents": "20"}, 500)
    assert list(first.examples()) == list(again.examples())
    assert first.fingerprint() == again.fingerprint()
    for options, vocab_size in (({"documents": "20", "seed": "1"}, 500), ({"documents": "20"}, 501)):
        other = synthetic_documents.load(options, vocab_size)
        assert other.fingerprint() != first.fingerprint()
        assert list(other.examples()) != list(first.examples())


def test_synthetic_lengths_are_cut() -> None:
    source = synthetic_documents.load({"documents": "500", "mean": "100", "sigma": "2", "longest": "64"}, 10)
    lengths = [len(_ids(example)) for example in source.examples()]
    assert min(lengths) >= 1
    assert max(lengths) == 64
    equal = synthetic_documents.load({"documents": "5", "mean": "30", "sigma": "0"}, 10)
    assert [len(_ids(example)) for example in equal.examples()] == [30] * 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"documents": "many"}, "is not a whole number"),
        ({"mean": "x"}, "is not a number"),
        ({"documents": "0"}, "at least 1"),
        ({"mean": "nan"}, "out of range"),
        ({"mean": "inf"}, "out of range"),
        ({"sigma": "-1"}, "out of range"),
        ({"longest": "0"}, "at least 1"),
    ],
)
def test_synthetic_refuses_bad_options(options: dict[str, str], says: str) -> None:
    with pytest.raises(BadExperiment, match=says):
        synthetic_documents.load(options, 100)
