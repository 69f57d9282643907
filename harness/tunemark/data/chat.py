"""Messages to text by a chat template, as transformers' `apply_chat_template` does it, without transformers.

Templates are Jinja, in a sandbox. Which characters are the assistant's is told by the template's own `{% generation %}`
blocks, or else by the prompt that it makes: a conversation up to an answer, with the words that call for it, must be
how the conversation with that answer begins. An answer whose `weight` is 0 belongs to the prompt.

A template is given no date (`strftime_now`), so that the same data has the same ids tomorrow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tunemark.errors import BadData
from tunemark.plugin.descriptors import Piece

# Unicode's noncharacters, which no text interchanged may hold.
_BEGIN, _END = "\ufdd0", "\ufdd1"
_ASSISTANT = "assistant"

# For tokenizers without a template of their own: the form that OpenAI published as Chat Markup Language.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>\\n' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class ChatTemplate:
    """A template, compiled. special: the texts of the tokenizer's special tokens by their name in templates, None
    where it does not read them from text: bos and eos are then put around by whoever encodes.

    Raises BadData where the template is not Jinja.
    """

    def __init__(self, source: str, special: Mapping[str, str] | None) -> None:
        # Needed by datasets of messages alone.
        import jinja2
        import jinja2.sandbox

        self.has_ends = special is not None
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._special = dict(special or {"bos_token": "", "eos_token": ""})
        self._errors = (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError, OverflowError)
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_generation(), "jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = _tojson
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise BadData(what="the chat template is not Jinja", why=str(error)) from error
        self._is_marked = "generation" in source and "endgeneration" in source

    def pieces(self, messages: Sequence[Mapping[str, Any]], *, masked: bool) -> tuple[Piece, ...]:
        """The text of a conversation. masked: the assistant's parts are responses and the others prompts; else all is
        one response. Raises BadData where the template refuses it, or does not say which parts are the assistant's."""
        if any(mark in str(message.get("content")) for message in messages for mark in (_BEGIN, _END)):
            raise BadData(
                what="the messages hold a noncharacter of Unicode (U+FDD0 or U+FDD1)",
                why="text must not, and the assistant's parts are marked with them",
                next="remove it",
            )
        marked = self._text(messages)
        if not masked:
            return (Piece(text=marked.replace(_BEGIN, "").replace(_END, "")),)
        if self._is_marked:
            return tuple(_split(marked, [_is_trained(m) for m in messages if m.get("role") == _ASSISTANT]))
        return tuple(self._by_prefixes(messages, marked))

    def _by_prefixes(self, messages: Sequence[Mapping[str, Any]], whole: str) -> list[Piece]:
        found: list[Piece] = []
        at = 0
        for n, message in enumerate(messages):
            if message.get("role") != _ASSISTANT or not _is_trained(message):
                continue
            # Many templates read the first message, and there is none before an answer that comes first.
            before = self._text(messages[:n], prompt=True) if n else ""
            after = self._text(messages[: n + 1]) if n + 1 < len(messages) else whole
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= at):
                raise BadData(
                    what="the chat template does not say which parts are the assistant's",
                    why="it has no {% generation %} blocks, and what it makes of the messages up to answer "
                    f"{n + 1} is not how the whole begins",
                    next="--train-on all, or template=FILE with {% generation %} ... {% endgeneration %} around them",
                )
            found += [Piece(role="prompt", text=whole[at : len(before)]), Piece(text=whole[len(before) : len(after)])]
            at = len(after)
        return [*found, Piece(role="prompt", text=whole[at:])]

    def _text(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool = False) -> str:
        try:
            return self._template.render(messages=messages, add_generation_prompt=prompt, tools=None, **self._special)
        # What a template does with a message that it does not expect is its own matter.
        except self._errors as error:
            raise BadData(
                what="the chat template refuses the messages",
                why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; roles are "
                + ", ".join(str(m.get("role")) for m in messages[:8]),
                next="mend the messages, or give another template by template=FILE",
            ) from error


def _is_trained(message: Mapping[str, Any]) -> bool:
    return bool(message.get("weight", 1) != 0)


def _split(marked: str, are_trained: Sequence[bool]) -> list[Piece]:
    """What stands between the marks is a response, unless its answer is not to be trained on."""
    first, *rest = marked.split(_BEGIN)
    if len(rest) != len(are_trained) and not all(are_trained):
        raise BadData(
            what="the chat template does not say which answer is which",
            why=f"it has {len(rest)} {{% generation %}} blocks for {len(are_trained)} answers, some of weight 0",
            next="leave out weight, or give another template by template=FILE",
        )
    found = [Piece(role="prompt", text=first)]
    for n, part in enumerate(rest):
        inside, _, outside = part.partition(_END)
        is_prompt = len(rest) == len(are_trained) and not are_trained[n]
        found += [Piece(role="prompt" if is_prompt else "response", text=inside), Piece(role="prompt", text=outside)]
    return found


def _generation() -> Any:
    """An extension of Jinja for `{% generation %} ... {% endgeneration %}`, which marks what stands between."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as Jinja has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            return f"{_BEGIN}{caller()}{_END}"

    return Generation


def _refuse(words: str) -> NoReturn:
    """`raise_exception` of templates."""
    raise ValueError(words)


def _tojson(value: Any, indent: int | None = None, **more: Any) -> str:
    """As transformers has it: Jinja's own escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **more)
