"""Folders of data as they come from the hub: configurations, splits, and what lies beside the data."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tunemark.data import RowSettings, prepare_data, summarize_data
from tunemark.errors import BadData
from tunemark.plugin import Architecture, Dataset, Model, TokenizerSpec
from tunemark_datasets.plugin import tunemark_datasets
from tunemark_datasets.table_files import find_files

_DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in tunemark_datasets()}
_MODEL = Model(
    name="small",
    architecture=Architecture(
        model_type="small", vocab_size=32000, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    ),
    tokenizer=TokenizerSpec(name="mistral-v1", loader="tunemark_mistral.tokenizer:load_v1"),
    runtime="nowhere:Nothing",
)  # fmt: skip
_ROWS = RowSettings(
    sequence=64, batching="pad", micro_batch=1, global_batch=1, seed=0, held=0, epochs=None
)  # fmt: skip
_CARD = """---
license: mit
configs:
- config_name: short
  data_files:
  - split: train
    path: data/short-*.jsonl
  - split: check
    path: [data/check.jsonl]
- config_name: long
  data_files: data/long.jsonl
- config_name: all
  data_dir: data
---
What this is.
"""


def _write(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps({"instruction": f"{path.stem} {n}", "output": "yes"}) + "\n" for n in range(rows))
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name, rows in {"short-0": 1, "short-1": 2, "check": 4, "long": 8}.items():
        _write(tmp_path / f"data/{name}.jsonl", rows)
    (tmp_path / "README.md").write_text(_CARD)
    return tmp_path


@pytest.mark.parametrize(
    ("config", "split", "names"),
    [
        ("short", None, ["short-0", "short-1"]),
        ("short", "check", ["check"]),
        ("long", None, ["long"]),
        ("all", None, ["check", "long", "short-0", "short-1"]),
    ],
)
def test_a_configuration_of_the_readme_names_its_files(
    clone: Path, config: str, split: str | None, names: list[str]
) -> None:
    found = find_files("alpaca", clone, split=split, config=config)
    assert [path.stem for path in found.paths] == names
    everything = {path.stem for path in [*found.paths, *found.unread]}
    assert everything == {"short-0", "short-1", "check", "long"}


def test_several_configurations_are_not_read_as_one(clone: Path) -> None:
    with pytest.raises(BadData, match=r"(?s)several configurations.*short, long, all.*config=short"):
        find_files("alpaca", clone)
    with pytest.raises(BadData, match="no configuration 'tall'"):
        find_files("alpaca", clone, config="tall")
    (clone / "data/long.jsonl").unlink()
    with pytest.raises(BadData, match=r"no file data/long\.jsonl"):
        find_files("alpaca", clone, config="long")


def test_a_default_configuration_is_read_unasked(clone: Path) -> None:
    (clone / "README.md").write_text(_CARD.replace("config_name: long", "config_name: long\n  default: true"))
    assert [path.stem for path in find_files("alpaca", clone).paths] == ["long"]


def test_a_folder_without_configurations_has_none_to_choose(tmp_path: Path) -> None:
    _write(tmp_path / "train.jsonl", 1)
    with pytest.raises(BadData, match=r"no README\.md of it has configurations"):
        find_files("alpaca", tmp_path, config="short")


def test_what_is_not_read_of_a_folder_is_named_also_from_the_cache(tmp_path: Path) -> None:
    folder, cache = tmp_path / "set", tmp_path / "cache"
    _write(folder / "train.jsonl", 2)
    found = []
    for name in ("", "test.jsonl", "extra.csv"):
        if name:
            _write(folder / name, 1)
        prepared = prepare_data(_DATASETS["alpaca"], {"path": str(folder)}, _MODEL, "all", cache=cache)
        found.append(list(summarize_data(prepared, _ROWS).remarks))
    assert prepared.cached
    assert found == [
        [],
        ["rows are those of the split train; not read of the folder: test.jsonl"],
        ["rows are those of the split train; not read of the folder: extra.csv, test.jsonl"],
    ]


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("train.jsonl", "{}\n")
    with pytest.raises(BadData, match=r"unpack what it has: set\.zip"):
        find_files("alpaca", tmp_path)


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl", "book.txt"])
def test_a_pointer_of_git_lfs_is_not_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n")
    dataset = "text" if name.endswith("txt") else "alpaca"
    with pytest.raises(BadData, match="git lfs pull"):
        prepare_data(_DATASETS[dataset], {"path": str(tmp_path / name)}, _MODEL, "all", cache=tmp_path / "cache")


def test_a_readme_is_no_text_beside_tables(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("How the rows were made.")
    (tmp_path / "rows.jsonl").write_text('{"text": "a row"}\n{"text": "another"}\n')
    prepared = prepare_data(_DATASETS["text"], {"path": str(tmp_path)}, _MODEL, "all", cache=tmp_path / "cache")
    assert prepared.token_file.documents == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": 1, "data": {"instruction": "a", "output": "b"}}, "its data is an object of instruction, output"),
        ({"input_ids": [1, 2], "labels": [1, 2]}, "the ids of some tokenizer"),
        ({"instruction": "a", "context": "b", "response": "c"}, "output=response:input=context"),
    ],
)
def test_a_refusal_says_how_the_columns_can_be_read(tmp_path: Path, row: dict[str, object], words: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadData, match=words):
        prepare_data(_DATASETS["alpaca"], {"path": str(tmp_path / "rows.jsonl")}, _MODEL, "all", cache=tmp_path)
