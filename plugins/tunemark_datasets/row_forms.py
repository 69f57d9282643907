"""Known forms of rows by their columns, so that a refusal names the dataset and the options that read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from tunemark_datasets.row_errors import make_bad_data

# Columns of conversations, in the order in which they are looked for.
MESSAGE_COLUMNS = ("messages", "conversations", "conversation", "dialogue", "dialog")
# (question, answer) of OpenAI's, MLX's and TRL's files, and of well-known sets of the hub.
_PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("query", "response"),
    ("instruction", "response"), ("instruction", "output"), ("input", "output"), ("prompt", "output"),
    ("question", "response"),
)  # fmt: skip
TEXT_COLUMNS = ("text", "content")
# (preferred answer, the other) of TRL, LLaMA-Factory and OpenAI.
_PREFERENCES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))


def check_no_preference(name: str, columns: Collection[str], used: Collection[str | None], source: str) -> None:
    """`BadData` where rows are answers that were compared or judged, and none was asked for by its column."""
    has = set(columns)
    pair = next((each for each in _PREFERENCES if set(each) <= has), None)
    if pair is not None and not set(pair) & set(used):
        refuse_preference(name, source, pair)
    if has >= {"prompt", "completion", "label"}:
        raise make_bad_data(
            name,
            source,
            "its rows are judged answers, with a label for good and bad ones",
            "that is what KTO trains on; supervised fine-tuning would train on the bad answers, too",
            "keep the rows of good answers, and leave out the column label",
        )


def refuse_preference(name: str, source: str, pair: tuple[str, str]) -> NoReturn:
    """`BadData` for rows with a preferred and another answer in these columns."""
    option = {"chat": "messages", "text": "column"}.get(name, "output")
    raise make_bad_data(
        name,
        source,
        f"its rows are preference pairs, {pair[0]} and {pair[1]}",
        "that is what DPO, reward models and their kin train on, two answers at a time; tunemark measures "
        "supervised fine-tuning, and would train on one of them or on neither",
        f"to train on the preferred answers alone: {name}:path=FILE:{option}={pair[0]}",
    )


def suggest_reading(columns: Collection[str], source: str) -> str:
    """How rows with such columns are read: the dataset with its options, or "" where the form is not known."""
    by_lower = {each.lower(): each for each in columns}
    if {"instruction", "output"} <= set(by_lower) and not {"instruction", "output"} <= set(columns):
        named = ":".join(f"{each}={by_lower[each]}" for each in ("instruction", "input", "output") if each in by_lower)
        return f"names are compared with their case: alpaca:path={source}:{named}"
    conversation = next((each for each in MESSAGE_COLUMNS if each in columns), None)
    if conversation is not None:
        return f"these are conversations: chat:path={source}"
    named_pair = next((each for each in _PAIRS if set(each) <= set(by_lower)), None)
    if named_pair is not None:
        pair = question, answer = by_lower[named_pair[0]], by_lower[named_pair[1]]
        options = "" if pair == ("instruction", "output") else f":instruction={question}:output={answer}:template=plain"
        # Dolly's third column.
        if {"instruction", "context"} <= set(by_lower) and "input" not in by_lower:
            options = options.replace(":template=plain", f":input={by_lower['context']}")
        how = f"alpaca:path={source}{options}"
        chat = f"chat:path={source}" + ("" if pair in CHAT_PAIRS else f":instruction={question}:output={answer}")
        return f"{how} reads them as texts, {chat} as conversations by a chat template"
    text = next((each for each in TEXT_COLUMNS if each in columns), None)
    if text is not None:
        return f"these are whole texts: text:path={source}" + ("" if text == "text" else f":column={text}")
    if "input_ids" in by_lower:
        return "its rows are the ids of some tokenizer; texts are encoded here, by the model's own: give those"
    return ""


# Of a question and an answer: these pairs need no options of `chat`.
CHAT_PAIRS: Sequence[tuple[str, str]] = (("prompt", "completion"), ("instruction", "output"))


def format_left_out(left_out: Mapping[str, Mapping[str, int]]) -> str:
    """The columns of text that are not used, with how much they hold."""
    texts = []
    for name, found in left_out.items():
        amount = f"{found['rows']:,} rows, {found['characters']:,} characters"
        texts.append(f"{name or 'a column without a name'} ({amount})")
    return ", ".join(texts)
