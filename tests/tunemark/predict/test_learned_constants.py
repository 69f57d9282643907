"""Constants learned from one's own runs: what moves, and what that gains on runs that were left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunemark.cli.main import main
from tunemark.predict import device_facts, predict
from tunemark.predict.learned_constants import LearnedConstants, MeasuredStep, find_learned, learn, store_learned
from tunemark.predict.published_rows import ConvertedRow, convert_row

_ROW = {
    "device": "A100-SXM-80GB", "n_layers": "32", "hidden": "4096", "intermediate": "11008", "mlp_gated": "1",
    "n_heads": "32", "vocab": "103168", "seq_len": "2048", "fsdp": "1", "act_ckpt": "none", "framework": "torch",
    "compile": "N", "node_devices": "8", "inter_gb_s": "6.25", "precision": "bf16",
}  # fmt: skip
# InternLM/InternEvo, doc/en/train_performance.md: tokens/s of a GPU by number of GPUs, 7B, four micro-batches of two.
_INTERNEVO = {8: 4062, 16: 3842, 32: 3752, 64: 3690, 128: 3571, 256: 3209}


def _row(devices: int) -> dict[str, str]:
    return {**_ROW, "id": f"n{devices}", "n_devices": str(devices), "micro_batch": "2",
            "global_batch_seqs": str(8 * devices)}  # fmt: skip


def _steps(slowdown: float = 1.0) -> list[MeasuredStep]:
    found = []
    for devices, rate in _INTERNEVO.items():
        step = convert_row(_row(devices))
        assert isinstance(step, ConvertedRow)
        seconds = slowdown * 8 * 2048 / rate
        found.append(
            MeasuredStep(name=step.id, work=step.work, layout=step.layout, device=step.device, seconds=seconds)
        )
    return found


def test_runs_that_were_left_out_are_predicted_better() -> None:
    found = learn(_steps(slowdown=1.3))
    assert (found.chip, found.framework, found.runs) == ("A100-SXM-80GB", "torch", 6)
    # All runs are 30 % slower than published: a shared factor explains that.
    assert found.shipped > 0.2
    assert found.held_out < 0.3 * found.shipped
    assert found.moves["gemm"] < 0.95


def test_what_was_learned_is_applied_with_the_bounds_of_runs_left_out(tmp_path: Path) -> None:
    found = learn(_steps(slowdown=1.3))
    store_learned(found, tmp_path)
    assert find_learned("A100-SXM-80GB", "torch", tmp_path) == found
    assert find_learned("A100-SXM-80GB", "hf", tmp_path) is None
    # Constants of other formulas say nothing of these.
    store_learned(replace(found, formulas="other"), tmp_path)
    assert find_learned("A100-SXM-80GB", "torch", tmp_path) is None
    step = _steps()[2]
    before, after = (predict(step.work, step.layout, facts) for facts in (step.device, found.apply(step.device)))
    assert after.step_time_s > 1.1 * before.step_time_s
    assert after.spread.low == after.spread.high == found.residual
    assert after.spread.memory_high == before.spread.memory_high


def test_nothing_learned_is_nothing_changed() -> None:
    facts = device_facts("H100")
    same = LearnedConstants(
        chip="H100", framework="torch", runs=3, moves=dict.fromkeys(learn(_steps()).moves, 1.0), shipped=0.1,
        held_out=0.1, residual=0.1, formulas="",
    )  # fmt: skip
    assert same.apply(facts).efficiency == facts.efficiency
    assert not same.is_gain


def _write(path: Path, *, is_measured: bool) -> Path:
    rows = [
        {**_row(n), "tokens_per_s_per_device": str(rate / 1.3) if is_measured else ""} for n, rate in _INTERNEVO.items()
    ]
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_command_prints_the_gain_and_rows_are_predicted_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = _write(tmp_path / "rows.csv", is_measured=True)
    assert main(["calibrate", "--from", str(table)]) == 0
    out, err = capsys.readouterr()
    assert "learned from 6 runs" in out
    assert "error of runs that were left out" in out
    assert "kept as" in err
    assert main(["predict", "--rows", str(table), "--learned", "--json"]) == 0
    assert "constants learned from 6 runs" in capsys.readouterr().out


def test_a_table_without_measurements_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = _write(tmp_path / "rows.csv", is_measured=False)
    assert main(["calibrate", "--from", str(table)]) == 2
    assert "it states no step time and no rate" in capsys.readouterr().err
    assert main(["calibrate"]) == 2
    assert "--from runs to learn from" in capsys.readouterr().err
