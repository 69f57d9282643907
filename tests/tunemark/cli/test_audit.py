"""`tunemark audit` through the real command line: files, pipes, and programs that it witnesses while they run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]

# Made up in the format of MoAI's tutorials: 256 x 2048 tokens a step, 4 s printed where the stamps show 20 s.
_LOG = """
2024-05-01 10:00:00.000 | INFO     | __main__:main:149 - [Step 1/144] | Loss: 1.50 | Duration: 60.00 | Throughput: 8738.13 tokens/sec
2024-05-01 10:00:20.000 | INFO     | __main__:main:149 - [Step 2/144] | Loss: 1.40 | Duration: 4.00 | Throughput: 131072.00 tokens/sec
2024-05-01 10:00:40.000 | INFO     | __main__:main:149 - [Step 3/144] | Loss: 1.30 | Duration: 4.00 | Throughput: 131072.00 tokens/sec
2024-05-01 10:01:00.000 | INFO     | __main__:main:149 - [Step 4/144] | Loss: 1.20 | Duration: 4.00 | Throughput: 131072.00 tokens/sec
2024-05-01 10:01:20.000 | INFO     | __main__:main:149 - [Step 5/144] | Loss: 1.10 | Duration: 4.00 | Throughput: 131072.00 tokens/sec
"""  # noqa: E501 - lines as the program prints them

# A device that works behind the program's back: `submit` returns at once, `wait` when all is done. Each step has
# 4 x 128 slots, 40 % of them padding, and takes 40 ms. What is different is what the program times and counts.
_SCRIPT = """
import sys, time

class Device:
    ready = 0.0
    def submit(self):
        self.ready = max(self.ready, time.monotonic()) + 0.04
    def wait(self):
        time.sleep(max(0.0, self.ready - time.monotonic()))

waits, counts_padding = "waits" in sys.argv, "padding" in sys.argv
tokens = 4 * 128 if counts_padding else int(4 * 128 * 0.6)
device = Device()
for step in range(1, 26):
    began = time.monotonic()
    device.submit()
    if waits:
        device.wait()
    seconds = time.monotonic() - began + 1e-4
    # Reading the loss waits, whoever asked before.
    device.wait()
    print(f"step {step}/25 loss {2 - 0.01 * step:.4f} dt {1000 * seconds:.2f}ms tok/s {tokens / seconds:.1f}")
"""


def _rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _rules(row: dict[str, Any], severity: str) -> set[str]:
    return {finding["rule"] for finding in row["findings"] if finding["severity"] == severity}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "train.log"
    path.write_text(_LOG)
    return path


def test_a_log_is_rederived_by_each_way_and_says_which_disagree(tunemark: Tunemark, log: Path) -> None:
    words = ["--model", "mistral-7b", "--device", "MI250", "--count", "16", "--batch", "256", "--sequence", "2048"]
    done = tunemark("audit", str(log), *words, "--time", "50m", "--json")
    (row,) = _rows(done)
    assert done.returncode == 1
    assert row["id"] == "train.log"
    assert row["tokens_per_s_claimed"] == 131072.0
    # 4 steps of 524,288 tokens in 16 s as printed and in 80 s by the stamps; 144 steps in 3,000 s as stated.
    ways = row["tokens_per_s_rederived"]
    assert ways["durations"] == pytest.approx(131072.0)
    assert ways["time-stamps"] == pytest.approx(26214.4)
    assert ways["stated-time"] == pytest.approx(25165.8, rel=1e-5)
    assert {"rate-and-clock", "rate-and-stated-time"} <= _rules(row, "invalid")
    (clock,) = [f["message"] for f in row["findings"] if f["rule"] == "rate-and-clock"]
    assert "printed is 5 times what that clock allows" in clock
    assert "cover 20 % of a step" in clock


def test_more_than_the_hardware_can_do_is_invalid_with_its_arithmetic(tunemark: Tunemark, log: Path) -> None:
    log.write_text("\n".join(line[26:].replace("131072.00", "800000.00") for line in _LOG.splitlines()))
    words = ["--model", "mistral-7b", "--device", "MI250", "--count", "32", "--method", "full", "--sequence", "1024"]
    (row,) = _rows(done := tunemark("audit", str(log), *words, "--json"))
    assert (done.returncode, row["verdict"]) == (1, "invalid")
    (message,) = [f["message"] for f in row["findings"] if f["rule"] == "above-peak"]
    # 25,000 tokens/s per MI250 x (6 x 7.11e9 + 12 x 32 x 4096 x 512.5) FLOP = 1,087 TFLOP/s of 362.1.
    assert "800,000 tokens/s x 43.47 GFLOP" in message
    assert "/ 32 = 1,087 TFLOP/s, MI250 has 362.1 in bf16, dense" in message
    assert row["mfu_implied"] == pytest.approx(3.0, rel=0.01)


def test_the_table_says_what_was_read_and_why(tunemark: Tunemark, log: Path) -> None:
    log.write_text(_LOG + "not a line of any tool\n")
    done = tunemark("audit", str(log))
    assert "read 5 of 6 lines" in done.stderr
    assert "first at line 7" in done.stderr
    assert "| train.log | 131,072 | durations 131,072; time-stamps 26,214 |" in done.stdout
    assert "| invalid | rate-and-clock |" in done.stdout


def test_a_claim_is_kept_beside_measured_runs_and_marked(tunemark: Tunemark, log: Path, tmp_path: Path) -> None:
    given = ["--model", "mistral-7b", "--device", "MI250", "--count", "16"]
    for _ in range(2):
        done = tunemark("audit", str(log), *given, "--store", "runs", "-o", "out")
        assert done.returncode == 1
    (kept,) = (tmp_path / "runs/imported").iterdir()
    assert json.loads(kept.read_text())["kind"] == "imported"
    report = (tmp_path / "out/report.md").read_text()
    assert "## Imported claims" in report
    assert "was not measured here" in report
    shown, stored = (json.loads(each.read_text()) for each in (tmp_path / "out/imported.jsonl", kept))
    # A report names no folder of whoever wrote it; the store does.
    assert stored.pop("source") == str(log)
    assert str(log.parent) not in shown.pop("source")
    assert shown == stored
    (row,) = csv.DictReader((tmp_path / "out/report.csv").read_text().splitlines())
    assert (row["id"], row["kind"], row["verdict"]) == ("train.log", "imported", "invalid")
    again = tunemark("report", "runs", "-o", "again")
    assert (again.returncode, "| train.log |" in again.stdout) == (0, True), again.stderr
    assert (tmp_path / "again/report.md").read_text() == report
    kept.write_text("{}")
    assert "is no audited claim" in tunemark("report", "runs").stderr


@pytest.mark.alone
@pytest.mark.parametrize(
    ("words", "verdict", "rule"),
    [(["padding"], "invalid", "rate-and-clock"), (["waits", "padding"], "suspect", "padding-counted")],
    ids=["a timer that does not wait", "padding counted"],
)
def test_a_program_that_misleads_is_found_out(
    tunemark: Tunemark, tmp_path: Path, words: list[str], verdict: str, rule: str
) -> None:
    row = _witnessed(tunemark, tmp_path, words)
    assert row["verdict"] == verdict
    assert rule in _rules(row, verdict)


@pytest.mark.alone
def test_an_honest_program_is_valid(tunemark: Tunemark, tmp_path: Path) -> None:
    row = _witnessed(tunemark, tmp_path, ["waits"])
    assert row["verdict"] == "valid", row["findings"]
    # By the clock all slots of a step: 512 in 40 ms and the time that printing takes; it claims the 307 of content.
    assert 0.5 * 512 / 0.04 < row["tokens_per_s_rederived"]["arrival"] < 512 / 0.04
    assert 0.5 * 307 / 0.04 < row["tokens_per_s_claimed"] < 307 / 0.04


def _witnessed(tunemark: Tunemark, tmp_path: Path, words: list[str]) -> dict[str, Any]:
    (tmp_path / "train.py").write_text(_SCRIPT)
    given = ["--batch", "4", "--sequence", "128", "--padding", "0.4", "--json"]
    done = tunemark("audit", *given, "--", sys.executable, "train.py", *words)
    # What the program prints stays visible, beside the result.
    assert "step 25/25" in done.stderr
    (row,) = _rows(done)
    return row


@pytest.mark.alone
def test_a_pipe_is_witnessed_too(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(_SCRIPT)
    with subprocess.Popen([sys.executable, "-u", "train.py"], cwd=tmp_path, stdout=subprocess.PIPE) as train:
        command = [sys.executable, "-m", "tunemark", "audit", "-", "--json"]
        done = subprocess.run(command, stdin=train.stdout, capture_output=True, text=True, cwd=tmp_path)
    assert train.returncode == 0
    (row,) = _rows(done)
    assert "rate-and-clock" in _rules(row, "invalid")


def test_a_program_that_fails_is_said_to_have_failed(tunemark: Tunemark, tmp_path: Path) -> None:
    done = tunemark("audit", "--", sys.executable, "-c", "import sys; print('hello'); sys.exit(3)")
    assert done.returncode == 2
    assert "the command ended with code 3" in done.stderr
    assert "no throughput was found" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to audit"),
        (["missing.log"], "cannot read 'missing.log'"),
        (["x.log", "--", "true"], "cannot be audited together"),
        (["--", "no-such-program-anywhere"], "cannot start 'no-such-program-anywhere'"),
        (["x.log", "--count", "0"], "not a whole number"),
        (["x.log", "--model", "mistral-7B"], "did you mean 'mistral-7b'"),
        (["x.log", "--time", "soon"], "is not a duration"),
        (["x.log", "--dataset", "synthetic"], "give --model and --sequence"),
        (["binary.log"], "is no text"),
        (["empty.log"], "is empty"),
        (["broken.json"], "trainer_state"),
    ],
)
def test_bad_input_is_an_error_in_words(tunemark: Tunemark, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "x.log").write_text(_LOG)
    (tmp_path / "binary.log").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "empty.log").write_bytes(b"")
    (tmp_path / "broken.json").write_text('{"global_step": 10, "log_history": [{"loss": 1.0, "step": 5')
    done = tunemark("audit", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sentence_is_echoed_before_it_is_judged(tunemark: Tunemark) -> None:
    done = tunemark("audit", "Mistral 7B on 16 MI250: 390,000 tokens/s", "--method", "full", "--json")
    (row,) = _rows(done)
    assert (done.returncode, row["verdict"]) == (1, "invalid")
    assert "understood as: model mistral-7b ('Mistral 7B'); chip MI250; 16 of them; 390,000 tokens/s" in done.stderr
    done = tunemark("audit", "Mistral 7B on 4 nodes of MI250: 390,000 tokens/s")
    assert done.returncode == 2
    assert "not how many chips in all" in done.stderr


def test_a_model_and_a_chip_that_are_in_no_table(tunemark: Tunemark) -> None:
    sentence = "Foo on 8 chips: 20,000 tokens/s"
    dimensions = [
        "--layers",
        "32",
        "--hidden",
        "4096",
        "--intermediate",
        "11008",
        "--heads",
        "32",
        "--kv-heads",
        "32",
        "--vocab",
        "32000",
    ]
    (row,) = _rows(done := tunemark("audit", sentence, *dimensions, "--peak-flops", "300e12", "--json"))
    assert (done.returncode, row["verdict"]) == (0, "valid")
    # 2,500 x (4 x 6.6e9 + attention at one token) of 300 TFLOP/s, of adapters at least.
    assert row["mfu_implied"] == pytest.approx(2500 * 4 * 6.6e9 / 300e12, rel=0.05)
    (row,) = _rows(tunemark("audit", sentence, "--params", "7B", "--peak-flops", "30e12", "--json"))
    assert any(f["rule"] == "above-peak" for f in row["findings"])
    done = tunemark("audit", sentence, "--layers", "32")
    assert (done.returncode, "without --hidden" in done.stderr) == (2, True)


def test_a_log_is_followed_while_it_grows(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    line = "step {0}/10 | loss {1:.2f} | tokens/s/gpu: 1000.{0} | step_time: 2.0s\n"
    log.write_text("".join(line.format(n, 3 - n / 10) for n in range(1, 5)))
    command = [sys.executable, "-m", "tunemark", "audit", "--follow", "train.log", "--count", "8", "--until-idle", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        first = follow.stdout.readline()
        with log.open("a") as file:
            file.write("torch.OutOfMemoryError: CUDA out of memory.\n")
        rest = follow.stdout.read()
    assert "line 4: 8,002 tokens/s, unknown" in first
    assert "run-failed" in rest
    assert "train.log: SUSPECT" in rest or "train.log: UNKNOWN" in rest


def test_imported_points_enter_scale_and_compare(tunemark: Tunemark, tmp_path: Path) -> None:
    rows = "\n".join(f"lora-{n},llama-3.1-8b,lora,MI250X,{n},2048,{8 * n},{rate}" for n, rate in ((1, 1296), (2, 2072)))
    (tmp_path / "t.csv").write_text(
        f"id,model,task,device,n_devices,seq_len,global_batch_seqs,tokens_per_s_total\n{rows}\n"
    )
    assert tunemark("audit", "t.csv", "--store", "st", "-o", "out").returncode == 0
    for folder in ("st", "out"):
        done = tunemark("scale", "--from", folder, "--mode", "weak")
        assert (done.returncode, "| lora-2 | 2 | 16 | 2,072 | 1.599 | 79.9 | 40.1 | valid |" in done.stdout) == (
            0,
            True,
        ), done
    done = tunemark("compare", "st", "--by", "size")
    assert (done.returncode, "| lora-2 | 2 | 2,072 | 1.599 | 0.7994 | valid |" in done.stdout) == (0, True), done.stdout


def test_a_model_of_a_folder_is_what_its_config_says_whatever_the_folder_is_called(
    tunemark: Tunemark, tmp_path: Path
) -> None:
    folder = tmp_path / "mistral-7b"
    folder.mkdir()
    stated = {"model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128,
              "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 2048}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(stated))
    words = "100000 tokens/s of the whole job on 1 H100 SXM in bf16 at a sequence of 1024 tokens, full fine-tuning"
    (row,) = _rows(tunemark("audit", words, "--model", f"hf:{folder}", "--json"))
    # Less than a percent of the peak; a Mistral 7B would be at 425 %.
    assert row["mfu_implied"] is not None, row
    assert row["mfu_implied"] < 0.01
