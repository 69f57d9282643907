"""What `tunemark plan` says of data, time, cost and memory before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunemark.cli.main import main
from tunemark.number_format import format_duration

_PLAN = ("plan", "--model", "mistral-tiny", "--device", "cpu:1", "--sequence", "16")
# A chip that is not here, named for a device that is not here either.
_DECLARED = ("--device", "cuda:1", "--chips", "1", "--oversubscribe")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    row = {"instruction": "Name it", "output": "ebb and flow", "system": "Be brief."}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(12)))
    return path


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    row: dict[str, Any] = json.loads(capsys.readouterr().out)
    return row


def test_data_time_and_cost_are_said_before_anything_runs(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\n[per_hour]\n"cpu:1" = 3600.0\n')
    words = (*_PLAN, "--dataset", f"alpaca:path={rows}:template=plain", "--epochs", "3", "--prices", str(prices))
    assert main([*words]) == 0
    text = capsys.readouterr().out
    row = _json(capsys, *words)
    data, duration = row["data"], row["duration"]
    assert f"{data['documents']} documents, {data['tokens']} tokens" in text
    assert f"3 epochs: {data['steps']} steps" in text
    assert "| length (tokens) | documents | share (%) |" in text
    assert "left out are system (12 rows, 108 characters)" in text
    assert duration["steps"] == data["steps"]
    assert duration["seconds"] == pytest.approx(duration["steps"] * row["predicted"]["step_time_s"])
    assert duration["seconds_low"] < duration["seconds"] < duration["seconds_high"]
    # One euro a second.
    assert duration["cost"] == pytest.approx(duration["seconds"])
    assert "EUR" in text
    assert data["trained_tokens"] + data["documents"] + data["cut_tokens"] == data["tokens"]


def test_a_dataset_that_nobody_named_is_not_prepared(capsys: pytest.CaptureFixture[str]) -> None:
    row = _json(capsys, *_PLAN)
    assert "data" not in row
    assert row["fit"]["outcome"] == "fits"


def test_data_that_cannot_be_used_are_an_error_below_the_plan(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write_text('{"instruction": "a", "output": null}\n')
    assert main([*_PLAN, "--dataset", f"alpaca:path={rows}"]) == 2
    out, errors = capsys.readouterr()
    assert "run_id" in out
    assert "not known" in out
    assert "row 1" in errors


def test_a_tokenizer_that_is_not_here_leaves_the_data_unknown(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read once from the environment, by whichever test imports it first.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    row = _json(capsys, "plan", "--model", "llama-3-8b", "--device", "cpu:1", "--dataset", f"alpaca:path={rows}")
    assert "the tokenizer of meta-llama/Meta-Llama-3-8B" in row["data"]["reason"]


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        (("--model", "llama-3-8b", "--chip", "RTX 4090", "--method", "lora"), "--precision bf16"),
        (("--model", "llama-3-8b", "--chip", "H100"), "--precision bf16"),
        (
            ("--model", "mistral-7b", "--chip", "A100-80GB", "--precision", "bf16", "--sequence", "4096"),
            "--checkpointing",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_the_nearest_change_that_does(
    words: tuple[str, ...], fits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = _json(capsys, "plan", *_DECLARED, *words)
    assert row["fit"]["outcome"] == "does not fit"
    assert row["fit"]["memory_bytes"] > row["fit"]["usable_bytes"]
    flags = row["fit"]["change"].partition(" fits")[0]
    assert flags.startswith(fits)
    # The change does what it says.
    changed = {
        **dict(zip(words[::2], words[1::2], strict=True)),
        **dict(zip(flags.split()[::2], flags.split()[1::2], strict=True)),
    }
    again = _json(capsys, "plan", *_DECLARED, *(word for pair in changed.items() for word in pair))
    assert again["fit"]["outcome"] != "does not fit"


def test_predict_says_that_it_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("predict", "--model", "llama-3-8b", "--chip", "H100", *_DECLARED)
    row = _json(capsys, *words)
    assert row["fit"] == "does not fit"
    assert row["memory_bytes"] > row["usable_memory_bytes"]
    assert main([*words]) == 0
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert "--precision bf16 fits" in text


def test_a_search_that_finds_nothing_names_a_change_for_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "--model", "llama-3-8b", "--method", "lora", "--device", "RTX 4090", "--size", "1")
    assert main([*words, "--strategy", "auto"]) == 2
    assert "--precision bf16 fits on this size; or the smallest size" in capsys.readouterr().err
    assert main([*words, "--strategy", "auto", "--precision", "bf16"]) == 0


def test_a_search_on_absent_chips_says_how_long_and_how_much(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "USD"\n[per_chip_hour]\nH100 = 2.0\n')
    row = _json(capsys, "plan", "--model", "mistral-7b", "--device", "H100", "--size", "2", "--strategy", "auto",
                "--dataset", f"alpaca:path={rows}", "--epochs", "2", "--prices", str(prices))  # fmt: skip
    assert row["data"]["documents"] == 12
    assert row["duration"]["seconds"] == pytest.approx(row["duration"]["steps"] * row["step_time_s"])
    assert row["duration"]["cost"] == pytest.approx(row["duration"]["seconds"] / 3600 * 4)


def test_durations_are_said_in_their_units() -> None:
    assert [format_duration(s) for s in (0.5, 40, 130, 7000, 9000, 400000)] == [
        "0.50 s", "40 s", "2.2 min", "117 min", "2.5 h", "4.6 days",
    ]  # fmt: skip


def test_a_chip_in_no_table_is_declared_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", "llama-3-8b", "--method", "lora", *_DECLARED, "--chip", "Foo 9000")
    assert main(["plan", *words]) == 2
    assert "declare it: --peak-flops" in capsys.readouterr().err
    row = _json(capsys, "plan", *words, "--peak-flops", "1e14", "--memory", "24")
    assert row["peak_flops"] == {"bf16": 1e14}
    assert row["memory_bytes"] == 24 << 30
    assert "peak in bf16 declared by --peak-flops; memory declared by --memory" in row["accelerator_source"]
    assert any("not published by a vendor" in note for note in row["notes"])
    # Its rate needs the bandwidth of its memory; whether a run fits does not.
    assert "Foo 9000" in row["predicted"]["reason"]
    assert row["fit"]["outcome"] == "does not fit"
    assert row["fit"]["change"].startswith("--precision bf16")


def test_a_known_chip_has_what_is_declared_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("predict", "--model", "mistral-7b", "--method", "lora", *_DECLARED, "--chip", "RTX 4090")
    published, declared = _json(capsys, *words), _json(capsys, *words, "--peak-flops", "330.4e12", "--memory", "48")
    assert declared["usable_memory_bytes"] == pytest.approx(2 * published["usable_memory_bytes"])
    assert declared["seconds"]["compute"] < 0.6 * published["seconds"]["compute"]
    assert any("peak of RTX-4090 in bf16 is declared" in words for words in declared["assumptions"])


def test_a_search_takes_declared_memory(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "--model", "llama-3-8b", "--method", "lora", "--device", "RTX 4090", "--size", "1")
    assert main([*words, "--strategy", "auto", "--memory", "48"]) == 0
    assert "44.16 GiB that a rank may use" in capsys.readouterr().out


def test_memory_alone_is_a_limit_which_cannot_be_more_than_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device", "cpu:1", "--memory", "480000"]) == 2
    assert "a limit of 480000 GiB is more than cpu:1 has" in capsys.readouterr().err
    assert main(["plan", "--device", "cpu:1", "--peak-flops", "1e12", "--memory", "1"]) == 2
    assert "--peak-flops has no effect without --chip" in capsys.readouterr().err
