"""Reads torchtitan's console log.

Source: github.com/pytorch/torchtitan, `torchtitan/components/metrics.py` (MetricsProcessor.log), `trainer.py` and
`distributed/parallel_dims.py`; `train.py` of 2024, which wrote `wps` for the same quantity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tunemark.plugin.claims import Claim, LoggedStep, LogLine
from tunemark_importers.line_prefixes import MAX_LINE, Prefix, strip_prefixes
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.numbers import FIGURE, multiply_exactly, parse_bytes, parse_integer, parse_number

MEANING = (
    "slots of the labels since the last line, padding counted, over wall time and the number of devices that share a "
    "sequence: per device. The first line includes the first step; data loading is included, validation is not. Its "
    "tflops and mfu count full attention without recomputation, relative to its own peak."
)

_STEP = re.compile(
    rf"step:\s+(?P<number>[0-9]{{1,15}})\s+loss:\s+(?P<loss>{FIGURE})\s+"
    rf"(?:(?:grad_norm|gnorm):\s+{FIGURE}\s+)?"
    rf"memory:\s+(?P<memory>{FIGURE})GiB\({FIGURE}%\)\s+"
    r"(?:tps|wps):\s+(?P<rate>[0-9]{1,3}(?:,[0-9]{3})*|nan|inf)"
    rf"(?:\s+lr:\s+{FIGURE})?(?:\s+tflops:\s+(?P<tflops>{FIGURE}))?(?:\s+mfu:\s+(?P<mfu>{FIGURE}(?=%)|N/A)%?)?\s*"
)
_VALIDATION = re.compile(r"validate step:\s+[0-9]+\s+loss:.*")
_DEVICE = re.compile(r"[A-Z]{2,5} capacity: (?P<name>.+?) with [0-9.]+GiB memory\s*")
_MODEL = re.compile(r"Model (?P<name>\S+ \S+) size: (?P<count>[0-9,]+) total parameters\s*")
_PEAK = re.compile(rf"Peak FLOPS used for computing MFU: (?P<flops>{FIGURE})\s*")
_MESH = re.compile(
    r"Building (?:[0-9]+-D )?device mesh with (?:parallelism: (?P<new>[a-z_0-9=, ]+)|(?P<old>\[.*\]))\s*"
)
_OLD_MESH = re.compile(r"\[(?P<names>['a-z_, ]+)\], \[(?P<sizes>[0-9, ]+)\]")
_BATCH = re.compile(r"(?:Training starts at step [0-9]+,|Trainer is initialized) ?with .*")
_BATCH_FACTS = {
    r"local batch size ([0-9]{1,15})(?=[, ])": "micro_batch",
    r"global batch size ([0-9]{1,15})(?=[, ])": "global_batch",
    r"gradient accumulation steps ([0-9]{1,15})(?=[, ])": "gradient_accumulation",
    r"(?:sequence length|maximum context length) ([0-9]{1,15})(?=[, ])": "sequence",
    r"total steps ([0-9]{1,15})(?=[, ])": "steps_total",
}
_RECOMPUTATION = re.compile(r"Applied (?P<what>\w+) activation checkpointing to the model\s*")
_FP8 = re.compile(r"Swapped to Float8Linear layers.*|Float8 training active.*")
_OTHERS = re.compile(
    r"Starting job: .*|Building .*|Training (?:starts|completed).*|Process group destroyed.*|Applied .*|Compiling .*"
    r"|Preparing .*|Running with (?:configs|args).*|[A-Z]{2,5} memory usage for model: .*|Process group .*"
    r"|Successfully created meshes .*|Sleeping .*|Profiling active.*|.*logging (?:enabled|is enabled|active).*"
    r"|Finished .*|\[GC\].*|Saving .*|Loading .*|Pipeline stage .*"
)


class TorchtitanReader:
    """Reads one log."""

    def __init__(self) -> None:
        self._runs = LogRuns(tool="torchtitan", meaning=MEANING, counts="slots", scope="device")
        self._has_mfu = False

    def read(self, line: LogLine) -> bool:
        text = line.text
        if len(text) > MAX_LINE:
            return False
        if "step:" in text:
            prefix = strip_prefixes(text)
            return self._add_step(prefix, line) or bool(_VALIDATION.fullmatch(prefix.text))
        if "[titan]" in text or "device mesh" in text or "MFU" in text or "capacity:" in text or "step" in text:
            return self._add_line(strip_prefixes(text).text, line.number) or "[titan]" in text
        if "size:" in text or "Applied " in text or "Float8" in text:
            return self._add_line(strip_prefixes(text).text, line.number)
        return False

    def claims(self) -> Sequence[Claim]:
        return self._runs.claims()

    def _add_step(self, prefix: Prefix, line: LogLine) -> bool:
        match = _STEP.fullmatch(prefix.text)
        # If lines end with the MFU, one that does not is cut off, possibly within its last figure.
        if not match or (self._has_mfu and not match["mfu"]):
            return False
        loss, rate, memory = (
            parse_number(match["loss"]),
            parse_number(match["rate"]),
            parse_bytes(match["memory"], "GiB"),
        )
        tflops = parse_number(match["tflops"]) if match["tflops"] else None
        mfu = parse_number(match["mfu"]) if match["mfu"] and match["mfu"] != "N/A" else None
        if rate is None or loss is None or memory is None:
            return False
        self._has_mfu = self._has_mfu or bool(match["mfu"])
        if math.isfinite(memory):
            self._runs.add_fact(
                "memory_bytes", memory, f"memory: {match['memory']}GiB", line.number, differing="largest"
            )
        step = LoggedStep(
            line.number,
            number=float(match["number"]),
            tokens_per_s=rate,
            tflops=tflops,
            mfu=None if mfu is None else multiply_exactly(mfu, 0.01),
            loss=loss,
        )
        self._runs.add(prefix, line, step)
        return True

    def _add_line(self, text: str, line: int) -> bool:
        runs = self._runs
        if match := _DEVICE.fullmatch(text):
            runs.add_fact("device", match["name"][:100], text, line)
        elif (match := _MODEL.fullmatch(text)) and (count := parse_number(match["count"])) is not None:
            runs.add_fact("model", match["name"][:100], text, line)
            runs.add_fact("parameters", count, text, line)
        elif match := _PEAK.fullmatch(text):
            runs.note(f"its mfu is relative to a peak of {match['flops']} FLOP/s (line {line})")
        elif match := _MESH.fullmatch(text):
            return self._add_mesh(match, text, line)
        elif _BATCH.fullmatch(text):
            for pattern, field in _BATCH_FACTS.items():
                if (found := re.search(pattern, text)) and (value := parse_integer(found[1])):
                    runs.add_fact(field, float(value) if field == "steps_total" else value, found[0], line)
        elif match := _RECOMPUTATION.fullmatch(text):
            what = match["what"].lower()
            for kind in ("full", "selective"):
                if kind in what:
                    runs.add_fact("checkpointing", kind, text, line)
            runs.note(f"{text.strip()[:120]} (line {line})")
        elif _FP8.fullmatch(text):
            runs.add_fact("precision", "fp8", text, line)
        else:
            return runs.is_known and bool(_OTHERS.fullmatch(text))
        return True

    def _add_mesh(self, match: re.Match[str], text: str, line: int) -> bool:
        """Degrees of parallelism; their product is the number of devices, as torchtitan checks."""
        if match["new"]:
            pairs = [tuple(part.strip().split("=", 1)) for part in match["new"].split(",")]
        else:
            old = _OLD_MESH.fullmatch(match["old"])
            if not old:
                return False
            names, sizes = old["names"].replace("'", "").split(","), old["sizes"].split(",")
            if len(names) != len(sizes):
                return False
            pairs = list(zip((name.strip() for name in names), sizes, strict=True))
        degrees = {pair[0]: parse_integer(pair[1]) for pair in pairs if len(pair) == 2}
        if any(value is None or value < 1 for value in degrees.values()):
            return False
        known = {name: int(value or 1) for name, value in degrees.items()}
        shard, copies = known.get("dp_shard", known.get("dp", 1)), known.get("dp_replicate", 1)
        for field, value in {
            "dp": shard * copies,
            "fsdp": shard,
            "tp": known.get("tp", 1),
            "pp": known.get("pp", 1),
            "cp": known.get("cp", 1),
            **({"ep": known["ep"]} if "ep" in known else {}),
            "count": shard * copies * known.get("tp", 1) * known.get("pp", 1) * known.get("cp", 1),
        }.items():
            self._runs.add_fact(field, value, text, line)
        return True
