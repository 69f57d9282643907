"""Reads wandb-summary.json: the last value of each metric of a run.

Source: github.com/wandb/wandb, `wandb/sdk/internal` (the files of a run); github.com/huggingface/transformers,
`src/transformers/integrations/integration_utils.py` (rewrite_logs puts `train/` before the Trainer's names).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunemark.plugin.claims import Claim
from tunemark_importers.huggingface import add_summary
from tunemark_importers.huggingface_formats import SUMMARY
from tunemark_importers.json_documents import parse_json_object
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.metric_rows import MetricRow, claims_of_rows, value_texts

MEANING = "the last value of each metric, by its name; what it counts is unknown where the name does not say it"
_OWN = ('"_step"', '"_runtime"', '"_timestamp"', '"_wandb"')


def is_document(head: str) -> bool:
    """Whether a text begins like wandb-summary.json."""
    return head.lstrip().startswith("{") and sum(name in head for name in _OWN) >= 2 and "}\n{" not in head.strip()


def document(id: str, source: str, text: str) -> Sequence[Claim]:
    """The claim of a run. Raises `BadData` if the text is not a complete JSON object."""
    summary = parse_json_object(text, source, "wandb-summary.json")
    plain = {name.removeprefix("train/"): value for name, value in summary.items() if name.startswith("train/")}
    trainer = {**plain, **{name: value for name, value in summary.items() if name.startswith("train_")}}
    if "train_runtime" in trainer and "train_samples_per_second" in trainer:
        runs = LogRuns(tool="huggingface", meaning=SUMMARY, counts=None, scope="job", place=_place)
        if add_summary(runs, trainer, 0):
            return [replace(claim, id=id, source=source) for claim in runs.claims()]
    step = summary.get("_step")
    number = float(step) if isinstance(step, int) and not isinstance(step, bool) else None
    row = MetricRow(1, number, None, value_texts(summary))
    return claims_of_rows([row], id=id, source=source, tool="wandb", meaning=MEANING)


def _place(number: int) -> str:
    return "the summary"
