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

# For tokenizers without their own template: OpenAI's Chat Markup Language, with calls of tools as Qwen writes them.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '\\n<tool_call>\\n' + (call['function'] | tojson) + '\\n</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endgeneration %}"
    "{% else %}{{ (message['content'] or '') + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Keys of a message that are no text of it.
_NO_TEXT = ("role", "weight", "type")

Messages = Sequence[Mapping[str, Any]]


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
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_generation(), "jinja2.ext.loopcontrols"],
            finalize=_print_only_text,
        )
        environment.globals["raise_exception"] = _raise_exception
        environment.filters["tojson"] = _tojson
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise BadData(what="the chat template is not valid Jinja", why=str(error)) from error
        self._has_generation_blocks = "generation" in source and "endgeneration" in source

    @property
    def marks_answers(self) -> bool:
        """Whether the template has blocks that mark the assistant's parts."""
        return self._has_generation_blocks

    def pieces(self, messages: Messages, *, masked: bool, tools: Messages = ()) -> tuple[ExamplePiece, ...]:
        """The text of a conversation. masked: the assistant's parts are responses and the others prompts; else all text
        is one response. Raises BadData where the template fails, or does not mark the assistant's parts."""
        if any(mark in str(message.get("content")) for message in messages for mark in (_BEGIN, _END)):
            raise BadData(
                what="the messages contain a Unicode noncharacter (U+FDD0 or U+FDD1)",
                why="these are not valid in text, and the assistant's parts are marked with them",
                next="remove it",
            )
        messages, marked = self._render_best_form(messages, tools)
        if not masked:
            return (ExamplePiece(text=marked.replace(_BEGIN, "").replace(_END, "")),)
        if self._has_generation_blocks:
            return tuple(_split(marked, [_is_trained(m) for m in messages if m.get("role") == _ASSISTANT]))
        return tuple(self._split_by_prefixes(messages, marked, tools))

    def is_ignored(self, messages: Messages, tools: Messages, place: tuple[str, str]) -> bool:
        """Whether the template leaves a text out: a key of a role's messages, or ("", "tools"). It is changed in the
        last message that has it, and the rendered text compared."""
        role, key = place
        if not role:
            return self._render_best_form(messages, tools)[1] == self._render_best_form(messages, ())[1]
        at = max(n for n, m in enumerate(messages) if m.get("role") == role and m.get(key))
        changed = {name: value for name, value in messages[at].items() if name != key}
        if isinstance(messages[at][key], str):
            # Templates may strip blanks, and need a content.
            changed[key] = f"{messages[at][key]}\u2020"
        other = [*messages[:at], changed, *messages[at + 1 :]]
        try:
            return self._render_best_form(messages, tools)[1] == self._render_best_form(other, tools)[1]
        except BadData:
            # A template that fails without a text reads it.
            return False

    def _render_best_form(self, messages: Messages, tools: Messages) -> tuple[Messages, str]:
        """(messages, text) in the first form that the template can read.

        Templates differ in what they take for a call of a tool: content that is null or empty, and arguments as an
        object or as JSON. A template that prints null as "None" gets an empty content.
        """
        forms: list[Messages] = [messages]
        has_null = any(message.get("content", "") is None for message in messages)
        if has_null:
            forms.append([{**m, "content": ""} if m.get("content", "") is None else m for m in messages])
        if any(message.get("tool_calls") for message in messages):
            forms += [[_with_text_arguments(message) for message in form] for form in forms]
        failure: BadData | None = None
        found: list[tuple[Messages, str]] = []
        for form in forms:
            try:
                found.append((form, self._render(form, tools=tools)))
            except BadData as error:
                failure = failure or error
                continue
            # The form with null is compared with the one after it.
            if not has_null or "None" not in found[-1][1] or len(found) == 2:
                break
        if not found:
            assert failure is not None, "one form was rendered or failed"
            raise failure
        return min(found, key=lambda each: each[1].count("None"))

    def _split_by_prefixes(self, messages: Messages, whole: str, tools: Messages) -> list[ExamplePiece]:
        pieces: list[ExamplePiece] = []
        end = 0
        for n, message in enumerate(messages):
            if message.get("role") != _ASSISTANT or not _is_trained(message):
                continue
            # Many templates fail on an empty list of messages, so it is not rendered.
            before = self._render(messages[:n], prompt=True, tools=tools) if n else ""
            after = self._render(messages[: n + 1], tools=tools) if n + 1 < len(messages) else whole
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

    def _render(self, messages: Messages, *, prompt: bool = False, tools: Messages = ()) -> str:
        given = list(tools) or None
        try:
            return self._template.render(messages=messages, add_generation_prompt=prompt, tools=given, **self._special)
        # Templates raise many kinds of errors on messages that they do not expect.
        except self._errors as error:
            raise BadData(
                what="the chat template fails on the messages",
                why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; roles are "
                + ", ".join(str(m.get("role")) for m in messages[:8]),
                next="fix the messages, or give another template by template=FILE",
            ) from error


def list_texts(messages: Messages, tools: Messages) -> list[tuple[tuple[str, str], int]]:
    """((role, key), characters) of each text of a conversation; ("", "tools") for descriptions of tools."""
    found = [
        ((str(message.get("role")), key), count)
        for message in messages
        for key, value in message.items()
        if key not in _NO_TEXT and not key.endswith("id") and (count := _count_characters(value))
    ]
    return found + ([(("", "tools"), _count_characters(list(tools)))] if tools else [])


def _count_characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return sum(map(_count_characters, values))


def _with_text_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with the arguments of its calls as JSON."""

    def change(call: Any) -> Any:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or isinstance(function.get("arguments"), str):
            return call
        return {**call, "function": {**function, "arguments": _tojson(function.get("arguments"))}}

    if not message.get("tool_calls"):
        return message
    return {**message, "tool_calls": [change(call) for call in message["tool_calls"]]}


def _print_only_text(value: Any) -> Any:
    """What an expression of a template prints: null is nothing, and Python's form of a list is an error."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple, dict)):
        raise TypeError(f"the template prints a {type(value).__name__}, which is no text: use tojson")
    return value


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
