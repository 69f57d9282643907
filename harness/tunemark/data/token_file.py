"""Token files: a dataset is encoded once into a file that the worker memory-maps, cached under its content hash.

A cached file is looked up by a key of everything that determines it, and its hash is verified each time; a damaged file
is made again. The file is written while examples are read, so that memory never holds the whole dataset. Numpy is
imported only where a file is made or read, so that a look-up takes milliseconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from tunemark.atomic_write import write_atomically
from tunemark.cache import cache_folder
from tunemark.data.chat_template import ChatTemplate
from tunemark.data.encoding import EncodedDocuments, Encoder
from tunemark.errors import BadData, BadExperiment, BadStore, did_you_mean
from tunemark.plugin.catalog import load_object
from tunemark.plugin.descriptors import Dataset, Model, TokenizerSpec
from tunemark.plugin.protocols import (
    DatasetSource,
    HasChatTemplate,
    HasRemarks,
    NamesSpecialTexts,
    Tokenizer,
    TokenizesChats,
)
from tunemark_worker.contract import HEADER_BYTES, SCHEMA, TokenFile, token_file_offsets
from tunemark_worker.file_hash import hash_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Version of what is counted besides the tokens: change it when cached facts would lack some.
_FACTS = 2
# Bytes that are copied or hashed at a time.
_CHUNK = 1 << 20
# Facts of an origin that say what a folder has beside the files that are read.
_BESIDE = ("split", "unread_files")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedData:
    """A token file and facts about it.

    facts: JSON values for the report: names, fingerprints, counts, and the dataset's origin.
    cached: the file existed already. seconds: total preparation time.
    """

    token_file: TokenFile
    facts: Mapping[str, Any]
    cached: bool
    seconds: float


class TokenArrays(NamedTuple):
    """A token file's arrays, memory-mapped read-only.

    ids: int32 [tokens]. trained: uint8 [tokens]. offsets: int64 [documents + 1].
    """

    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]


def prepare_data(
    dataset: Dataset, options: Mapping[str, str], model: Model, train_on: str, *, cache: Path | None = None
) -> PreparedData:
    """The token file of a dataset for a model's vocabulary.

    train_on: 'all' trains on every token, bos included; 'response' on eos and each token whose last character is in a
    response. The ids are the same in both. cache: a folder, by default $TUNEMARK_CACHE, or `tunemark` in
    $XDG_CACHE_HOME or in ~/.cache.

    Raises BadExperiment on an unknown option or train_on, BadData where the dataset is not usable, BadStore where the
    cache is not.
    """
    start_s = time.perf_counter()
    if train_on not in ("all", "response"):
        raise BadExperiment(what=f"no train_on {train_on!r}", next=did_you_mean(train_on, ("all", "response")))
    for name in options:
        if name not in dataset.options:
            raise BadExperiment(
                what=f"the dataset {dataset.name!r} has no option {name!r}", next=did_you_mean(name, dataset.options)
            )
    vocab_size = model.architecture.vocab_size
    source: DatasetSource = load_object(dataset.loader)(options, vocab_size)
    tokenizer: Tokenizer | None = None
    if dataset.needs_tokenizer:
        assert model.tokenizer is not None, "plans of text for models without a tokenizer are refused earlier"
        tokenizer = load_tokenizer(model.tokenizer)
    chat = _chat_template(dataset, source, model, tokenizer)
    identity = {
        "schema": SCHEMA,
        "facts": _FACTS,
        "dataset": dataset.name,
        "dataset_fingerprint": source.fingerprint(),
        "options": dict(options),
        "tokenizer": tokenizer.name if tokenizer else None,
        "tokenizer_fingerprint": tokenizer.fingerprint() if tokenizer else None,
        "vocab_size": vocab_size,
        "train_on": train_on,
        **({"chat_template_sha256": chat.sha256} if chat else {}),
    }
    folder = (cache or cache_folder()).absolute() / "tokens"
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    index = folder / f"key-{key}.json"
    found = _find_cached(index, folder)
    if found:
        token_file, facts = found
        # What lies beside the files that are read may have changed, and is no part of their fingerprint.
        here = {name: value for name, value in source.facts().items() if name in _BESIDE}
        origin = {name: value for name, value in facts["origin"].items() if name not in _BESIDE}
        facts = {**facts, "origin": {**origin, **here}}
        return PreparedData(token_file=token_file, facts=facts, cached=True, seconds=time.perf_counter() - start_s)

    with _Writer(folder) as writer:
        encoder = Encoder(tokenizer, train_on, chat)
        for documents in encoder.encode(source.examples()):
            writer.add(documents)
        _check(writer, encoder, dataset, model, train_on)
        facts = {
            **{name: value for name, value in identity.items() if name not in ("schema", "facts")},
            "documents": writer.documents,
            "tokens": writer.tokens,
            "trained_tokens": writer.trained,
            "longest_tokens": writer.longest,
            "tokens_by_role": encoder.tokens_by_role,
            "remarks": [*(source.remarks() if isinstance(source, HasRemarks) else ()), *encoder.remarks()],
            "origin": dict(source.facts()),
        }
        header = {name: identity[name] for name in ("schema", "dataset", "tokenizer", "train_on")}
        token_file = writer.finish(header, pad_id=tokenizer.pad_id if tokenizer else 0)
    entry = {"documents": token_file.documents, "tokens": token_file.tokens, "pad_id": token_file.pad_id}
    _replace(index, json.dumps({"sha256": token_file.sha256, **entry, "facts": facts}, indent=1).encode())
    return PreparedData(token_file=token_file, facts=facts, cached=False, seconds=time.perf_counter() - start_s)


def _chat_template(
    dataset: Dataset, source: DatasetSource, model: Model, tokenizer: Tokenizer | None
) -> ChatTemplate | None:
    """The chat template of a dataset of messages: its own, or else the tokenizer's; None for any other dataset."""
    if not dataset.is_chat:
        return None
    assert tokenizer is not None, "messages are text"
    template = source.chat_template() if isinstance(source, HasChatTemplate) else None
    if template is None and isinstance(tokenizer, TokenizesChats):
        template = tokenizer.chat_template
    if template is None:
        raise BadData(
            what=f"the tokenizer of {model.name} ({tokenizer.name}) has no chat template",
            why=f"{dataset.name} has messages, which a template turns into text",
            next=f"choose a chat model, or give a template: {dataset.name}:template=FILE, or template=chatml",
        )
    return ChatTemplate(template, tokenizer.special_texts() if isinstance(tokenizer, NamesSpecialTexts) else None)


def load_tokenizer(name: TokenizerSpec) -> Tokenizer:
    """Load a tokenizer."""
    loader = load_object(name.loader)
    tokenizer: Tokenizer = loader(name.argument) if name.argument else loader()
    return tokenizer


def read_token_file(path: Path) -> TokenArrays:
    """Memory-map the arrays of a token file; BadData where it is not one. The caller checks its hash."""
    import numpy as np

    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
        documents, tokens, schema = int(header["documents"]), int(header["tokens"]), header["schema"]
        layout = token_file_offsets(documents, tokens)
        fits = path.stat().st_size == layout.end
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(what=f"{str(path)!r} is not a token file", why=f"{type(error).__name__}: {error}") from error
    if schema != SCHEMA or not fits:
        raise BadData(
            what=f"{str(path)!r} is not a token file of schema {SCHEMA}",
            why=f"its schema is {schema!r}" if schema != SCHEMA else f"it should be {layout.end} bytes long",
        )
    return TokenArrays(
        np.memmap(path, np.dtype("<i4"), "r", layout.ids, (tokens,)),
        np.memmap(path, np.dtype("u1"), "r", layout.trained, (tokens,)),
        np.memmap(path, np.dtype("<i8"), "r", layout.offsets, (documents + 1,)),
    )


def _check(writer: _Writer, encoder: Encoder, dataset: Dataset, model: Model, train_on: str) -> None:
    if not writer.tokens:
        raise BadData(
            what=f"the dataset {dataset.name!r} has no documents",
            why=f"it has {writer.documents} examples, all without tokens",
            next="check its options, or choose another dataset",
        )
    if writer.lowest < 0 or writer.highest >= model.architecture.vocab_size:
        raise BadData(
            what=f"the dataset {dataset.name!r} contains ids outside the vocabulary of the model {model.name!r}",
            why=f"ids from {writer.lowest} to {writer.highest}; "
            f"the vocabulary is 0 to {model.architecture.vocab_size - 1}",
            next="choose a model with the dataset's tokenizer, or another dataset",
        )
    if not writer.trained:
        raise BadData(
            what=f"no token of the dataset {dataset.name!r} would be trained on",
            why=f"train_on is {train_on!r} and no example has a response to train on",
            next="--train-on all; or give some answer a weight that is not 0",
        )
    if train_on == "response" and not encoder.has_prompts:
        raise BadData(
            what=f"no example of the dataset {dataset.name!r} has a prompt",
            why="train_on is 'response', but all tokens would be trained on",
            next="--train-on all; or define the prompts by the dataset's options (`tunemark list datasets`)",
        )


class _Writer:
    """Writes a token file: three arrays in separate temporary files, which `finish` joins.

    documents, tokens, trained, longest: counts so far; trained: without a document's first token, which nothing
    predicts. lowest, highest: ids.
    Memory use is constant; disk use is briefly twice the file's size.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary: Path | None = None
        self._files: list[IO[bytes]] = []
        self.documents = self.tokens = self.trained = self.longest = 0
        self.lowest = self.highest = 0

    def __enter__(self) -> _Writer:
        with _report_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=".tmp-")
            self._temporary = Path(name)
            main = os.fdopen(handle, "w+b")
            self._files = [main]
            for _ in range(2):
                self._files.append(tempfile.TemporaryFile(dir=self._folder))
            main.write(b" " * HEADER_BYTES)
            self._files[2].write(bytes(8))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):
                file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def add(self, documents: EncodedDocuments) -> None:
        """Append documents."""
        import numpy as np

        ids, trained, lengths = documents
        with _report_errors(self._folder):
            values = np.asarray(ids, "<i4")
            if len(values):
                low, high = int(values.min()), int(values.max())
                self.lowest = min(low, self.lowest) if self.tokens else low
                self.highest = max(high, self.highest) if self.tokens else high
            ends = np.cumsum(np.asarray(lengths, "<i8")) + self.tokens
            main, trained_file, offsets = self._files
            main.write(values.tobytes())
            trained_file.write(trained)
            offsets.write(ends.astype("<i8").tobytes())
        self.documents += len(lengths)
        self.tokens += len(ids)
        begins = (ends - np.asarray(lengths, "<i8") - self.tokens + len(ids))[np.asarray(lengths) > 0]
        self.trained += sum(trained) - int(np.frombuffer(trained, "u1")[begins].sum())
        self.longest = max(self.longest, max(lengths, default=0))

    def finish(self, header: Mapping[str, Any], *, pad_id: int) -> TokenFile:
        """Join the arrays, and move the file to the name that is its hash."""
        assert self._temporary is not None, "the writer was not entered"
        layout = token_file_offsets(self.documents, self.tokens)
        counts = {"documents": self.documents, "tokens": self.tokens, "pad_id": pad_id}
        head = json.dumps({**header, **counts}, sort_keys=True).encode().ljust(HEADER_BYTES)
        assert len(head) == HEADER_BYTES, "the header does not fit"
        with _report_errors(self._folder):
            main, trained, offsets = self._files
            for part in (trained, offsets):
                main.write(bytes(-main.tell() % 8) if part is offsets else b"")
                part.seek(0)
                shutil.copyfileobj(part, main, _CHUNK)
            assert main.tell() == layout.end, "an array has the wrong length"
            main.seek(0)
            main.write(head)
            main.seek(0)
            digest = hash_file(main)
            # mkstemp's files are readable by the owner only; a cache may be shared.
            os.chmod(self._temporary, 0o644)
            path = self._folder / f"{digest}.tokens"
            os.replace(self._temporary, path)
        return TokenFile(path=str(path), sha256=digest, **counts)


def _find_cached(index: Path, folder: Path) -> tuple[TokenFile, Mapping[str, Any]] | None:
    """The token file and facts of an index entry, if the file exists and has the right hash."""
    try:
        entry = json.loads(index.read_bytes())
        path = folder / f"{entry['sha256']}.tokens"
        with path.open("rb") as file:
            digest = hash_file(file)
        if digest != entry["sha256"]:
            return None
        counts = {name: int(entry[name]) for name in ("documents", "tokens", "pad_id")}
        return TokenFile(path=str(path), sha256=digest, **counts), cast(Mapping[str, Any], entry["facts"])
    # Missing, unreadable, not JSON, or of an older format: it is made again, and errors show when writing.
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new, never a part."""
    with _report_errors(path.parent):
        write_atomically(path, content)


@contextlib.contextmanager
def _report_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into a `BadStore` that names the cache."""
    try:
        yield
    except OSError as error:
        raise BadStore(
            what=f"cannot write the token cache {str(folder)!r}",
            why=str(error),
            next="set TUNEMARK_CACHE to a writable folder",
        ) from error
