"""Reads the result files of MLPerf Training: lines `:::MLLOG {...}`.

Source: github.com/mlcommons/logging, `mlperf_logging/mllog` (the lines) and
github.com/mlcommons/training_policies, `training_rules.adoc` (time_ms, run_start, run_stop);
github.com/mlcommons/training, `llama2_70b_lora`. A submission's own throughput is in `tracked_stats`: sequences per
second, in the benchmark gpt3 tokens per second. Rows of the LoRA benchmark are packed to max_sequence_length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.plugin.claims import Claim, LoggedStep, LogLine
from tunemark_importers.json_documents import as_count, as_number
from tunemark_importers.line_prefixes import Prefix
from tunemark_importers.log_runs import LogRuns

MEANING = (
    "sequences of the whole job over the time since the report before, evaluation left out; in the benchmark gpt3 "
    "tokens. The time of the run, from run_start to run_stop, holds evaluation too"
)
_MARK = ":::MLLOG "
_MAX_LINE = 1 << 16
_COUNTS = {
    "global_batch_size": "global_batch",
    "gradient_accumulation_steps": "gradient_accumulation",
    "max_sequence_length": "sequence",
    "sequence_length": "sequence",
}


class MllogReader:
    """Reads one result file."""

    def __init__(self) -> None:
        self._runs = LogRuns(tool="mlperf", meaning=MEANING, counts="slots", scope="job")
        self._is_tokens = False
        self._start_ms: float | None = None

    def read(self, line: LogLine) -> bool:
        at = line.text.find(_MARK)
        if at < 0 or len(line.text) > _MAX_LINE:
            return False
        try:
            event = json.loads(line.text[at + len(_MARK) :])
        except (ValueError, RecursionError):
            return False
        if not isinstance(event, dict) or not isinstance(event.get("key"), str):
            return False
        time_ms = as_number(event.get("time_ms"))
        if time_ms is None or not 0 < time_ms < 1e14:
            return False
        metadata = event.get("metadata")
        self._add(event["key"], event.get("value"), metadata if isinstance(metadata, dict) else {}, time_ms, line)
        return True

    def claims(self) -> Sequence[Claim]:
        return self._runs.claims() if self._runs.is_known else []

    def _add(self, key: str, value: Any, metadata: Mapping[str, Any], time_ms: float, line: LogLine) -> None:
        words = f"{key}: {json.dumps(value)[:80]}"
        if key in _COUNTS and (count := as_count(value)) is not None:
            self._runs.add_fact(_COUNTS[key], count, words, line.number, differing="first")
        elif key == "lora_rank" and as_count(value) is not None:
            self._runs.add_fact("method", "lora", words, line.number, differing="first")
        elif key == "submission_benchmark" and isinstance(value, str):
            self._is_tokens = value.startswith("gpt3")
            self._runs.note(f"the benchmark is {value[:80]} (line {line.number})")
        elif key == "submission_platform" and isinstance(value, str):
            self._runs.note(f"the platform is {value[:80]} (line {line.number})")
        elif key == "run_start":
            self._start_ms = time_ms
        elif key == "tracked_stats" and isinstance(value, dict):
            self._add_throughput(value, metadata, time_ms, line)
        elif key == "run_stop" and self._start_ms is not None and time_ms > self._start_ms:
            words = f"from run_start to run_stop, {time_ms - self._start_ms:.15g} ms"
            seconds = (time_ms - self._start_ms) / 1000
            self._runs.add_fact("train_s", seconds, words, line.number, final=True, differing="first")

    def _add_throughput(
        self, value: Mapping[str, Any], metadata: Mapping[str, Any], time_ms: float, line: LogLine
    ) -> None:
        rate, samples = as_number(value.get("throughput")), as_number(metadata.get("step"))
        if rate is None or not math.isfinite(rate):
            return
        step = LoggedStep(
            line.number,
            samples_per_s=None if self._is_tokens else rate,
            tokens_per_s=rate if self._is_tokens else None,
            samples=None if self._is_tokens else samples,
        )
        self._runs.add(Prefix(line.text, None, time_ms / 1000, is_dated=True), line, step)
