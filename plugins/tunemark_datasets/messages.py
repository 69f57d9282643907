"""Messages of conversations in their public forms, as the chat templates of tokenizers read them.

OpenAI's and the hub's (role, content, tool_calls), ShareGPT's (from, value, function_call, observation), and turns of
one object with a question and an answer (human, assistant).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

# Role names of ShareGPT's files and of models in them, and of what a function returned in OpenAI's older form.
_ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "bot": "assistant", "observation": "tool", "function_response": "tool", "function": "tool",
}  # fmt: skip
# Keys of objects that hold a whole turn: (question, answer).
_TURN_KEYS = (("human", "assistant"), ("user", "assistant"), ("human", "gpt"))

Fail = Callable[[str, str, str], NoReturn]


class MessageKeys(NamedTuple):
    """How messages name their parts, where they do so in a way of their own. roles: more names of roles."""

    role: str | None = None
    content: str | None = None
    roles: Mapping[str, str] = {}


_USUAL_KEYS = MessageKeys()


def read_messages(given: Any, fail: Fail, keys: MessageKeys = _USUAL_KEYS) -> list[dict[str, Any]]:
    """Messages with `role` and `content`, other keys unchanged; content None is none.

    fail: raises the error of (fact, why, advice).
    """
    names = {**_ROLES, **keys.roles}
    found: list[dict[str, Any]] = []
    for number, one in enumerate(given, 1):
        each = _rename(one, keys)
        turn = _split_turn(each) if isinstance(each, Mapping) else None
        for message in turn or [each]:
            found.append(_normalize_message(message, number, names, fail))
    return found


def _rename(message: Any, keys: MessageKeys) -> Any:
    """The message with its role and content under these names."""
    if not isinstance(message, Mapping):
        return message
    ours = {theirs: name for theirs, name in ((keys.role, "role"), (keys.content, "content")) if theirs is not None}
    return {ours.get(key, key): value for key, value in message.items()}


def parse_if_json(value: Any, what: str, fail: Fail) -> Any:
    """The value, parsed where it is text that holds JSON, as columns of CSV files do."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        python = "'" in value[:20] or "None" in value
        fail(
            f"{what} is text that holds {'what Python prints of a list' if python else 'no valid JSON'}",
            f"it is {value[:80]!r}: {error}",
            "write it with json.dumps before the table is saved",
        )


def _split_turn(given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The two messages of an object that holds a question and its answer."""
    if "role" in given or "from" in given:
        return None
    keys = next((each for each in _TURN_KEYS if set(each) <= set(given)), None)
    if keys is None:
        return None
    return [{"role": "user", "content": given[keys[0]]}, {"role": "assistant", "content": given[keys[1]]}]


def _normalize_message(given: Any, number: int, roles: Mapping[str, str], fail: Fail) -> dict[str, Any]:
    message = dict(given) if isinstance(given, Mapping) else {}
    if message.get("role") is None and "from" in message:
        message["role"] = message.pop("from")
        message.pop("from", None)
    if message.get("content") is None and message.get("value") is not None:
        message["content"] = message.pop("value")
    role = message.get("role")
    role = roles.get(role, role) if isinstance(role, str) else None
    # A table gives every message the keys of all messages; the template must not see the missing ones.
    message = {key: value for key, value in message.items() if value is not None and key != "content"} | {
        "content": message.get("content")
    }
    if role == "function_call":
        return {**message, "role": "assistant", **_read_function_call(message["content"], number, fail)}
    has_content = message["content"] is not None or message.get("tool_calls") or message.get("function_call")
    if role is None or not has_content:
        shown = json.dumps(given, default=str, ensure_ascii=False)[:100]
        fail(
            f"message {number} has no role and content",
            f"it is {shown}",
            "name its keys, chat:path=FILE:role_key=KEY:content_key=KEY:roles=Q=user,A=assistant; or correct it"
            if isinstance(given, Mapping) and "role" not in given
            else "",
        )
    message["role"] = role
    message["content"] = _read_content(message["content"], number, fail)
    if message.get("tool_calls"):
        message["tool_calls"] = [_read_tool_call(each) for each in message["tool_calls"]]
    elif isinstance(message.get("function_call"), Mapping):
        # OpenAI's older form of a single call.
        message["tool_calls"] = [_read_tool_call(message.pop("function_call"))]
    return message


def _read_content(given: Any, number: int, fail: Fail) -> str | None:
    """Text, the texts of content parts joined by newlines, or None."""
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, Sequence):
        shown = json.dumps(given, default=str)[:100]
        fail(f"the content of message {number} is {type(given).__name__}, not text", f"it is {shown}", "")
    texts = []
    for place, part in enumerate(given, 1):
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            kind = part.get("type", "of an unknown kind") if isinstance(part, Mapping) else type(part).__name__
            fail(
                f"part {place} of the content of message {number} "
                + ("is a text that is missing" if kind == "text" else f"is {kind}, not text"),
                "tunemark measures models of text; the part would be lost",
                "leave out rows with such parts",
            )
        texts.append(text)
    return "\n".join(texts)


def _read_tool_call(given: Any) -> Any:
    """A call in the form that templates read, its arguments as an object: OpenAI's files hold them as text."""
    if not isinstance(given, Mapping):
        return given
    call = {key: value for key, value in given.items() if value is not None}
    function = call["function"] if isinstance(call.get("function"), Mapping) else None
    if function is None:
        call, function = {"type": "function"}, call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            parsed = arguments
        function = {**function, "arguments": parsed if isinstance(parsed, dict) else arguments}
    return {**call, "function": {key: value for key, value in function.items() if value is not None}}


def _read_function_call(content: Any, number: int, fail: Fail) -> dict[str, Any]:
    """The `tool_calls` of ShareGPT's role function_call, whose text is JSON of one call or several."""
    calls = parse_if_json(content, f"the call of message {number}", fail)
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, Mapping) and "name" in call for call in calls):
        fail(
            f"message {number} is no function call",
            f"it is {str(content)[:100]!r}",
            "write JSON with name and arguments",
        )
    return {"content": None, "tool_calls": [_read_tool_call(call) for call in calls]}


def read_tools(given: Any, fail: Fail) -> tuple[Mapping[str, Any], ...]:
    """The tools of a conversation, from a list, or text that holds one as JSON."""
    if given is None or given == "":
        return ()
    tools = parse_if_json(given, "tools", fail)
    tools = [tools] if isinstance(tools, Mapping) else tools
    if not isinstance(tools, list) or not all(isinstance(each, Mapping) for each in tools):
        fail("its tools are no list of descriptions", f"they are {str(given)[:100]!r}", "write a JSON list of objects")
    # A table of structs fills what a tool lacks with nothing.
    return tuple(
        _without_none(each if "function" in each else {"type": "function", "function": each}) for each in tools
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value
