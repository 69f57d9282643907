"""The architecture that a published row trains, and its adapters: as stated, of an installed model, or assumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tunemark.physics.flops import ALL_WEIGHTS, TrainedWeights, lora_trained_weights
from tunemark.physics.parameters import (
    adaptable_matrices,
    count_lora_parameters,
    count_parameters,
    make_architecture,
)
from tunemark.plugin.descriptors import Architecture
from tunemark.predict.assumption_list import AssumptionList
from tunemark.predict.layout import Framework
from tunemark.predict.row_cells import RowError, read_count, read_flag, read_number, read_text
from tunemark.predict.row_words import read_matrices

# Dimensions that an installed model of the row's name supplies where the row has none.
_DIMENSIONS = ("n_layers", "hidden", "n_heads", "intermediate", "n_kv_heads", "vocab")
_DEFAULT_VOCABULARY = 50304
# Rank of adapters, and whether they are on all matrices (else on queries and values), where a row says neither: the
# defaults of Megatron-Bridge (peft/lora.py), torchtune (recipes/configs/llama3_1/8B_lora.yaml) and peft (LoraConfig).
_ADAPTER_DEFAULTS: Mapping[Framework, tuple[int, bool]] = {"megatron": (32, True), "torch": (8, True)}
_PEFT_DEFAULTS = (8, False)
# The longest row over the mean, in data for fine-tuning: instructions and answers have a long tail.
_LONGEST = 3
# Tasks whose steps have other passes than forward and backward over a batch.
_OTHER_TASKS = re.compile(
    r"\b(?:dpo|ppo|grpo|orpo|kto|rlhf|rl|reward|distill\w*|inference|generation|prefill|decod\w*)\b"
)


def read_architecture(
    row: Mapping[str, str], models: Mapping[str, Architecture], sequence: int, notes: AssumptionList
) -> Architecture:
    """The architecture of a row. models: installed ones by lower-case name, for rows without dimensions."""
    layers, hidden, heads = (read_count(row, key) for key in ("n_layers", "hidden", "n_heads"))
    model = read_text(row, "model") or ""
    name = _find_installed_model(model, models)
    known = models.get(name or "")
    unlike = f"no model named {model!r} is installed" if known is None else _find_differences(row, known)
    if known is not None and not unlike and any(read_text(row, key) is None for key in _DIMENSIONS):
        notes.sentences.append(f"the dimensions of the installed model {name!r}")
        return known
    if layers is None or hidden is None or heads is None:
        lacking = [key for key in ("n_layers", "hidden", "n_heads") if read_count(row, key) is None]
        raise RowError(f"{', '.join(lacking)} not stated, and {unlike}")
    inner = read_count(row, "intermediate")
    gated = read_flag(row, "mlp_gated")
    if inner is None:
        inner = 4 * hidden
        gated = False if gated is None else gated
        notes.add("dimensions", f"an MLP of {inner}, {'gated' if gated else 'not gated'}, because none is stated")
    elif gated is None:
        gated = inner != 4 * hidden
        notes.add("dimensions", f"an MLP that is {'gated' if gated else 'not gated'}, by its width")
    vocab = read_count(row, "vocab")
    if vocab is None:
        vocab = _DEFAULT_VOCABULARY
        notes.add("dimensions", f"a vocabulary of {vocab}, because none is stated")
    # Some tables write 0 for a dense model.
    experts, used = (read_count(row, key, least=0) or None for key in ("n_experts", "experts_per_token"))
    if (experts or 1) > 1 and used is None:
        raise RowError(f"{experts} experts, but no experts_per_token")
    if used is not None and used > (experts or 1):
        raise RowError(f"{used} experts for each token, of {experts or 'an unknown number'}")
    architecture = make_architecture(
        layers=layers,
        hidden=hidden,
        intermediate=inner,
        is_gated=bool(gated),
        heads=heads,
        kv_heads=read_count(row, "n_kv_heads"),
        head_dim=read_count(row, "head_dim"),
        vocab=vocab,
        experts=experts if experts and used else None,
        experts_per_token=used if experts and used else None,
        sequence=sequence,
    )
    _check_size(row, architecture, notes)
    return architecture


def limit_attention_to_documents(row: Mapping[str, str], a: Architecture, notes: AssumptionList) -> Architecture:
    """The architecture with a window for attention where a pack holds several documents that do not see each other."""
    words = (read_text(row, "notes") or "").lower()
    if not re.search(r"within (?:the )?documents?|document mask|block[- ]diagonal", words):
        return a
    window = max(1, a.max_position_embeddings // 2)
    notes.add("dimensions", f"documents of {window} tokens in a pack, because their lengths are not stated")
    return replace(a, sliding_window=min(window, a.sliding_window or window))


def read_widest(row: Mapping[str, str], sequence: int, notes: AssumptionList) -> int | None:
    """Tokens of the longest row, where rows are padded to the longest of their micro-batch and `sequence` is a mean;
    None where all are equal."""
    words = (read_text(row, "notes") or "").lower()
    if not re.search(r"padded to (?:the )?longest|dynamic(?:ally)? pad|variable[- ]length|lengths vary", words):
        return None
    widest = _LONGEST * sequence
    notes.add("lengths", f"a longest row of {widest} tokens, because lengths are not stated")
    return widest


def _check_size(row: Mapping[str, str], a: Architecture, notes: AssumptionList) -> None:
    """Compare the number of parameters with the one that the row states."""
    stated = read_number(row, "params_b")
    counted = count_parameters(a).total / 1e9
    if a.num_local_experts is None:
        if (read_count(row, "ep") or 1) > 1:
            raise RowError("experts in parallel, but no n_experts and experts_per_token")
        if stated and stated > 1.6 * counted:
            raise RowError(
                f"{stated:g} billion parameters are stated and the dimensions make {counted:.1f}: "
                "a mixture of experts, whose n_experts and experts_per_token are not stated"
            )
    elif stated and not 0.9 < stated / counted < 1.1:
        notes.add(
            "dimensions", f"layers that are all alike: {stated:g} billion parameters are stated, not {counted:.1f}"
        )


def read_trained_weights(
    row: Mapping[str, str], a: Architecture, framework: Framework, notes: AssumptionList
) -> tuple[TrainedWeights, float]:
    """The weights that a row trains, and their share of all."""
    task = (read_text(row, "task") or "pretrain").lower()
    rank = read_count(row, "lora_rank")
    if match := _OTHER_TASKS.search(task):
        raise RowError(f"a step of {match[0]} is not one of training on given tokens")
    has_magnitudes = "dora" in task
    if "lora" not in task and not has_magnitudes and rank is None:
        return ALL_WEIGHTS, 1.0
    words = read_text(row, "notes") or ""
    default_rank, is_everywhere = _ADAPTER_DEFAULTS.get(framework, _PEFT_DEFAULTS)
    if rank is None and (match := re.search(r"\br(?:ank)?\s*[=: ]?\s*(\d+)\b", words)):
        rank = int(match[1]) or None
    if rank is None:
        rank = default_rank
        notes.add("adapters", f"LoRA of rank {rank}, the framework's default, because none is stated")
    stated = (read_text(row, "lora_targets") or "").lower()
    if not stated and re.search(r"all[ -]linear", words):
        stated = "all-linear"
    elif not stated and re.search(r"\bq\s*(?:,|and|/)\s*v\b|q_proj, ?v_proj", words):
        stated = "q,v"
    if not stated:
        stated = "all-linear" if is_everywhere else "q,v"
        notes.add("adapters", f"LoRA on {stated}, the framework's default, because no matrices are stated")
    trained = lora_trained_weights(rank, read_matrices(stated, adaptable_matrices(a)), magnitudes=has_magnitudes)
    adapters = count_lora_parameters(a, rank, trained.lora_targets, magnitudes=has_magnitudes)
    return trained, adapters / count_parameters(a).total


def _find_installed_model(stated: str, models: Mapping[str, Architecture]) -> str | None:
    """The name of the installed model that is meant: "Llama 3 8B" is llama-3-8b; None if there is no single match."""
    if stated.lower() in models:
        return stated.lower()
    plain = re.sub(r"[^a-z0-9]", "", stated.lower())
    alike = [name for name in models if re.sub(r"[^a-z0-9]", "", name) == plain]
    return alike[0] if len(alike) == 1 else None


def _find_differences(row: Mapping[str, str], known: Architecture) -> str:
    """How a row's dimensions differ from those of an installed model; empty where they do not."""
    own = {
        "n_layers": known.num_hidden_layers, "hidden": known.hidden_size, "intermediate": known.intermediate_size,
        "n_heads": known.num_attention_heads, "n_kv_heads": known.num_key_value_heads, "head_dim": known.head_dim,
        "vocab": known.vocab_size, "n_experts": known.num_local_experts or 0,
        "experts_per_token": known.num_experts_per_tok or 0,
    }  # fmt: skip
    stated = {key: read_count(row, key, least=0) for key in own}
    gated = read_flag(row, "mlp_gated")
    other = [f"{key} {n}, not {own[key]}" for key, n in stated.items() if n is not None and n != own[key]]
    other += [] if gated is None or gated == known.gated_mlp else [f"mlp_gated {int(gated)}"]
    return f"the installed model of that name has another shape: {', '.join(other)}" if other else ""
