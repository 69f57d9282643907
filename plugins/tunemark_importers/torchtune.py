"""Reads torchtune's step lines, as its stdout and disk loggers write them (text and JSON lines), and printed config.

Source: github.com/meta-pytorch/torchtune, `torchtune/training/metric_logging.py` (StdoutLogger, DiskLogger),
`recipes/full_finetune_distributed.py` and the other recipes, `torchtune/config/_utils.py` (log_config).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tunemark.plugin.claims import Claim, LoggedStep, LogLine
from tunemark_importers.line_prefixes import MAX_LINE, Prefix, strip_prefixes
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.numbers import parse_bytes, parse_integer, parse_number
from tunemark_importers.printed_dicts import parse_flat_dict

MEANING = (
    "trained labels of one step (neither padding nor a masked prompt), over its wall time and the number of devices; "
    "the first step is included. Until October 2024 it counted all slots of the batch."
)
SLOTS = (
    "slots of one process's batch, padding counted, over the wall time of one step; the first step is included. "
    "(Named tokens_per_second, until May 2024.)"
)

_STEP = re.compile(r"Step (?P<number>[0-9]{1,15}) \| (?P<fields>[A-Za-z_]\w*:\S.*)")
_FIELD = re.compile(r"([A-Za-z_]\w*):(\S+)")
_BAR = re.compile(r"[0-9]+\|[0-9]+\|Loss: [^:]+: +[0-9]{1,3}%\|.*")
_CONFIG = re.compile(r"Running (?P<recipe>\w+) with resolved config:\s*")
_ENTRY = re.compile(r"(?P<indent> *)(?:- )?(?P<key>[A-Za-z_][\w.]*):(?: (?P<value>.*))?")
_ITEM = re.compile(r" *- .*")
_MEMORY = ("peak_memory_reserved", "peak_memory_alloc", "peak_memory_active")
_RATES = ("tokens_per_second_per_gpu", "tokens_per_second")
# What torchtune's recipes log.
_NAMES = frozenset(
    (
        "step", "loss", "lr", "grad_norm", "val_loss", "class_loss", "kd_loss", "iterations_per_second",
        "gpu_resources", *_RATES, *_MEMORY,
    )
)  # fmt: skip
_COUNTS = {
    "batch_size": "micro_batch",
    "gradient_accumulation_steps": "gradient_accumulation",
    "tensor_parallel_dim": "tp",
    "context_parallel_dim": "cp",
}


class TorchtuneReader:
    """Reads one log."""

    def __init__(self) -> None:
        self._runs = LogRuns(tool="torchtune", meaning=MEANING, counts="trained", scope="device")
        self._ends_blank = False
        self._in_config = False
        self._section = ""
        self._max_length: tuple[int, str, int] | None = None
        self._is_packed = False

    def read(self, line: LogLine) -> bool:
        text = line.text
        if len(text) > MAX_LINE:
            return False
        if "Step " in text and "|" in text:
            return self._read_text(strip_prefixes(text), line)
        if '"step"' in text:
            return self._read_json(strip_prefixes(text), line)
        if "|Loss:" in text:
            return bool(_BAR.fullmatch(strip_prefixes(text).text)) and self._runs.is_known
        if "with resolved config" in text:
            return self._start_config(strip_prefixes(text).text, line.number)
        if self._in_config:
            return self._add_entry(text, line.number)
        return False

    def claims(self) -> Sequence[Claim]:
        return self._runs.claims()

    def _read_text(self, prefix: Prefix, line: LogLine) -> bool:
        match = _STEP.fullmatch(prefix.text)
        if not match:
            return False
        # A blank follows every value, so a last value without one is cut off.
        ends_blank = prefix.text.endswith(" ")
        if self._ends_blank and not ends_blank:
            return False
        found = dict(_FIELD.findall(match["fields"]))
        understood = self._add_step(match["number"], found, prefix, line)
        self._ends_blank = self._ends_blank or (understood and ends_blank)
        return understood

    def _read_json(self, prefix: Prefix, line: LogLine) -> bool:
        found = (
            parse_flat_dict(prefix.text) if prefix.text.startswith("{") and prefix.text.rstrip().endswith("}") else None
        )
        # Any program may print JSON lines with a step and a loss; torchtune's have its rate, and no other names.
        if found is None or "step" not in found or not found.keys() <= _NAMES or not found.keys() & set(_RATES):
            return False
        if "tokens_per_second_per_gpu" not in found and not found.keys() & {"gpu_resources", *_MEMORY}:
            # The early name of its rate is that of many programs, and of them it is not known to be per device.
            return False
        return self._add_step(found["step"], found, prefix, line)

    def _add_step(self, at: str, found: dict[str, str], prefix: Prefix, line: LogLine) -> bool:
        rates = [name for name in _RATES if name in found]
        if not rates and not ("loss" in found and "lr" in found):
            return False
        place = parse_number(at)
        loss = parse_number(found["loss"]) if "loss" in found else None
        rate = parse_number(found[rates[0]]) if rates else None
        if place is None or not math.isfinite(place) or (rates and rate is None) or ("loss" in found and loss is None):
            return False
        if rates == ["tokens_per_second"]:
            self._runs.add_fact("meaning", SLOTS, "tokens_per_second", line.number, differing="first")
            self._runs.add_fact("counts", "slots", "tokens_per_second", line.number, differing="first")
        for name in _MEMORY:
            memory = parse_bytes(found[name], "GiB") if name in found else None
            if memory is not None and math.isfinite(memory):
                words = f"{name}:{found[name]}"
                self._runs.add_fact("memory_bytes", memory, words, line.number, differing="largest")
                break
        self._in_config = False
        self._runs.add(prefix, line, LoggedStep(line.number, number=place, tokens_per_s=rate, loss=loss))
        return True

    def _start_config(self, text: str, line: int) -> bool:
        match = _CONFIG.fullmatch(text)
        if not match:
            return False
        self._in_config, self._section, self._max_length, self._is_packed = True, "", None, False
        recipe = match["recipe"]
        self._runs.add_fact("method", "lora" if "lora" in recipe.lower() else "full", text, line)
        if recipe.endswith("SingleDevice"):
            self._runs.add_fact("count", 1, text, line)
        return True

    def _add_entry(self, text: str, line: int) -> bool:
        """A line of the configuration, which is YAML indented by two blanks per level."""
        text = text.partition("]:")[2] if text.startswith("[") and "]:" in text else text
        match = _ENTRY.fullmatch(text.rstrip())
        if not match:
            self._in_config = not text.strip() or bool(_ITEM.fullmatch(text))
            return self._in_config
        key, value = match["key"], (match["value"] or "").strip("'\"")
        if not match["indent"]:
            self._section = key
        words = text.strip()
        if not match["indent"]:
            self._add_setting(key, value, words, line)
        elif key == "_component_" and self._section == "model":
            name = value.rsplit(".", 1)[-1]
            for kind in ("lora_", "qlora_", "dora_", "qdora_"):
                name = name.removeprefix(kind)
            self._runs.add_fact("model", name[:100], words, line)
        elif key == "max_seq_len" and self._section == "tokenizer":
            if (length := parse_integer(value)) is not None:
                self._max_length = (length, words, line)
        elif key == "packed" and self._section == "dataset":
            self._is_packed = value.lower() == "true"
        # Only packed batches always have the maximum sequence length.
        if self._max_length and self._is_packed:
            self._runs.add_fact("sequence", self._max_length[0], f"packed, {self._max_length[1]}", self._max_length[2])
        return True

    def _add_setting(self, key: str, value: str, words: str, line: int) -> None:
        if key in _COUNTS and (parsed := parse_integer(value)) is not None and parsed > 0:
            self._runs.add_fact(_COUNTS[key], parsed, words, line)
        elif key == "dtype" and value:
            self._runs.add_fact("precision", value[:20], words, line)
        elif key == "enable_activation_checkpointing" and value.lower() in ("true", "false"):
            self._runs.add_fact("checkpointing", "full" if value.lower() == "true" else "none", words, line)
        elif key == "compile":
            self._runs.note(f"{words[:60]} (line {line})")
