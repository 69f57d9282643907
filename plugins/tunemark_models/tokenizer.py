"""A model's own tokenizer: `tokenizer.json` in its folder, in the local cache of the hub, or on the hub itself.

The library that encodes is `tokenizers`; transformers is not imported.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.errors import BadData
from tunemark_mistral.tokenizer import SentencePieceTokenizer

# What says which ids go around a document, beside the tokenizer itself.
_SETTINGS = ("tokenizer_config.json", "config.json", "special_tokens_map.json")


class JsonTokenizer:
    """A `tokenizer.json`, loaded when it first encodes.

    bos_id is what the tokenizer itself puts before a text, eos_id what its configuration names; either is None where
    there is none. Where no padding token is named, slots are filled with eos: they are masked and never trained on.
    """

    def __init__(self, *, name: str, content: bytes, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._content, self._settings = content, settings

    @classmethod
    def of_folder(cls, folder: Path, name: str) -> JsonTokenizer:
        """The tokenizer of a folder that holds a model's files."""
        return cls(name=name, content=(folder / "tokenizer.json").read_bytes(), settings=_settings(folder))

    @functools.cached_property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @functools.cached_property
    def bos_id(self) -> int | None:
        ids: list[int] = self._tokenizer.encode("").ids
        # Some put an eos of their own behind.
        return ids[0] if ids and ids[0] != self.eos_id else None

    @functools.cached_property
    def eos_id(self) -> int | None:
        return self._special("eos_token")

    @functools.cached_property
    def pad_id(self) -> int:
        found = self._special("pad_token")
        return found if found is not None else self.eos_id or 0

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that the tokenizer's configuration carries, None where it has none."""
        found = self._settings.get("chat_template")
        # Several by name: the one for plain conversations is called default.
        if isinstance(found, list):
            found = next((each.get("template") for each in found if each.get("name") == "default"), None)
        return found if isinstance(found, str) else None

    def special_texts(self) -> dict[str, str]:
        """bos_token and eos_token as text, for chat templates; those that there are."""
        ids = {"bos_token": self._special("bos_token"), "eos_token": self.eos_id}
        return {name: self._tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self._content).hexdigest()
        major = importlib.metadata.version("tokenizers").rpartition(".")[0]
        return f"{digest}/{self.bos_id}/{self.eos_id}/{self.pad_id}/tokenizers-{major}"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """As the protocol says; a token that is part of a character ends where the character ends."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(e.ids, _rising([end for _, end in e.offsets])) for e in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def files(self) -> Mapping[str, bytes]:
        """What transformers needs in a folder to load the same tokenizer."""
        own = {k: v for k, v in self._settings.items() if k in _KEPT}
        own.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        return {"tokenizer.json": self._content, "tokenizer_config.json": json.dumps(own, indent=1).encode()}

    @functools.cached_property
    def _tokenizer(self) -> Any:
        import tokenizers  # needed only where text is encoded

        found = tokenizers.Tokenizer.from_str(self._content.decode())
        found.no_truncation()
        found.no_padding()
        return found

    def _special(self, name: str) -> int | None:
        """The id of a token that the configuration names by its text, or by its id."""
        text = self._settings.get(name)
        if isinstance(text, Mapping):
            text = text.get("content")
        if isinstance(text, str):
            found = self._tokenizer.token_to_id(text)
            if found is not None:
                return int(found)
        number = self._settings.get(f"{name}_id")
        if isinstance(number, list):
            number = next(iter(number), None)
        return number if isinstance(number, int) else None


_KEPT = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template", "add_bos_token", "model_max_length",
         "clean_up_tokenization_spaces", "tokenizer_class")  # fmt: skip


def from_hub(repository: str) -> JsonTokenizer:
    """Of a model on the hub, from the local cache where it is there. `BadData` where it cannot be had."""
    path = _downloaded(repository, "tokenizer.json")
    _fetch_settings(repository)
    return JsonTokenizer.of_folder(path.parent, repository)


def sentencepiece_from_hub(repository: str) -> SentencePieceTokenizer:
    """Of a model whose repository has a SentencePiece model and no `tokenizer.json`; its own Python code is not run."""
    path = _downloaded(repository, "tokenizer.model")
    return SentencePieceTokenizer(name=repository, path=path, vocab_size=None)


def _downloaded(repository: str, name: str) -> Path:
    import huggingface_hub  # needed only where text is encoded

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    # The network, the hub and the cache are on the other side, each with exceptions of its own.
    except Exception as error:
        raise BadData(
            what=f"the tokenizer of {repository} is not in the local cache and cannot be had from the hub",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            next=f"where there is a network: hf download {repository} {name} tokenizer_config.json config.json "
            "(some repositories ask for a licence first), then copy the cache here; or give the model's folder as "
            "--model hf:FOLDER; or use a dataset of ids, such as synthetic",
        ) from error


def _fetch_settings(repository: str) -> None:
    import huggingface_hub

    for name in _SETTINGS:
        # Not every repository has each; what is missing is None.
        with contextlib.suppress(Exception):
            huggingface_hub.hf_hub_download(repository, name)


def from_folder(folder: str) -> JsonTokenizer | SentencePieceTokenizer:
    """Of a model in a folder, `tokenizer.json` or else a SentencePiece model; `BadData` where there is neither."""
    path = Path(folder)
    model = path / "tokenizer.model"
    if not (path / "tokenizer.json").is_file() and model.is_file():
        return SentencePieceTokenizer(name=f"hf:{path.absolute()}", path=model, vocab_size=None)
    if not (path / "tokenizer.json").is_file():
        raise BadData(
            what=f"there is no tokenizer.json and no tokenizer.model in {folder!r}",
            why="only tokenizers in these forms are read",
            next="save the tokenizer there with transformers (save_pretrained), or use a dataset of ids, such as "
            "synthetic",
        )
    return JsonTokenizer.of_folder(path, f"hf:{path.absolute()}")


def _settings(folder: Path) -> dict[str, Any]:
    """What stands in the configuration files, the first that says a thing first."""
    found: dict[str, Any] = {}
    for name in _SETTINGS:
        try:
            stated = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(stated, dict):
            found = {**{k: v for k, v in stated.items() if v is not None}, **found}
    template = folder / "chat_template.jinja"
    if "chat_template" not in found and template.is_file():
        found["chat_template"] = template.read_text(encoding="utf-8")
    return found


def _rising(ends: list[int]) -> list[int]:
    """Ends that never fall."""
    for i in range(1, len(ends)):
        ends[i] = max(ends[i], ends[i - 1])
    return ends
