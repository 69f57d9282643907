"""Reads Hugging Face's Trainer: `trainer_state.json`, and the dictionaries that it prints to the console.

Source: github.com/huggingface/transformers, `trainer.py`, `trainer_callback.py` (TrainerState, ProgressCallback) and
`trainer_utils.py` (speed_metrics). TRL adds num_tokens; axolotl a rate per GPU.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim, LoggedStep, LogLine
from tunemark_importers.huggingface_formats import SUMMARY
from tunemark_importers.json_documents import parse_json_object
from tunemark_importers.line_prefixes import MAX_LINE, Prefix, strip_prefixes
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.logged_options import find_options, find_parameter_counts
from tunemark_importers.notebook_lines import NotebookLines
from tunemark_importers.numbers import parse_clock, parse_integer, parse_number
from tunemark_importers.printed_dicts import parse_flat_dict
from tunemark_importers.trainer_steps import TrainerSteps, is_step, parse_figure

PER_PROCESS = (
    "The rate of the summary is the slots of one process's planned batches, padding counted, over train_runtime "
    "(include_tokens_per_second). "
)
ALL_TOKENS = "The rate of the summary is all input tokens of the whole job over train_runtime. "
EFFECTIVE = (
    "effective_tokens_per_sec is LLaMA-Factory's: tokens of the data without padding, times the epochs, over "
    "train_runtime and the count of devices. "
)

_BAR = re.compile(
    r"\s*(?:Train: *)?(?:[0-9]{1,3}%\|[^|]*\| ?)(?P<n>[0-9]{1,15})/(?P<total>[0-9]{1,15}) "
    r"\[(?P<elapsed>[0-9:]+)<[^\]]*\]?\s*(?P<rest>.*)"
)
_HEADER = re.compile(r"(?P<name>Num examples|Num Epochs|Num update steps per epoch|[A-Z][A-Za-z ,.()&/]+?) = (\S+)\s*")
_HEADER_FIELDS = {
    "Instantaneous batch size per device": "micro_batch",
    "Total train batch size (w. parallel, distributed & accumulation)": "global_batch",
    "Gradient Accumulation steps": "gradient_accumulation",
    "Total optimization steps": "steps_total",
    "Number of trainable parameters": "trainable_parameters",
}
_HEADER_OTHERS = ("Num examples", "Num Epochs", "Num update steps per epoch", "Batch size")
_TABLE = re.compile(
    r"\s*(epoch|total_flos|(?:train|eval)_\w+|num_input_tokens_seen|effective_tokens_per_sec)\s+=\s+(.+?)\s*"
)
_TRAIN_OUTPUT = re.compile(r"TrainOutput\(global_step=(?P<steps>[0-9]{1,15}), .*metrics=(?P<metrics>\{[^{}]*\})\)\s*")
_FLAGS = {
    "per_device_train_batch_size": "micro_batch",
    "gradient_accumulation_steps": "gradient_accumulation",
    "block_size": "sequence",
    "model_name_or_path": "model",
    "use_lora": "lora",
    "use_peft": "lora",
    "bf16": "bf16",
    "fp16": "fp16",
    "gradient_checkpointing": "checkpointing",
}
# Maximum sequence lengths, which say nothing about the actual length.
_MAX_LENGTHS = ("max_seq_length", "max_seq_len", "max_length", "model_max_length", "cutoff_len")
_ALL_FLAGS = {**_FLAGS, **dict.fromkeys(_MAX_LENGTHS, "longest")}


# Every line of a header, a table or options that is understood contains one of these.
_MARKERS = (
    "*****", "Num ", "atch size", "Accumulation", "optimization steps", "trainable param", "train_", "eval_", "epoch",
    "total_flos", "num_input", "effective_", "Batch size per", "==((", "arameters = ", "GPU: ", "gradient_",
    "block_size", "model_", "use_", "bf16", "fp16", "max_", "cutoff_len",
)  # fmt: skip


class HuggingFaceReader:
    """Reads one console log."""

    def __init__(self) -> None:
        self._runs = LogRuns(tool="huggingface", meaning=SUMMARY, counts=None, scope="job")
        self._steps = TrainerSteps(self._runs)
        self._notebook = NotebookLines(self._runs)
        self._is_trainer = False
        self._bar: tuple[int, int] | None = None
        self._bar_s: float | None = None
        self._total: int | None = None

    def read(self, line: LogLine) -> bool:
        text = line.text
        if len(text) > MAX_LINE:
            return False
        if "%|" in text:
            return self._add_progress(text, line)
        if "{" in text and ("'" in text or '"' in text):
            return self._add_dict(strip_prefixes(text), line)
        if self._notebook.read(text, line):
            self._is_trainer = True
            return True
        if any(mark in text for mark in _MARKERS):
            return self._add_header(strip_prefixes(text), line)
        return False

    def claims(self) -> Sequence[Claim]:
        return self._runs.claims()

    def _add_progress(self, text: str, line: LogLine) -> bool:
        """A progress bar, whose clock is the only one if lines have no time stamps. Bars of other loops have another
        total; training's is the total of the bar at the first line of losses."""
        prefix = strip_prefixes(text)
        match = _BAR.fullmatch(prefix.text)
        if not match:
            return "{" in text and self._add_dict(prefix, line)
        at, total = int(match["n"]), int(match["total"])
        seconds = parse_clock(match["elapsed"])
        rest = match["rest"]
        is_new = self._bar != (at, total)
        self._bar = (at, total)
        self._bar_s = seconds
        if self._total == total and at > 0 and is_new and seconds is not None:
            self._runs.add(Prefix("", prefix.rank, prefix.stamp_s, prefix.is_dated), line,
                           LoggedStep(line.number, number=float(at)), elapsed_s=seconds)  # fmt: skip
        if rest.startswith("{"):
            return self._add_dict(prefix._replace(text=rest), line)
        return not rest and (self._is_trainer or self._total == total)

    def _add_dict(self, prefix: Prefix, line: LogLine) -> bool:
        text = prefix.text.strip()
        if output := _TRAIN_OUTPUT.fullmatch(text):
            self._runs.add_fact("steps_done", float(output["steps"]), output[0][:40], line.number, final=True)
            text = output["metrics"]
        if not text.startswith("{") or not text.endswith("}"):
            return False
        found = parse_flat_dict(text)
        if found is None or "tps" in found or "warmup_duration" in found:
            return False
        if "train_runtime" in found and "train_samples_per_second" in found:
            # The next training has another bar.
            self._bar = self._total = None
            return add_summary(self._runs, found, line.number)
        if is_step(found) and ("'loss'" in text or "global_step/max_steps" in found):
            is_under_bar = self._bar is not None and self._total in (None, self._bar[1])
            bar_s = self._bar_s if is_under_bar else None
            if not self._steps.add(found, prefix, line, has_numbers="step" in found, bar_s=bar_s):
                return False
            if self._bar and self._total is None and self._bar[0] < self._bar[1]:
                self._total = self._bar[1]
                words = f"{self._bar[0]}/{self._bar[1]} in the progress bar"
                self._runs.add_fact("steps_total", float(self._total), words, line.number, differing="first")
            self._is_trainer = True
            return True
        return any(name.startswith("eval_") for name in found) and self._runs.is_known

    def _add_header(self, prefix: Prefix, line: LogLine) -> bool:
        text = prefix.text
        if text.startswith("*****"):
            is_training = "Running training" in text
            self._is_trainer = self._is_trainer or is_training
            return is_training or (self._is_trainer and text.rstrip().endswith("*****"))
        if (match := _HEADER.fullmatch(text)) and self._is_trainer:
            name, value = match["name"], parse_integer(match[2])
            if value is not None and name in _HEADER_FIELDS:
                field = _HEADER_FIELDS[name]
                self._runs.add_fact(field, float(value) if field == "steps_total" else value, text, line.number)
                if field == "steps_total":
                    self._total = value
                return True
            return value is not None and name in _HEADER_OTHERS
        if (match := _TABLE.fullmatch(text)) and self._runs.is_known:
            return _add_table_row(self._runs, match[1], match[2], line.number)
        if found := find_parameter_counts(text):
            for field, count, words in found:
                self._runs.add_fact(field, count, words, line.number)
            return self._is_trainer
        return self._add_flags(text, line) and self._is_trainer

    def _add_flags(self, text: str, line: LogLine) -> bool:
        found = False
        for field, value, words in find_options(text, _ALL_FLAGS):
            found = _add_flag(self._runs, field, value, words, line.number) or found
        return found


def _format_entry(number: int) -> str:
    return f"entry {number} of log_history" if number else "outside log_history"


def _add_flag(runs: LogRuns, field: str, value: str, words: str, line: int) -> bool:
    is_on = value.lower() in ("", "true", "1")
    if field == "model":
        runs.add_fact("model", value[:200], words, line)
    elif field == "longest":
        runs.note(f"{words[:120]} is the maximum sequence length, not the actual one (line {line})")
    elif field == "lora":
        if is_on:
            runs.add_fact("method", "lora", words, line)
    elif field in ("bf16", "fp16"):
        if is_on:
            runs.add_fact("precision", field, words, line)
    elif field == "checkpointing":
        runs.add_fact(field, "full" if is_on else "none", words, line)
    elif (parsed := parse_integer(value)) is not None and parsed > 0:
        runs.add_fact(field, parsed, words, line)
    else:
        return False
    return True


def add_summary(runs: LogRuns, found: Mapping[str, Any], line: int) -> bool:
    """Record the dictionary at the end of a training; False if a figure in it cannot be read."""
    fields = {
        "train_runtime": "train_s",
        "train_samples_per_second": "samples_per_s",
        "num_input_tokens_seen": "tokens_total",
    }
    names = (*fields, "train_tokens_per_second", "effective_tokens_per_sec")
    read = {name: parse_figure(found[name]) for name in names if name in found}
    if None in read.values():
        return False
    for name, field in fields.items():
        if name in read:
            runs.add_fact(field, read[name], f"'{name}': {found[name]}", line, final=True, differing="first")
    _add_summary_rate(runs, {name: value for name, value in read.items() if value}, line)
    if "train_steps_per_second" in found:
        runs.note(f"train_steps_per_second is {found['train_steps_per_second']} ({runs.place(line)})", final=True)
    runs.end()
    return True


def _add_summary_rate(runs: LogRuns, read: Mapping[str, float], line: int) -> None:
    """The rate of tokens in a summary; 0 is none. With the count of all tokens it shows of what the rate is."""
    tokens, seconds = read.get("num_input_tokens_seen"), read.get("train_runtime")
    if "effective_tokens_per_sec" in read:
        name, field, counts, meaning = "effective_tokens_per_sec", "tokens_per_s_per_device", "content", EFFECTIVE
        runs.add_fact("tool", "llama-factory", name, line, final=True, differing="first")
    elif "train_tokens_per_second" not in read:
        return
    elif tokens and seconds and math.isclose(read["train_tokens_per_second"], tokens / seconds, rel_tol=0.01):
        name, field, counts, meaning = "train_tokens_per_second", "tokens_per_s", None, ALL_TOKENS
    else:
        name, field, counts, meaning = "train_tokens_per_second", "tokens_per_s_per_device", "slots", PER_PROCESS
    words = f"'{name}' in the summary"
    for fact, value in ((field, read[name]), ("counts", counts), ("meaning", meaning + SUMMARY), ("rate_name", name)):
        if value is not None:
            runs.add_fact(fact, value, words, line, final=True, differing="first")


def _add_table_row(runs: LogRuns, name: str, value: str, line: int) -> bool:
    """A row of the metrics table, which repeats the summary rounded; used if the summary was not printed."""
    read = parse_clock(value) if name == "train_runtime" else parse_number(value)
    if read is None:
        return name == "total_flos" or "_mem_" in name
    field = {
        "train_runtime": "train_s",
        "train_samples_per_second": "samples_per_s",
        "num_input_tokens_seen": "tokens_total",
    }.get(name)
    if name == "effective_tokens_per_sec":
        _add_summary_rate(runs, {name: read}, line)
    if field:
        runs.add_fact(field, read, f"{name} = {value}", line, final=True, differing="first")
    return True


# -- the documents


def is_document(head: str) -> bool:
    """Whether a text begins like trainer_state.json or train_results.json."""
    if not head.lstrip().startswith("{"):
        return False
    state = sum(f'"{name}"' in head for name in ("log_history", "global_step", "max_steps", "is_world_process_zero"))
    best = '"best_model_checkpoint"' in head and '"best_metric"' in head
    return state >= 2 or best or ('"train_runtime"' in head and '"train_samples_per_second"' in head)


def document(id: str, source: str, text: str) -> Sequence[Claim]:
    """The claim of a trainer_state.json (or of a train_results.json, which holds only the summary).

    A step's line is the entry's index in log_history, from 1. Raises `BadData` if the text is not a complete JSON
    object, or holds neither a history nor a summary.
    """
    state = parse_json_object(text, source, "trainer_state.json")
    runs = LogRuns(tool="huggingface", meaning=SUMMARY, counts=None, scope="job", place=_format_entry)
    history = state.get("log_history", [] if "train_runtime" in state else None)
    if not isinstance(history, list):
        raise BadData(
            what=f"{source} holds no history of steps",
            why="trainer_state.json has a list log_history; here it is missing or not a list",
            next="give the trainer_state.json of the run's last checkpoint, or the console log",
        )
    odd, steps = 0, TrainerSteps(runs)
    summaries: list[tuple[int, Mapping[str, Any]]] = []
    for at, entry in enumerate(history, 1):
        if not isinstance(entry, dict):
            odd += 1
        elif "train_runtime" in entry and "train_samples_per_second" in entry:
            summaries.append((at, entry))
        elif "loss" in entry:
            if not steps.add(entry, Prefix(json.dumps(entry)), LogLine(at, ""), has_numbers=True):
                odd += 1
        elif not any(isinstance(name, str) and name.startswith("eval_") for name in entry):
            odd += 1
    if "train_runtime" in state and "train_samples_per_second" in state:
        summaries.append((0, state))
    for at, entry in summaries[:-1]:
        figures = ", ".join(f"{name} {entry[name]}" for name in sorted(entry) if name.startswith("train_"))
        runs.note(f"an earlier start ended at entry {at}: {figures}"[:300], final=True)
    if summaries and not add_summary(runs, summaries[-1][1], summaries[-1][0]):
        odd += 1
    _add_state_facts(runs, state)
    if odd:
        runs.note(f"{odd:,} entries of log_history are not understood", final=True)
    return [replace(claim, id=id, source=source) for claim in runs.claims()]


def _add_state_facts(runs: LogRuns, state: Mapping[str, Any]) -> None:
    for name, field in (("max_steps", "steps_total"), ("global_step", "steps_done")):
        value = parse_figure(state.get(name))
        if value:
            runs.add_fact(field, value, f'"{name}": {state[name]}', 0, final=True, differing="first")
    tokens = parse_figure(state.get("num_input_tokens_seen"))
    if tokens:
        words = f'"num_input_tokens_seen": {state["num_input_tokens_seen"]}'
        runs.add_fact("tokens_total", tokens, words, 0, final=True, differing="first")
    batch = state.get("train_batch_size")
    if isinstance(batch, int) and not isinstance(batch, bool) and 0 < batch < 10**15:
        # Per process: the batch per device times the process's devices, usually one.
        runs.add_fact("micro_batch", batch, f'"train_batch_size": {batch}', 0, final=True)
