"""Datasets of one's own files: instructions, conversations and text. Every row here is made up."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunemark.data import prepare_data, read_token_file
from tunemark.data.chat_template import CHATML, ChatTemplate
from tunemark.errors import BadData, BadExperiment, TunemarkError
from tunemark.plugin import Architecture, Dataset, DatasetSource, Model, TokenizerSpec
from tunemark.plugin.catalog import load_object
from tunemark_datasets import table_rows
from tunemark_datasets.plugin import tunemark_datasets

DATASETS = {dataset.name: dataset for dataset in tunemark_datasets()}
_ROWS = [
    {"instruction": "Add", "input": "1, 2", "output": "3"},
    {"instruction": "Say {this} 😀", "input": "", "output": "{output}"},
    {"instruction": "Count", "input": None, "output": "one\ntwo"},
]
_BELOW = "Below is an instruction that describes a task"
_WRITE = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
_PROMPTS = [
    f"{_BELOW}, paired with an input that provides further context. {_WRITE}Add\n\n### Input:\n1, 2\n\n### Response:\n",
    f"{_BELOW}. {_WRITE}Say {{this}} 😀\n\n### Response:\n",
    f"{_BELOW}. {_WRITE}Count\n\n### Response:\n",
]


def _model(tokenizer: TokenizerSpec) -> Model:
    architecture = Architecture(
        model_type="small", vocab_size=32000, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    return Model(name="small", architecture=architecture, tokenizer=tokenizer, runtime="nowhere:Nothing")


_PLAIN = _model(TokenizerSpec(name="mistral-v1", loader="tunemark_mistral.tokenizer:load_v1"))


def _open(name: str, **options: object) -> DatasetSource:
    source: DatasetSource = load_object(DATASETS[name].loader)({k: str(v) for k, v in options.items()}, 32000)
    return source


def _pieces(source: DatasetSource) -> list[list[tuple[str, str | None]]]:
    return [[(p.role, p.text) for p in example.pieces] for example in source.examples()]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pandas

    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".arrow":
        import pyarrow

        table = pyarrow.Table.from_pylist(rows)
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".tsv":
        pandas.DataFrame(rows).to_csv(path, index=False, sep="\t")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(json.dumps(rows, indent=1) if path.suffix == ".json" else text)
    return path


# -- alpaca


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz"])
def test_rows_of_every_format_are_the_same_examples(tmp_path: Path, suffix: str) -> None:
    source = _open("alpaca", path=_write(tmp_path / f"rows{suffix}", _ROWS))
    expected = [[("prompt", p), ("response", r["output"])] for p, r in zip(_PROMPTS, _ROWS, strict=True)]
    assert _pieces(source) == expected
    assert source.facts()["rows"] == 3
    assert source.facts()["columns"] == {"instruction": "instruction", "input": "input", "output": "output"}


def test_columns_and_templates_are_ones_own(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.jsonl", [{"q": "Who?", "hint": "A cat.", "a": "Tom"}, {"q": "Why?", "a": "So"}])
    named = {"path": path, "instruction": "q", "output": "a"}
    plain = [[("prompt", f"{q}\n"), ("response", a)] for q, a in (("Who?", "Tom"), ("Why?", "So"))]
    assert _pieces(_open("alpaca", **named, template="plain")) == plain
    hinted = _pieces(_open("alpaca", **named, template="plain", input="hint"))
    assert hinted == [[("prompt", "Who?\nA cat.\n"), ("response", "Tom")], plain[1]]
    (tmp_path / "t").write_text("Q {instruction} ({input}) {x}\nA {output}<end>\n")
    (tmp_path / "n").write_text("Q {instruction} A {output}")
    own = _pieces(_open("alpaca", **named, input="hint", template=tmp_path / "t", template_no_input=tmp_path / "n"))
    assert own[0] == [("prompt", "Q Who? (A cat.) {x}\nA "), ("response", "Tom<end>")]
    assert own[1] == [("prompt", "Q Why? A "), ("response", "So")]
    assert _pieces(_open("alpaca", **named, rows=1, input="none", template=tmp_path / "n"))[0][1] == ("response", "Tom")
    prints = [
        _open("alpaca", **named, **more).fingerprint()
        for more in ({}, {"template": "plain"}, {"rows": 1}, {"input": "hint"}, {"template": tmp_path / "n"})
    ]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs a path or a hub's id"),
        ({"path": "rows.jsonl", "hub": "a/b"}, "exclude each other"),
        ({"path": "rows.jsonl", "split": "train"}, "exclude each other"),
        ({"path": "nowhere.jsonl"}, "there is no file 'nowhere.jsonl'"),
        ({"path": "rows.jsonl", "rows": "0"}, "rows cannot be '0'"),
        ({"path": "rows.jsonl", "output": "answer"}, "there is no column answer"),
        ({"path": "rows.jsonl", "input": "hint"}, "there is no column hint"),
        ({"path": "rows.jsonl", "template": "stanfort"}, "did you mean 'stanford'"),
        ({"path": "rows.jsonl", "template": "no-output"}, "needs {instruction}, and {output} exactly once"),
        ({"path": "rows.jsonl", "template": "behind"}, "comes after {output}"),
        ({"path": "rows.jsonl", "template_no_input": "x"}, "needs template=FILE"),
        ({"path": "latin.csv"}, "not text in UTF-8"),
        ({"path": "twice.csv"}, "a column is named twice"),
        ({"path": "short.csv"}, "row 1 has 2 fields"),
        ({"path": "cut.jsonl.gz"}, "it cannot be read"),
        ({"path": "number.jsonl"}, "number.jsonl', row 2: its output is int, not text"),
        ({"path": "empty.csv"}, "there are no rows"),
        ({"path": "list.jsonl"}, "its rows are not JSON objects"),
        ({"path": "first.jsonl"}, "line 1"),
    ],
)
def test_bad_instructions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good = json.dumps(_ROWS[0])
    files: dict[str, bytes] = {
        "rows.jsonl": good.encode(),
        "no-output": b"{instruction} {output} {output}",
        "behind": b"{instruction} {output} {input}",
        "latin.csv": "instruction,output\nGrüße,x\n".encode("latin-1"),
        "twice.csv": b"instruction,output,output\na,b,c\n",
        "short.csv": b"instruction,input,output\na,b\n",
        "cut.jsonl.gz": gzip.compress(good.encode() * 50)[:-20],
        "number.jsonl": f'{good}\n{{"instruction": "a", "output": 3}}\n'.encode(),
        "empty.csv": b"instruction,output\n",
        "list.jsonl": f"{good}\n[1]\n".encode(),
        "first.jsonl": f'{{"instruction": "a" "output": 1}}\n{good}\n'.encode(),
    }
    for name, content in files.items():
        Path(name).write_bytes(content)
    with pytest.raises(TunemarkError) as caught:
        list(_open("alpaca", **options).examples())
    assert says in str(caught.value)


def test_lines_are_read_one_after_another(tmp_path: Path) -> None:
    """The first rows of a set come before its last row is looked at, which here is broken."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _ROWS) + "garbage")
    examples = _open("alpaca", path=path).examples()
    assert len(list(itertools.islice(examples, 3))) == 3
    with pytest.raises(BadData, match="line 4"):
        next(examples)


# -- chat

_TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello there"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "two words"},
    {"role": "assistant", "content": "there you are"},
]
# The form of Llama 2's: no words that call for an answer, and the ends are the template's own.
_INST = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('no ' + m.role) }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' tokenizer of a few words, saved to a folder; and a function that gives it a template."""
    import tokenizers
    import transformers

    words = [
        *"abcdefghijklmnopqrstuvwxyz[]/:.,ABCDEFGHIJKLMNOPQRSTUVWXYZ\n ",
        "<s>",
        "</s>",
        "<|im_start|>",
        "<|im_end|>",
    ]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={w: n for n, w in enumerate([*words, "he", "re"])}, merges=[("h", "e"), ("r", "e")])
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )

    def with_template(template: str | None) -> tuple[Any, Model]:
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        name = TokenizerSpec(name="own", loader="tunemark_models.tokenizer:tokenizer_from_folder", argument=str(folder))
        return tokenizer, _model(name)

    return with_template


def _documents(dataset: Dataset, options: Mapping[str, str], model: Model, train_on: str, cache: Path) -> Any:
    """(ids, trained) of each document in the token file."""
    prepared = prepare_data(dataset, options, model, train_on, cache=cache)
    ids, trained, offsets = read_token_file(Path(prepared.token_file.path))
    return [(ids[a:b].tolist(), trained[a:b].tolist()) for a, b in itertools.pairwise(offsets.tolist())], prepared


@pytest.mark.parametrize(("template", "talk"), [(CHATML, _TALK), (_INST, _TALK[1:])], ids=["marked", "by prefixes"])
def test_ids_are_those_of_transformers_and_answers_alone_are_trained_on(
    chatty: Any, tmp_path: Path, template: str, talk: list[dict[str, Any]]
) -> None:
    tokenizer, model = chatty(template)
    path = _write(tmp_path / "talks.jsonl", [{"messages": talk}, {"messages": talk[:-2]}])
    for train_on in ("all", "response"):
        found, prepared = _documents(DATASETS["chat"], {"path": str(path)}, model, train_on, tmp_path / "cache")
        for (ids, trained), messages in zip(found, (talk, talk[:-2]), strict=True):
            theirs = tokenizer.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask="generation" in template
            )
            assert ids == theirs["input_ids"]
            if train_on == "all":
                assert trained == [1] * len(ids)
            elif "generation" in template:
                assert trained == theirs["assistant_masks"]
            else:
                answers = tokenizer.decode([i for i, is_trained in zip(ids, trained, strict=True) if is_trained])
                expected = [" " + m["content"] + "</s>" for m in messages if m["role"] == "assistant"]
                assert answers.replace(" ", "") == "".join(expected).replace(" ", "")
        assert len(prepared.facts["chat_template_sha256"]) == 64


def _render(template: str, messages: list[dict[str, Any]]) -> tuple[str, str]:
    """(the whole text, the trained parts of it)."""
    pieces = ChatTemplate(template, {"bos_token": "<s>", "eos_token": "</s>"}).pieces(messages, masked=True)
    return "".join(p.text or "" for p in pieces), "".join(p.text or "" for p in pieces if p.role == "response")


def test_an_answer_of_weight_0_is_not_trained_on() -> None:
    light = [{**m, "weight": 0} if m["content"] == "hello" else m for m in _TALK]
    assert _render(CHATML, light) == (_render(CHATML, _TALK)[0], "there you are<|im_end|>\n")
    assert _render(_INST, light[1:])[1] == " there you are</s>"


def test_the_last_answer_alone(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.jsonl", [{"messages": [*_TALK, {"role": "user", "content": "thanks"}]}])
    (example,) = _open("chat", path=path, answers="last").examples()
    assert [m["content"] for m in example.messages][-1] == "there you are"
    assert _render(CHATML, list(example.messages))[1] == "there you are<|im_end|>\n"


def test_conversations_with_from_and_value_are_messages(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "there"}]
    for suffix in (".jsonl", ".parquet"):
        path = _write(tmp_path / f"t{suffix}", [{"conversations": talk}])
        (example,) = _open("chat", path=path).examples()
        assert list(example.messages) == [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "there"},
        ]


def test_a_template_may_be_given_to_a_tokenizer_without_one(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.jsonl", [{"messages": _TALK}])
    with pytest.raises(BadData, match="has no chat template") as caught:
        prepare_data(DATASETS["chat"], {"path": str(path)}, _PLAIN, "all", cache=tmp_path)
    assert "template=chatml" in str(caught.value)
    found, prepared = _documents(DATASETS["chat"], {"path": str(path), "template": "chatml"}, _PLAIN, "all", tmp_path)
    ((ids, _),) = found
    # It reads no special tokens from text, so its own ends are put around.
    assert (ids[0], ids[-1]) == (1, 2)
    assert prepared.facts["origin"]["template"] == CHATML


def test_another_template_is_another_token_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.jsonl", [{"messages": _TALK}])
    template = tmp_path / "t.jinja"
    sizes = set()
    for words in ("{{ messages[1].content }}", "{{ messages[1].content + messages[2].content }}"):
        template.write_text(words)
        options = {"path": str(path), "template": str(template)}
        sizes.add(prepare_data(DATASETS["chat"], options, _PLAIN, "all", cache=tmp_path).token_file.tokens)
    assert len(sizes) == 2


@pytest.mark.parametrize(
    ("row", "options", "says"),
    [
        ({"messages": "hello"}, {}, "its messages is not a list of messages"),
        ({"messages": []}, {}, "its messages is not a list of messages"),
        ({"messages": [{"role": "user"}]}, {}, "row 1: message 1 has no role and content"),
        ({"messages": ["hello"]}, {}, "message 1 has no role and content"),
        ({"talk": _TALK}, {}, "there is no column messages or conversations"),
        ({"messages": _TALK}, {"messages": "talk"}, "there is no column talk"),
        ({"messages": _TALK}, {"answers": "first"}, "answers cannot be 'first'"),
        ({"messages": _TALK}, {"template": "nowhere.jinja"}, "there is no chat template 'nowhere.jinja'"),
        ({"messages": _TALK[:2]}, {"answers": "last"}, "it has no assistant message"),
    ],
)
def test_bad_conversations_are_refused(
    tmp_path: Path, row: dict[str, Any], options: Mapping[str, str], says: str
) -> None:
    path = _write(tmp_path / "t.jsonl", [row])
    with pytest.raises((BadData, BadExperiment)) as caught:
        list(_open("chat", path=path, **options).examples())
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for", "is not valid Jinja"),
        (_INST, "fails on the messages"),
        ("{{ messages[9].content.x }}", "fails on the messages"),
        ("{{ messages | length }}", "does not mark the assistant's parts"),
        ("{{ ''.__class__.__mro__ }}", "fails on the messages"),
    ],
)
def test_a_template_that_cannot_do_it_is_said(tmp_path: Path, template: str, says: str) -> None:
    path = _write(tmp_path / "t.jsonl", [{"messages": _TALK}])
    (tmp_path / "t.jinja").write_text(template)
    options = {"path": str(path), "template": str(tmp_path / "t.jinja")}
    with pytest.raises(BadData, match=says):
        prepare_data(DATASETS["chat"], options, _PLAIN, "response", cache=tmp_path)


@pytest.mark.full
def test_rows_of_the_hub_are_the_same_without_torch(tmp_path: Path) -> None:
    code = f"""
import json, sys
import datasets
from tunemark_datasets import chat, instructions
asked = []
def load_dataset(repository, *config, split, revision):
    asked.append([repository, *config, split, revision])
    return datasets.Dataset.from_list({_ROWS!r} if repository == "a/b" else [{{"messages": {_TALK!r}}}])
datasets.load_dataset = load_dataset
options = {{"hub": "a/b", "config": "de", "split": "test", "revision": "abc", "rows": "2"}}
source = instructions.load(options, 100)
pieces = [[p.text for p in e.pieces] for e in source.examples()]
talk = next(chat.load({{"hub": "c/d"}}, 100).examples()).messages
prints = [instructions.load(o, 100).fingerprint() for o in (options, {{"hub": "a/b"}})]
assert "torch" not in sys.modules
print(json.dumps([asked[:2], pieces, source.facts()["rows"], talk, len(set(prints))]))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    asked, pieces, count, talk, prints = json.loads(done.stdout)
    assert asked == [["a/b", "de", "test", "abc"], ["c/d", "train", None]]
    assert pieces == [[p, r["output"]] for p, r in zip(_PROMPTS, _ROWS[:2], strict=False)]
    assert (count, talk, prints) == (2, _TALK, 2)


# -- text

_PARAGRAPHS = "One two three.\nFour.\n\n\nFive six.\r\n\r\nSeven."


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("file", ["One two three.\nFour.\n\n\nFive six.\n\nSeven."]),
        ("paragraph", ["One two three.\nFour.\n", "Five six.\n", "Seven."]),
        ("line", ["One two three.", "Four.", "Five six.", "Seven."]),
    ],
)
def test_what_a_document_is(tmp_path: Path, document: str, expected: list[str]) -> None:
    (tmp_path / "t.txt").write_bytes(_PARAGRAPHS.encode())
    found = _pieces(_open("text", path=tmp_path / "t.txt", document=document))
    assert found == [[("response", text)] for text in expected]


@pytest.mark.parametrize("document", ["file", "paragraph", "line"])
def test_nothing_is_lost_where_long_documents_are_cut(tmp_path: Path, document: str) -> None:
    # Longer than what is read at a time, words and characters of several bytes across the edges.
    text = "".join(f"{'é' * (n % 13)} word{n}{' ' if n % 7 else chr(10)}" for n in range(20000)) + "x" * 70000
    (tmp_path / "t.txt").write_text(text)
    parts = [p.text or "" for e in _open("text", path=tmp_path / "t.txt", document=document, longest=100).examples()
             for p in e.pieces]  # fmt: skip
    assert max(map(len, parts)) <= 100
    assert "".join(parts).replace("\n", "") == text.replace("\n", "")
    if document == "file":  # at a word's end, wherever there is one
        assert all(part.endswith((" ", "\n")) for part in parts[:100])


def test_a_folder_is_its_text_files_in_order(tmp_path: Path) -> None:
    for name, text in (
        ("b.txt", "second"),
        ("a/x.md", "first"),
        (".git/c.txt", "no"),
        ("d.py", "code"),
        ("e.txt", " "),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress(b"third"))
    source = _open("text", path=tmp_path)
    assert [pieces[0][1] for pieces in _pieces(source)] == ["first", "second", "third"]
    assert source.facts()["files"] == 4
    assert _pieces(_open("text", path=tmp_path, suffix=".py")) == [[("response", "code")]]


def test_what_stands_before_the_text_or_the_marker_is_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Q: a\nA: b")
    (tmp_path / "around").write_text("<{text}>\n")
    assert _pieces(_open("text", path=tmp_path / "t.txt", template=tmp_path / "around")) == [
        [("prompt", "<"), ("response", "Q: a\nA: b>")]
    ]
    marked = _open("text", path=tmp_path / "t.txt", response_after="%0AA%3A")
    assert _pieces(marked) == [[("prompt", "Q: a\nA:"), ("response", " b")]]
    assert marked.fingerprint() != _open("text", path=tmp_path / "t.txt").fingerprint()


def test_a_mask_without_any_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("no prompt here")
    with pytest.raises(BadData, match="no example of the dataset 'text' has a prompt"):
        prepare_data(DATASETS["text"], {"path": str(tmp_path / "t.txt")}, _PLAIN, "response", cache=tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs a path"),
        ({"path": "nowhere"}, "there is no file 'nowhere'"),
        ({"path": "folder"}, "there is no file to read"),
        ({"path": "blank.txt"}, "there is no text"),
        ({"path": "latin.txt"}, "not text in UTF-8"),
        ({"path": "t.txt", "encoding": "klingon"}, "there is no encoding"),
        ({"path": "t.txt", "encoding": "rot13"}, "there is no encoding"),
        ({"path": "t.txt", "document": "page"}, "document cannot be 'page'"),
        ({"path": "t.txt", "longest": "-3"}, "longest cannot be '-3'"),
        ({"path": "t.txt", "response_after": "A", "longest": "10"}, "exclude each other"),
        ({"path": "t.txt", "response_after": "Z"}, "does not contain 'Z'"),
        ({"path": "t.txt", "template": "blank.txt"}, "does not contain {text}"),
    ],
)
def test_bad_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("t.txt").write_text("A b")
    Path("blank.txt").write_text(" \n")
    Path("latin.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises((BadData, BadExperiment)) as caught:
        list(_open("text", **options).examples())
    assert says in str(caught.value)


# -- all of them


def test_options_are_said_with_their_meaning() -> None:
    for name in ("alpaca", "chat", "text"):
        assert {"path", "template"} <= set(DATASETS[name].options)
    assert set(table_rows.OPTIONS) <= set(DATASETS["alpaca"].options)
