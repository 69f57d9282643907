"""Reads logs of the fine-tuning tutorials for Moreh's MoAI platform, in all their formats, and the platform's lines.

Formats: github.com/moreh-dev/quickstart, `tutorial/train_*.py` (`[Step n/m]` lines, since 2024-05-31 over a window of
steps) and `train_utils.py` (`TPS:` lines, later dictionaries), and github.com/moreh-dev/moai-examples,
`finetuning_codes/utils.py` (a performance summary at the end).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tunemark.plugin.claims import Claim, LoggedStep, LogLine
from tunemark_importers.huggingface import add_summary
from tunemark_importers.line_prefixes import MAX_LINE, Prefix, strip_prefixes
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.logged_options import find_options, find_parameter_counts
from tunemark_importers.numbers import FIGURE, parse_integer, parse_number
from tunemark_importers.printed_dicts import parse_flat_dict

MEANING = (
    "batch size times block length, padding counted, of the whole job, over the seconds between two readings of the "
    "host's clock; the first step, with its compilation, has its own line. "
)
_ONE_STEP = "The window is one step and ends before the loss is read: work still queued on the device is left out."
_WINDOW = "The window is all steps since the last line and ends after the loss was read."

_PIECES = re.compile(r"(?<=tokens/sec)(?=[0-9\[|])")
_STEP = re.compile(
    rf"\[Step (?P<number>[0-9]{{1,15}})/(?P<total>[0-9]{{1,15}})\](?:\s*\|)?"
    rf"(?: Loss:\s?(?P<loss>{FIGURE}))?,?"
    rf"(?:(?: \|)? Duration:\s?(?P<duration>{FIGURE})(?: (?P<unit>sec))?)?"
    rf"(?: \| (?P<samples>{FIGURE}))?"
    rf"(?:(?: \|)? Throughput ?:\s?(?P<rate>{FIGURE}) ?tokens/sec)?\s*"
)
_TPS = re.compile(
    rf"\[Step (?P<number>[0-9]{{1,15}})\] \| TPS: (?P<rate>{FIGURE}) tokens/sec \| Loss: (?P<loss>{FIGURE})"
    rf" \| LR ?: {FIGURE} \| Duration for 1 Step: (?P<duration>{FIGURE}) sec\s*"
)
_FIRST = re.compile(
    rf"(?:Model load and warmup done\. Duration: (?P<a>{FIGURE})"
    rf"|\[Step (?P<number>[0-9]{{1,15}})\] Model loading duration ?: (?P<b>{FIGURE}) sec)\s*"
)
_SUMMARY = re.compile(rf"\s*(Train Duration|Avg TPS|Avg Time per 1 Step):\s+({FIGURE}) (?:seconds|tps)\s*")
_OTHERS = re.compile(
    r"\s*(?:Performance Summary|={20,}|(?:Total|Model Loading|Evaluation|Warmup|Total Estimated) Duration ?:.*"
    r"|\[START EPOCH EVAL\]|EVAL STEP: .*|Eval Loss: .*|Training Done|Saving Model\.\.\.|Model saved in .*)\s*"
)

_NODE = re.compile(r"\[(?P<index>[0-9]{1,15})/(?P<nodes>[0-9]{1,15})\] Connecting to resources on the server\b.*")
_COUNTED = re.compile(r"The number of (?P<possible>possible )?candidates is (?P<count>[0-9]{1,15})\.\s*")
_ELAPSED = re.compile(r"Elapsed Time to (?P<what>[a-z ]+) = (?P<ms>[0-9]{1,15}) \[ms\]\s*")
_READY = re.compile(r"(?P<name>.+) is ready to use\.\s*")
_VERSION = re.compile(r"Moreh (?P<what>Version|Job ID): (?P<value>\S+)\s*")
_SELECTED = re.compile(
    r"(?:No PP|num_stages : (?P<pp>[0-9]{1,15}), num_micro_batches : (?P<micro>[0-9]{1,15}), "
    r"batch_per_device : (?P<bpd>[0-9]{1,15}))"
    r", (?:No TP|[A-Za-z_]*(?:TP|tp|tensor)[A-Za-z_]* : (?P<tp>[0-9]{1,15}))"
    r", recomputation : (?P<recompute>[\w()]+), distribute_param : (?P<shard>true|false)"
    r"(?:, distribute_low_prec_param : (?P<low>true|false))?\s*"
)
_PLATFORM = re.compile(
    r"Got DBs from backend|Requesting resources for |Initializing the worker daemon for |Establishing links to the "
    r"|(?:Parallel Graph Compile|SelectBestGraphFromCandidates) (?:start|finished)|Configuration for parallelism is sel"
    r"|train: true|A newer version of Moreh AI Framework is available|Various batch size detected"
    r"|.* is already in use by another process|Not enough resources are currently available for "
)
# Every line that is understood contains one of these; a log of a gigabyte has millions of others.
_MARKERS = ("[Step ", "uration", "info]", "[warning]", "num_stages", "No PP", "andidates", "tps", "loss", "runtime")
_PLATFORM_MARKERS = ("Connecting to res", "is ready to use", "Moreh", "[ms]", "Parallel Graph", "train: ", "resources")
_FLAG_MARKERS = ("batch", "block", "sequence", "model", "lora", "Lora", "trainable", " TPS", "Time per")

_FLAGS = {
    "batch_size": "global_batch",
    "train_batch_size": "global_batch",
    "block_size": "sequence",
    "sequence_length": "sequence",
    "model_name_or_path": "model",
    "model": "model",
    "use_lora": "lora",
    "lora": "lora",
}


class MoaiReader:
    """Reads one log. The scripts' batch size is that of the whole job, because one process drives all devices."""

    def __init__(self) -> None:
        self._runs = LogRuns(tool="moai", meaning=MEANING, counts="slots", scope="job")
        self._is_moai = False
        self._is_epoch_start = False
        self._has_rate = False
        self._interval: float | None = None

    def read(self, line: LogLine) -> bool:
        # A progress bar without a line end may precede the text.
        text = line.text[-MAX_LINE:]
        if any(mark in text for mark in _MARKERS) or any(mark in text for mark in _FLAG_MARKERS):
            # Read every piece, whether or not the previous one was understood.
            understood = [self._read_piece(strip_prefixes(piece), line) for piece in _PIECES.split(text)]
            if all(understood):
                return True
        elif any(mark in text for mark in _PLATFORM_MARKERS):
            return self._add_platform(strip_prefixes(text).text, line)
        return self._is_moai and bool(_OTHERS.fullmatch(strip_prefixes(text).text))

    def claims(self) -> Sequence[Claim]:
        return [claim for claim in self._runs.claims() if self._is_moai]

    def _read_piece(self, prefix: Prefix, line: LogLine) -> bool:
        text = prefix.text
        if match := _STEP.fullmatch(text):
            return self._add_step(match, prefix, line)
        if match := _TPS.fullmatch(text):
            return self._add_tps_step(match, prefix, line)
        if match := _FIRST.fullmatch(text):
            return self._add_first_step(match, prefix, line)
        if "'" in text and (found := parse_flat_dict(text)) is not None and self._add_dict(found, prefix, line):
            return True
        return self._add_platform(text, line) or self._add_flags(text, line) or self._add_summary(text, line)

    def _add_step(self, match: re.Match[str], prefix: Prefix, line: LogLine) -> bool:
        printed = {name: parse_number(match[name]) for name in ("loss", "duration", "samples", "rate") if match[name]}
        # If lines have a rate, one without it is cut off, possibly within its last figure.
        if not printed or None in printed.values() or (self._has_rate and "rate" not in printed):
            return False
        at, samples = float(match["number"]), printed.get("samples")
        # Only the format with samples/s, and the later one with "sec" after the duration, cover several steps.
        is_window = samples is not None or match["unit"] == "sec"
        steps = self._steps_in_window(at) if is_window else 1.0
        self._is_moai = True
        self._has_rate = self._has_rate or "rate" in printed
        self._runs.add_fact("steps_total", float(match["total"]), match[0], line.number)
        if "rate" in printed:
            how = _WINDOW if is_window else _ONE_STEP
            self._runs.add_fact("meaning", MEANING + how, match[0], line.number, differing="first")
        if at == 0:
            self._runs.note("steps are numbered from 0")
        self._runs.add(
            prefix,
            line,
            LoggedStep(
                line.number,
                number=at,
                # The duration of an unknown number of steps is useless.
                duration_s=printed.get("duration") if steps else None,
                duration_steps=steps if "duration" in printed else None,
                tokens_per_s=printed.get("rate"),
                samples_per_s=samples,
                loss=printed.get("loss"),
            ),
        )
        return True

    def _steps_in_window(self, at: float) -> float | None:
        """Steps since the last line. An epoch's first step is not in the window, so the first line of an epoch has one
        less than the interval, which is unknown until two lines of one epoch were seen."""
        last = self._runs.last_number
        if self._is_epoch_start:
            self._is_epoch_start = False
            if last is None or at <= last or last <= 1:
                return at - 1.0 if at > 1 else None
            return self._interval - 1.0 if self._interval else None
        if last is None or at <= last:
            return None
        self._interval = at - last
        return self._interval

    def _add_tps_step(self, match: re.Match[str], prefix: Prefix, line: LogLine) -> bool:
        rate, loss, duration = (parse_number(match[name]) for name in ("rate", "loss", "duration"))
        if rate is None or loss is None or duration is None:
            return False
        self._is_moai = True
        self._runs.add_fact("meaning", MEANING + _WINDOW, match[0], line.number, differing="first")
        step = LoggedStep(
            line.number,
            number=float(match["number"]),
            duration_s=duration,
            duration_steps=1.0,
            tokens_per_s=rate,
            loss=loss,
        )
        self._runs.add(prefix, line, step)
        return True

    def _add_first_step(self, match: re.Match[str], prefix: Prefix, line: LogLine) -> bool:
        """The line of an epoch's first step, with compilation, which has no rate."""
        duration = parse_number(match["a"] or match["b"])
        if duration is None:
            return False
        self._is_moai = self._is_epoch_start = True
        is_first = self._runs.last_number is None
        at = float(match["number"]) if match["number"] else (1.0 if is_first else None)
        self._runs.add(prefix, line, LoggedStep(line.number, number=at, duration_s=duration, duration_steps=1.0))
        return True

    def _add_dict(self, found: dict[str, str], prefix: Prefix, line: LogLine) -> bool:
        if "warmup_duration" in found and (duration := parse_number(found["warmup_duration"])) is not None:
            self._is_moai = True
            self._runs.note(f"{prefix.text.strip()[:120]}: seconds until the first logged step was done")
            self._runs.add(prefix, line, LoggedStep(line.number, duration_s=duration))
            return True
        if "tps" in found and "max_seq_len" in found and "loss" in found:
            at, rate, duration, loss = (
                parse_number(found.get(name, "")) for name in ("step", "tps", "duration", "loss")
            )
            sequence = parse_integer(found["max_seq_len"])
            if None in (at, rate, duration, loss, sequence) or not math.isfinite(at or 0.0):
                return False
            self._is_moai = True
            last = self._runs.last_number
            window = at - last if at is not None and last is not None and at > last else None
            self._runs.add_fact("sequence", sequence, f"'max_seq_len': {found['max_seq_len']}", line.number)
            self._runs.add_fact("meaning", MEANING + _WINDOW, "'tps'", line.number, differing="first")
            step = LoggedStep(
                line.number,
                number=at,
                duration_s=duration if window else None,
                duration_steps=window,
                tokens_per_s=rate,
                loss=loss,
                epoch=parse_number(found.get("epoch", "")),
            )
            self._runs.add(prefix, line, step)
            return True
        if "train_runtime" in found and "train_samples_per_second" in found and self._is_moai:
            return add_summary(self._runs, found, line.number)
        return self._is_moai and "eval_loss" in found

    def _add_platform(self, text: str, line: LogLine) -> bool:
        runs = self._runs
        if match := _SELECTED.fullmatch(text):
            self._is_moai = True
            runs.add_fact("pp", int(match["pp"] or 1), match[0], line.number)
            runs.add_fact("tp", int(match["tp"] or 1), match[0], line.number)
            if match["micro"]:
                runs.add_fact("gradient_accumulation", int(match["micro"]), match[0], line.number)
                runs.add_fact("micro_batch", int(match["bpd"]), match[0], line.number)
            # 1, true and default(1) say that there is recomputation, not how much.
            if match["recompute"] in ("false", "0"):
                runs.add_fact("checkpointing", "none", match[0], line.number)
            elif match["recompute"].startswith("full"):
                runs.add_fact("checkpointing", "full", match[0], line.number)
            runs.note(f"selected for parallelism, line {line.number}: {match[0].strip()}")
            return True
        if match := _NODE.fullmatch(text):
            if match["index"] == match["nodes"]:
                runs.note(f"nodes connected: {match['nodes']} (line {line.number})")
            return True
        if match := _COUNTED.fullmatch(text):
            runs.note(f"{match['count']} {match['possible'] or ''}candidates for parallelism (line {line.number})")
            return True
        if match := _ELAPSED.fullmatch(text):
            runs.note(f"{match['ms']} ms to {match['what']} (line {line.number})")
            return True
        if match := _READY.fullmatch(text):
            runs.note(f"the virtual device is {match['name'][:80]!r} (line {line.number})")
            return True
        if match := _VERSION.fullmatch(text):
            runs.note(f"Moreh {match['what']} {match['value'][:80]} (line {line.number})")
            return True
        return bool(_PLATFORM.match(text)) or (self._is_moai and bool(_OTHERS.fullmatch(text)))

    def _add_flags(self, text: str, line: LogLine) -> bool:
        """Options that the log repeats. Other tools have the same ones, so the line counts as understood only once the
        log is known to be MoAI's."""
        found = False
        for field, count, words in find_parameter_counts(text):
            self._runs.add_fact(field, count, words, line.number)
            found = True
        for name, value, words in find_options(text, _FLAGS):
            if name == "lora":
                if value.lower() in ("", "true"):
                    self._runs.add_fact("method", "lora", words, line.number)
                elif value.lower() == "false":
                    self._runs.add_fact("method", "full", words, line.number)
                found = True
            elif name == "model":
                self._runs.add_fact("model", value[:200], words, line.number)
                found = True
            elif (parsed := parse_integer(value)) is not None and parsed > 0:
                self._runs.add_fact(name, parsed, words, line.number)
                found = True
        return found and self._is_moai

    def _add_summary(self, text: str, line: LogLine) -> bool:
        match = _SUMMARY.fullmatch(text)
        value = parse_number(match[2]) if match and self._is_moai else None
        if not match or value is None:
            return False
        field = {"Train Duration": "train_s", "Avg TPS": "tokens_per_s", "Avg Time per 1 Step": "step_time_s"}[match[1]]
        self._runs.add_fact(field, value, match[0].strip(), line.number, final=True)
        if field == "tokens_per_s":
            self._runs.note("Avg TPS is a mean of the printed rates, not tokens over time", final=True)
        return True
