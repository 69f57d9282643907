"""Chat templates: what is rendered for calls of tools and missing contents, and which texts a template leaves out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunemark.data.chat_template import CHATML, ChatTemplate
from tunemark.errors import BadData

_CALL = {"type": "function", "function": {"name": "depth", "arguments": {"at": "bay"}}}
_TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "How deep?"},
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "content": "nine", "name": "depth"},
    {"role": "assistant", "content": "Nine feet."},
]
_TOOLS = [{"type": "function", "function": {"name": "depth"}}]


def _text(template: str, messages: list[dict[str, Any]] | None = None) -> str:
    pieces = ChatTemplate(template, {}).pieces(messages or _TALK, masked=False, tools=_TOOLS)
    return "".join(piece.text or "" for piece in pieces)


def test_chatml_writes_calls_of_tools() -> None:
    call = json.dumps(_CALL["function"])
    assert _text(CHATML) == (
        "<|im_start|>user\nHow deep?<|im_end|>\n"
        f"<|im_start|>assistant\n\n<tool_call>\n{call}\n</tool_call><|im_end|>\n"
        "<|im_start|>tool\nnine<|im_end|>\n<|im_start|>assistant\nNine feet.<|im_end|>\n"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<{{ m.content }}>{% endfor %}",
        "{% for m in messages %}{{ '<' + m.content + '>' }}{% endfor %}",
        "{% for m in messages %}{{ '<' ~ m.content ~ '>' }}{% endfor %}",
        "{% for m in messages %}{{ '<%s>' | format(m.content) }}{% endfor %}",
    ],
)
def test_a_missing_content_is_nothing_however_it_is_printed(template: str) -> None:
    assert _text(template) == "<How deep?><><nine><Nine feet.>"


def test_a_template_that_asks_for_null_gets_it_and_the_word_none_of_a_text_stays() -> None:
    """The form of DeepSeek's template, which knows a call by its content."""
    template = (
        "{% for m in messages %}{% if m.content is none %}CALL {{ m.tool_calls[0].function.arguments | tojson }}"
        "{% else %}{{ m.content }}{% endif %};{% endfor %}"
    )
    talk = [{"role": "user", "content": "None of it"}, _TALK[1]]
    assert _text(template, talk) == 'None of it;CALL {"at": "bay"};'


def test_arguments_are_json_for_a_template_that_joins_them_to_text() -> None:
    template = "{{ '(' + messages[1].tool_calls[0].function.arguments + ')' }}"
    printed = template.replace("'(' + ", "").replace(" + ')'", "")
    assert _text(template) == '({"at": "bay"})'
    assert _text(printed) == '{"at": "bay"}'


def test_pythons_form_of_a_list_is_never_text() -> None:
    with pytest.raises(BadData, match="fails on the messages") as caught:
        _text("{{ messages }}")
    assert "prints a list" in caught.value.why


def test_texts_that_a_template_leaves_out_are_known() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if m.role != 'tool' %}{{ m.content }}{% endif %}{% endfor %}", {}
    )
    places = [
        ("user", "content"),
        ("assistant", "content"),
        ("assistant", "tool_calls"),
        ("tool", "content"),
        ("", "tools"),
    ]
    assert [template.is_ignored(_TALK, _TOOLS, place) for place in places] == [False, False, True, True, True]
    uses_tools = ChatTemplate("{{ tools | tojson }}{{ messages[1].tool_calls[0].function.name }}", {})
    assert not uses_tools.is_ignored(_TALK, _TOOLS, ("", "tools"))
    assert not uses_tools.is_ignored(_TALK, _TOOLS, ("assistant", "tool_calls"))
