"""Chat templates: messages to text as by transformers' `apply_chat_template`, without transformers.

Templates are Jinja, rendered in a sandbox. The assistant's characters are those in the template's `{% generation %}`
blocks; without such blocks, the messages up to an answer are rendered with the generation prompt, which must be a
prefix of the rendered conversation. An answer whose `weight` is 0 belongs to the prompt.

Templates get no date function (`strftime_now`), so that the same data always has the same ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tunemark.errors import BadData
from tunemark.plugin.descriptors import ExamplePiece

# Unicode noncharacters, which must not occur in interchanged text, mark the assistant's parts.
_BEGIN, _END = "\ufdd0", "\ufdd1"
_ASSISTANT = "assistant"

# For tokenizers without their own template: OpenAI's Chat Markup Language.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>\\n' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class ChatTemplate:
    """A compiled template. special: texts of the tokenizer's special tokens by their name in templates; None where the
    tokenizer does not parse them from text, so that the encoder adds bos and eos.

    Raises BadData where the template is not valid Jinja.
    """

    def __init__(self, source: str, special: Mapping[str, str] | None) -> None:
        # Only needed by datasets of messages.
        import jinja2
        import jinja2.sandbox

        self.has_ends = special is not None
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._special = dict(special or {"bos_token": "", "eos_token": ""})
        self._errors = (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError, OverflowError)
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_generation(), "jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise_exception
        environment.filters["tojson"] = _tojson
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise BadData(what="the chat template is not valid Jinja", why=str(error)) from error
        self._has_generation_blocks = "generation" in source and "endgeneration" in source

    def pieces(self, messages: Sequence[Mapping[str, Any]], *, masked: bool) -> tuple[ExamplePiece, ...]:
        """The text of a conversation. masked: the assistant's parts are responses and the others prompts; else all text
        is one response. Raises BadData where the template fails, or does not mark the assistant's parts."""
        if any(mark in str(message.get("content")) for message in messages for mark in (_BEGIN, _END)):
            raise BadData(
                what="the messages contain a Unicode noncharacter (U+FDD0 or U+FDD1)",
                why="these are not valid in text, and the assistant's parts are marked with them",
                next="remove it",
            )
        marked = self._render(messages)
        if not masked:
            return (ExamplePiece(text=marked.replace(_BEGIN, "").replace(_END, "")),)
        if self._has_generation_blocks:
            return tuple(_split(marked, [_is_trained(m) for m in messages if m.get("role") == _ASSISTANT]))
        return tuple(self._split_by_prefixes(messages, marked))

    def _split_by_prefixes(self, messages: Sequence[Mapping[str, Any]], whole: str) -> list[ExamplePiece]:
        pieces: list[ExamplePiece] = []
        end = 0
        for n, message in enumerate(messages):
            if message.get("role") != _ASSISTANT or not _is_trained(message):
                continue
            # Many templates fail on an empty list of messages, so it is not rendered.
            before = self._render(messages[:n], prompt=True) if n else ""
            after = self._render(messages[: n + 1]) if n + 1 < len(messages) else whole
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= end):
                raise BadData(
                    what="the chat template does not mark the assistant's parts",
                    why="it has no {% generation %} blocks, and the text of the messages up to message "
                    f"{n + 1} is not a prefix of the text of all",
                    next="--train-on all, or template=FILE with {% generation %} ... {% endgeneration %} around them",
                )
            pieces += [
                ExamplePiece(role="prompt", text=whole[end : len(before)]),
                ExamplePiece(text=whole[len(before) : len(after)]),
            ]
            end = len(after)
        return [*pieces, ExamplePiece(role="prompt", text=whole[end:])]

    def _render(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool = False) -> str:
        try:
            return self._template.render(messages=messages, add_generation_prompt=prompt, tools=None, **self._special)
        # Templates raise many kinds of errors on messages that they do not expect.
        except self._errors as error:
            raise BadData(
                what="the chat template fails on the messages",
                why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; roles are "
                + ", ".join(str(m.get("role")) for m in messages[:8]),
                next="fix the messages, or give another template by template=FILE",
            ) from error


def _is_trained(message: Mapping[str, Any]) -> bool:
    return bool(message.get("weight", 1) != 0)


def _split(marked: str, are_trained: Sequence[bool]) -> list[ExamplePiece]:
    """Pieces of marked text: text between the marks is a response, unless its answer has weight 0."""
    first, *rest = marked.split(_BEGIN)
    if len(rest) != len(are_trained) and not all(are_trained):
        raise BadData(
            what="the chat template does not mark each answer",
            why=f"it has {len(rest)} {{% generation %}} blocks for {len(are_trained)} answers, some of weight 0",
            next="remove weight, or give another template by template=FILE",
        )
    pieces = [ExamplePiece(role="prompt", text=first)]
    for n, part in enumerate(rest):
        inside, _, outside = part.partition(_END)
        is_prompt = len(rest) == len(are_trained) and not are_trained[n]
        pieces += [
            ExamplePiece(role="prompt" if is_prompt else "response", text=inside),
            ExamplePiece(role="prompt", text=outside),
        ]
    return pieces


def _generation() -> Any:
    """A Jinja extension for `{% generation %} ... {% endgeneration %}`, which marks the text in between."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - Jinja's interface

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            return f"{_BEGIN}{caller()}{_END}"

    return Generation


def _raise_exception(message: str) -> NoReturn:
    """`raise_exception` of templates."""
    raise ValueError(message)


def _tojson(value: Any, indent: int | None = None, **more: Any) -> str:
    """`tojson` as in transformers; Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **more)
