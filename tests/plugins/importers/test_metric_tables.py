"""Tables of metrics: each run is a claim, each name is read by its words, and a table without a name says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim
from tunemark_importers import metric_tables, wandb_summary

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


def test_a_chart_of_two_runs_is_two_claims(printed: Printed, claims_of: ClaimsOf) -> None:
    claims = claims_of("metrics", printed("wandb-chart.csv"))
    assert [claim.id for claim in claims] == ["here#lora-a", "here#full-b"]
    assert {(claim.tool, claim.scope) for claim in claims} == {("wandb", "device")}
    # The lowest and highest of each run are no rates of their own.
    assert [[s.tokens_per_s for s in claim.steps][:2] for claim in claims] == [[3101.5, 3102.5], [1710.25, 1709.25]]
    assert all(not claim.figures for claim in claims)


def test_two_rows_of_one_step_are_one_step(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("metrics", printed("lightning-metrics.csv"))
    assert (len(claim.steps), claim.samples_scope) == (6, "device")
    step = list(claim.steps)[1]
    assert (step.number, step.samples_per_s, step.tflops, step.mfu, step.stamp_s) == (19, 1.57, 141.2, 0.4525, 25.5)


def test_the_time_of_a_micro_batch_is_no_steps(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("metrics", printed("litgpt-metrics.csv"))
    step = list(claim.steps)[1]
    assert (claim.scope, step.number, step.tokens_per_s, step.duration_s) == ("device", 20, 40662.1, None)


def test_rows_of_name_and_value_are_grouped_by_step(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("metrics", printed("mlflow-chart.csv"))
    assert [(s.number, s.tokens_per_s, s.stamp_s) for s in claim.steps][:2] == [
        (10, 2612.5, 1738403614.0),
        (20, 2613.5, 1738403618.0),
    ]


def test_a_table_of_runs_is_a_claim_per_row(printed: Printed, claims_of: ClaimsOf) -> None:
    claims = claims_of("metrics", printed("wandb-runs.csv"))
    assert [(claim.id, next(iter(claim.steps)).tokens_per_s) for claim in claims] == [
        ("here#a", 21034.5),
        ("here#b", 20877.1),
    ]


def test_one_scalars_name_is_in_the_name_of_its_file(printed: Printed) -> None:
    text = printed("run-1-tag-train_tokens_per_sec_per_gpu.csv")
    (claim,) = metric_tables.document("x", "logs/run-1-tag-train_tokens_per_sec_per_gpu.csv", text)
    assert (claim.scope, next(iter(claim.steps)).stamp_s) == ("device", 1738403614.25)
    with pytest.raises(BadData, match="does not say which scalar"):
        metric_tables.document("x", "events.csv", text)


def test_a_metric_file_is_named_by_its_path() -> None:
    text = "".join(f"{1738403610000 + 4000 * n} {2600.5 + n} {n}\n" for n in range(1, 5))
    assert metric_tables.is_document(text)
    (claim,) = metric_tables.document("x", "mlruns/0/a1/metrics/train/tokens_per_second_per_gpu", text)
    assert (claim.scope, len(claim.steps)) == ("device", 4)
    with pytest.raises(BadData, match="does not say which metric"):
        metric_tables.document("x", "mlruns/0/a1/metrics/accuracy", text)


@pytest.mark.parametrize(
    "text",
    [
        "model,gpu,num_gpus,seq_len,tokens/s/gpu\na,H100,8,2048,7105\n",
        "step,loss\n1,2.0\n",
        "id,model,device,n_devices,tokens_per_s_total\n",
        "a,b\n1,2\n",
        "step,step,tokens_per_sec\n1,1,2\n",
    ],
)
def test_other_tables_are_not_metrics(text: str) -> None:
    assert not metric_tables.is_document(text)


def test_a_summary_has_the_last_value_of_each_metric(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("wandb-summary", printed("wandb-summary.json"))
    (step,) = claim.steps
    assert (claim.scope, step.number, step.tokens_per_s, step.duration_s) == ("device", 400, 2629.3, 3.115)


@pytest.mark.parametrize("prefix", ["train/", ""])
def test_a_summary_of_the_trainer_has_its_summary(prefix: str, claims_of: ClaimsOf) -> None:
    # 9,830,400 tokens in 901.5 s are 10,904.5 tokens/s of the job.
    text = json.dumps(
        {"_step": 300, "_runtime": 911.2, "train/num_input_tokens_seen": 9830400, f"{prefix}train_runtime": 901.5,
         f"{prefix}train_samples_per_second": 10.65, "train/train_tokens_per_second": 10904.5}
    )  # fmt: skip
    assert wandb_summary.is_document(text)
    (claim,) = claims_of("wandb-summary", text)
    assert (claim.tokens_per_s, claim.samples_per_s, claim.train_s) == (10904.5, 10.65, 901.5)
    assert claim.tokens_total == 9830400
