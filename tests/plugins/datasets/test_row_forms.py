"""Files as people bring them: each is read as it is meant, or refused with its row and the way on. All rows are made
up."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tunemark.errors import TunemarkError
from tunemark.plugin import DatasetSource
from tunemark.plugin.catalog import load_object
from tunemark_datasets.plugin import tunemark_datasets
from tunemark_datasets.table_rows import explain_hub_error

_DATASETS = {dataset.name: dataset for dataset in tunemark_datasets()}
_ROWS = [{"instruction": f"Name the tide at hour {n}", "output": f"It is {n} feet"} for n in range(12)]
_LINES = "".join(json.dumps(row) + "\n" for row in _ROWS)


def _open(name: str, path: Path, **options: str) -> DatasetSource:
    given = {"path": str(path), **options}
    assert set(given) <= set(_DATASETS[name].options)
    source: DatasetSource = load_object(_DATASETS[name].loader)(given, 32000)
    return source


def _answers(source: DatasetSource) -> list[str | None]:
    return [example.pieces[-1].text for example in source.examples()]


def _talks(source: DatasetSource) -> list[list[tuple[str, str | None]]]:
    return [[(m["role"], m["content"]) for m in example.messages] for example in source.examples()]


def _refusal(name: str, path: Path, **options: str) -> str:
    with pytest.raises(TunemarkError) as caught:
        list(_open(name, path, **options).examples())
    return str(caught.value)


def _put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _indented() -> str:
    return "\n".join(json.dumps(row, indent=2) for row in _ROWS)


def _lists() -> str:
    return f"{json.dumps(_ROWS[:5])}\n{json.dumps(_ROWS[5:])}\n"


_SERVED = {
    "features": [{"name": "instruction"}],
    "rows": [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(_ROWS)],
}
_COLUMNS = {name: {str(n): row[name] for n, row in enumerate(_ROWS)} for name in ("instruction", "output")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("marked.json", "\ufeff" + json.dumps(_ROWS)),
        ("marked.jsonl", "\ufeff" + _LINES),
        ("windows.jsonl", _LINES.replace("\n", "\r\n\r\n")),
        ("CAPITALS.JSONL", _LINES),
        ("rows.ndjson", _LINES),
        ("rows.txt", _LINES),
        ("rows", json.dumps(_ROWS)),
        ("rows.jsonl.gz", gzip.compress(_LINES.encode())),
        ("rows.jsonl.bz2", bz2.compress(_LINES.encode())),
        ("rows.json.xz", lzma.compress(_LINES.encode())),
        ("packed-without-saying.jsonl", gzip.compress(_LINES.encode())),
        ("indented.json", _indented()),
        ("indented.jsonl", _indented()),
        ("lists.jsonl", _lists()),
        ("under-data.json", json.dumps({"version": "1.1", "data": _ROWS})),
        ("under-train.json", json.dumps({"train": _ROWS})),
        ("served.json", json.dumps(_SERVED)),
        ("pandas.json", json.dumps(_COLUMNS)),
        ("split.json", json.dumps({"columns": ["instruction", "output"], "index": list(range(12)),
                                   "data": [list(row.values()) for row in _ROWS]})),
        ("numbered.json", json.dumps({str(n): row for n, row in enumerate(_ROWS)})),
        ("semicolon.csv", "instruction;output\n" + "".join(f"{r['instruction']};{r['output']}\n" for r in _ROWS)),
        ("excel.csv", ("instruction,output\r\n" + "".join(f"{r['instruction']},{r['output']}\r\n" for r in _ROWS)
                       ).encode("utf-16")),
        ("t.TSV", "instruction\toutput\n" + "".join(f"{r['instruction']}\t{r['output']}\n" for r in _ROWS)),
    ],
)  # fmt: skip
def test_every_form_is_the_same_rows(tmp_path: Path, name: str, content: bytes | str) -> None:
    source = _open("alpaca", _put(tmp_path, name, content))
    assert _answers(source) == [row["output"] for row in _ROWS]
    assert source.facts()["rows"] == 12


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_zstd_and_lz4_are_read_and_a_cut_file_is_refused(tmp_path: Path, kind: str) -> None:
    import pyarrow

    path = tmp_path / f"rows.jsonl.{'zst' if kind == 'zstd' else 'lz4'}"
    with pyarrow.CompressedOutputStream(str(path), kind) as stream:
        stream.write(_LINES.encode())
    assert _answers(_open("alpaca", path)) == [row["output"] for row in _ROWS]
    _put(tmp_path, path.name, path.read_bytes()[:-9])
    assert "cannot be read to its end" in _refusal("alpaca", path)


def test_a_list_and_a_row_longer_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    rows = [{"instruction": "Recite", "output": "wave 🌊 " * 400_000}, *_ROWS]
    path = _put(tmp_path, "rows.json", json.dumps(rows, indent=1, ensure_ascii=False))
    assert _answers(_open("alpaca", path)) == [row["output"] for row in rows]


def test_an_encoding_is_an_option_and_a_wrong_one_is_refused_with_candidates(tmp_path: Path) -> None:
    text = "instruction,output\n问,答\n潮汐是什么,海水的涨落\n"
    path = _put(tmp_path, "tide.csv", text.encode("gb18030"))
    said = _refusal("alpaca", path)
    assert "not text in UTF-8" in said
    assert "line 2" in said
    assert "encoding=gb18030" in said
    assert _answers(_open("alpaca", path, encoding="gb18030")) == ["答", "海水的涨落"]
    latin = _put(tmp_path, "gezeiten.csv", "instruction,output\nEbbe für uns,nötig\n".encode("cp1252"))
    assert "encoding=cp1252" in _refusal("alpaca", latin)
    assert "there is no encoding 'gbkk'" in _refusal("alpaca", path, encoding="gbkk")


_GOOD = json.dumps(_ROWS[0])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("null.jsonl", f'{_GOOD}\n{{"instruction": "a", "output": null}}\n', ["row 2", "NoneType", "incomplete=skip"]),
        ("number.jsonl", f'{_GOOD}\n{{"instruction": "a", "output": 2}}\n', ["row 2", "is int", "between quotes"]),
        ("flag.jsonl", f'{_GOOD}\n{{"instruction": "a", "output": true}}\n', ["row 2", "is bool"]),
        ("list.jsonl", f'{_GOOD}\n{{"instruction": "a", "output": ["b"]}}\n', ["row 2", "is list"]),
        ("nan.jsonl", f'{_GOOD}\n{{"instruction": "a", "input": NaN, "output": "b"}}\n', ["row 2", "NaN", "pandas"]),
        ("cut.jsonl", f"{_GOOD}\n{_GOOD[:-9]}", ["row 2, line 2", "ends within the row", "download"]),
        ("cut.json", f"[{_GOOD},\n{_GOOD[:-9]}", ["row 2, line 2", "ends within the row"]),
        ("open.json", f"[{_GOOD},\n{_GOOD}", ["the list does not end"]),
        ("python.jsonl", str(_ROWS[0]) + "\n", ["row 1, line 1", "Python", "json.dumps"]),
        ("none.jsonl", f'{_GOOD}\n{{"instruction": "a", "output": None}}\n', ["line 2", "Python"]),
        ("late.jsonl", _LINES * 40 + "oops\n", ["row 481, line 481"]),
        ("number.json", f"[{_GOOD}, 7]", ["row 2", "not JSON objects"]),
        ("splits.json", json.dumps({"train": _ROWS, "test": _ROWS}), ["train, test", "field=train"]),
        ("served.json", json.dumps({"rows": [{"row_idx": 0, "row": _ROWS[0], "truncated_cells": ["output"]}]}),
         ["row 1", "cut its output"]),
        ("quotes.csv", 'instruction,output\na,b\nc,"d\n', ["CSV", "row 2", "unexpected end"]),
        ("fields.csv", "instruction,output\na,b,c\n", ["row 1 has 3 fields", "quotes"]),
        ("book.xlsx", b"PK\x03\x04", ["format .xlsx is not known", ".parquet", "to_parquet"]),
        ("prose.txt", "Once upon a time", ["format .txt is not known"]),
        ("page.jsonl", "<html>404</html>", ["web page"]),
        ("pointer.jsonl", "version https://git-lfs.github.com/spec/v1\nsize 9\n", ["git lfs pull"]),
        ("commas.jsonl", f"{_GOOD},\n{_GOOD}\n", ["row 2, line 1", "leave out the commas"]),
        ("Case.csv", "Instruction,Output\na,b\n", ["instruction=Instruction:output=Output"]),
        ("judged.jsonl", '{"prompt": "a", "completion": "b", "label": false}\n', ["KTO", "good answers"]),
        ("pairs.jsonl", '{"prompt": "a", "completion": "b"}\n',
         ["no column instruction, output", "instruction=prompt:output=completion", "chat:path="]),
        ("talks.jsonl", '{"messages": [{"role": "user", "content": "a"}]}\n', ["conversations: chat:path="]),
        ("texts.jsonl", '{"text": "a"}\n', ["text:path="]),
        ("prefer.jsonl", '{"instruction": "a", "chosen": "b", "rejected": "c"}\n', ["preference pairs", "DPO",
                                                                                  "output=chosen"]),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_place_and_a_way_on(
    tmp_path: Path, name: str, content: bytes | str, says: list[str]
) -> None:
    path = _put(tmp_path, name, content)
    said = _refusal("alpaca", path)
    assert str(path) in said
    for words in says:
        assert words in said


def test_incomplete_rows_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    path = _put(
        tmp_path, "rows.jsonl", f'{_GOOD}\n{{"instruction": "a", "output": null}}\n{{"output": "b"}}\n{_GOOD}\n'
    )
    source = _open("alpaca", path, incomplete="skip")
    assert _answers(source) == [_ROWS[0]["output"]] * 2
    assert source.facts()["skipped"]["rows"] == 2
    assert "row 2" in source.facts()["skipped"]["first"]
    assert "incomplete cannot be 'maybe'" in _refusal("alpaca", path, incomplete="maybe")


def test_text_in_other_columns_is_named_and_chat_uses_it(tmp_path: Path) -> None:
    row = {"system": "You are a pilot.", "history": [["Where?", "At sea."]], "instruction": "How deep?",
           "input": "In feet.", "output": "Nine.", "source": "log", "score": 3}  # fmt: skip
    path = _put(tmp_path, "rows.json", json.dumps([row, {"instruction": "a", "output": "b"}]))
    source: Any = _open("alpaca", path)
    assert len(_answers(source)) == 2
    assert source.facts()["left_out"] == {
        "system": {"rows": 1, "characters": 16},
        "history": {"rows": 1, "characters": 13},
        "source": {"rows": 1, "characters": 3},
    }
    (remark,) = source.remarks()
    assert "system (1 rows, 16 characters)" in remark
    assert "chat:path=FILE" in remark
    assert _talks(_open("chat", path)) == [
        [
            ("system", "You are a pilot."),
            ("user", "Where?"),
            ("assistant", "At sea."),
            ("user", "How deep?\nIn feet."),
            ("assistant", "Nine."),
        ],
        [("user", "a"), ("assistant", "b")],
    ]


_CALL = {"type": "function", "function": {"name": "depth", "arguments": '{"at": "bay"}'}}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                       {"role": "assistant", "content": "c"}]}, [("user", "a\nb"), ("assistant", "c")]),
        ({"messages": json.dumps([{"role": "user", "content": "a"}])}, [("user", "a")]),
        ({"prompt": "a", "completion": "b"}, [("user", "a"), ("assistant", "b")]),
        ({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
          "completion": [{"role": "assistant", "content": "b"}]},
         [("system", "s"), ("user", "a"), ("assistant", "b")]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f"}'},
                            {"from": "observation", "value": "o"}, {"from": "gpt", "value": "b"}], "system": "s"},
         [("system", "s"), ("user", "a"), ("assistant", None), ("tool", "o"), ("assistant", "b")]),
        ({"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]},
         [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]),
        ({"messages": [{"role": "assistant", "tool_calls": [_CALL]}]}, [("assistant", None)]),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [_CALL]}]}, [("assistant", None)]),
    ],
)  # fmt: skip
def test_conversations_of_every_form(tmp_path: Path, row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert _talks(_open("chat", _put(tmp_path, "rows.jsonl", json.dumps(row) + "\n"))) == [expected]


def test_what_comes_before_a_completion_is_not_trained_on(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = {"prompt": turns, "completion": [{"role": "assistant", "content": "d"}]}
    (example,) = _open("chat", _put(tmp_path, "rows.jsonl", json.dumps(row))).examples()
    assert [m.get("weight", 1) for m in example.messages if m["role"] == "assistant"] == [0, 1]


def test_arguments_of_calls_are_objects_and_tools_are_a_list(tmp_path: Path) -> None:
    tool = {"name": "depth", "parameters": {"type": "object", "properties": {}}}
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": [_CALL]}], "tools": json.dumps([tool])}
    (example,) = _open("chat", _put(tmp_path, "rows.jsonl", json.dumps(row))).examples()
    assert example.messages[0]["tool_calls"][0]["function"] == {"name": "depth", "arguments": {"at": "bay"}}
    assert example.tools == ({"type": "function", "function": tool},)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
         ["part 1 of the content of message 1 is image_url", "row 1"]),
        ({"messages": [{"role": "user", "content": 3}]}, ["content of message 1 is int"]),
        ({"messages": str([{"role": "user", "content": "a"}])}, ["what Python prints of a list", "json.dumps"]),
        ({"messages": [{"role": "assistant", "content": None}]}, ["message 1 has no role and content"]),
        ({"chosen": [{"role": "user", "content": "a"}], "rejected": []}, ["preference pairs", "messages=chosen"]),
        ({"input": {}, "preferred_output": [], "non_preferred_output": []}, ["preference pairs", "DPO"]),
        ({"question": "a", "answer": "b"}, ["chat:path=", "instruction=question:output=answer"]),
        ({"conversations": [{"from": "function_call", "value": "depth(bay)"}]}, ["no function call"]),
        ({"instruction": "a", "output": "b", "history": "before"}, ["history is not a list of pairs"]),
    ],
)  # fmt: skip
def test_conversations_that_would_lose_text_are_refused(tmp_path: Path, row: dict[str, Any], says: list[str]) -> None:
    said = _refusal("chat", _put(tmp_path, "rows.jsonl", json.dumps(row) + "\n"))
    for words in says:
        assert words in said


def test_text_is_a_column_of_a_table(tmp_path: Path) -> None:
    path = _put(tmp_path, "rows.jsonl", '{"text": "ebb", "id": "x"}\n{"text": "flow"}\n')
    source: Any = _open("text", path)
    assert _answers(source) == ["ebb", "flow"]
    assert "id (1 rows, 1 characters)" in source.remarks()[0]
    assert _answers(_open("text", path, column="none"))[0] == path.read_text()
    other = _put(tmp_path, "other.jsonl", '{"body": "ebb"}\n')
    assert "there is no column text" in _refusal("text", other)
    assert _answers(_open("text", other, column="body")) == ["ebb"]
    (tmp_path / "only").mkdir()
    _put(tmp_path / "only", "part.jsonl", '{"content": "neap"}\n')
    assert _answers(_open("text", tmp_path / "only")) == ["neap"]


def _folder(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def _row(word: str) -> str:
    return json.dumps({"instruction": "Say it", "output": word}) + "\n"


@pytest.mark.parametrize(
    "name", [lambda split: f"{split}.jsonl", lambda split: f"data/{split}-00000-of-00001.jsonl",
             lambda split: f"{split}/0.jsonl"]
)  # fmt: skip
def test_one_split_of_a_folder_is_read(tmp_path: Path, name: Callable[[str], str]) -> None:
    _folder(tmp_path, {name(split): _row(split) for split in ("train", "test", "dev")})
    source = _open("alpaca", tmp_path)
    assert _answers(source) == ["train"]
    assert source.facts()["split"] == "train"
    assert _answers(_open("alpaca", tmp_path, split="validation")) == ["dev"]
    assert sorted(map(str, _answers(_open("alpaca", tmp_path, split="all")))) == ["dev", "test", "train"]
    assert "no split 'extra'" in _refusal("alpaca", tmp_path, split="extra")


def test_a_folders_dataset_info_is_read(tmp_path: Path) -> None:
    entries = {
        "tides": {"file_name": "t.json", "columns": {"prompt": "q", "response": "a", "system": "s"}},
        "talks": {"file_name": "c.json", "formatting": "sharegpt", "columns": {"messages": "talk"}},
        "elsewhere": {"hf_hub_url": "a/b"},
    }
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    _folder(
        tmp_path,
        {
            "dataset_info.json": json.dumps(entries),
            "t.json": json.dumps([{"q": "Now?", "a": "Low", "s": "Brief."}]),
            "c.json": json.dumps([{"talk": talk}]),
        },
    )
    assert _answers(_open("alpaca", tmp_path, entry="tides")) == ["Low"]
    assert _talks(_open("chat", tmp_path, entry="talks")) == [[("user", "hi"), ("assistant", "ho")]]
    assert _talks(_open("chat", tmp_path, entry="tides"))[0][0] == ("system", "Brief.")
    said = _refusal("alpaca", tmp_path)
    assert "several datasets" in said
    assert "talks, tides" in said
    assert "no entry 'swell'" in _refusal("alpaca", tmp_path, entry="swell")


def test_a_description_beside_the_rows_is_no_row(tmp_path: Path) -> None:
    """What `datasets` writes next to its files."""
    _folder(tmp_path, {"dataset_info.json": '{"features": {}}', "state.json": "{}", "rows.json": f"[{_row('x')}]"})
    assert _answers(_open("alpaca", tmp_path)) == ["x"]


def test_empty_answers_are_counted(tmp_path: Path) -> None:
    source: Any = _open("alpaca", _put(tmp_path, "rows.jsonl", f'{_GOOD}\n{{"instruction": "a", "output": " "}}\n'))
    assert len(_answers(source)) == 2
    assert source.remarks() == ["1 rows have an empty output: only its end is trained on"]


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        # The sentences of datasets 4.
        ("Config name is missing. Please pick one among the available configs: ['one', 'two']", ":config=NAME"),
        ("BuilderConfig 'x' not found. Available: ['one', 'two']", ":config=NAME"),
        ("Unknown split \"test\". Should be one of ['one', 'two'].", ":split=NAME"),
    ],
)
def test_names_that_a_hub_dataset_does_not_have_are_told_apart_from_a_missing_network(reason: str, says: str) -> None:
    found = explain_hub_error("alpaca", "a/b", reason)
    assert found is not None
    assert found.why == "it has ['one', 'two']"
    assert says in found.next
    assert explain_hub_error("alpaca", "a/b", "Connection refused") is None


_OWN_NAMES = [[{"who": "pupil", "says": "Which tide?"}, {"who": "master", "says": "The ebb."}]]


def test_messages_may_name_their_keys_and_roles(tmp_path: Path) -> None:
    rows = _put(tmp_path, "rows.json", json.dumps([{"dialog": each} for each in _OWN_NAMES]))
    read = _open("chat", rows, role_key="who", content_key="says", roles="pupil=user,master=assistant")
    assert _talks(read) == [[("user", "Which tide?"), ("assistant", "The ebb.")]]
    assert read.fingerprint() != _open("chat", rows, role_key="who", content_key="says").fingerprint()
    assert "role_key=KEY" in _refusal("chat", rows)
    assert "roles cannot be 'pupil=learner'" in _refusal("chat", rows, roles="pupil=learner")


def test_the_tags_and_the_ranking_of_dataset_info_are_read(tmp_path: Path) -> None:
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "pupil", "assistant_tag": "master"}
    entries = {
        "school": {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": tags},
        "judged": {"file_name": "judged.json", "ranking": True, "columns": {"chosen": "fine", "rejected": "poor"}},
    }
    _put(tmp_path, "dataset_info.json", json.dumps(entries))
    _put(tmp_path, "rows.json", json.dumps([{"talk": each} for each in _OWN_NAMES]))
    _put(tmp_path, "judged.json", json.dumps([{"instruction": "Which tide?", "fine": "The ebb.", "poor": "No."}]))
    assert _talks(_open("chat", tmp_path, entry="school")) == [[("user", "Which tide?"), ("assistant", "The ebb.")]]
    assert "preference pairs, fine and poor" in _refusal("alpaca", tmp_path, entry="judged")
    assert _answers(_open("alpaca", tmp_path, entry="judged", output="fine")) == ["The ebb."]


def test_a_pair_of_columns_is_known_whatever_its_case(tmp_path: Path) -> None:
    path = _put(tmp_path, "rows.csv", "Question,Answer\nWhich tide?,The ebb\n")
    assert "instruction=Question:output=Answer" in _refusal("alpaca", path)


def test_what_a_function_returned_is_a_message_of_a_tool(tmp_path: Path) -> None:
    called = {"role": "assistant", "content": None, "function_call": {"name": "tide", "arguments": "{}"}}
    talk = [{"role": "user", "content": "Now?"}, called, {"role": "function", "name": "tide", "content": "ebb"}]
    path = _put(tmp_path, "rows.jsonl", json.dumps({"messages": talk}))
    assert [role for role, _ in _talks(_open("chat", path))[0]] == ["user", "assistant", "tool"]
