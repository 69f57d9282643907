"""Known forms of rows by their columns, so that a refusal names the dataset and the options that read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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
PREFERENCE = ("chosen", "rejected")


def check_no_preference(name: str, columns: Collection[str], used: Collection[str | None], source: str) -> None:
    """`BadData` where rows are pairs of a preferred and a rejected answer and neither was asked for by its name."""
    if not set(PREFERENCE) <= set(columns) or set(PREFERENCE) & set(used):
        return
    option = "messages" if name == "chat" else "output"
    raise make_bad_data(
        name,
        source,
        "its rows are preference pairs, chosen and rejected",
        "that is what DPO, reward models and their kin train on, two answers at a time; tunemark measures supervised "
        "fine-tuning, and would train on one of them or on neither",
        f"to train on the preferred answers alone: {name}:path=FILE:{option}=chosen",
    )


def suggest_reading(columns: Collection[str], source: str) -> str:
    """How rows with such columns are read: the dataset with its options, or "" where the form is not known."""
    conversation = next((each for each in MESSAGE_COLUMNS if each in columns), None)
    if conversation is not None:
        return f"these are conversations: chat:path={source}"
    pair = next((each for each in _PAIRS if set(each) <= set(columns)), None)
    if pair is not None:
        question, answer = pair
        options = "" if pair == ("instruction", "output") else f":instruction={question}:output={answer}:template=plain"
        how = f"alpaca:path={source}{options}"
        chat = f"chat:path={source}" + ("" if pair in CHAT_PAIRS else f":instruction={question}:output={answer}")
        return f"{how} reads them as texts, {chat} as conversations by a chat template"
    text = next((each for each in TEXT_COLUMNS if each in columns), None)
    if text is not None:
        return f"these are whole texts: text:path={source}" + ("" if text == "text" else f":column={text}")
    return ""


# Of a question and an answer: these pairs need no options of `chat`.
CHAT_PAIRS: Sequence[tuple[str, str]] = (("prompt", "completion"), ("instruction", "output"))


def format_left_out(left_out: Mapping[str, Mapping[str, int]]) -> str:
    """The columns of text that are not used, with how much they hold."""
    return ", ".join(
        f"{name} ({found['rows']:,} rows, {found['characters']:,} characters)" for name, found in left_out.items()
    )
