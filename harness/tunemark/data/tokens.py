"""From a dataset to the token file that the worker maps: encoded once, kept under the hash of its content.

A file is found again by a key of all that determines it, and its hash is checked each time: a damaged file is made
anew. Numpy is imported only where a file is made or read, so that finding one costs milliseconds.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import gc
import hashlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tunemark.errors import BadData, BadExperiment, BadStore, did_you_mean
from tunemark.plugin.catalog import load
from tunemark.plugin.descriptors import Dataset, Example, Model, TokenizerName
from tunemark.plugin.protocols import DatasetSource, Tokenizer
from tunemark_worker.contract import HEADER_BYTES, SCHEMA, TokenFile, token_layout

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Documents encoded at a time: enough to feed all cores, few enough that their pieces fit into memory.
_BATCH = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A token file that is ready.

    facts: JSON values for the report: names, fingerprints, counts, and what the dataset says of its origin.
    cached: it was there already. seconds: what preparing took, all included.
    """

    token_file: TokenFile
    facts: Mapping[str, Any]
    cached: bool
    seconds: float


class Tokens(NamedTuple):
    """A token file's arrays, mapped read-only.

    ids: int32 [tokens]. trained: uint8 [tokens]. offsets: int64 [documents + 1].
    """

    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]


def prepare(
    dataset: Dataset, options: Mapping[str, str], model: Model, train_on: str, *, cache: Path | None = None
) -> Prepared:
    """The token file of a dataset for a model's vocabulary.

    train_on: 'all' trains every token, bos included; 'response' trains eos and each token whose last character lies
    in a response. The ids are the same in both. cache: a folder, by default $TUNEMARK_CACHE, or `tunemark` in
    $XDG_CACHE_HOME or in ~/.cache.

    Raises BadExperiment on an unknown option or train_on, BadData where the dataset is not usable, BadStore where the
    cache is not.
    """
    began = time.perf_counter()
    if train_on not in ("all", "response"):
        raise BadExperiment(what=f"no train_on {train_on!r}", next=did_you_mean(train_on, ("all", "response")))
    for name in options:
        if name not in dataset.options:
            raise BadExperiment(
                what=f"the dataset {dataset.name!r} has no option {name!r}", next=did_you_mean(name, dataset.options)
            )
    vocab_size = model.architecture.vocab_size
    source: DatasetSource = load(dataset.loader)(options, vocab_size)
    tokenizer: Tokenizer | None = None
    if dataset.needs_tokenizer:
        assert model.tokenizer is not None, "a plan of text for a model without a tokenizer is refused"
        tokenizer = tokenizer_of(model.tokenizer)
    identity = {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "dataset_fingerprint": source.fingerprint(),
        "options": dict(options),
        "tokenizer": tokenizer.name if tokenizer else None,
        "tokenizer_fingerprint": tokenizer.fingerprint() if tokenizer else None,
        "vocab_size": vocab_size,
        "train_on": train_on,
    }
    folder = (cache or _cache()).absolute() / "tokens"
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    index = folder / f"key-{key}.json"
    found = _find(index, folder)
    if found:
        token_file, facts = found
        return Prepared(token_file=token_file, facts=facts, cached=True, seconds=time.perf_counter() - began)

    with _without_collection():
        encoded = _encode(source.examples(), tokenizer, train_on)
    _check(encoded, dataset, model, train_on)
    lengths = encoded.lengths
    facts = {
        **{name: value for name, value in identity.items() if name != "schema"},
        "documents": len(lengths),
        "tokens": sum(lengths),
        "trained_tokens": sum(encoded.trained),
        "longest_tokens": max(lengths),
        "origin": dict(source.facts()),
    }
    header = {name: identity[name] for name in ("schema", "dataset", "tokenizer", "train_on")}
    token_file = _write(folder, encoded, header, pad_id=tokenizer.pad_id if tokenizer else 0)
    entry = {"documents": token_file.documents, "tokens": token_file.tokens, "pad_id": token_file.pad_id}
    _replace(index, json.dumps({"sha256": token_file.sha256, **entry, "facts": facts}, indent=1).encode())
    return Prepared(token_file=token_file, facts=facts, cached=False, seconds=time.perf_counter() - began)


def tokenizer_of(named: TokenizerName) -> Tokenizer:
    """The tokenizer that a model names."""
    loader = load(named.loader)
    found: Tokenizer = loader(named.argument) if named.argument else loader()
    return found


def read_tokens(path: Path) -> Tokens:
    """Map the arrays of a token file; BadData where it is none. Its hash is the caller's to check."""
    import numpy as np

    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
        documents, tokens, schema = int(header["documents"]), int(header["tokens"]), header["schema"]
        layout = token_layout(documents, tokens)
        fits = path.stat().st_size == layout.end
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(what=f"{str(path)!r} is no token file", why=f"{type(error).__name__}: {error}") from error
    if schema != SCHEMA or not fits:
        raise BadData(
            what=f"{str(path)!r} is no token file of schema {SCHEMA}",
            why=f"its schema is {schema!r}" if schema != SCHEMA else f"it should be {layout.end} bytes long",
        )
    return Tokens(
        np.memmap(path, np.dtype("<i4"), "r", layout.ids, (tokens,)),
        np.memmap(path, np.dtype("u1"), "r", layout.trained, (tokens,)),
        np.memmap(path, np.dtype("<i8"), "r", layout.offsets, (documents + 1,)),
    )


class _Encoded(NamedTuple):
    """ids: C ints; trained: a byte for each; lengths: tokens of each document."""

    ids: array.array[int]
    trained: bytearray
    lengths: list[int]


def _encode(examples: Iterator[Example], tokenizer: Tokenizer | None, train_on: str) -> _Encoded:
    encoded = _Encoded(array.array("i"), bytearray(), [])
    first = 1
    while batch := list(itertools.islice(examples, _BATCH)):
        texts = [(number, e) for number, e in enumerate(batch, first) if any(p.text is not None for p in e.pieces)]
        documents = iter(_encode_texts(texts, tokenizer, train_on) if texts else ())
        for example in batch:
            if any(p.text is not None for p in example.pieces):
                ids, trained = next(documents)
                encoded.ids.extend(ids)
                encoded.trained.extend(trained)
                encoded.lengths.append(len(ids))
            else:
                _take_ids(encoded, example, train_on)
        first += len(batch)
    return encoded


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Millions of small tuples and no cycle among them: looking for cycles each time there are more costs a fifth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _take_ids(encoded: _Encoded, example: Example, train_on: str) -> None:
    length = 0
    for piece in example.pieces:
        ids = piece.ids or ()
        try:
            encoded.ids.extend(ids)
        except OverflowError as error:
            raise BadData(
                what=f"example {len(encoded.lengths) + 1} holds an id that is no 32-bit number", why=str(error)
            ) from error
        encoded.trained.extend(bytes([train_on == "all" or piece.role == "response"]) * len(ids))
        length += len(ids)
    encoded.lengths.append(length)


def _encode_texts(
    examples: Sequence[tuple[int, Example]], tokenizer: Tokenizer | None, train_on: str
) -> Iterator[tuple[list[int], bytes]]:
    """(ids, trained) of each numbered example of text pieces."""
    if tokenizer is None:
        raise BadData(
            what=f"example {examples[0][0]} is text, but its dataset says that it needs no tokenizer",
            next="the dataset is broken: report it to its plugin",
        )
    texts = []
    for number, example in examples:
        if any(piece.text is None for piece in example.pieces):
            raise BadData(what=f"example {number} mixes text and ids", next="a document is either text or ids")
        text = "".join(piece.text or "" for piece in example.pieces)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadData(what=f"example {number} is not valid Unicode", why=str(error)) from error
        texts.append(text)
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    eos = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    if train_on == "all":
        for ids in tokenizer.encode(texts):
            yield bos + ids + eos, b"\1" * (len(bos) + len(ids) + len(eos))
        return
    for (_, example), (ids, ends) in zip(examples, tokenizer.encode_with_ends(texts), strict=True):
        yield bos + ids + eos, b"\0" * len(bos) + _in_response(example, ends) + b"\1" * len(eos)


def _in_response(example: Example, ends: Sequence[int]) -> bytes:
    """1 for each token that ends in a response. A token that ends at n has its last character at n - 1."""
    trained = bytearray()
    character = 0
    for piece in example.pieces:
        character += len(piece.text or "")
        # Ends never fall: the piece's tokens are those up to its own end.
        last = bisect.bisect_right(ends, character, lo=len(trained))
        trained += bytes([piece.role == "response"]) * (last - len(trained))
    assert len(trained) == len(ends), "a token ends behind its text"
    return bytes(trained)


def _check(encoded: _Encoded, dataset: Dataset, model: Model, train_on: str) -> None:
    if not encoded.ids:
        raise BadData(
            what=f"the dataset {dataset.name!r} has no documents",
            why=f"it gave {len(encoded.lengths)} examples without a token",
            next="check its options, or choose another dataset",
        )
    low, high = min(encoded.ids), max(encoded.ids)
    if low < 0 or high >= model.architecture.vocab_size:
        raise BadData(
            what=f"the dataset {dataset.name!r} holds ids that the model {model.name!r} does not have",
            why=f"ids from {low} to {high}; the vocabulary is 0 to {model.architecture.vocab_size - 1}",
            next="choose a model of that tokenizer, or another dataset",
        )
    if not any(encoded.trained):
        raise BadData(
            what=f"no token of the dataset {dataset.name!r} would be trained on",
            why=f"train_on is {train_on!r} and no example has a response",
            next="train on all tokens",
        )


def _write(folder: Path, encoded: _Encoded, header: Mapping[str, Any], *, pad_id: int) -> TokenFile:
    import numpy as np

    documents, tokens = len(encoded.lengths), len(encoded.ids)
    layout = token_layout(documents, tokens)
    content = bytearray(layout.end)
    counts = {"documents": documents, "tokens": tokens, "pad_id": pad_id}
    head = json.dumps({**header, **counts}, sort_keys=True).encode().ljust(HEADER_BYTES)
    assert len(head) == HEADER_BYTES, "the header does not fit"
    content[:HEADER_BYTES] = head
    content[layout.ids : layout.trained] = np.asarray(encoded.ids, "<i4").tobytes()
    content[layout.trained : layout.trained + tokens] = encoded.trained
    offsets = np.zeros(documents + 1, "<i8")
    np.cumsum(encoded.lengths, out=offsets[1:])
    content[layout.offsets :] = offsets.tobytes()
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}.tokens"
    _replace(path, content)
    return TokenFile(path=str(path), sha256=digest, documents=documents, tokens=tokens, pad_id=pad_id)


def _find(index: Path, folder: Path) -> tuple[TokenFile, Mapping[str, Any]] | None:
    """What the index names, if it is still there and still what it was."""
    try:
        entry = json.loads(index.read_bytes())
        path = folder / f"{entry['sha256']}.tokens"
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        if digest != entry["sha256"]:
            return None
        counts = {name: int(entry[name]) for name in ("documents", "tokens", "pad_id")}
        return TokenFile(path=str(path), sha256=digest, **counts), cast(Mapping[str, Any], entry["facts"])
    # Missing, unreadable, not JSON, or of an older shape: it will be made anew, and writing says what is wrong.
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _replace(path: Path, content: bytes | bytearray) -> None:
    """Write a file so that whoever opens it finds the old content or the new, never a part."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            # mkstemp's files are for the owner alone; a cache may be shared.
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise BadStore(
            what=f"cannot write the token cache {str(path.parent)!r}",
            why=str(error),
            next="set TUNEMARK_CACHE to a folder that can be written",
        ) from error


def _cache() -> Path:
    if folder := os.environ.get("TUNEMARK_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "tunemark"
    return Path.home() / ".cache" / "tunemark"
