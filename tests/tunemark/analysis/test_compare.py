"""Which runs are held against each other, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # published without types
import msgspec
import pytest

from tunemark.analysis import comparability
from tunemark.analysis.compare import Comparison, compare, compare_by
from tunemark.analysis.environment import environment_facts
from tunemark.errors import BadExperiment
from tunemark.report.comparison import comparison_text
from tunemark.results import Result
from tunemark.results.result import RunIdentity, encode_result

Made = Callable[..., Result]


def _outcomes(found: Comparison) -> dict[str, str]:
    return {row.label: row.outcome for group in found.groups for row in group.rows}


def test_the_key_holds_every_field_of_the_identity_but_those_named() -> None:
    fields = {name.replace("strategy_requested", "strategy") for name in RunIdentity.__struct_fields__}
    assert set(comparability.COMPARED_FIELDS) - fields == {"attention", "data_sha256", "processor"}
    left_out = fields - set(comparability.COMPARED_FIELDS)
    assert left_out == {
        "run_id", "gradient_accumulation", "data_ranks", "flops_per_token", "flops_per_token_full_attention",
        "hardware_flops_per_token", "learnable", "peak_flops", "peak_flops_source", "parts", "memory_bytes", "epochs",
        "steps_requested", "warmup_requested", "budget_s", "target_interval", "window_s", "evaluate", "sample", "save",
        "attention_requested",
    }  # fmt: skip


def test_two_alike_runs_have_a_ratio_and_its_inverse(made_run: Made) -> None:
    a, b = made_run((100.0, 101.0, 99.0)), made_run((120.0, 121.0, 118.0), minute=30)
    forth, back = compare([a], [b]), compare([b], [a])
    (base, row), (_, other) = forth.groups[0].rows, back.groups[0].rows
    assert (base.outcome, row.outcome, other.outcome) == ("baseline", "faster", "slower")
    assert row.ratio is not None
    assert other.ratio is not None
    assert row.ratio.value * other.ratio.value == pytest.approx(1)
    assert (row.ratio.low or 0) * (other.ratio.high or 0) == pytest.approx(1)
    assert row.ratio.method.startswith("Welch")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("micro_batch", 2),
        ("precision", "bf16"),
        ("data_sha256", "cd"),
        ("chip", "other"),
        ("environment", {"host": {"name": "h", "processor": "Q"}}),
        ("environment", {"host": {"name": "elsewhere"}}),
    ],
)
def test_unlike_runs_are_refused_with_the_field_named(made_run: Made, field: str, value: Any) -> None:
    a, b = made_run(), made_run(**{field: value})
    name = "processor" if field == "environment" else field
    with pytest.raises(BadExperiment, match="no two of these runs are alike") as error:
        compare([a], [b])
    assert f"{name} (" in error.value.why
    assert f"--despite {name}" in error.value.next
    overridden = compare([a], [b], despite=[name])
    assert name in overridden.groups[0].despite
    assert f"compared despite {comparability.format_fields(overridden.groups[0].despite)}" in comparison_text(
        overridden
    ).replace("\\", "")


def test_attention_that_fell_back_is_no_other_run_s_attention(made_run: Made) -> None:
    why = "transformers 4.46.3 uses SDPA of newer releases than torch 2.1.0"
    fell_back = made_run(attention="eager", attention_reason=why, minute=9)
    with pytest.raises(BadExperiment) as error:
        compare([made_run(attention="sdpa")], [fell_back])
    assert "attention (the model's own, eager)" in error.value.why
    assert compare([fell_back], [made_run(attention="eager", attention_reason="for another reason", minute=40)]).groups
    # A soft-capped model is eager everywhere, and a run stored before attention was recorded had not fallen back.
    assert compare([made_run()], [made_run(attention="eager", minute=9)]).groups
    # Which interpreter trains may be what is compared.
    assert "attention" in comparability.find_free_fields(["python"], [])


def test_unknown_processors_are_alike_on_one_host_alone(made_run: Made) -> None:
    here, there = ({"host": {"name": name, "processor": ""}} for name in ("h", "i"))
    assert compare([made_run(environment=here)], [made_run(environment=here, minute=9)]).groups
    with pytest.raises(BadExperiment, match="no two"):
        compare([made_run(environment=here)], [made_run(environment=there)])


def test_the_processor_is_of_the_host_that_trained(made_run: Made) -> None:
    def launched(node: str, processor: str) -> Result:
        a = made_run()
        worker = {**a.environment["worker"], "node": node, "processor": processor}
        host = {"name": "login", "processor": "P", "governor": "powersave"}
        return made_run(environment={**a.environment, "host": host, "worker": worker})

    with pytest.raises(BadExperiment, match="no two") as error:
        compare([launched("n1", "Q")], [launched("n2", "R")])
    assert "processor (Q, R)" in error.value.why
    assert environment_facts(launched("n1", "Q"))["host governor"] is None
    assert environment_facts(launched("login", "P"))["host governor"] == "powersave"


def test_simulated_with_measured_is_refused_whatever_the_flags(made_run: Made) -> None:
    a, b = made_run(), made_run(simulated=True)
    with pytest.raises(BadExperiment, match="no two") as error:
        compare([a], [b])
    assert "--despite simulated" not in error.value.next
    with pytest.raises(BadExperiment, match="simulated runs cannot"):
        compare([a], [b], despite=["simulated"])
    with pytest.raises(BadExperiment, match="simulated runs cannot"):
        compare_by([a, b], ["simulated"])
    both = compare([b], [made_run(simulated=True, minute=9)])
    assert "simulated: no figure here says how fast anything is" in both.groups[0].notes
    assert "SIMULATED" in comparison_text(both)


def test_no_difference_is_shown_where_the_interval_holds_one(made_run: Made) -> None:
    found = compare([made_run((100.0, 104.0, 96.0))], [made_run((101.0, 97.0, 103.0), minute=30)])
    assert _outcomes(found) == {"A": "baseline", "B": "no difference shown"}


def test_one_attempt_a_side_is_a_ratio_without_interval(made_run: Made) -> None:
    found = compare([made_run((100.0,))], [made_run((50.0,), minute=9)])
    row = found.groups[0].rows[1]
    assert (row.outcome, row.reason, found.claims) == ("no interval", "none: one attempt", 0)
    assert row.ratio is not None
    assert row.ratio.value == pytest.approx(0.5)
    assert "0.500 (no interval)" in comparison_text(found)


def test_an_invalid_run_takes_no_part_and_is_a_row(made_run: Made) -> None:
    found = compare_by(
        [
            made_run(run_id="a"),
            made_run((500.0, 501.0, 502.0), run_id="b", strategy_requested="ddp", verdict="invalid", minute=1),
            made_run((), run_id="c", strategy_requested="tp", status="oom", requested_bytes=1 << 30),
        ],
        ["strategy"],
    )
    assert _outcomes(found) == {"none": "baseline", "ddp": "takes no part", "tp": "takes no part"}
    assert [row.ratio for row in found.groups[0].rows] == [None, None, None]
    text = comparison_text(found)
    assert "ddp: invalid: made" in text
    assert "tp: oom: no rate of a whole run" in text
    assert "1.000 refused" in text


def test_where_the_baseline_ran_out_of_memory_another_stands_for_it(made_run: Made) -> None:
    found = compare_by(
        [
            made_run((), run_id="a", status="oom"),
            made_run(run_id="b", strategy_requested="fsdp"),
            made_run((50.0, 51.0, 49.0), run_id="c", strategy_requested="tp", minute=1),
        ],
        ["strategy"],
    )
    assert found.groups[0].baseline == "fsdp"
    assert "none would be the baseline and takes no part (oom: no rate of a whole run): fsdp stands for it" in str(
        found.groups[0].notes
    )
    assert _outcomes(found)["tp"] == "slower"


def test_groups_keep_apart_what_differs_in_anything_else(made_run: Made) -> None:
    runs = [
        made_run(run_id=f"{strategy}{size}", strategy_requested=strategy, sequence=size, minute=i)
        for i, (strategy, size) in enumerate([("none", 10), ("ddp", 10), ("none", 20), ("ddp", 20), ("ddp", 30)])
    ]
    found = compare_by(runs, ["strategy"])
    assert [[row.run_id for row in group.rows] for group in found.groups] == [["none10", "ddp10"], ["none20", "ddp20"]]
    (alone,) = found.alone
    assert (alone.run_id, alone.differs) == ("ddp30", {"sequence": (30, 10)})
    assert "ddp (ddp30): none10 comes nearest, but for sequence (30, 10)" in comparison_text(found)


def test_an_axis_frees_what_follows_from_it(made_run: Made) -> None:
    two = {"size": "2", "chips": 2, "processes": 2, "threads": 1}
    found = compare_by([made_run(run_id="b", **two), made_run(run_id="a")], ["size"])
    assert found.groups[0].baseline == "1"
    with pytest.raises(BadExperiment, match="no two") as error:
        compare_by([made_run(), made_run(run_id="b", global_batch=16, **two)], ["size"])
    assert "global_batch (8, 16)" in error.value.why
    with pytest.raises(BadExperiment, match="no two") as error:
        compare([made_run()], [made_run(**two)])
    assert "--by size" in error.value.next


def test_an_axis_that_is_none_or_does_not_vary_is_refused(made_run: Made) -> None:
    runs = [made_run(run_id="a"), made_run(run_id="b", sequence=20)]
    with pytest.raises(BadExperiment, match="no field named 'strateg'") as error:
        compare_by(runs, ["strateg"])
    assert "strategy" in error.value.next
    with pytest.raises(BadExperiment, match="all 2 runs have strategy none") as error:
        compare_by(runs, ["strategy"])
    assert "sequence" in error.value.why
    with pytest.raises(BadExperiment, match="no run has sequence '30'"):
        compare_by(runs, ["sequence"], baseline="30")
    assert compare_by(runs, ["sequence"], baseline="20").groups[0].baseline == "20"
    with pytest.raises(BadExperiment, match="nothing to compare with"):
        compare_by(runs[:1], ["strategy"])


def test_claims_are_held_to_one_level_together(made_run: Made) -> None:
    # Alone, the slow run would be called slower (p about 0.03); beside 19 that do not differ it is not.
    wobble = ((100.0, 102.0, 98.0), (99.0, 101.5, 99.5))
    runs = [made_run(wobble[0], run_id="base")]
    runs += [made_run(wobble[1], run_id=f"r{i}", seed=i, minute=100 * i) for i in range(1, 20)]
    slow = made_run((95.0, 97.0, 93.5), run_id="slow", seed=99, minute=4000)
    alone = compare_by([runs[0], slow], ["seed"])
    among = compare_by([*runs, slow], ["seed"])
    assert _outcomes(alone)["99"] == "slower"
    assert among.claims == 20
    assert _outcomes(among)["99"] == "no difference shown"
    assert "20 ratios are judged together" in comparison_text(among)


def test_what_automatic_parallelization_is_worth(made_run: Made) -> None:
    rates = {"none": 50.0, "tp:2": 80.0, "ddp": 100.0, "fsdp": 125.0, "auto": 120.0}
    runs = [
        made_run((x, 1.01 * x, 0.99 * x), run_id=name, strategy_requested=name, minute=i, every=10)
        for i, (name, x) in enumerate(rates.items())
    ]
    (group,) = compare_by(runs, ["strategy"]).groups
    over = {gain.over: gain for gain in group.worth}
    assert {name: gain.against for name, gain in over.items()} == {
        "none": ("none",),
        "the best manual layout": ("fsdp",),
        "the median of 3 manual layouts": ("ddp",),
        "the best of all 4 others": ("fsdp",),
    }
    values = [gain.ratio.value for gain in group.worth if gain.ratio]
    assert values == pytest.approx([120 / 50, 120 / 125, 120 / 100, 120 / 125])
    assert all(gain.ratio and gain.ratio.method.startswith("paired") for gain in group.worth)
    regret = group.worth[-1].regret
    assert regret is not None
    # Taken in rounds with the same relative noise, the ratio is the same in each: no width.
    assert (regret.low, regret.value, regret.high) == pytest.approx((0.04, 0.04, 0.04), abs=1e-9)
    text = comparison_text(compare_by(runs, ["strategy"]))
    assert "| the best of all 4 others | fsdp | 0.9600 (0.9600 to 0.9600) | 4.0 (4.0 to 4.0) | - | slower |" in text

    # 30 s of searching: 180 s of training by ddp at 100 tokens/s are 18,000 tokens, 150 s by auto at 120.
    searched = [*runs[:-1], msgspec.structs.replace(runs[-1], search_s=30.0)]
    gains = compare_by(searched, ["strategy"]).groups[0].worth
    assert [gain.paid_back_s for gain in gains] == [pytest.approx(30 / (1 - 50 / 120)), None, pytest.approx(180), None]

    even = compare_by([runs[0], runs[1], runs[3], runs[4]], ["strategy"]).groups[0].worth[2]
    assert even.against == ("tp:2", "fsdp")
    assert even.ratio is not None
    # The median of an even number, between logarithms: the geometric mean of the middle two.
    assert even.ratio.value == pytest.approx(120 / (80 * 125) ** 0.5)


def test_each_search_has_its_worth(made_run: Made) -> None:
    rates = {"none": 50.0, "ddp": 100.0, "auto": 90.0, "auto:trials=0": 80.0}
    runs = [made_run((x, 1.01 * x), run_id=name, strategy_requested=name) for name, x in rates.items()]
    found = compare_by(runs, ["strategy"])
    gains = {(gain.auto, gain.over): gain.ratio.value for gain in found.groups[0].worth if gain.ratio}
    assert gains["auto", "none"] == pytest.approx(1.8)
    assert gains["auto:trials=0", "the best of all 3 others"] == pytest.approx(0.8)
    text = comparison_text(found)
    assert "| auto over |" in text
    assert "| auto:trials=0 over |" in text


def test_the_worth_says_what_there_is_no_ratio_to(made_run: Made) -> None:
    runs = [
        made_run((), run_id="none", status="oom"),
        made_run((), run_id="ddp", strategy_requested="ddp", status="oom"),
        made_run(run_id="auto", strategy_requested="auto:trials=2"),
    ]
    worth = compare_by(runs, ["strategy"]).groups[0].worth
    assert [gain.ratio for gain in worth] == [None] * 4
    assert worth[0].reason == "none oom: no rate of a whole run"
    assert worth[1].reason == "no manual layout has a rate: ddp oom: no rate of a whole run"


def test_several_alike_runs_on_a_side_are_no_guess(made_run: Made) -> None:
    with pytest.raises(BadExperiment, match="A has several runs that are alike") as error:
        compare([made_run(run_id="a"), made_run(run_id="b", minute=9)], [made_run()])
    assert "A:b" in error.value.next


def test_names_cannot_break_the_table(made_run: Made) -> None:
    runs = [made_run(run_id="a"), made_run(run_id="b", strategy_requested="x|y<script>\n# z", minute=1)]
    text = comparison_text(compare_by(runs, ["strategy"]))
    assert "x\\|y\\<script\\> # z" in text
    assert "<script>" not in text.replace("\\<script\\>", "")


def test_what_is_not_in_the_key_is_said(made_run: Made) -> None:
    a = made_run()
    worker = {**a.environment["worker"], "torch": "2.12.0"}
    b = made_run(minute=9, environment={**a.environment, "worker": worker})
    found = compare([a], [b])
    assert found.groups[0].surroundings == {"torch": ("2.13.0", "2.12.0")}
    assert "also different: torch (2.13.0, 2.12.0)" in comparison_text(found)


def test_many_runs_are_grouped_and_few_of_those_alone_are_listed(made_run: Made) -> None:
    runs = [
        made_run(run_id=str(i), seed=i // 2, strategy_requested=("none", "ddp")[i % 2], minute=10 * i)
        for i in range(600)
    ]
    found = compare_by([*runs, *(made_run(run_id=f"x{i}", seed=10**6 + i) for i in range(100))], ["strategy"])
    assert (len(found.groups), found.claims, len(found.alone)) == (300, 300, 20)
    assert found.notes == ("80 more runs have no counterpart and are not listed",)


def test_the_command_takes_stores_reports_and_single_runs(
    made_run: Made, command: Callable[..., Any], tmp_path: Path
) -> None:
    def folder(name: str, *results: Result) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "runs.jsonl").write_text("".join(encode_result(result) + "\n" for result in results))

    none = made_run(run_id="aaaa1")
    ddp = made_run((150.0, 151.0, 149.0), run_id="bbbb2", strategy_requested="ddp", minute=1)
    folder("runs", none, ddp)
    folder("later", made_run((50.0, 51.0, 49.0), run_id="aaaa1", minute=30))
    folder("failed", made_run((), run_id="cccc3", status="oom"), made_run((), run_id="d", seed=1, status="error"))
    (tmp_path / "empty").mkdir()

    done = command("compare", "runs", "--by", "strategy", "--json")
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    assert [row["outcome"] for row in group["rows"]] == ["baseline", "faster"]
    done = command("compare", "runs", "later")
    assert done.returncode == 0, done.stderr
    # The error is sqrt((0.01^2 + 0.02^2) / 3) = 0.0129, with 25 / 8.5 = 2.94 degrees of freedom t is 3.22.
    assert "| later | 50.0 ± 2.5 | 3 | 0.500 (0.480 to 0.521) | slower |" in done.stdout
    assert "ddp (bbbb2)" not in done.stdout
    assert "runs (bbbb2): later:aaaa1 comes nearest, but for strategy (ddp, none)" in done.stdout
    done = command("compare", "aaaa", "later:aaaa")
    assert "slower" in done.stdout
    # Of another version's lines what is there is read, and what is no result is said.
    other = {**json.loads(encode_result(none)), "schema": 9, "colour": "red"}
    (tmp_path / "later/runs.jsonl").write_text("no result\n" + json.dumps(other) + "\n")
    done = command("compare", "runs:aaaa", "later")
    assert "later is unknown: other-schema" in done.stdout
    assert (done.returncode, "line 1 is not a result" in done.stderr) == (3, True)
    done = command("compare", "failed", "--by", "seed")
    assert (done.returncode, "takes no part" in done.stdout) == (4, True)
    for words, reason in {
        ("empty", "runs"): "holds no runs",
        ("nowhere", "runs"): "there is no folder nowhere",
        ("runs:zzzz", "runs"): "holds no run zzzz",
        ("runs",): "1 folders to compare",
        ("runs", "--by", "sequence"): "all 2 runs have sequence 10",
        ("runs", "later", "--despite", "colour"): "no field named 'colour'",
        ("aaaa1", "bbbb2"): "`--by strategy` compares",
        ("runs/runs.jsonl.txt", "later"): "there is no folder",
    }.items():
        done = command("compare", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def test_what_is_printed_keeps_to_its_published_schema(
    made_run: Made, command: Callable[..., Any], tmp_path: Path
) -> None:
    for name, result in (("a", made_run()), ("b", made_run((50.0, 51.0, 49.0), minute=9))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "runs.jsonl").write_text(encode_result(result) + "\n")
    for what, words in {
        "comparison": ("compare", "a", "b"), "gate": ("gate", "--baseline", "a", "b"), "why": ("why", "a", "b")
    }.items():  # fmt: skip
        schema, printed = command("schema", what), command(*words, "--json")
        assert printed.stdout, printed.stderr
        jsonschema.validate(json.loads(printed.stdout), json.loads(schema.stdout))
