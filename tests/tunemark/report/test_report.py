"""What a reader sees: digits, names that cannot break a table, lines, files and exit codes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunemark.cli import report as report_command
from tunemark.cli import schema as schema_command
from tunemark.errors import BadStore
from tunemark.exit_codes import exit_code_of_results
from tunemark.loading import is_result_file, load_report, load_result_file
from tunemark.markdown import escape
from tunemark.plugin import Catalog, Finding
from tunemark.report import make_report, runs_table, verdict_line, verdict_lines, write_report
from tunemark.report.estimate_format import format_estimate, round_to_interval
from tunemark.report.verification import verify_folder
from tunemark.results import Estimate, Result
from tunemark.results.mfu import share_measured_peaks
from tunemark.results.report_seal import seal_report
from tunemark.results.result import AttemptRow


def rate(value: float, half: float | None = 0.0, n: int = 3) -> Estimate:
    low, high = (None, None) if half is None else (value - half, value + half)
    return Estimate(value=value, low=low, high=high, n=n, method="between-attempt")


def result(**changes: Any) -> Result:
    """A healthy run of three attempts."""
    text: dict[str, Any] = {f.name: None for f in msgspec.structs.fields(Result) if f.required}
    row = AttemptRow(
        name="a", status="ok", reason="steps", evidence="", tokens_per_s=1234.4, steps_measured=9, warmup_steps=1,
        interval_s=9.0,
    )  # fmt: skip
    text.update(
        run_id="ab", model="mistral-tiny", dataset="d", device="cpu", size="2", strategy_requested="none",
        method="full", precision="fp32", batching="pad", sequence=32, micro_batch=2, global_batch=2,
        gradient_accumulation=1, train_on="all", weights="random", optimizer="adamw", learning_rate=1e-4,
        schedule="constant", clip_norm=1.0, seed=0, breakdown=False, budget_s=60.0, target_interval=0.02, window_s=1.0,
        chip="c", chips=1, oversubscribed=False, learnable=True, simulated=False, processes=1, threads=2, data_ranks=1,
        parameters=5, trainable_parameters=5, flops_per_token=30.0, flops_per_token_full_attention=31.0,
        status="ok", verdict="valid", findings=(), attempts=3, each_attempt=(row,) * 3, steps_measured=27,
        tokens_per_s=rate(1234.4, 14.8), slot_tokens_per_s=rate(1261.0, 15.0), trained_tokens_per_s=rate(1230.0, 15.0),
        padding_fraction=0.021, mfu=0.31, peak_flops=1261.0 * 30 / 0.31, peak_flops_source="measured",
        setup_s={"start": 1.0}, data_sha256="ff", environment={}, schema=1, interval_s=27.0,
    )  # fmt: skip
    return Result(**{**text, **changes})


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (389903.6471, 2123.0, "389,900 ± 2,100"),
        (1234.4, 14.8, "1,234 ± 15"),
        (0.123456, 0.00123, "0.1235 ± 0.0012"),
        (472.4, 188.9, "472 (284 to 661)"),
        (1234.4, None, "1,234 (no interval)"),
        (0.0, None, "0 (no interval)"),
    ],
)
def test_digits_are_those_the_interval_supports(value: float, half: float | None, shown: str) -> None:
    assert format_estimate(rate(value, half)) == shown


def test_runs_of_one_accelerator_share_the_highest_peak_that_was_measured() -> None:
    low = result(run_id="a", mfu=0.8, hfu=0.9, peak_flops=1e12, peak_flops_source="measured")
    high = result(run_id="b", mfu=0.3, peak_flops=2e12, peak_flops_source="measured")
    other = result(run_id="c", mfu=0.5, peak_flops=1e12, peak_flops_source="measured", precision="bf16")
    published = result(run_id="d", mfu=0.5, peak_flops=5e11, peak_flops_source="a data sheet")
    shared = share_measured_peaks([low, high, other, published])
    assert [(r.mfu, r.peak_flops) for r in shared] == [(0.4, 2e12), (0.3, 2e12), (0.5, 1e12), (0.5, 5e11)]
    assert shared[0].hfu == 0.45
    assert [[f.rule for f in r.findings] for r in shared] == [["peaks-vary"], ["peaks-vary"], [], []]
    assert share_measured_peaks(shared) == shared, "applied twice it changes nothing"


def test_a_headline_compares_like_with_like_and_names_ties() -> None:
    def run(run_id: str, strategy: str, rates: tuple[float, ...], **changes: Any) -> Result:
        row = result().each_attempt[0]
        rows = tuple(msgspec.structs.replace(row, name=f"{run_id}{i}", tokens_per_s=r) for i, r in enumerate(rates))
        mean = rate(sum(rates) / len(rates), 10.0)
        changes |= {"run_id": run_id, "strategy_requested": strategy, "each_attempt": rows, "tokens_per_s": mean}
        return result(**changes)

    runs = [
        run("a", "none", (100.0, 102.0, 98.0)),
        run("b", "ddp", (101.0, 103.0, 99.0)),
        run("c", "fsdp", (70.0, 70.1, 69.9)),
        run("d", "tp", (90.0, 90.1, 89.9), sequence=64),
    ]
    (said,) = make_report(runs).headlines
    assert "in the fastest of 3 runs" in said.text
    assert "ddp" in said.text
    tied = said.detail.partition("No difference from it is shown for: ")[2].partition(".")[0]
    assert "none" in tied
    assert "fsdp" not in tied
    assert "because other settings differ: 1." in said.detail


def test_a_headline_and_a_table_agree_on_what_is_no_difference() -> None:
    def run(run_id: str, strategy: str, rates: tuple[float, ...]) -> Result:
        row = result().each_attempt[0]
        rows = tuple(msgspec.structs.replace(row, name=f"{run_id}{i}", tokens_per_s=r) for i, r in enumerate(rates))
        mean = rate(sum(rates) / len(rates), 10.0)
        return result(run_id=run_id, strategy_requested=strategy, each_attempt=rows, tokens_per_s=mean)

    # By itself p = 0.02, which four ratios judged together do not show.
    runs = [
        run("a", "none", (95.0, 97.0, 93.0)),
        run("b", "auto", (103.0, 101.0, 99.0)),
        run("c", "fsdp", (95.5, 97.0, 93.5)),
        run("d", "ddp", (70.0, 70.1, 69.9)),
    ]
    report = make_report(runs)
    (table,) = [t for section in report.sections for t in section.tables if t.key == "strategies"]
    outcomes = {row[1]: row for row in table.rows}
    assert "no difference shown" in outcomes["auto"]
    assert "slower" in outcomes["ddp"]
    tied = report.headlines[0].detail.partition("No difference from it is shown for: ")[2].partition(".")[0]
    assert "none" in tied
    assert "fsdp" in tied
    assert "ddp" not in tied


def test_a_chart_of_strategies_is_drawn_only_where_it_shows_more_than_that_of_all_runs() -> None:
    runs = [result(run_id=f"r{n}", strategy_requested=name) for n, name in enumerate(("none", "ddp", "fsdp"))]
    other = result(run_id="r9", batching="pack")

    def drawn(results: list[Result]) -> set[str]:
        return {chart.key for chart in make_report(results).charts} & {"throughput", "strategies"}

    assert drawn(runs) == {"throughput"}
    assert drawn([*runs, other]) == {"throughput", "strategies"}


def test_an_interval_of_no_width_is_shown() -> None:
    assert round_to_interval(rate(12.5, 0.0)) == ("12.5000", "0")


def test_names_cannot_break_a_table() -> None:
    assert escape("a|b\n<i>*_[x](y)`") == r"a\|b \<i\>\*\_\[x\](y)\`"
    table = runs_table([result(model="a|b\nc"), result(model="d")])
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert rows[1].startswith(r"| a\|b c |")
    assert len(rows) == 3


def test_a_verdict_is_one_line() -> None:
    assert verdict_line(result()) == (
        "mistral-tiny cpu:2 none: 1,234 ± 1.2 % tokens/s (content, 3 attempts), padding 2.1 %, "
        "MFU 31.0 % of measured peak, VALID"
    )


def test_runs_whose_usual_names_are_alike_are_named_by_what_differs() -> None:
    full, lora = verdict_lines([result(), result(run_id="b" * 16, method="lora")])
    assert (full.split(": ")[0], lora.split(": ")[0]) == (
        "mistral-tiny cpu:2 none · method full",
        "mistral-tiny cpu:2 none · method lora",
    )
    other = verdict_lines([result(), result(run_id="b" * 16, strategy_requested="ddp")])
    assert [line.split(": ")[0] for line in other] == ["mistral-tiny cpu:2 none", "mistral-tiny cpu:2 ddp"]


def test_a_failed_run_says_what_is_unknown_and_why() -> None:
    found = Finding(rule="unfinished", severity="unknown", message="oom, ended by oom: out of memory")
    failed = result(
        status="oom", verdict="unknown", tokens_per_s=None, padding_fraction=None, mfu=None, attempts=1,
        findings=(found,),
    )  # fmt: skip
    assert verdict_line(failed).splitlines() == [
        "mistral-tiny cpu:2 none: tokens/s unknown, oom, UNKNOWN",
        "  unknown: unfinished: oom, ended by oom: out of memory",
    ]
    assert "| - |" in runs_table([failed])


def test_rates_that_differ_are_columns_and_others_are_not() -> None:
    header = next(line for line in runs_table([result()]).splitlines() if line.startswith("| model"))
    assert "tokens/s (slots)" in header
    assert "tokens/s (trained)" not in header


def test_what_all_runs_share_stands_above() -> None:
    lines = runs_table([result(batching="pad"), result(batching="pack")]).splitlines()
    assert lines[0].startswith("model mistral-tiny; dataset d; device cpu:2")
    assert lines[2].startswith("| batching | tokens/s (content) |")
    assert "Not timed" in "\n".join(lines)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([("ok", "valid"), ("ok", "suspect")], 0),
        ([("ok", "unknown")], 3),
        ([("ok", "unknown"), ("ok", "invalid")], 1),
        ([("ok", "invalid"), ("killed", "unknown")], 4),
        ([("ok", "valid"), ("oom", "unknown")], 0),
        ([("oom", "unknown")], 4),
        ([("oom", "unknown"), ("error", "unknown")], 4),
    ],
)
def test_exit_codes_are_by_the_worst(rows: list[tuple[str, str]], code: int) -> None:
    assert exit_code_of_results([result(status=status, verdict=verdict) for status, verdict in rows]) == code


def test_a_table_of_other_than_usual_settings_has_their_columns() -> None:
    lines = runs_table([result(trainer="tunemark", loss="chunked"), result(trainer="hf", loss="chunked")]).splitlines()
    header, _, first, second = (line for line in lines if line.startswith("|"))
    assert "| trainer |" in header
    assert first.startswith("| tunemark |")
    assert second.startswith("| hf |")
    assert "loss chunked" in lines[0]
    assert "trainer" not in "".join(runs_table([result(), result(batching="pad")]))


def test_tables_have_a_cell_for_each_column() -> None:
    report = make_report([result(), result(run_id="cd", breakdown_s={"data": 0.1})])
    assert all(len(row) == len(table.columns) for table in report.tables for row in table.rows)
    assert all(len(table.rows) == 2 for table in report.tables if table.per_run)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    results = [result(), result(run_id="cd")]
    files = write_report(results, tmp_path / "out", Catalog())
    top = ["report.csv", "report.html", "report.md", "runs.jsonl"]
    assert {path.name for path in files if path.parent == tmp_path / "out"} == set(top)
    assert load_report(tmp_path / "out") == results
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*top, "charts", "report.json"])


@pytest.mark.parametrize("line", ["{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_a_corrupt_line_is_named(tmp_path: Path, line: str) -> None:
    write_report([result()], tmp_path, Catalog())
    with open(tmp_path / "runs.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(BadStore, match="line 2"):
        load_report(tmp_path)


def execute(*words: str) -> int:
    parser = argparse.ArgumentParser()
    report_command.add_arguments(parser)
    return report_command.execute(parser.parse_args(words))


def test_report_takes_former_reports_and_counts_a_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report([result()], tmp_path / "a", Catalog())
    assert execute(str(tmp_path / "a"), str(tmp_path / "a"), "--json", "-o", str(tmp_path / "b")) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["run_id"] == "ab"
    assert load_report(tmp_path / "b") == [result()]


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadStore, match="there is no folder"):
        execute(str(tmp_path / "none"))


def test_an_empty_store_is_a_page_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert execute(str(tmp_path / "store"), "-o", str(tmp_path / "x")) == 3
    assert "There is no run here" in (tmp_path / "x/report.html").read_text()


@pytest.mark.parametrize("what", ["result", "experiment", "scaling"])
def test_schema_prints_json(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert schema_command.execute(argparse.Namespace(what=what)) == 0
    assert "$schema" in json.loads(capsys.readouterr().out)


def test_every_field_of_a_result_is_described_once() -> None:
    names = [column.name for table in make_report([result()]).tables if table.per_run for column in table.columns]
    known = {
        *Result.__struct_fields__,
        "accelerator",
        "step_time_p50_s",
        "step_time_p95_s",
        "setup_start_s",
        "energy_reason",
        "tokens_slots",
        "tokens_content",
        "tokens_trained",
        "held_out_documents",
        "held_out_loss_before",
        "held_out_loss_after",
    }
    assert set(names) <= known
    assert msgspec.json.decode(msgspec.json.encode(result()), type=Result) == result()


def test_a_report_is_written_over_nothing_but_what_a_report_wrote(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "charts").mkdir(parents=True)
    (out / "charts" / "mine.svg").write_text("mine")
    (out / "notes.txt").write_text("mine")
    write_report([result(), result(run_id="cd", size="4")], out, Catalog())
    assert verify_folder(out)[0].state == "whole"
    before = {path for path in out.rglob("*") if path.is_file()}
    # Again, with fewer charts: those that are no longer made go, the user's stay.
    write_report([result()], out, Catalog())
    assert before - {path for path in out.rglob("*") if path.is_file()} != set()
    assert (out / "charts" / "mine.svg").read_text() == (out / "notes.txt").read_text() == "mine"
    (out / "report.md").write_text("with my remarks")
    with pytest.raises(BadStore, match=r"report\.md is not overwritten"):
        write_report([result()], out, Catalog())
    assert (out / "report.md").read_text() == "with my remarks"
    assert verify_folder(out)[0].problems == ("report.md has changed",)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "runs.jsonl.bak").write_text("")
    (tmp_path / "other" / "report.csv").write_text("mine")
    with pytest.raises(BadStore, match="no report wrote it"):
        write_report([result()], tmp_path / "other", Catalog())
    assert (tmp_path / "other" / "report.csv").read_text() == "mine"


def test_a_report_neither_writes_nor_deletes_behind_a_link(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (other / "a.csv").write_text("mine")
    (out / "more").symlink_to(other)
    # Of a stranger, who knows the file.
    (out / "report.json").write_bytes(seal_report({"more/a.csv": b"mine"}))
    write_report([result()], out, Catalog())
    assert (other / "a.csv").exists()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "charts").symlink_to(other)
    with pytest.raises(BadStore, match="charts is a link to another folder"):
        write_report([result(), result(run_id="cd", size="4")], tmp_path / "linked", Catalog())
    assert [path.name for path in other.iterdir()] == ["a.csv"]


def test_a_rate_that_nothing_confirms_is_unknown(tmp_path: Path) -> None:
    bare = {"tokens": None, "interval_s": None, "each_attempt": []}
    (tmp_path / "runs.jsonl").write_text(json.dumps(msgspec.to_builtins(result()) | bare))
    (read,) = load_report(tmp_path)
    assert ([f.rule for f in read.findings], read.verdict) == (["row-unconfirmed"], "unknown")


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_per_s": rate(5 * 1234.4)},
        {"slot_tokens_per_s": rate(2 * 1261.0)},
        {"mfu": 0.5},
        {"tokens_per_s_per_chip": 99.0},
        {"micro_batch": 32},
        {"tokens": {"slots": 64 * 27 * 2, "content": 1700, "trained": 1690}},
    ],
)
def test_a_row_whose_figures_contradict_each_other_is_invalid(tmp_path: Path, changes: dict[str, Any]) -> None:
    tokens = {"slots": 64 * 27, "content": 1692, "trained": 1686}
    good = msgspec.to_builtins(result(tokens=tokens, interval_s=1692 / 1234.4))
    lines = [json.dumps({**good, **msgspec.to_builtins(change)}) for change in ({}, {"run_id": "cd", **changes})]
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    first, second = load_report(tmp_path)
    assert [f.rule for f in first.findings] == []
    assert (second.verdict, [f.rule for f in second.findings]) == ("invalid", ["row-disagrees"])
    # So is a copy of the file without its report.
    copy = tmp_path / "copied.txt"
    copy.write_bytes((tmp_path / "runs.jsonl").read_bytes())
    assert is_result_file(copy)
    assert [each.verdict for each in load_result_file(copy)] == [first.verdict, second.verdict]
    copy.write_text('{"loss": 1.2, "tokens_per_s": 99.0}\n')
    assert not is_result_file(copy)
