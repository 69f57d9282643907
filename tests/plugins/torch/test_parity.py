"""Every strategy trains what one process trains: loss and gradient norm of five steps, by whole attempts of the worker.

Three families of a few thousand parameters, many layouts one after another in the same two processes; the table of
docs/strategies.md, with the models that are shipped, is made by benchmarks/parity.py.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunemark.results.measurement import Measurement, read_measurement
from tunemark.runner.verification import relative_difference
from tunemark_worker.contract import Assignment, TokenFile
from tunemark_worker.precision import PRECISIONS

ROOT = Path(__file__).parents[3]
FAMILIES = ("mistral-tiny", "llama-2-tiny", "gpt2-tiny", "gemma-2-tiny")
# What is run every time: each mechanism on some family, the head's weight tied (gpt2) and a window (mistral) where they
# could go wrong. The rest takes a minute and more.
SHORT = (
    ("mistral-tiny", "fsdp", {}),
    ("mistral-tiny", "tp", {}),
    ("mistral-tiny", "pp:schedule=interleaved", {}),
    ("llama-2-tiny", "ddp", {"batching": "bucket"}),
    ("llama-2-tiny", "fsdp:reshard=false", {"precision": "bf16-autocast"}),
    ("llama-2-tiny", "fsdp", {"checkpointing": "full"}),
    ("llama-2-tiny", "tp:sequence_parallel=true", {"checkpointing": "selective"}),
    ("llama-2-tiny", "pp:schedule=zbv", {}),
    ("gpt2-tiny", "tp", {}),
    ("gpt2-tiny", "pp", {}),
    # Its scores are capped after the head, which must not happen to what a stage hands on.
    ("gemma-2-tiny", "pp", {}),
)


def _parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity", ROOT / "benchmarks/parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules["parity"] = module
    spec.loader.exec_module(module)
    return module


parity = _parity()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    written: TokenFile = parity.write_tokens(tmp_path_factory.mktemp("tokens") / "tokens")
    return written


Run = tuple[str, str, Mapping[str, Any]]


def _trained(folder: Path, tokens: TokenFile, size: int, wanted: Sequence[Run]) -> list[Measurement]:
    """What came of each wanted (model, strategy, settings), all in the same processes."""

    def small(a: Assignment) -> Assignment:
        # With every part of a step timed, which must not change what is trained.
        shrunk: Assignment = replace(parity.shrink(a, tokens), breakdown=size == 2)
        return shrunk

    folders = [folder / str(i) for i in range(len(wanted))]
    for (model, strategy, settings), where in zip(wanted, folders, strict=True):
        changes = {"precision": "fp32", "micro_batch": 2, **settings}
        refused = parity.prepare({strategy: where}, model, size, changes, edit=small)
        assert not refused, (model, refused)
    parity.run(size, folders)
    found = [read_measurement(where) for where in folders]
    for each, run in zip(found, wanted, strict=True):
        ends = [rank.end or {"status": "no end", "error": "see the log"} for rank in each.ranks]
        assert [end["status"] for end in ends] == ["ok"] * size, (run, ends)
    return found


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, tokens: TokenFile) -> dict[tuple[str, str, str], Measurement]:
    """What one process trains, by model, batching and precision; it checkpoints nothing."""
    keys = [(model, "pack", "fp32") for model in FAMILIES]
    keys += [("llama-2-tiny", batching, "fp32") for batching in ("pad", "bucket")]
    keys += [("llama-2-tiny", "pack", "bf16-autocast")]
    wanted = [(model, "none", {"batching": batching, "precision": precision}) for model, batching, precision in keys]
    return dict(zip(keys, _trained(tmp_path_factory.mktemp("one"), tokens, 1, wanted), strict=True))


def _assert_equal(run: Run, ours: Measurement, one: Mapping[tuple[str, str, str], Measurement]) -> None:
    a = ours.assignment
    theirs = one[a.model, a.batching, a.precision]
    loss = relative_difference(ours.losses, theirs.losses)
    norm = relative_difference(ours.gradient_norms, theirs.gradient_norms)
    assert loss is not None, run
    assert norm is not None, run
    assert max(loss, norm) <= PRECISIONS[a.precision].tolerance, (run, loss, norm)
    # The whole job's tokens, each counted once.
    count = theirs.step_count
    assert ours.step_count == count, run
    assert ours.counts(0, count) == theirs.counts(0, count), run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tokens: TokenFile) -> list[Measurement]:
    return _trained(tmp_path_factory.mktemp("two"), tokens, 2, SHORT)


def test_two_processes_train_what_one_trains(
    two: Sequence[Measurement], one: Mapping[tuple[str, str, str], Measurement]
) -> None:
    for run, found in zip(SHORT, two, strict=True):
        _assert_equal(run, found, one)
    # The losses that they share are of something that learns, and differ where they should.
    for found in one.values():
        assert found.losses[-1] < 0.98 * found.losses[0]
    assert len({found.losses for found in one.values()}) == len(one)


def test_ranks_say_what_they_held_and_trained(two: Sequence[Measurement]) -> None:
    by_run = {(found.assignment.model, found.assignment.strategy): found for found in two}
    for run, found in by_run.items():
        rows = [rank.steps[0].samples for rank in found.ranks]
        is_data = found.assignment.strategy in ("ddp", "fsdp")
        assert ([rank.data_rank for rank in found.ranks], rows[0] == rows[1]) == (
            ([0, 1], False) if is_data else ([0, 0], True)
        ), run
        assert len({row for rank in rows for row in rank}) == found.assignment.global_batch, run
        ends = [rank.end or {} for rank in found.ranks]
        assert all(end["weights_changed"] for end in ends), run
        assert ends[0]["strategy_selected"]["strategy"] == found.assignment.strategy
    ends = {run: found.ranks[0].end or {} for run, found in by_run.items()}
    # The whole model's, however it is divided.
    for model in FAMILIES:
        assert len({end["parameters"] for run, end in ends.items() if run[0] == model}) == 1, model
    chosen = ends["mistral-tiny", "pp"]["strategy_selected"]
    assert chosen["mesh"] == {"pp": 2}
    assert chosen["pipeline_parallel"]["layers"] == [1, 1, 1, 1]
    cut = ends["gpt2-tiny", "tp"]["strategy_selected"]["tensor_parallel"]["cut"]
    assert {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "wte", "lm_head"} == set(cut)


def test_every_strategy_tells_its_waits_for_others_from_its_computing(two: Sequence[Measurement]) -> None:
    for run, found in zip(SHORT, two, strict=True):
        where = "pipeline" if run[1].startswith("pp") else "forward" if run[1].startswith("tp") else "backward"
        each = ("transfer", "forward", "backward") * found.assignment.gradient_accumulation
        parts = ("data", "transfer", "pipeline", "optimizer") if where == "pipeline" else ("data", *each, "optimizer")
        for rank in found.ranks:
            for step in rank.steps:
                names, instants = zip(*step.marks or (), strict=True)
                # The waits of each part follow it.
                assert (names[::2], set(names[1::2])) == (parts, {"communication"}), run
                assert list(instants) == sorted(instants), run
                marks = zip(names[::2], instants[::2], instants[1::2], strict=True)
                assert sum(end - begin for part, begin, end in marks if part == where) > 0, run


@pytest.mark.full
@pytest.mark.parametrize("size", [2, 4])
def test_every_family_trains_the_same_by_every_strategy(
    size: int, tmp_path: Path, tokens: TokenFile, one: Mapping[tuple[str, str, str], Measurement]
) -> None:
    strategies = parity.ALONE if size == 2 else parity.PRODUCTS
    wanted: list[Run] = [(family, strategy, {}) for family in FAMILIES for strategy in strategies]
    some = ("ddp", "fsdp", "tp:sequence_parallel=true", "pp") if size == 2 else ("pp:2+fsdp:2", "fsdp:2+tp:2")
    for strategy in some:
        for settings in ({"checkpointing": "full"}, {"checkpointing": "selective"}, {"batching": "pad"}):
            wanted.append(("llama-2-tiny", strategy, settings))
        if not strategy.startswith("pp"):
            wanted.append(("llama-2-tiny", strategy, {"batching": "bucket"}))
        wanted.append(("llama-2-tiny", strategy, {"precision": "bf16-autocast"}))
    for run, found in zip(wanted, _trained(tmp_path, tokens, size, wanted), strict=True):
        _assert_equal(run, found, one)
