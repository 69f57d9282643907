"""Whole reports against committed files: Markdown in both languages, CSV and every table, byte for byte.

The results are written below, so that a change of the files is a change of how results are reported, and is read as a
diff. After a change that is meant:

    python tests/tunemark/report/test_golden.py    # writes tests/golden anew; then read `git diff tests/golden`
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunemark.analysis.prices import Prices
from tunemark.loading import UnreadEntry
from tunemark.plugin import Catalog, Finding
from tunemark.plugin.catalog import load_object
from tunemark.report import Report, make_report
from tunemark.report.translation import LANGUAGES, Language
from tunemark.results import Estimate, ImportedClaim, Result
from tunemark.results.result import AttemptRow, StepTime, TimedTokens
from tunemark.results.trace import Trace, TraceWindow

GOLDEN = Path(__file__).parents[2] / "golden"
_BETWEEN, _WITHIN = "between-attempt t on log 95 %", "within-run batch means 95 %"


def rate(value: float, low: float | None, high: float | None, n: int = 3, method: str = _BETWEEN) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n, method=method)


def attempts(*rates: float | None, status: Any = "ok", evidence: str = "every rank ended") -> tuple[AttemptRow, ...]:
    """Attempts of 30 steps each, begun two minutes apart; a rate that is None is of one that timed nothing."""
    return tuple(
        AttemptRow(
            name=f"20261126T10{2 * i:02}00-{i + 1}-7", status=status, reason="budget" if status == "ok" else status,
            evidence=evidence, tokens_per_s=each, steps_measured=30 if each else 0, warmup_steps=3 if each else None,
            interval_s=60_000 / each if each else None, others_load=0.01 if each else None,
            minor_faults_per_step=1000.0 if each else None,
        )
        for i, each in enumerate(rates)
    )  # fmt: skip


def run(run_id: str, *, rows: tuple[AttemptRow, ...], **changes: Any) -> Result:
    """A run of a small model on one core that had nothing to be ashamed of."""
    values: dict[str, Any] = {
        "run_id": run_id, "model": "mistral-tiny", "dataset": "python-stdlib", "device": "cpu", "size": "1",
        "strategy_requested": "none", "method": "full", "precision": "bf16-autocast", "batching": "pack",
        "sequence": 256, "micro_batch": 4, "global_batch": 8, "gradient_accumulation": 2, "train_on": "all",
        "weights": "random", "optimizer": "adamw", "learning_rate": 1e-4, "schedule": "constant", "clip_norm": 1.0,
        "seed": 0, "python": None, "breakdown": False, "epochs": None, "steps_requested": None,
        "warmup_requested": None, "budget_s": 20.0, "target_interval": 0.02, "window_s": 1.0, "chip": "core of X",
        "chips": 1, "oversubscribed": False, "learnable": True, "processes": 1, "threads": 1, "data_ranks": 1,
        "parameters": 19_794_176, "trainable_parameters": 19_794_176, "flops_per_token": 72_751_104.0,
        "flops_per_token_full_attention": 75_890_688.0, "peak_flops": 2.4e11, "peak_flops_source": "measured",
        "memory_bytes": 24 << 30, "hardware_flops_per_token": 72_751_104.0, "status": "ok", "verdict": "valid",
        "findings": (), "strategy_selected": {"strategy": "none"}, "attempts": len(rows), "each_attempt": rows,
        "steps_measured": sum(row.steps_measured for row in rows), "warmup_steps": 9,
        "tokens_per_s": rate(1234.5, 1219.7, 1249.4), "slot_tokens_per_s": rate(1243.2, 1228.3, 1258.3),
        "trained_tokens_per_s": rate(1229.7, 1214.9, 1244.6), "tokens_per_s_per_chip": 1234.5,
        "tokens": TimedTokens(slots=184_320, content=183_031, trained=182_320), "interval_s": 148.263,
        "padding_fraction": 1289 / 184_320, "step_time_s": StepTime(p50=1.645, p95=1.702), "breakdown_s": None,
        "time_to_first_step_s": 4.21, "setup_s": {"start": 2.5, "model": 0.75}, "mfu": 0.3768, "mfu_reason": None,
        "hfu": 0.3768, "peak_memory_bytes": 1_253_000_000, "requested_bytes": None, "loss_first": 10.42,
        "loss_last": 9.876, "stop_reason": "budget", "data_sha256": "ab" * 32,
        "environment": {
            "started_utc": f"2026-11-26T10:00:00+00:00 {run_id}",
            "host": {"name": "here", "processor": "X", "cores": 4},
            "worker": {"python": "3.11.2", "torch": "2.13.0", "transformers": "5.0.0"},
        },
        "telemetry_reasons": {"energy_per_token_j": "no device has a counter of energy"},
    }  # fmt: skip
    return Result(**{**values, **changes})


def results() -> list[Result]:
    """Two sizes, two strategies, padding, parts of a step, one that did not fit, a simulator's, and an evil name."""
    two = {"size": "2", "chips": 2, "threads": 2, "peak_flops": 4.7e11}
    ddp = {"strategy_requested": "ddp", "strategy_selected": {"strategy": "ddp", "data_parallel": 2}, "processes": 2}
    unknown: dict[str, Any] = dict.fromkeys(
        ("tokens_per_s", "slot_tokens_per_s", "trained_tokens_per_s", "tokens_per_s_per_chip", "tokens", "interval_s",
         "padding_fraction", "step_time_s", "time_to_first_step_s", "mfu", "hfu", "loss_first", "loss_last",
         "warmup_steps")
    )  # fmt: skip
    rows = attempts(1228.1, 1234.9, 1240.5)
    return [
        run("a0" * 8, rows=rows),
        run(
            "b1" * 8, rows=attempts(2188.0, 2201.0, 2195.0), **two, tokens_per_s=rate(2194.7, 2178.5, 2211.0),
            slot_tokens_per_s=rate(2210.1, 2193.8, 2226.5), trained_tokens_per_s=rate(2186.2, 2170.0, 2202.5),
            tokens_per_s_per_chip=1097.35, mfu=0.342, hfu=0.342, interval_s=83.4,
            step_time_s=StepTime(p50=0.9251, p95=0.9802), peak_memory_bytes=1_301_000_000,
        ),
        run(
            "c2" * 8, rows=attempts(2290.0, 2310.0, 2301.0), **two, **ddp, data_ranks=2, gradient_accumulation=1,
            tokens_per_s=rate(2300.3, 2275.6, 2325.3), slot_tokens_per_s=rate(2316.5, 2291.6, 2341.7),
            trained_tokens_per_s=rate(2291.4, 2266.8, 2316.3), tokens_per_s_per_chip=1150.15, mfu=0.3584, hfu=0.3584,
            interval_s=79.57, step_time_s=StepTime(p50=0.8829, p95=0.9011), peak_memory_bytes=1_777_000_000,
        ),
        run(
            "d3" * 8, rows=attempts(905.0), **two, batching="pad", attempts=1,
            tokens_per_s=rate(905.2, 871.0, 939.4, 18, _WITHIN),
            slot_tokens_per_s=rate(2402.0, 2390.0, 2414.0, 18, _WITHIN),
            trained_tokens_per_s=rate(901.1, 867.0, 935.2, 18, _WITHIN), tokens_per_s_per_chip=452.6,
            tokens=TimedTokens(slots=61_440, content=23_154, trained=23_050), padding_fraction=38_286 / 61_440,
            verdict="suspect", interval_s=25.579, warmup_steps=3,
            findings=(
                Finding(rule="heavy-load", severity="suspect", message="others used 33.1 % of the cores (limit 10 %)"),
                Finding(rule="one-attempt", severity="note", message="one attempt says nothing of how attempts differ"),
            ),
        ),
        run(
            "e4" * 8, rows=attempts(2011.0), **two, breakdown=True, attempts=1, verdict="unknown", mfu=None, hfu=None,
            tokens_per_s=rate(2011.0, None, None, 2, _WITHIN), slot_tokens_per_s=rate(2025.0, None, None, 2, _WITHIN),
            trained_tokens_per_s=rate(2003.0, None, None, 2, _WITHIN), mfu_reason="every part was waited for",
            breakdown_s={"data": 0.0012, "forward": 0.3104, "backward": 0.6203, "optimizer": 0.0901},
            findings=(Finding(rule="few-windows", severity="unknown", message="2 windows make no interval"),),
        ),
        run(
            "f5" * 8, rows=attempts(None, status="oom", evidence="rank 0: could not allocate 8589934592 bytes"), **two,
            **unknown, micro_batch=64, global_batch=64, gradient_accumulation=1, status="oom", verdict="unknown",
            attempts=1, peak_memory_bytes=None, requested_bytes=8 << 30, available_bytes=5 << 30, setup_s={},
            stop_reason="oom", strategy_selected=None,
            findings=(Finding(rule="unfinished", severity="unknown", message="oom: 8 GiB more were asked for"),),
        ),
        run(
            "a6" * 8, rows=attempts(40.2), device="moai", size="4xLarge.2048GB", chip="MI250", chips=16,
            strategy_requested="auto", simulated=True, attempts=1, verdict="suspect", precision="fp32", peak_flops=None,
            strategy_selected={"spelled": "PP(2), No TP, recomputation : default(1)"}, search_s=155.5, queue_s=0.0,
            peak_flops_source=None, mfu=None, hfu=None, mfu_reason="no peak of MI250 in fp32 is known",
            tokens_per_s=rate(40.2, 19.8, 81.6, 8, _WITHIN), tokens_per_s_per_chip=2.51, memory_bytes=2048 << 30,
            findings=(Finding(rule="simulated", severity="suspect", message="the accelerator is a simulator's"),),
        ),
        run(
            "b7" * 8, rows=attempts(99.0, 101.0), model="<b>a|b</b> *c*", attempts=2, verdict="invalid",
            tokens_per_s=rate(100.0, 88.0, 113.6, 2), mfu=1.52,
            findings=(
                Finding(rule="mfu-above-one", severity="invalid", message="152 % of the peak `2.4e11` | <i>"),
            ),
        ),
    ]  # fmt: skip


def claims() -> list[ImportedClaim]:
    return [
        ImportedClaim(
            id="a table's row", source="https://example.org/table", tool="a table", meaning="tokens per second",
            counts=None, model="mistral-7b", device="MI250", count=16, precision="bf16", sequence=2048,
            global_batch=256, tokens_per_s_claimed=389_903.6, tokens_per_s_rederived={"batch-time": 390_004.0},
            arithmetic={"batch-time": "256 x 2048 slots / 1.3443 s = 390,004 tokens/s"}, mfu_implied=2.946,
            mfu_convention="causal attention", mfu_implied_full_attention=3.02, peak_flops=5.792e15,
            peak_source="AMD, 2021", verdict="invalid", missing=(), origin={}, notes=(),
            findings=(Finding(rule="above-peak", severity="invalid", message="294.6 % of the chips' peak"),),
        )
    ]  # fmt: skip


def traces() -> dict[str, list[Trace]]:
    times = (2.9, 1.9, 1.7, 1.64, 1.65, 1.66, 1.63, 1.71)
    kept = tuple(TraceWindow(i + 1, sum(times[: i + 1]), t, 2048, 2034, 2026) for i, t in enumerate(times))
    return {
        "c2" * 8: [
            Trace(run_id="c2" * 8, attempt="20261126T100000-1-7", rank=0, first=3, last=8, windows=len(kept), kept=kept)
        ],
    }


def report(language: Language) -> Report:
    prices = Prices(currency="USD", per_chip_hour={"cpu": 0.04, "MI250": 2.5})
    unread = [UnreadEntry(place="runs.jsonl, line 9", why="it is no result: it has no run_id")]
    return make_report(results(), claims(), traces(), unread=unread, prices=prices, language=language)


def files(language: Language) -> Mapping[str, bytes]:
    """The texts of a report in a language; in Korean the Markdown alone is another."""
    made = report(language)
    forms = {name: load_object(form.render) for name, form in Catalog().formats().items()}
    found = {"report.md": forms["markdown"](made)}
    if language == "en":
        found["report.csv"] = forms["csv"](made)
        found.update({f"tables/{name}": content for name, content in forms["tables"](made).items()})
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_is_the_committed_one(language: Language) -> None:
    found = files(language)
    wanted = {
        str(path.relative_to(GOLDEN / language)): path.read_bytes()
        for path in (GOLDEN / language).rglob("*")
        if path.is_file()
    }
    assert sorted(found) == sorted(wanted)
    for name, content in found.items():
        # Texts, so that pytest shows where they differ.
        assert content.decode() == wanted[name].decode(), f"{name}: see the head of {Path(__file__).name}"


def regenerate() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for language in LANGUAGES:
        for name, content in files(language).items():
            path = GOLDEN / language / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


if __name__ == "__main__":
    regenerate()
    print(f"{GOLDEN} is written anew; read its diff", file=sys.stderr)
