"""The whole way through the real command line and real worker processes, on the CPU, a few steps each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

_COMMON = ["--model", "mistral-tiny", "--device", "cpu:1", "--sequence", "32", "--micro-batch", "2"]
_COMMON += ["--no-measure-peak"]
_SHORT = [*_COMMON, "--steps", "3", "--warmup", "1", "--repeats", "1", "--target-interval", "0"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tunemark", *words]


def _environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "TUNEMARK_CACHE": str(cache)}


def _rows(folder: Path, cache: Path, *words: str, codes: tuple[int, ...] = (0, 3)) -> list[dict[str, Any]]:
    done = subprocess.run(
        _command("run", *words, "--json"), cwd=folder, env=_environment(cache), capture_output=True, text=True
    )
    assert done.returncode in codes, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _records(folder: Path) -> list[dict[str, Any]]:
    (path,) = sorted(folder.glob("runs/*/*/records.0.jsonl"))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.full
def test_padding_and_packing_differ_by_the_padding_share(tmp_path: Path, cache: Path) -> None:
    rows = _rows(tmp_path, cache, *_SHORT, "--batching", "pad,pack")
    pad, pack = rows
    assert pad["status"] == pack["status"] == "ok"
    for row in rows:
        assert row["steps_measured"] == 3
        assert row["tokens"]["slots"] == 3 * 2 * 32
        shown = 1 - row["tokens_per_s"]["value"] / row["slot_tokens_per_s"]["value"]
        assert shown == pytest.approx(row["padding_fraction"], abs=1e-9)
    # Three windows are too few for an interval: the value stands, its bounds do not.
    assert pad["tokens_per_s"]["low"] is None
    assert ("few-windows", "unknown") in {(f["rule"], f["severity"]) for f in pad["findings"]}
    # A machine that is busy with other things makes it suspect, which is worse.
    assert pad["verdict"] in ("unknown", "suspect")


@pytest.mark.full
def test_ids_without_a_tokenizer_are_trained_on(tmp_path: Path, cache: Path) -> None:
    (row,) = _rows(tmp_path, cache, *_SHORT, "--dataset", "synthetic")
    assert row["status"] == "ok", row["findings"]
    assert "weights-unchanged" not in {f["rule"] for f in row["findings"]}
    assert row["tokens_per_s"]["value"] > 0


@pytest.mark.full
def test_response_alone_trains_on_fewer_tokens(tmp_path: Path, cache: Path) -> None:
    everything, response = _rows(tmp_path, cache, *_SHORT, "--train-on", "all,response", "--sequence", "256")
    assert everything["tokens"]["content"] == response["tokens"]["content"]
    assert 0 < response["tokens"]["trained"] < everything["tokens"]["trained"]


@pytest.mark.full
def test_two_ranks_train_on_the_batches_of_one(tmp_path: Path, cache: Path) -> None:
    one, two = _rows(
        tmp_path, cache, "--model", "mistral-tiny", "--strategy", "none,ddp", "--device", "cpu:2",
        "--global-batch", "4", "--micro-batch", "2", "--sequence", "32", "--steps", "3", "--warmup", "1",
        "--repeats", "1", "--no-measure-peak", "--precision", "fp32", "--oversubscribe", codes=(0, 1, 3),
    )  # fmt: skip
    assert one["tokens"] == two["tokens"]
    assert one["loss_first"] == pytest.approx(two["loss_first"], rel=1e-5)
    assert one["loss_last"] == pytest.approx(two["loss_last"], rel=1e-4)


@pytest.mark.full
def test_accumulation_changes_neither_tokens_nor_loss(tmp_path: Path, cache: Path) -> None:
    whole, parts = _rows(
        tmp_path, cache, "--model", "mistral-tiny", "--device", "cpu:1", "--sequence", "32", "--micro-batch", "4,1",
        "--global-batch", "4", "--steps", "3", "--warmup", "1", "--repeats", "1",
        "--no-measure-peak",
        "--precision", "fp32",
    )  # fmt: skip
    assert (whole["gradient_accumulation"], parts["gradient_accumulation"]) == (1, 4)
    assert whole["tokens"] == parts["tokens"]
    assert whole["loss_last"] == pytest.approx(parts["loss_last"], rel=1e-5)


@pytest.mark.full
def test_a_strategy_is_verified_before_it_is_measured(tmp_path: Path, cache: Path) -> None:
    words = ["--strategy", "ddp", "--precision", "fp32", "--verify"]
    (row,) = _rows(tmp_path, cache, *_SHORT, *words)
    (found,) = (f for f in row["findings"] if f["rule"] == "verified")
    assert "over 5 steps" in found["message"]
    assert "cpu:1 none" in found["message"]
    # What verified it is no measurement.
    assert len(list(tmp_path.glob("runs/*/*/plan.json"))) == 1
    assert len(list(tmp_path.glob("runs/verification/*/*/plan.json"))) == 2


@pytest.mark.full
def test_a_prompt_as_long_as_the_sequence_trains_nothing(tmp_path: Path, cache: Path) -> None:
    (row,) = _rows(tmp_path, cache, *_SHORT, "--train-on", "response", "--batching", "pad", "--sequence", "4",
                   codes=(1,))  # fmt: skip
    assert row["verdict"] == "invalid"
    assert "nothing-trained" in {f["rule"] for f in row["findings"]}


def test_a_finished_run_is_skipped_and_redone_only_when_asked(tmp_path: Path, cache: Path) -> None:
    (first,) = _rows(tmp_path, cache, *_SHORT)
    # How it is reported is no part of what it is: nothing is measured for another language or a price.
    (tmp_path / "prices.toml").write_text('currency = "EUR"\n[per_chip_hour]\ncpu = 0.5\n')
    reported = ("-o", "out", "--language", "ko", "--prices", "prices.toml")
    (again,) = _rows(tmp_path, cache, *_SHORT, *reported)
    assert again == first
    assert len(list(tmp_path.glob("runs/*/*/plan.json"))) == 1
    page = (tmp_path / "out/report.html").read_text()
    assert '<html lang="ko">' in page
    assert "패딩을 제외한 토큰 백만 개당 EUR" in page
    _rows(tmp_path, cache, *_SHORT, "--redo")
    assert len(list(tmp_path.glob("runs/*/*/plan.json"))) == 2


# Whoever starts these tests in the background has interrupts ignored, and processes inherit that.
_HEARS_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def _start(tmp_path: Path, cache: Path) -> subprocess.Popen[str]:
    endless = _command(
        "run", *_COMMON, "--steps", "100000", "--warmup", "1", "--repeats", "1", "--target-interval", "0"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", _HEARS_INTERRUPTS, *endless],
        cwd=tmp_path, env=_environment(cache), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + 60
    while time.monotonic() < until and job.poll() is None:
        files = list(tmp_path.glob("runs/*/*/records.0.jsonl"))
        if files and files[0].read_text().count('"kind":"step"') >= 5:
            return job
        time.sleep(0.02)
    job.kill()
    raise AssertionError(job.communicate()[1])


def test_a_killed_worker_is_a_row_and_loses_no_step(tmp_path: Path, cache: Path) -> None:
    job = _start(tmp_path, cache)
    os.kill(_records(tmp_path)[0]["pid"], signal.SIGKILL)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 4, err
    assert "killed" in out
    steps = [r["step"] for r in _records(tmp_path) if r["kind"] == "step"]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_steps_and_leaves_no_process(tmp_path: Path, cache: Path, number: signal.Signals) -> None:
    job = _start(tmp_path, cache)
    worker = _records(tmp_path)[0]["pid"]
    job.send_signal(number)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130, err
    assert "Traceback" not in err
    assert _records(tmp_path)[-1]["reason"] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "mistral-tiniest"], "mistral-tiny"),
        (["--dataset", "python-code-alpaca:path=missing.json"], "missing.json"),
        (["--micro-batch", "3", "--global-batch", "4"], "multiple"),
        (["--output", "/proc/nowhere"], "/proc/nowhere"),
        (["--python", "/no/such/python"], "/no/such/python"),
        (["--device", "cpu:4096"], "4096"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_bad_input_is_refused_before_any_work(tmp_path: Path, cache: Path, words: list[str], said: str) -> None:
    done = subprocess.run(
        _command("run", *words), cwd=tmp_path, env=_environment(cache), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/*/plan.json"))
