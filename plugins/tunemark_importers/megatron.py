"""Reads iteration lines of Megatron-LM and Megatron-Bridge, and the arguments that Megatron-LM prints before them.

Source: github.com/NVIDIA/Megatron-LM, `megatron/training/training.py` (training_log), `arguments.py` (_print_args),
`utils/common_utils.py` (report_memory); github.com/NVIDIA-NeMo/Megatron-Bridge,
`src/megatron/bridge/training/utils/train_utils.py` (training_log). Forks add fields: Megatron-DeepSpeed consumed tokens
and samples per second, Primus "last/mean" in one field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tunemark.physics.parameters import make_architecture
from tunemark.plugin.claims import Claim, LoggedStep, LogLine
from tunemark.plugin.descriptors import Architecture
from tunemark_importers.line_prefixes import MAX_LINE, Prefix, strip_prefixes
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.logged_options import find_options
from tunemark_importers.numbers import FIGURE, parse_integer, parse_number, parse_seconds

MEANING = (
    "no tokens per second is printed, but the mean time of an iteration since the last line, after waiting for "
    "all ranks and with data and logging (in the first line also set-up), and TFLOP/s per GPU: model FLOPs by its own "
    "formula, without recomputation, all slots of the global batch counted."
)
PER_GPU = "The field of tokens per second is per GPU. "

_ITERATION = re.compile(r"(?:==> )?iteration\s+(?P<number>[0-9]{1,15})/\s*(?P<total>[0-9]{1,15}) \|(?P<fields>.*)\|\s*")
_STEP_TIME = re.compile(
    rf"Step Time : (?P<seconds>{FIGURE})s GPU utilization: (?P<tflops>{FIGURE})MODEL_TFLOP/s/GPU\s*"
)
_UNIT = re.compile(r"(?P<name>.+?) \((?P<unit>[^()]+)\)")
_WORLD = re.compile(r"using world size: (?P<world>[0-9]{1,15}), data-parallel size: (?P<dp>[0-9]{1,15}),?(?P<rest>.*)")
_DEGREES = {
    r"(?<!hierarchical )context-parallel size: ([0-9]{1,15})": "cp",
    r"tensor-model-parallel size: ([0-9]{1,15})": "tp",
    r"pipeline-model-parallel size: ([0-9]{1,15})": "pp",
}
_MEMORY = re.compile(rf"\[Rank [0-9]+\] .*?memory \(MB\) \|.*?max reserved: (?P<mib>{FIGURE})(?![0-9.])")
_OTHERS = re.compile(
    r"\[(?:before|after) .*\] datetime: .*|-{20,}.*| *validation loss at .*"
    r"|Number of parameters in .*|Total number of parameters in .*|Theoretical memory footprints.*"
    r"|> (?:building|setting|initializing|finished).*"
)
_FIGURES = {
    "consumed tokens": "tokens",
    "lm loss": "loss",
    "reduced_train_loss": "loss",
    "samples per second": "samples_per_s",
    "TFLOPs": "tflops",
    "throughput per GPU": "tflops",
    "tokens per gpu per second": "tokens_per_s",
    "tokens per GPU": "tokens_per_s",
}
_UNITS = {"throughput per GPU": "TFLOP/s/GPU", "tokens per gpu per second": "tgs", "tokens per GPU": "tokens/s/GPU"}

_ARGUMENTS = {
    "micro_batch_size": "micro_batch",
    "seq_length": "sequence",
    "tensor_model_parallel_size": "tp",
    "pipeline_model_parallel_size": "pp",
    "context_parallel_size": "cp",
    "expert_model_parallel_size": "ep",
    "data_parallel_size": "dp",
    "world_size": "count",
}
_DIMENSIONS = (
    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "group_query_attention", "num_query_groups",
    "kv_channels", "swiglu", "padded_vocab_size", "num_experts", "untie_embeddings_and_output_weights",
    "max_position_embeddings", "moe_router_topk", "moe_ffn_hidden_size", "moe_layer_freq",
    "moe_shared_expert_intermediate_size", "multi_latent_attention",
)  # fmt: skip
# Arguments of a mixture that the dimensions known here cannot express, and the values with which they are not in use.
_PLAIN_MIXTURE = {
    "moe_layer_freq": ("1", "None", ""),
    "moe_shared_expert_intermediate_size": ("None", "0", ""),
    "multi_latent_attention": ("False", "None", ""),
}
_OTHER_ARGUMENTS = ("recompute_granularity", "bf16", "fp16", "fp8", "virtual_pipeline_model_parallel_size")
_ALL = {**_ARGUMENTS, **{name: name for name in (*_DIMENSIONS, *_OTHER_ARGUMENTS)}}


class MegatronReader:
    """Reads one log."""

    def __init__(self) -> None:
        self._runs = LogRuns(tool="megatron", meaning=MEANING, counts="slots", scope="job")
        self._dimensions: dict[str, str] = {}
        self._in_arguments = False
        self._pending: tuple[Prefix, LogLine, LoggedStep] | None = None

    def read(self, line: LogLine) -> bool:
        text = line.text
        if len(text) > MAX_LINE:
            return False
        if "iteration" in text and "|" in text:
            if "memory (MB)" in text:
                return self._add_memory(text, line.number)
            return self._add_iteration(strip_prefixes(text), line)
        if "Step Time :" in text:
            return self._add_step_time(strip_prefixes(text), line)
        if "...." in text or "--" in text or "using world size" in text:
            return self._add_arguments(strip_prefixes(text).text, line.number)
        return self._runs.is_known and bool(_OTHERS.match(strip_prefixes(text).text))

    def claims(self) -> Sequence[Claim]:
        self._flush_pending()
        return self._runs.claims()

    def _add_iteration(self, prefix: Prefix, line: LogLine) -> bool:
        match = _ITERATION.fullmatch(prefix.text)
        if not match:
            return False
        values: dict[str, float] = {}
        batch: int | None = None
        per_gpu = False
        for part in match["fields"].split("|"):
            name, separator, value = part.strip().rpartition(": ")
            if not separator:
                continue
            unit = _UNIT.fullmatch(name)
            plain = unit["name"] if unit else name
            if plain == "elapsed time per iteration":
                read = parse_seconds(_last_of_two(value), unit["unit"] if unit else "")
                field = "duration_s"
            elif plain == "global batch size":
                batch = parse_integer(value)
                if batch is None:
                    return False
                continue
            elif plain in _FIGURES and (not unit or unit["unit"] == _UNITS.get(plain)):
                read, field = parse_number(_last_of_two(value)), _FIGURES[plain]
                per_gpu = per_gpu or field == "tokens_per_s"
            else:
                continue
            if read is None:
                return False
            values[field] = read
        if "duration_s" not in values:
            return False
        if self._pending:
            if self._pending[2].tflops is not None:
                values.setdefault("tflops", self._pending[2].tflops)
            self._pending = None
        self._runs.add_fact("steps_total", float(match["total"]), match[0][:60], line.number)
        if batch:
            # A batch size that grows during training is stated twice and so left unknown.
            self._runs.add_fact("global_batch", batch, f"global batch size: {batch}", line.number)
        if per_gpu:
            self._runs.add_fact("scope", "device", "tokens per GPU", line.number, differing="first")
            self._runs.add_fact("meaning", PER_GPU + MEANING, "tokens per GPU", line.number, differing="first")
        self._architecture(line.number)
        step = LoggedStep(line.number, number=float(match["number"]), duration_steps=1.0, **values)
        self._runs.add(prefix, line, step)
        return True

    def _add_step_time(self, prefix: Prefix, line: LogLine) -> bool:
        """Megatron-Bridge's line of the first rank. The last rank's iteration line comes next and has the same and more
        figures; without it this line counts as a step without a number."""
        match = _STEP_TIME.fullmatch(prefix.text)
        duration, tflops = (parse_number(match["seconds"]), parse_number(match["tflops"])) if match else (None, None)
        if duration is None or tflops is None:
            return False
        self._flush_pending()
        step = LoggedStep(line.number, duration_s=duration, duration_steps=1.0, tflops=tflops)
        self._pending = (prefix, line, step)
        return True

    def _flush_pending(self) -> None:
        if self._pending:
            self._runs.add(*self._pending)
            self._pending = None

    def _add_memory(self, text: str, line: int) -> bool:
        found = [parse_number(match["mib"]) for match in _MEMORY.finditer(text)]
        for mib in found:
            if mib is not None and math.isfinite(mib):
                words = f"max reserved: {mib:g} MB of 2^20 bytes"
                self._runs.add_fact("memory_bytes", mib * 2**20, words, line, differing="largest")
        return bool(found) and None not in found

    def _add_arguments(self, text: str, line: int) -> bool:
        if match := _WORLD.fullmatch(text):
            self._runs.add_fact("count", int(match["world"]), match[0][:40], line)
            self._runs.add_fact("dp", int(match["dp"]), match[0][:60], line)
            for pattern, field in _DEGREES.items():
                if (degree := re.search(pattern, match["rest"])) and (value := parse_integer(degree[1])):
                    self._runs.add_fact(field, value, degree[0], line)
            return True
        if re.fullmatch(r"-{5,} arguments -{5,}\s*", text):
            self._in_arguments = True
            return True
        if re.fullmatch(r"-{5,} end of arguments -{5,}\s*", text):
            self._in_arguments = False
            return True
        for name, stated_value, words in find_options(text, _ALL):
            self._add_argument(name, stated_value, words, line)
        return self._in_arguments or (self._runs.is_known and bool(_OTHERS.match(text)))

    def _add_argument(self, name: str, value: str, words: str, line: int) -> None:
        runs = self._runs
        if name in _DIMENSIONS:
            if self._in_arguments:
                self._dimensions[name] = value
        elif name == "recompute_granularity":
            kind = {"None": "none", "none": "none", "full": "full", "selective": "selective"}.get(value)
            if kind:
                runs.add_fact("checkpointing", kind, words, line)
        elif name in ("bf16", "fp16"):
            if value in ("", "True"):
                runs.add_fact("precision", name, words, line, differing="first")
        elif name == "fp8":
            if value not in ("None", "False"):
                runs.add_fact("precision", "fp8", words, line, differing="first")
        elif (parsed := parse_integer(value)) is not None and parsed > 0:
            runs.add_fact(
                {"virtual_pipeline_model_parallel_size": "virtual_stages"}.get(name, name), parsed, words, line
            )

    def _architecture(self, line: int) -> None:
        if not self._dimensions:
            return
        architecture = _architecture(self._dimensions)
        if architecture:
            self._runs.add_fact("architecture", architecture, "the printed arguments", line)
        for name, plain in _PLAIN_MIXTURE.items():
            if (value := self._dimensions.get(name, "")) not in plain:
                self._runs.note(
                    f"{name} is {value[:60]}: the model is not one that its printed arguments describe here"
                )
        self._dimensions = {}


def _last_of_two(value: str) -> str:
    """The last value of "last/mean", such as "520.1/519.8"."""
    return value.strip().partition("/")[0]


def _architecture(values: dict[str, str]) -> Architecture | None:
    """The model with the printed dimensions; None if one is missing, or it is a mixture of experts with shared experts,
    dense layers or latent attention."""
    sizes = {name: parse_integer(values.get(name, "")) for name in _DIMENSIONS}
    layers, hidden, inner = sizes["num_layers"], sizes["hidden_size"], sizes["ffn_hidden_size"]
    heads, vocab = sizes["num_attention_heads"], sizes["padded_vocab_size"]
    gated, grouped = values.get("swiglu"), values.get("group_query_attention")
    if not (layers and hidden and inner and heads and vocab) or gated not in ("True", "False"):
        return None
    if grouped == "True" and not sizes["num_query_groups"]:
        return None
    if any(values.get(name, "") not in plain for name, plain in _PLAIN_MIXTURE.items()):
        return None
    experts, chosen = sizes["num_experts"], sizes["moe_router_topk"]
    is_mixture = values.get("num_experts", "None") != "None"
    if is_mixture and not (experts and chosen and chosen <= experts):
        return None
    if is_mixture:
        inner = sizes["moe_ffn_hidden_size"] or inner
    try:
        return make_architecture(
            layers=layers,
            hidden=hidden,
            intermediate=inner,
            is_gated=gated == "True",
            heads=heads,
            kv_heads=sizes["num_query_groups"] if grouped == "True" else heads,
            head_dim=sizes["kv_channels"],
            experts=experts if is_mixture else None,
            experts_per_token=chosen if is_mixture else None,
            vocab=vocab,
            is_tied=values.get("untie_embeddings_and_output_weights") == "False",
            sequence=sizes["max_position_embeddings"] or 1,
        )
    except ValueError:
        return None
