"""Models that are published and not installed, by their names: dimensions, or parameters alone, or the installed model
of the same dimensions; read from `published_models.csv`, which says where each row is from.

Only what a claim is held to: no weights, no tokenizer. Biases, norms and position tables are left out, about a
thousandth of the parameters.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunemark.physics.parameters import make_architecture
from tunemark.plugin.descriptors import Architecture

# Words of a name that do not alter a model's dimensions: how it was tuned, its release, its weights' form.
_NOISE = re.compile(
    r"hf|base|instruct|chat|it|pt|v0\.1|meta|bnb|4bit|8bit|unsloth|gptq|awq|gguf|nf4|preview|model|[12][0-9]{3}"
    r"|0[0-9]{3}"
)
_SIZES = ("layers", "hidden", "intermediate", "heads", "kv_heads", "vocab")


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedModel:
    """A published model. parameters: None where `same_as` names an installed model with its dimensions.
    active_parameters: those that a token uses, of a mixture whose dimensions are not told by columns. source: of the
    row."""

    name: str
    parameters: float | None
    active_parameters: float | None
    architecture: Architecture | None
    same_as: str | None
    source: str


def find_published_model(stated: str) -> PublishedModel | None:
    """The published model of a stated name, in any common spelling; None where there is none."""
    return published_models().get(make_model_key(stated))


def make_model_key(name: str) -> str:
    """A name without owner, case, punctuation, and words that do not alter a model's dimensions."""
    short = re.sub(r"[^a-z0-9.]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-.")
    words = short.split("-")
    kept = [word for at, word in enumerate(words) if not (at and _NOISE.fullmatch(word)) and word != "meta"]
    return "".join(kept or words)


@functools.cache
def published_models() -> Mapping[str, PublishedModel]:
    """All of them, by the keys of their names."""
    found: dict[str, PublishedModel] = {}
    with Path(__file__).with_name("published_models.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            names = row["names"].split("|")
            model = PublishedModel(
                name=names[0], parameters=_number(row["parameters"]), same_as=row["same_as"] or None,
                active_parameters=_number(row["active_parameters"]), architecture=_architecture(row),
                source=row["source"],
            )  # fmt: skip
            for name in names:
                found[make_model_key(name)] = model
    return found


def _architecture(row: Mapping[str, str]) -> Architecture | None:
    if not row["layers"]:
        return None
    sizes: dict[str, int] = {name: int(row[name]) for name in _SIZES}
    sizes |= {name: int(row[name]) for name in ("head_dim", "experts", "experts_per_token") if row[name]}
    return make_architecture(**sizes, is_gated=row["mlp_matrices"] == "3", is_tied=row["is_tied"] == "1")


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
