"""In the worker: any causal language model of transformers, built on its device. Attention is computed by SDPA, torch's
`scaled_dot_product_attention`, if torch and the model offer it, else eagerly: product by product.

Dropout is 0 everywhere, so that losses are comparable between strategies and no rate depends on a random generator.
Works with transformers 4.46 to 5.23.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, ContextManager, Dict, Iterator, Optional

import torch
import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from tunemark_models import document_attention
from tunemark_models.head_loss import HeadLoss
from tunemark_models.packed_mask import call_packed, choose_packed_mask
from tunemark_worker.batches import Batch
from tunemark_worker.contract import IGNORED_LABEL, Assignment, Place
from tunemark_worker.file_hash import hash_file
from tunemark_worker.precision import autocast, compute_dtype, parameter_dtype

# transformers' names of what `--attention` requests.
_IMPLEMENTATIONS = {
    "eager": "eager",
    "sdpa": "sdpa",
    "varlen": document_attention.IMPLEMENTATION,
    "flash": "flash_attention_2",
    "flex": "flex_attention",
}

# transformers 5 renamed the argument; 4.46 does not accept the new name.
_DTYPE_ARGUMENT = "torch_dtype" if int(transformers.__version__.partition(".")[0]) < 5 else "dtype"


class CausalLm:
    """Builds the model directly on its device and in its dtype, without a second copy of the weights."""

    def __init__(self) -> None:
        self._compute_dtype = torch.float32
        self._architecture: Dict[str, Any] = {}
        self._weights: Dict[str, Any] = {}
        self._attention: Dict[str, Any] = {}
        self._config: Any = None
        self._requested = "auto"
        self._head_loss: Optional[HeadLoss] = None

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        """`assignment.weights` is "random", or "pretrained:" with a folder or an id on the hub."""
        self._compute_dtype = compute_dtype(assignment.precision)
        self._architecture = assignment.architecture
        dtype = parameter_dtype(assignment.precision)
        self._requested = assignment.attention
        if self._requested == "varlen":
            document_attention.register()
        # transformers sets what it used on the configuration. A model's own code has attention of its own.
        module: Any = self._build(dtype, assignment, place)
        self._config = getattr(module, "config", None)
        if assignment.loss != "plain" and place.device != "meta":
            self._head_loss = HeadLoss(module, self._compute_dtype, assignment.loss)
        is_remote = "remote" in assignment.architecture
        self._attention = {} if is_remote else _describe_attention(type(module), module.config, self._requested)
        if _is_full_config(assignment.architecture) and assignment.batching == "pack" and place.device != "meta":
            self._check_packing(module, assignment.precision, place.device)
        return module  # type: ignore[no-any-return]

    def _build(self, dtype: torch.dtype, assignment: Assignment, place: Place) -> torch.nn.Module:
        source, _, name = assignment.weights.partition(":")
        if source == "pretrained":
            return self._load_pretrained(name, dtype, assignment).to(place.device)
        if source != "random":
            raise ValueError("weights must be 'random' or 'pretrained:NAME', not {!r}".format(assignment.weights))
        self._weights = {"source": "random"}
        remote = assignment.architecture.get("remote")
        if remote is not None:
            return self._build_remote_code(remote, dtype, assignment).to(place.device)
        config = make_config(assignment.architecture)
        if assignment.attention in _IMPLEMENTATIONS:
            config._attn_implementation = _IMPLEMENTATIONS[assignment.attention]
        with _default_dtype(dtype), _created_on(place.device):
            kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            built: torch.nn.Module = kind(config)
        # Where it is already, unless this torch creates tensors on the host alone.
        return built.to(place.device)

    def _load_pretrained(self, name: str, dtype: torch.dtype, assignment: Assignment) -> torch.nn.Module:
        """Load weights from safetensors or GGUF; from pickles only if `assignment.allow_pickle`."""
        # transformers' own class is used where there is one, whatever code the repository holds.
        is_remote = "remote" in assignment.architecture
        if is_remote and not assignment.trust_remote_code:
            raise ValueError("{} is Python code, and running it is not allowed".format(name))
        where: Dict[str, Any] = {"trust_remote_code": is_remote}
        folder = name
        if name.lower().endswith(".gguf"):
            folder, file = os.path.split(name)
            where["gguf_file"] = file
            with open(name, "rb") as weights:
                self._weights = {"source": name, "sha256": hash_file(weights), "note": "dequantized from GGUF"}
        else:
            self._weights = {"source": name}
        config = AutoConfig.from_pretrained(folder, **where)
        _check_dimensions(config, assignment.architecture, name)
        if "gguf_file" not in where:
            where["use_safetensors"] = None if assignment.allow_pickle else True
        where[_DTYPE_ARGUMENT] = dtype
        kind: Any = AutoModelForCausalLM
        module, loaded = kind.from_pretrained(
            folder,
            config=prepare_for_training(config),
            attn_implementation=_IMPLEMENTATIONS.get(assignment.attention, required_attention(config)),
            output_loading_info=True,
            **where,
        )
        wrong = {name: sorted(map(str, loaded[name])) for name in ("missing_keys", "mismatched_keys") if loaded[name]}
        if wrong:
            # transformers would initialise them randomly and continue.
            words = "; ".join("{}: {}".format(name.replace("_", " "), names[:3]) for name, names in wrong.items())
            raise ValueError("the weights of {} are incomplete: {}".format(name, words))
        return module  # type: ignore[no-any-return]

    def _build_remote_code(self, repository: str, dtype: torch.dtype, assignment: Assignment) -> torch.nn.Module:
        """Random weights of a model whose class is in its repository. The parent has already refused untrusted code."""
        if not assignment.trust_remote_code:
            raise ValueError("{} is Python code, and running it is not allowed".format(repository))
        config = prepare_for_training(AutoConfig.from_pretrained(repository, trust_remote_code=True))
        _check_dimensions(config, assignment.architecture, repository)
        with _default_dtype(dtype):
            model: Any = AutoModelForCausalLM
            module: torch.nn.Module = model.from_config(config, trust_remote_code=True)
            return module

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Scores [micro_batch, sequence, vocab_size]. Only packing needs a mask: padding is on the right, where causal
        attention cannot see it. Without a mask transformers applies sliding windows itself."""
        if self._requested in ("varlen", "flash", "flex"):
            return self._document_logits(module, batch)
        if not batch.packed:
            return module(input_ids=batch.input_ids, use_cache=False).logits  # type: ignore[no-any-return]
        if "remote" in self._architecture:
            # Baichuan's own code takes document numbers from 1 on as its mask, and ALiBi needs no positions.
            if self._architecture["model_type"] != "baichuan":
                raise ValueError("this model's own code may not keep packed documents apart: use --batching pad")
            numbers = batch.document_ids + 1
            return module(  # type: ignore[no-any-return]
                input_ids=batch.input_ids, attention_mask=numbers, use_cache=False
            ).logits
        way = self._architecture.get("packing")
        if way is not None:
            ids = batch.input_ids
            return call_packed(module, self._config, ids, batch.document_ids, batch.positions, way)
        mask = choose_packed_mask(batch.document_ids, self._architecture, self._compute_dtype)
        output = module(input_ids=batch.input_ids, attention_mask=mask, position_ids=batch.positions, use_cache=False)
        return output.logits  # type: ignore[no-any-return]

    def loss_sum(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The loss without the scores of all tokens."""
        assert self._head_loss is not None, "made with the module"
        return self._head_loss.loss_sum(lambda: self.logits(module, batch), batch.labels)

    def _document_logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Scores where attention takes no mask of every query and key."""
        ids, numbers, positions = batch.input_ids, batch.document_ids, batch.positions
        if self._requested == "varlen":
            return call_packed(module, self._config, ids, numbers, positions, "documents")
        if self._requested == "flex":
            return call_packed(module, self._config, ids, numbers, positions, "positions")
        # transformers finds documents by positions that restart in batches of one row. Each token of padding is a
        # document of its own.
        in_one = [each.reshape(1, -1) for each in (ids, numbers, positions)]
        flat = call_packed(module, self._config, in_one[0], in_one[1], in_one[2], "positions")
        # The loss, where the head computes it, is one number.
        return flat.reshape(*ids.shape, -1) if flat.numel() > 1 else flat

    def _check_packing(self, module: torch.nn.Module, precision: str, device: str) -> None:
        """ValueError if in a family not known by name a document's scores, in the precision of the training, depend on
        the one before it in its row, or on its position there: packing would then train a different model.

        The plan has tried the same on a small copy, more exactly."""
        ids = torch.arange(1, 17, device=device)[None] % self._architecture["vocab_size"]
        half = torch.arange(8, device=device)
        document_ids, positions = (torch.cat(each)[None] for each in ((half * 0, half * 0 + 1), (half, half)))
        labels = torch.full_like(ids, IGNORED_LABEL)
        other = torch.cat([ids[:, :8].flip(1), ids[:, 8:]], dim=1)
        # Some families draw experts at random while they are trained.
        module.eval()
        with torch.no_grad(), autocast(precision, torch.device(device).type):
            one, two = (
                self.logits(module, Batch(each, labels, document_ids, positions, True))[0, 8:].float()
                for each in (ids, other)
            )
            single = Batch(ids[:, 8:], labels[:, :8], document_ids[:, :8], positions[:, :8], False)
            alone = self.logits(module, single)[0].float()
        module.train()
        # Experts take the rows' tokens in other groups, which rounds differently.
        limits = (1e-3 if precision == "fp32" else 0.02, 0.05)
        if any((one - each).norm() > limit * alone.norm() for each, limit in zip((two, alone), limits)):
            raise ValueError(
                "{} does not keep documents apart that are packed into one row: use --batching pad".format(
                    type(module).__name__
                )
            )

    def weights_origin(self) -> Dict[str, Any]:
        """Where the weights were read from, for the record."""
        return self._weights

    def attention(self) -> Dict[str, Any]:
        """How attention is computed, for the record."""
        return self._attention

    def save(self, module: torch.nn.Module, folder: str) -> None:
        """Write config.json and safetensors, which transformers' from_pretrained reads."""
        plain: Any = module
        if self._head_loss is not None:
            self._head_loss.restore()
        plain.config.use_cache = True
        # Weights from GGUF were dequantized when loaded.
        for owner, name in ((plain, "hf_quantizer"), (plain.config, "quantization_config")):
            if hasattr(owner, name):
                delattr(owner, name)
        plain.save_pretrained(folder)


# Fields of `tunemark.plugin.Architecture` that transformers calls the same, in the models that have them.
_SAME_NAMES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window", "rms_norm_eps",
    "tie_word_embeddings", "num_local_experts", "num_experts_per_tok", "attention_bias", "mlp_bias", "layer_types",
)  # fmt: skip
_GPT2_NAMES = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "rms_norm_eps",
    "vocab_size": "vocab_size",
    "tie_word_embeddings": "tie_word_embeddings",
}


def make_config(architecture: Dict[str, Any]) -> Any:
    """transformers' configuration from an architecture with the keys of `tunemark.plugin.Architecture`; those under
    "configuration" are transformers' own and take precedence."""
    a, kind = architecture, architecture["model_type"]
    if _is_full_config(a):
        fields = {k: _decode_floats(v) for k, v in a["configuration"].items() if k != "model_type"}
        config = prepare_for_training(AutoConfig.for_model(kind, **fields))
        config._attn_implementation = required_attention(config)
        return config
    if kind == "gpt2":
        fields = {theirs: a[ours] for theirs, ours in _GPT2_NAMES.items()}
    else:
        fields = {name: a[name] for name in _SAME_NAMES if name in a}
        if a.get("rope_theta") is not None:
            fields["rope_theta"] = a["rope_theta"]
    # The defaults are ids in the published vocabulary, which may not exist in a smaller one.
    fields.update({"bos_token_id": None, "eos_token_id": None, "pad_token_id": None})
    fields.update(a.get("configuration", {}))
    if isinstance(fields.get("layer_types"), tuple):
        fields["layer_types"] = list(fields["layer_types"])
    config = prepare_for_training(AutoConfig.for_model(kind, **fields))
    config._attn_implementation = required_attention(config)
    return config


def _decode_floats(value: Any) -> Any:
    """The value with numbers that JSON has no words for, as transformers writes them: {"__float__": "Infinity"}."""
    if isinstance(value, dict):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {k: _decode_floats(v) for k, v in value.items()}
    return [_decode_floats(each) for each in value] if isinstance(value, list) else value


def _is_full_config(architecture: Dict[str, Any]) -> bool:
    """Whether "configuration" is a complete one, as it is for a family that is not known by name."""
    return "model_type" in architecture.get("configuration", {})


def prepare_for_training(config: Any) -> Any:
    for name in vars(config):
        is_noise = "dropout" in name or name.endswith("_pdrop") or name == "input_jitter_noise"
        if is_noise and isinstance(getattr(config, name), float):
            setattr(config, name, 0.0)
    config.use_cache = False
    return config


def required_attention(config: Any) -> Optional[str]:
    """Eager attention for soft-capped scores, which torch's SDPA does not support. None leaves the choice to
    transformers: SDPA where this torch and the model have it, else eager attention."""
    return "eager" if getattr(config, "attn_logit_softcapping", None) is not None else None


def _describe_attention(kind: Any, config: Any, requested: str) -> Dict[str, Any]:
    """How the model computes attention, and why not by SDPA where that is neither requested nor the model's own
    property. ValueError if it is not what was requested."""
    used = getattr(config, "_attn_implementation", None)
    if requested != "auto":
        if used != _IMPLEMENTATIONS[requested]:
            raise ValueError(
                "{} of transformers {} computes attention as {}, not by {} as requested".format(
                    kind.__name__, transformers.__version__, used, requested
                )
            )
        return {"kernel": requested, "reason": None}
    reason = None
    if used != "sdpa" and required_attention(config) is None:
        if kind._supports_sdpa:
            reason = "transformers {} uses SDPA of newer releases than torch {}".format(
                transformers.__version__, torch.__version__
            )
        else:
            reason = "{} of transformers {} has no SDPA".format(kind.__name__, transformers.__version__)
    return {"kernel": used, "reason": reason}


_DIMENSIONS = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "num_key_value_heads",
    "sliding_window",
]


def _check_dimensions(config: Any, architecture: Dict[str, Any], name: str) -> None:
    """ValueError if the dimensions differ: the rate and the FLOPs would be another model's."""
    expected = architecture
    if _is_full_config(architecture):
        # The architecture's own fields then only approximate a family that the formulas do not describe.
        own = make_config(architecture)
        expected = {field: getattr(own, field) for field in _DIMENSIONS if hasattr(own, field)}
    differing = [
        "{} is {}, not {}".format(field, getattr(config, field), expected[field])
        for field in _DIMENSIONS
        if field in expected and hasattr(config, field) and getattr(config, field) != expected[field]
    ]
    if differing:
        raise ValueError("the weights of {} are of another architecture: {}".format(name, ", ".join(differing)))


def _created_on(device: str) -> ContextManager[Any]:
    """A context in which tensors are created on a device; torch 1.13 has none."""
    where: Any = torch.device(device)
    return where if hasattr(where, "__enter__") else contextlib.nullcontext()


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
