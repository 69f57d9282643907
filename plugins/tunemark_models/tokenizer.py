"""A model's own tokenizer: `tokenizer.json` from its folder, the hub's local cache, or the hub.

Text is encoded by the library `tokenizers`; transformers is not imported.
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

from tunemark.errors import BadData, NotReachable
from tunemark.hub import explain_hub_failure, hub_or_its_cache
from tunemark_mistral.tokenizer import SentencePieceTokenizer

# The files that name the special tokens, besides the tokenizer itself.
_SETTINGS_FILES = ("tokenizer_config.json", "config.json", "special_tokens_map.json")


class JsonTokenizer:
    """A `tokenizer.json`, loaded when first used.

    bos_id: what the tokenizer puts before a text; eos_id: what its configuration names; None where there is none.
    Without a padding token, slots are filled with eos: they are masked and never trained on.
    """

    def __init__(self, *, name: str, content: bytes, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._content, self._settings = content, settings

    @classmethod
    def from_folder(cls, folder: Path, name: str) -> JsonTokenizer:
        """The tokenizer in a folder of model files."""
        return cls(name=name, content=(folder / "tokenizer.json").read_bytes(), settings=_read_settings(folder))

    @functools.cached_property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @functools.cached_property
    def bos_id(self) -> int | None:
        ids: list[int] = self._tokenizer.encode("").ids
        # Some tokenizers only append an eos.
        return ids[0] if ids and ids[0] != self.eos_id else None

    @functools.cached_property
    def eos_id(self) -> int | None:
        return self._special_id("eos_token")

    @functools.cached_property
    def pad_id(self) -> int:
        found = self._special_id("pad_token")
        return found if found is not None else self.eos_id or 0

    @property
    def chat_template(self) -> str | None:
        """The Jinja template in the tokenizer's configuration, or None."""
        found = self._settings.get("chat_template")
        # Of several named ones, the one for plain conversations is "default".
        if isinstance(found, list):
            found = next((each.get("template") for each in found if each.get("name") == "default"), None)
        return found if isinstance(found, str) else None

    def special_texts(self) -> dict[str, str]:
        """The texts of bos_token and eos_token, where they exist, for chat templates."""
        ids = {"bos_token": self._special_id("bos_token"), "eos_token": self.eos_id}
        return {name: self._tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self._content).hexdigest()
        major = importlib.metadata.version("tokenizers").rpartition(".")[0]
        return f"{digest}/{self.bos_id}/{self.eos_id}/{self.pad_id}/tokenizers-{major}"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """See the protocol; a token that is part of a character ends where the character ends."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(e.ids, _non_decreasing([end for _, end in e.offsets])) for e in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def files(self) -> Mapping[str, bytes]:
        """The files from which transformers loads the same tokenizer."""
        saved = {k: v for k, v in self._settings.items() if k in _SAVED_SETTINGS}
        saved.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        return {"tokenizer.json": self._content, "tokenizer_config.json": json.dumps(saved, indent=1).encode()}

    @functools.cached_property
    def _tokenizer(self) -> Any:
        import tokenizers  # only needed to encode text

        found = tokenizers.Tokenizer.from_str(self._content.decode())
        found.no_truncation()
        found.no_padding()
        return found

    def _special_id(self, name: str) -> int | None:
        """The id of a token that the configuration gives as text or as an id."""
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


_SAVED_SETTINGS = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template", "add_bos_token",
                   "model_max_length", "clean_up_tokenization_spaces", "tokenizer_class")  # fmt: skip


def tokenizer_from_hub(repository: str) -> JsonTokenizer:
    """The tokenizer of a model on the hub, preferably from the local cache; `BadData` if it cannot be downloaded."""
    path = _download(repository, "tokenizer.json")
    _fetch_settings(repository)
    return JsonTokenizer.from_folder(path.parent, repository)


def sentencepiece_tokenizer_from_hub(repository: str) -> SentencePieceTokenizer:
    """For a model whose repository has a SentencePiece model and no `tokenizer.json`; its Python code is not run."""
    path = _download(repository, "tokenizer.model")
    return SentencePieceTokenizer(name=repository, path=path, vocab_size=None)


def _download(repository: str, name: str) -> Path:
    import huggingface_hub  # only needed to encode text

    try:
        with hub_or_its_cache():
            return Path(huggingface_hub.hf_hub_download(repository, name))
    # The network, the hub and the cache each raise exceptions of their own.
    except Exception as error:
        raise NotReachable(
            what=f"the tokenizer of {repository} is not in the local cache and cannot be downloaded from the hub",
            why=explain_hub_failure(error),
            next=f"on a machine with a network: hf download {repository} {name} tokenizer_config.json config.json "
            "(some repositories ask for a licence first), then copy the cache here; or give the model's folder as "
            "--model hf:FOLDER; or use a dataset of ids, such as synthetic",
        ) from error


def _fetch_settings(repository: str) -> None:
    import huggingface_hub

    for name in _SETTINGS_FILES:
        # Not every repository has every file; missing settings are None.
        with contextlib.suppress(Exception), hub_or_its_cache():
            huggingface_hub.hf_hub_download(repository, name)


def tokenizer_from_folder(folder: str) -> JsonTokenizer | SentencePieceTokenizer:
    """The tokenizer in a model's folder: `tokenizer.json`, else a SentencePiece model; `BadData` if it has neither."""
    path = Path(folder)
    model = path / "tokenizer.model"
    if not (path / "tokenizer.json").is_file() and model.is_file():
        return SentencePieceTokenizer(name=f"hf:{path.absolute()}", path=model, vocab_size=None)
    if not (path / "tokenizer.json").is_file():
        raise BadData(
            what=f"there is no tokenizer.json and no tokenizer.model in {folder!r}",
            why="only tokenizers in these formats are supported",
            next="save the tokenizer there with transformers (save_pretrained), or use a dataset of ids, such as "
            "synthetic",
        )
    return JsonTokenizer.from_folder(path, f"hf:{path.absolute()}")


def _read_settings(folder: Path) -> dict[str, Any]:
    """The merged settings of the configuration files; earlier files take precedence."""
    found: dict[str, Any] = {}
    for name in _SETTINGS_FILES:
        try:
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(settings, dict):
            found = {**{k: v for k, v in settings.items() if v is not None}, **found}
    template = folder / "chat_template.jinja"
    if "chat_template" not in found and template.is_file():
        found["chat_template"] = template.read_text(encoding="utf-8")
    return found


def _non_decreasing(ends: list[int]) -> list[int]:
    """Make the ends non-decreasing, in place."""
    for i in range(1, len(ends)):
        ends[i] = max(ends[i], ends[i - 1])
    return ends
