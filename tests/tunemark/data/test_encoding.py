"""What an encoder counts: roles, trained tokens, and texts that a chat template leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunemark.data import prepare_data, read_token_file
from tunemark.errors import BadData
from tunemark.plugin import Architecture, Model, TokenizerSpec
from tunemark_datasets.plugin import tunemark_datasets

_DATASETS = {dataset.name: dataset for dataset in tunemark_datasets()}
_MODEL = Model(
    name="small",
    architecture=Architecture(
        model_type="small", vocab_size=32000, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    ),
    tokenizer=TokenizerSpec(name="mistral-v1", loader="tunemark_mistral.tokenizer:load_v1"),
    runtime="nowhere:Nothing",
)  # fmt: skip


def _prepare(folder: Path, name: str, rows: list[dict[str, Any]], train_on: str, **options: str) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare_data(_DATASETS[name], {"path": str(path), **options}, _MODEL, train_on, cache=folder)


def test_roles_are_counted_whatever_is_trained_on(tmp_path: Path) -> None:
    rows = [{"instruction": "Name the tide", "output": "It is low"}] * 3
    found = [_prepare(tmp_path, "alpaca", rows, train_on).facts for train_on in ("all", "response")]
    for facts in found:
        # Of each row the answer's tokens and the one that ends it.
        assert facts["tokens_by_role"]["response"] == found[1]["trained_tokens"]
        assert sum(facts["tokens_by_role"].values()) == facts["tokens"]
    # A row's first token is not predicted.
    assert found[0]["trained_tokens"] == found[0]["tokens"] - 3


def _talk(*weights: int) -> dict[str, Any]:
    turns = [{"role": role, "content": f"{role} {n}"} for n in range(len(weights)) for role in ("user", "assistant")]
    return {"messages": [{**m, "weight": weights[n // 2]} if n % 2 else m for n, m in enumerate(turns)]}


def test_the_end_of_an_answer_of_weight_0_is_not_trained_on(tmp_path: Path) -> None:
    prepared = _prepare(tmp_path, "chat", [_talk(1, 0)], "response", template="chatml")
    trained = read_token_file(Path(prepared.token_file.path)).trained
    assert trained[-1] == 0
    assert 0 < trained.sum() < len(trained) // 2
    with pytest.raises(BadData, match="no token of the dataset 'chat' would be trained on"):
        _prepare(tmp_path, "chat", [_talk(0), _talk(0, 0)], "response", template="chatml")


def test_half_an_emoji_is_refused_with_its_row(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "tide \ud83c"}]
    with pytest.raises(BadData, match=r"rows\.jsonl', row 2 is not valid Unicode"):
        _prepare(tmp_path, "alpaca", rows, "all")
    with pytest.raises(BadData, match=r"rows\.jsonl', row 1 is not valid Unicode"):
        _prepare(tmp_path, "chat", rows[1:], "all", template="chatml")


def test_what_a_template_leaves_out_is_said_with_its_amount(tmp_path: Path) -> None:
    calls = [{"function": {"name": "depth", "arguments": {"at": "bay"}}}]
    rows = [{"messages": [{"role": "user", "content": "How deep?"},
                          {"role": "assistant", "content": None, "tool_calls": calls}]}, _talk(1)]  # fmt: skip
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    said = _prepare(tmp_path, "chat", rows, "all", template=str(tmp_path / "t.jinja")).facts["remarks"]
    assert said == [
        "the chat template leaves out tool_calls of assistant (1 conversations, 8 characters); another one is given by "
        "template=FILE"
    ]
    assert _prepare(tmp_path, "chat", rows, "all", template="chatml").facts["remarks"] == []


def test_roles_of_a_template_without_marks_are_unknown_where_all_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    prepared = _prepare(tmp_path, "chat", [_talk(1)], "all", template=str(tmp_path / "t.jinja"))
    assert prepared.facts["tokens_by_role"] is None
