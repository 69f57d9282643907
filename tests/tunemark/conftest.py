"""Results made by hand: a run of given attempts' rates, all else alike unless it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tunemark.cli.main import main
from tunemark.plugin import Finding
from tunemark.results import Estimate, Result
from tunemark.results.result import AttemptRow
from tunemark_worker import steady_state

MadeRun = Callable[..., Result]


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Carry out `tunemark WORDS...` in this process, in an empty folder: for commands that start no other."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Done:
        capsys.readouterr()
        code = main(words)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def made_run() -> MadeRun:
    """made_run(rates, minute=0, every=2, ...): attempts that began every so many minutes from that minute on."""
    return _made


def _made(rates: Sequence[float] = (100.0, 101.0, 99.0), *, minute: int = 0, every: int = 2, **other: Any) -> Result:
    rows = tuple(
        AttemptRow(
            name=f"20261126T{(minute + every * i) // 60:02}{(minute + every * i) % 60:02}00-{i + 1}-7", status="ok",
            reason="steps", evidence="", tokens_per_s=rate, steps_measured=10, warmup_steps=2, interval_s=800 / rate,
        )
        for i, rate in enumerate(rates)
    )  # fmt: skip
    found = steady_state.between_attempts_interval(rates) if rates else None
    estimate = Estimate(**found._asdict()) if found else None
    values: dict[str, Any] = {
        "run_id": "0123456789abcdef", "model": "toy", "dataset": "d", "device": "cpu", "size": "1",
        "strategy_requested": "none", "method": "full", "precision": "fp32", "batching": "pack", "sequence": 10,
        "micro_batch": 1, "global_batch": 8, "gradient_accumulation": 8, "train_on": "all", "weights": "random",
        "optimizer": "adamw", "learning_rate": 1e-4, "schedule": "constant", "clip_norm": 1.0, "seed": 0,
        "python": None, "breakdown": False, "epochs": None, "steps_requested": None, "warmup_requested": 2,
        "budget_s": 60.0, "target_interval": 0.02, "window_s": 1.0, "chip": "c", "chips": 1, "oversubscribed": False,
        "learnable": True, "processes": 1, "threads": 1, "data_ranks": 1, "parameters": 1000,
        "trainable_parameters": 1000, "flops_per_token": 6000.0, "flops_per_token_full_attention": 7000.0,
        "peak_flops": None, "peak_flops_source": None, "status": "ok", "verdict": "valid", "findings": (),
        "strategy_selected": None, "attempts": len(rates), "each_attempt": rows, "steps_measured": 10 * len(rates),
        "warmup_steps": 2 * len(rates), "tokens_per_s": estimate, "slot_tokens_per_s": estimate,
        "trained_tokens_per_s": estimate, "tokens_per_s_per_chip": None, "tokens": None,
        "interval_s": sum(800 / rate for rate in rates) if rates else None, "padding_fraction": 0.0,
        "step_time_s": None, "breakdown_s": None, "time_to_first_step_s": 3.0, "setup_s": {}, "mfu": None,
        "mfu_reason": "nothing", "peak_memory_bytes": 1 << 30, "requested_bytes": None, "loss_first": 7.0,
        "loss_last": 6.0, "stop_reason": "steps", "data_sha256": "ab",
        "environment": {
            "host": {"name": "h", "processor": "P"}, "code_sha256": "c0de",
            "worker": {"python": "3.11", "torch": "2.13.0", "transformers": "5.0", "affinity": [0], "allocator": {}},
        },
    }  # fmt: skip
    unknown = set(other) - set(Result.__struct_fields__)
    assert not unknown, unknown
    values.update(other)
    if "verdict" in other and other["verdict"] != "valid" and "findings" not in other:
        values["findings"] = (Finding(rule="made", severity=other["verdict"], message="as asked for"),)
    return Result(**values)
