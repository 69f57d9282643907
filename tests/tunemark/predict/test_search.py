"""The search for a layout: what is a candidate, what fits, which are tried, and what is said where nothing fits."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from tunemark.cli.main import main
from tunemark.errors import BadData, BadExperiment
from tunemark.experiment import make_experiment, make_grid_points, make_plan
from tunemark.physics import make_architecture
from tunemark.plugin import Catalog, DrivesChips, Strategy, StrategyLayout
from tunemark.predict import DeviceFacts, Workload
from tunemark.predict.candidates import CandidateSpace, enumerate_candidates
from tunemark.predict.layout_choice import complete_log, make_infeasible_error, make_plan_of_option, predict_candidates
from tunemark.predict.search import (
    HardwareModel,
    find_micro_batch_neighbours,
    make_option,
    search_layouts,
    select_trials,
)
from tunemark.predict.search_problem import find_searchable_strategies, find_smallest_size, make_search_problem
from tunemark.report.search_tables import explain_choice, search_text
from tunemark.report.translation import make_translator

_MODEL = make_architecture(
    layers=32, hidden=4096, intermediate=14336, is_gated=True, heads=32, kv_heads=8, vocab=32000, sequence=2048
)
_CHIP = DeviceFacts(
    name="a chip", kind="chip", peak_flops={"bf16": 1e15}, memory_bytes=80e9, bandwidth_bytes_per_s=3e12, node=8,
    intra_bytes_per_s=400e9, inter_bytes_per_s=50e9,
)  # fmt: skip
_WORK = Workload(architecture=_MODEL, sequence=2048, global_batch=64)
_SPACE = CandidateSpace(
    ranks=8, strategies=tuple(find_searchable_strategies(Catalog(), "cuda").values()), global_batch=64
)
_HARDWARE = HardwareModel(facts=_CHIP, memory_bytes=70e9)


def _search(space=_SPACE, hardware=_HARDWARE, work=_WORK, refusal=lambda candidate: None):
    return search_layouts(work, space, hardware, refusal=refusal, requested={"strategy": "auto"})


@pytest.fixture(scope="module")
def catalog():
    return Catalog()


def _plan(catalog, **flags):
    (point,) = make_grid_points(
        make_experiment({"device": "cpu:2", "strategy": "auto", "oversubscribe": True, **flags})
    )
    return make_plan(point, catalog)


def test_every_candidate_uses_all_ranks_and_the_whole_batch():
    found = list(enumerate_candidates(_SPACE))
    assert {math.prod(axis.degree for axis in c.axes) for c in found} == {8}
    assert {c.layout.data * c.micro_batch * c.gradient_accumulation for c in found} == {64}
    assert len({(c.strategy, c.micro_batch, c.checkpointing) for c in found}) == len(found)


def test_candidates_are_spelled_as_a_person_writes_the_same_run(catalog):
    for candidate in enumerate_candidates(
        replace(_SPACE, ranks=4, global_batch=16, micro_batches=(1,), checkpointings=("none",))
    ):
        flags = {"device": "cpu:4", "model": "llama-2-7b", "dataset": "synthetic", "strategy": candidate.strategy,
                 "micro_batch": 1, "global_batch": 16}  # fmt: skip
        try:
            plan = _plan(catalog, **flags)
        except BadExperiment:
            assert "tp" in candidate.names or "pp" in candidate.names
            continue
        assert (plan.spec.strategy, plan.axes) == (candidate.strategy, candidate.axes)
        assert plan.gradient_accumulation == candidate.gradient_accumulation


@pytest.fixture(scope="module")
def found():
    return _search()


def test_what_does_not_fit_is_counted_and_the_nearest_of_each_kind_is_shown(found):
    # 7.2e9 parameters x 16 bytes are 116 GB, so that no whole copy fits; an eighth of it does.
    log = found.log
    assert log.rejected["ddp: more memory than a rank has"] > 0
    assert log.candidates - log.fitting == sum(log.rejected.values())
    (ddp,) = [option for option in log.options if option.strategy == "ddp"]
    assert (ddp.outcome, ddp.predicted_tokens_per_s) == ("does not fit", None)
    assert 116e9 < ddp.memory_bytes < 150e9


def test_the_ranking_is_by_predicted_rate(found):
    rates = [each.rate for each in found.ranked]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]


def test_what_a_strategy_refuses_is_no_possibility():
    log = _search(refusal=lambda c: "tp:2 cannot be: because" if "tp" in c.names else None).log
    assert all("tp" not in option.strategy for option in log.options)
    assert log.candidates - log.possible == log.rejected["tp:N cannot be"]


def test_trials_go_to_the_best_and_then_to_other_kinds(found):
    ranked = found.ranked
    chosen = select_trials(ranked, 3)
    assert chosen[0] is ranked[0]
    assert len({each.candidate.names for each in chosen}) == 3
    assert select_trials(ranked, 0) == []


def test_the_neighbours_of_a_layout_differ_in_the_next_micro_batch_alone(found):
    wanted = ("fsdp", "full", 2)
    best = next(
        e for e in found.ranked if (e.candidate.strategy, e.candidate.checkpointing, e.candidate.micro_batch) == wanted
    )
    near = find_micro_batch_neighbours(found.ranked, best)
    assert {each.candidate.micro_batch for each in near} == {1, 4}
    assert {(each.candidate.strategy, each.candidate.checkpointing) for each in near} == {
        (best.candidate.strategy, best.candidate.checkpointing)
    }


def test_a_kind_that_cannot_be_faster_by_its_bounds_is_not_tried():
    found = _search(hardware=replace(_HARDWARE, facts=replace(_CHIP, residual=1e-6)))
    chosen = select_trials(found.ranked, 3)
    assert [each.rate for each in chosen] == [each.rate for each in found.ranked[:3]]


def test_given_settings_are_kept_and_name_the_run(catalog):
    plan = _plan(catalog, micro_batch=2, global_batch=8, trials=1)
    assert plan.spec.strategy == "auto:micro_batch=2:trials=1"
    assert plan.free == ("checkpointing",)
    found = predict_candidates(plan, make_search_problem(plan, catalog))
    assert {each.candidate.micro_batch for each in found.ranked} == {2}
    assert len({each.candidate.checkpointing for each in found.ranked}) == 3
    again = _plan(catalog, strategy="auto:micro_batch=2:trials=1", global_batch=8)
    assert again.run_id == plan.run_id


def test_the_chosen_plan_is_the_run_that_a_person_would_ask_for(catalog):
    plan = _plan(catalog, global_batch=8)
    found = predict_candidates(plan, make_search_problem(plan, catalog))
    option = next(o for o in found.log.options if o.strategy == "fsdp")
    chosen = make_plan_of_option(plan, option, catalog)
    by_hand = _plan(catalog, strategy="fsdp", micro_batch=option.micro_batch, global_batch=8,
                    checkpointing=option.checkpointing)  # fmt: skip
    assert (chosen.axes, chosen.launch, chosen.gradient_accumulation) == (
        by_hand.axes, by_hand.launch, by_hand.gradient_accumulation)  # fmt: skip
    assert (chosen.run_id, chosen.spec.strategy) == (plan.run_id, "auto")


def test_one_process_with_all_cores_is_a_candidate_on_a_cpu(catalog):
    plan = _plan(catalog)
    assert "none" in {
        each.candidate.strategy for each in predict_candidates(plan, make_search_problem(plan, catalog)).ranked
    }


def test_an_infeasible_goal_is_answered_with_the_smallest_size(catalog):
    plan = _plan(catalog, model="mistral-7b", dataset="synthetic", global_batch=64)
    asked = replace(
        make_search_problem(plan, catalog), hardware=replace(_HARDWARE, memory_bytes=30e9), batch_follows=False
    )
    found = _search(space=replace(_SPACE, ranks=2), hardware=replace(_HARDWARE, memory_bytes=30e9))
    assert found.ranked == ()
    size = find_smallest_size(asked)
    # The states alone are 16 bytes of each parameter in 30 GB a rank: four ranks hold them, with little to spare.
    assert size in (4, 5, 6, 8)
    assert str(make_infeasible_error("it", found, asked)).count(f"smallest size that would fit is {size}") == 1


def test_the_fastest_trial_is_chosen_and_a_failed_one_says_why(found):
    options = [make_option(each, "tried") for each in found.ranked[:3]]
    tried = {
        0: replace(options[0], tried_tokens_per_s=90.0),
        1: replace(options[1], outcome="failed", reason="oom: no memory"),
        2: replace(options[2], tried_tokens_per_s=100.0),
    }
    log = complete_log(found, tried, 12.0)
    assert log.chosen_option is not None
    assert (log.chosen_option.strategy, log.chosen_option.tried_tokens_per_s) == (options[2].strategy, 100.0)
    assert {(o.outcome, o.reason) for o in log.options if o.outcome == "failed"} == {("failed", "oom: no memory")}
    assert (log.trials, log.search_s) == (3, 12.0 + log.prediction_s)


def test_where_every_trial_fails_the_smallest_is_run(found):
    ranked = sorted(range(40), key=lambda n: found.ranked[n].prediction.bytes.total)
    tried = {n: replace(make_option(found.ranked[n]), outcome="failed") for n in (ranked[0], ranked[-1])}
    log = complete_log(found, tried, 1.0)
    assert log.chosen_option is not None
    assert log.chosen_option.memory_bytes == pytest.approx(found.ranked[ranked[0]].prediction.bytes.total)


def test_without_trials_the_simplest_of_the_best_predictions_is_chosen(found):
    others = found.ranked[1:]
    simple = next(e for e in others if len(e.candidate.axes) == 1 and "pp" not in e.candidate.names)
    product = next(e for e in found.ranked if len(e.candidate.axes) == 2)
    tokens = product.prediction.tokens_per_step

    def as_fast(each, share):
        seconds = replace(simple.prediction.seconds, compute=1.0, communication=0, bubble=0, optimizer=0, data=0)
        prediction = replace(each.prediction, seconds=replace(seconds, compute=1 / share), tokens_per_step=tokens)
        return replace(each, prediction=prediction)

    near = replace(found, ranked=(as_fast(product, 1.0), as_fast(simple, 0.985)))
    far = replace(found, ranked=(as_fast(product, 1.0), as_fast(simple, 0.97)))
    assert complete_log(near, {}, 0.0).chosen_option.strategy == simple.candidate.strategy
    assert "so the simpler one is chosen" in explain_choice(complete_log(near, {}, 0.0))
    assert complete_log(far, {}, 0.0).chosen_option.strategy == product.candidate.strategy


def test_a_report_shows_the_search_in_both_languages(found):
    log = complete_log(found, {0: replace(make_option(found.ranked[0]), tried_tokens_per_s=90.0)}, 3.0)
    text = search_text(log, "a title")
    assert f"{log.candidates:,} layouts of 8 ranks" in text
    assert "does not fit" in text
    outcomes = {option.outcome for option in log.options}
    assert {"chosen", "predicted", "does not fit"} <= outcomes
    assert all(make_translator("ko")(outcome) for outcome in (*outcomes, "tried", "failed"))


def test_the_reason_names_what_the_next_best_does_more_and_less_of(found):
    one, other = make_option(found.ranked[0], "chosen"), make_option(found.ranked[-1])
    one = replace(one, strategy="fsdp", seconds={"compute": 1.0, "communication": 0.25})
    other = replace(other, strategy="tp", seconds={"compute": 0.9, "communication": 0.4})
    text = explain_choice(replace(found.log, options=(one, other)))
    # 1.3 s over 1.25 s.
    assert text.endswith(
        "its step of 1.25 s is compute 80 %, communication 20 %; tp is predicted to take 4.0 % longer: "
        "0.15 s more communication, 0.100 s less compute"
    )


def test_plan_answers_for_machines_that_are_not_here(capsys):
    code = main(["plan", "--strategy", "auto", "--device", "H100", "--size", "1,8", "--model", "mistral-7b"])
    shown = capsys.readouterr()
    # One of the two sizes fits, and the other says from which size on.
    assert code == 0
    assert "the smallest size that would fit is" in shown.out + shown.err
    assert "mistral-7b on 8 x H100" in shown.out


def test_a_package_of_two_dies_is_two_ranks(capsys):
    words = "plan --strategy auto --device MI250 --size 4 --model mistral-7b --global-batch 16 --json"
    assert main(words.split()) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["size"], row["ranks"], row["search"]["ranks"]) == (4, 8, 8)
    assert row["slot_tokens_per_s_low"] < row["slot_tokens_per_s"] < row["slot_tokens_per_s_high"]
    assert row["memory_bytes"] <= row["search"]["memory_bytes"]


def test_the_smallest_size_counts_packages(capsys):
    # 16 bytes of 70 billion parameters are 1,120 GB, in 59 GiB of a die at least 18 of them: 9 packages. Gradients are
    # summed before they are scattered, and autocast keeps 16-bit copies of the weights through the forward pass.
    words = "plan --strategy auto --device MI250 --size 1 --model llama-3-70b --dataset synthetic --global-batch 3024"
    assert main(words.split()) == 2
    size = int(capsys.readouterr().err.rpartition("smallest size that would fit is ")[2])
    assert 9 <= size <= 48


def test_a_declared_chip_lends_its_memory_to_a_machine_beyond_this_one(catalog):
    flags = {"device": "cuda:16", "launcher": "slurm", "chip": "MI250", "chips": 8, "model": "mistral-7b",
             "dataset": "synthetic", "global_batch": 32}  # fmt: skip
    asked = make_search_problem(_plan(catalog, **flags), catalog)
    # A rank is a die: half of a package's 128 GiB and of its peak.
    assert asked.hardware.facts.name == "MI250 die"
    assert asked.hardware.memory_bytes == pytest.approx(0.92 * 64 * 2**30)


def test_a_precision_without_a_known_peak_is_refused(catalog):
    flags = {"device": "cuda:8", "launcher": "slurm", "chip": "Gaudi2", "chips": 8, "precision": "fp32"}
    with pytest.raises(BadExperiment, match="Gaudi2 cannot be predicted in fp32"):
        make_search_problem(_plan(catalog, **flags), catalog)


@pytest.mark.parametrize("strategy", ["fsdp", "auto"])
def test_what_is_no_device_may_be_a_chip(strategy, capsys):
    device = "H100" if strategy == "fsdp" else "H1000"
    assert main(["plan", "--strategy", strategy, "--device", device, "--size", "8"]) == 2
    said = capsys.readouterr().err
    assert f"no device named {device!r}" in said
    assert ("H100 is a chip" if strategy == "fsdp" else "did you mean 'H100'?") in said


def test_a_name_of_others_is_answered_with_ours(capsys):
    assert main(["plan", "--strategy", "hsdp:2x4", "--device", "cpu:8", "--oversubscribe"]) == 2
    assert main(["plan", "--strategy", "hsdp", "--device", "cpu:8", "--oversubscribe"]) == 2
    assert "ddp:COPIES+fsdp:SHARDS" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["half", "0", "99999999"])
def test_a_size_of_chips_is_a_number_of_them(size, capsys):
    assert main(["plan", "--strategy", "auto", "--device", "H100", "--size", size]) == 2
    assert "it is a number of H100" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (StrategyLayout(degree="single"), "degree 'single'"),
        (StrategyLayout(degree="copies"), "degree 'copies'"),
        (StrategyLayout(degree="data", search_options=({}, {"fast": "true"})), "the option 'fast'"),
    ],
)
def test_a_layout_that_contradicts_its_strategy_is_refused(layout, words):
    with pytest.raises(ValueError, match=words):
        Strategy(name="strange", runtime="strange:Strange", layout=layout)


def test_strategies_of_different_runtimes_are_no_candidate_together():
    known = Catalog().strategies()
    strange = Strategy(name="strange", runtime="strange:Strange", layout=StrategyLayout(degree="data", order=5))
    space = replace(_SPACE, strategies=(strange, known["tp"], known["pp"]), micro_batches=(1,))
    found = {candidate.names for candidate in enumerate_candidates(space)}
    assert found == {("strange",), ("tp",), ("pp",), ("pp", "tp")}


@pytest.mark.parametrize(("chip", "drivers"), [("H100", {"cuda"}), ("MI300X", {"rocm"}), ("TPU-v5e", set())])
def test_a_chip_belongs_to_the_device_that_drives_it(catalog, chip, drivers):
    devices = catalog.devices().values()
    assert {device.name for device in devices if isinstance(device, DrivesChips) and device.drives(chip)} == drivers


def test_what_is_said_of_the_machine_is_searched_with(catalog):
    flags = {"device": "cuda:64", "launcher": "slurm", "chip": "H100", "chips": 64, "model": "mistral-7b",
             "dataset": "synthetic", "global_batch": 64}  # fmt: skip
    assumed = make_search_problem(_plan(catalog, **flags), catalog).hardware
    stated = make_search_problem(_plan(catalog, **flags, node_devices=4, inter_gb_s=25.0), catalog).hardware
    named = make_search_problem(_plan(catalog, **flags, cluster="a3-megagpu-8g"), catalog).hardware
    assert "the network of the vendor's reference system" in assumed.source
    assert "the network of the vendor's" not in stated.source + named.source
    assert (stated.facts.node, stated.facts.inter_bytes_per_s) == (4, 25e9)
    assert (named.facts.node, named.facts.inter_bytes_per_s) == (8, 25e9)
    with pytest.raises(BadData, match="p4d has no H100"):
        make_search_problem(_plan(catalog, **flags, cluster="p4d"), catalog)


def test_the_trainer_of_others_is_predicted_by_its_name(catalog):
    flags = {"device": "cuda:8", "launcher": "slurm", "chip": "H100", "chips": 8, "model": "mistral-7b",
             "dataset": "synthetic", "global_batch": 64, "precision": "bf16"}  # fmt: skip
    ours = make_search_problem(_plan(catalog, **flags), catalog).work
    megatron = make_search_problem(_plan(catalog, **flags, framework="megatron"), catalog).work
    few = make_search_problem(_plan(catalog, **flags, framework="hf", optimizer_bits=8), catalog).work
    assert (ours.stack.own, megatron.stack.own) == ("bf16", "")
    assert megatron.stack.fused
    # A master copy of 4 bytes, and two moments of a byte with a scale of 4 bytes for each 256.
    assert few.stack.main_bytes == 4.0 + 2.0 * (1.0 + 4.0 / 256.0)
    with pytest.raises(BadExperiment, match="--optimizer-bits describes another trainer"):
        _plan(catalog, **flags, optimizer_bits=8)
    with pytest.raises(BadExperiment, match="optimizer_bits is 5"):
        make_search_problem(_plan(catalog, **flags, framework="hf", optimizer_bits=5), catalog)


def test_layouts_that_predictions_cannot_tell_apart_are_counted():
    found = _search()
    (note,) = found.log.notes
    best = found.ranked[0].rate
    near = [each for each in found.ranked if each.rate >= math.exp(-2 * math.sqrt(2) * 0.10) * best]
    assert f"{len(near)} layouts of {len({each.candidate.names for each in near})} kinds" in note
    assert f"the fastest of all may take {len(near)}" in note
    # Where the machine was measured well, fewer are alike.
    sure = _search(hardware=replace(_HARDWARE, facts=replace(_CHIP, residual=1e-6, is_published=False)))
    assert not sure.log.notes or sure.log.notes != found.log.notes
