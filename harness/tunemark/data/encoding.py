"""Examples to token ids: texts in batches, messages by a chat template, and which token belongs to which role."""

from __future__ import annotations

import array
import bisect
import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tunemark.data.chat_template import ChatTemplate, list_texts
from tunemark.errors import BadData
from tunemark.plugin.descriptors import Example
from tunemark.plugin.protocols import Tokenizer

# Documents, and characters or ids, encoded per batch: enough to use all cores, few enough to fit in memory. A tokenizer
# temporarily uses some 50 to 100 bytes per character.
_BATCH_DOCUMENTS = 2048
_BATCH_CHARACTERS = 1 << 21
# Batches between garbage collections.
_GC_BATCHES = 64


class EncodedDocuments(NamedTuple):
    """ids, and for each id whether it is trained on; lengths of the documents."""

    ids: array.array[int]
    trained: bytearray
    lengths: array.array[int]


class Encoder:
    """Encodes examples, and counts what it sees. tokenizer: None for examples of ids. chat: for examples of messages.

    has_prompts: any piece was a prompt. tokens_by_role: bos counts as a prompt, eos as what it ends; None where the
    roles of a conversation are not known, because all of it is trained on and its template marks no answers.
    """

    def __init__(self, tokenizer: Tokenizer | None, train_on: str, chat: ChatTemplate | None) -> None:
        self._tokenizer, self._train_on, self._chat = tokenizer, train_on, chat
        self._is_masked = train_on == "response" or (chat is not None and chat.marks_answers)
        self.has_prompts = False
        self.tokens_by_role: dict[str, int] | None = {"prompt": 0, "response": 0}
        if chat is not None and not self._is_masked:
            self.tokens_by_role = None
        # Of a conversation: whether the template ignores a role's key, and (examples, characters) of ignored ones.
        self._ignores: dict[tuple[str, str], bool] = {}
        self._ignored: dict[tuple[str, str], tuple[int, int]] = {}

    def encode(self, examples: Iterator[Example]) -> Iterator[EncodedDocuments]:
        """Encode all examples, in order, in batches."""
        first = 1
        with _gc_disabled():
            for number, batch in enumerate(_batches(self._render_messages(examples)), 1):
                yield self._encode_batch(batch, first)
                first += len(batch)
                if number % _GC_BATCHES == 0:
                    gc.collect()

    def remarks(self) -> list[str]:
        """What was left out, in sentences."""
        if not self._ignored:
            return []
        found = ", ".join(
            f"{f'{key} of {role}' if role else key} ({rows:,} conversations, {characters:,} characters)"
            for (role, key), (rows, characters) in self._ignored.items()
        )
        return [f"the chat template leaves out {found}; another one is given by template=FILE"]

    def _encode_batch(self, batch: Sequence[Example], first: int) -> EncodedDocuments:
        texts = [(n, e) for n, e in enumerate(batch, first) if any(p.text is not None for p in e.pieces)]
        documents = iter(self._encode_texts(texts) if texts else ())
        ids, trained, lengths = array.array("i"), bytearray(), array.array("q")
        for n, example in enumerate(batch, first):
            self.has_prompts = self.has_prompts or any(p.role == "prompt" for p in example.pieces)
            is_text = any(p.text is not None for p in example.pieces)
            text_ids, in_response = next(documents) if is_text else _collect_ids(example, n)
            ids.extend(text_ids)
            trained.extend(in_response if self._train_on == "response" else b"\1" * len(text_ids))
            lengths.append(len(text_ids))
            if self.tokens_by_role is not None:
                responses = in_response.count(1)
                self.tokens_by_role["response"] += responses
                self.tokens_by_role["prompt"] += len(text_ids) - responses
        return EncodedDocuments(ids, trained, lengths)

    def _render_messages(self, examples: Iterator[Example]) -> Iterator[Example]:
        """The examples, with messages replaced by the pieces that the chat template renders."""
        for number, example in enumerate(examples, 1):
            if not example.messages:
                yield example
                continue
            name = _name(example, number)
            if self._chat is None:
                raise BadData(
                    what=f"{name} has messages, but its dataset does not set `is_chat`",
                    next="the dataset is broken: report it to its plugin",
                )
            try:
                pieces = self._chat.pieces(example.messages, masked=self._is_masked, tools=example.tools)
                self._count_ignored(self._chat, example)
            except BadData as error:
                raise BadData(what=f"{name}: {error.what}", why=error.why, next=error.next) from error
            yield Example(pieces=pieces, where=example.where)

    def _count_ignored(self, chat: ChatTemplate, example: Example) -> None:
        """Count the texts of a conversation that the template leaves out; each kind of text is tried once."""
        seen = set()
        for place, characters in list_texts(example.messages, example.tools):
            if place not in self._ignores:
                self._ignores[place] = chat.is_ignored(example.messages, example.tools, place)
            if self._ignores[place]:
                rows, so_far = self._ignored.get(place, (0, 0))
                self._ignored[place] = rows + (place not in seen), so_far + characters
                seen.add(place)

    @property
    def _ends(self) -> tuple[list[int], list[int]]:
        """The ids to add around each text; none where the chat template's text already contains them."""
        if self._tokenizer is None or (self._chat is not None and self._chat.has_ends):
            return [], []
        bos, eos = self._tokenizer.bos_id, self._tokenizer.eos_id
        return [] if bos is None else [bos], [] if eos is None else [eos]

    def _encode_texts(self, examples: Sequence[tuple[int, Example]]) -> Iterator[tuple[Sequence[int], bytes]]:
        """(ids, whether each is of a response) of each numbered example of text pieces."""
        if self._tokenizer is None:
            number, example = examples[0]
            raise BadData(
                what=f"{_name(example, number)} is text, but its dataset sets needs_tokenizer=False",
                next="the dataset is broken: report it to its plugin",
            )
        texts = [_join_text(example, number) for number, example in examples]
        bos, eos = self._ends
        if all(piece.role == "response" for _, example in examples for piece in example.pieces):
            # Without offsets, which take a fifth of the time.
            for ids in self._tokenizer.encode(texts):
                yield bos + ids + eos, b"\0" * len(bos) + b"\1" * (len(ids) + len(eos))
            return
        for (_, example), (ids, ends) in zip(examples, self._tokenizer.encode_with_ends(texts), strict=True):
            last = next((piece.role for piece in reversed(example.pieces) if piece.text), "response")
            mask = b"\0" * len(bos) + _in_response(example, ends) + bytes([last == "response"]) * len(eos)
            yield bos + ids + eos, mask


def _name(example: Example, number: int) -> str:
    """The example in an error message."""
    return example.where or f"example {number}"


def _batches(examples: Iterator[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    size = 0
    for example in examples:
        batch.append(example)
        size += sum(len(p.text or p.ids or ()) for p in example.pieces)
        if len(batch) == _BATCH_DOCUMENTS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextlib.contextmanager
def _gc_disabled() -> Iterator[None]:
    """No garbage collection: encoding makes millions of small tuples without cycles, and collecting costs a fifth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _collect_ids(example: Example, number: int) -> tuple[Sequence[int], bytes]:
    """(ids, whether each is of a response) of an example of ids."""
    ids, in_response = array.array("i"), bytearray()
    for piece in example.pieces:
        try:
            ids.extend(piece.ids or ())
        except OverflowError as error:
            raise BadData(
                what=f"{_name(example, number)} contains an id that is not a 32-bit number", why=str(error)
            ) from error
        in_response.extend(bytes([piece.role == "response"]) * len(piece.ids or ()))
    return ids, bytes(in_response)


def _join_text(example: Example, number: int) -> str:
    name = _name(example, number)
    if any(piece.text is None for piece in example.pieces):
        raise BadData(what=f"{name} mixes text and ids", next="a document is either text or ids")
    text = "".join(piece.text or "" for piece in example.pieces)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(
            what=f"{name} is not valid Unicode",
            why=f"{error}: half of a pair of surrogates, as where a text was cut within an emoji",
            next="cut the text at another character, or remove this one",
        ) from error
    return text


def _in_response(example: Example, ends: Sequence[int]) -> bytes:
    """1 for each token that ends in a response. A token that ends at n has its last character at n - 1."""
    trained = bytearray()
    character = 0
    for piece in example.pieces:
        character += len(piece.text or "")
        # Ends are sorted, so the piece's tokens are those up to its end.
        last = bisect.bisect_right(ends, character, lo=len(trained))
        trained += bytes([piece.role == "response"]) * (last - len(trained))
    assert len(trained) == len(ends), "a token ends after its text"
    return bytes(trained)
