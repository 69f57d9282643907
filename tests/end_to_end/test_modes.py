"""Every declared mode is run, changes what is trained, and is recorded; the list of modes is the code's own.

A model of a few thousand parameters with published weights stands in a plugin that is written here, so that no mode
needs the network. All runs share one store: what one test has measured, another finds finished.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from tunemark.errors import BadExperiment
from tunemark.experiment import SETTINGS, Setting
from tunemark_torch.cpu_allocator import allocator_environment
from tunemark_worker import row_packing
from tunemark_worker.batches import MappedTokens
from tunemark_worker.contract import Assignment
from tunemark_worker.optimizer import OPTIMIZERS
from tunemark_worker.precision import PRECISIONS
from tunemark_worker.schedule import SCHEDULES
from tunemark_worker.training_settings import CHECKPOINTING

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]

_MODEL = "modes-mistral"
# The words of the example plugin's tokenizer, and a window that is shorter than its documents of about 31 tokens.
_ARCHITECTURE = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "sliding_window": 16,
}
_PLUGIN = """
from tunemark.plugin import Architecture, Model, TokenizerSpec, hookimpl

@hookimpl
def tunemark_models():
    return [
        Model(
            name={name!r},
            architecture=Architecture(model_type="mistral", **{architecture!r}),
            tokenizer=TokenizerSpec(name="bytes", loader="tunemark_example.text:ByteTokenizer"),
            runtime="tunemark_models.runtime:CausalLm",
            pretrained={pretrained!r},
            supports={{"attention": ("eager", "sdpa", "varlen", "flash", "flex"), "loss": ("chunked", "fused")}},
        )
    ]
"""
# One step of warm-up and three measured, of two micro-batches each. fp32, because bf16 would hide small differences
# of the losses; a rate of 0.01, because 0.0001 would change nothing visible in so few steps.
_BASE = ["--model", _MODEL, "--dataset", "toy-text", "--device", "cpu:1", "--precision", "fp32"]
_BASE += ["--sequence", "64", "--micro-batch", "2", "--global-batch", "4", "--learning-rate", "0.01"]
_BASE += ["--warmup", "1", "--steps", "3", "--repeats", "1", "--target-interval", "0", "--no-measure-peak"]

# A recipe is a name for values of the other settings: it stands in no row.
_WITH_CHOICES = [setting for setting in SETTINGS if setting.choices and setting.is_axis and setting.name != "recipe"]
# These change how something is computed, never what.
_IMPLEMENTATIONS = {
    "checkpointing", "attention", "loss", "optimizer_impl", "matmul_precision", "compile", "allocator", "update",
    "activations", "thread_binding",
}  # fmt: skip
# What a choice asks of the other settings.
_NEEDS = {"update": ["--clip-norm", "0", "--global-batch", "2"]}

# Factors of the learning rate for four steps, by hand: linear falls by a quarter a step; cosine is
# (1 + cos(pi k / 4)) / 2, whose cosines are 1, sqrt(2) / 2, 0 and -sqrt(2) / 2.
_FACTORS = {
    "constant": [1.0, 1.0, 1.0, 1.0],
    "linear": [1.0, 0.75, 0.5, 0.25],
    "cosine": [1.0, 0.8535534, 0.5, 0.1464466],
}


class World(NamedTuple):
    """What all runs of this module share. environment: under which the plugins are found. own: a folder of weights
    that only a user has; the model's published ones are others."""

    environment: Mapping[str, str]
    store: Path
    own: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, example_plugin: Mapping[str, str]) -> World:
    root = tmp_path_factory.mktemp("modes")
    for seed, name in enumerate(("published", "own"), 1):
        torch.manual_seed(seed)
        # Weights so large that the loss is far from that of guessing, which every small random model has.
        MistralForCausalLM(MistralConfig(**_ARCHITECTURE, initializer_range=0.3)).save_pretrained(root / name)
    package, facts = root / "site/tunemark_modes", root / "site/tunemark_modes-1.dist-info"
    package.mkdir(parents=True)
    facts.mkdir()
    (package / "__init__.py").touch()
    plugin = _PLUGIN.format(name=_MODEL, architecture=_ARCHITECTURE, pretrained=str(root / "published"))
    (package / "plugin.py").write_text(plugin)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tunemark-modes\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[tunemark]\nmodes = tunemark_modes.plugin\n")
    path = os.pathsep.join([str(root / "site"), example_plugin["PYTHONPATH"]])
    return World({**example_plugin, "PYTHONPATH": path}, root / "runs", root / "own")


def _rows(tunemark: Tunemark, world: World, *words: str) -> list[dict[str, Any]]:
    """The rows of `tunemark run`, which may be of any verdict: three windows are too few for one."""
    where = ["--store", str(world.store), "--json"]
    done = tunemark("run", *_BASE, *words, *where, environment=world.environment)
    assert done.returncode in (0, 1, 3), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _attempt(world: World, row: Mapping[str, Any]) -> Path:
    """The folder of a row's only attempt."""
    (attempt,) = row["each_attempt"]
    (folder,) = world.store.glob(f"*-{row['run_id']}/{attempt['name']}")
    return folder


def _steps(world: World, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of all steps of a row's only attempt, the warm-up among them."""
    lines = (_attempt(world, row) / "records.0.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "step"]


# These are run every time; the values of the others have tests of their own in tests/tunemark_worker.
_QUICK = {"train_on"}


@pytest.mark.parametrize(
    "setting",
    [pytest.param(each, marks=() if each.name in _QUICK else pytest.mark.full) for each in _WITH_CHOICES],
    ids=lambda setting: setting.name,
)
def test_every_choice_is_run_recorded_and_makes_a_difference(
    setting: Setting, tunemark: Tunemark, world: World
) -> None:
    absent = _absent(setting)
    print("not run, because their package or device is not here:", ", ".join(sorted(absent)) or "none")
    choices = [choice.replace("PATH", str(world.own)) for choice in setting.choices if choice not in absent]
    found = _rows(tunemark, world, setting.flag, ",".join(choices), *_NEEDS.get(setting.name, ()))
    rows = {row["attention_requested" if setting.name == "attention" else setting.name]: row for row in found}
    # The plan resolves auto to one of the other kinds of attention.
    assert set(rows) == set(choices) - ({"auto"} if setting.name == "attention" else set())
    trained: dict[str, list[float]] = {}
    for choice, row in rows.items():
        assert row["status"] == "ok", (choice, row["each_attempt"])
        assert row["steps_measured"] == 3
        assert math.isfinite(row["loss_first"]), choice
        assert math.isfinite(row["loss_last"]), choice
        rules = {finding["rule"] for finding in row["findings"]}
        assert rules.isdisjoint({"weights-unchanged", "nothing-trained", "tokens-disagree"}), choice
        steps = _steps(world, row)
        trained[choice] = [value for s in steps for value in (s["content"], s["trained"], s["loss_sum"])]
        trained[choice] += [step["gradient_norm"] for step in steps]
    if setting.name in _IMPLEMENTATIONS:
        # That each is really used is what the tests of the worker count and look up.
        for choice, values in trained.items():
            assert values == pytest.approx(next(iter(trained.values())), rel=1e-4), choice
        return
    # On one thread of one CPU the same mode gives the same losses, to the last bit: a choice that is taken and ignored
    # would train as another one does.
    assert len({tuple(values) for values in trained.values()}) == len(choices)


def _absent(setting: Setting) -> set[str]:
    """The choices of a setting that need a package or a device that is not here."""
    if setting.name == "optimizer":
        return {name for name, facts in OPTIMIZERS.items() if importlib.util.find_spec(facts.package) is None}
    if setting.name == "precision":
        # CPUs have no products in fp8.
        return {name for name, each in PRECISIONS.items() if each.float8}
    if setting.name == "attention":
        # torch and flash-attn have these kernels, gradients included, for GPUs alone.
        return {"flash", "flex"}
    if setting.name == "loss":
        # Liger's kernels are for GPUs.
        return {"fused"}
    if setting.name == "allocator":
        return {name for name in set(setting.choices) - {"tuned"} if not _has_allocator(name)}
    if setting.name == "activations":
        # A CPU's are in host memory already.
        return {"host"}
    return set()


def _has_allocator(name: str) -> bool:
    try:
        allocator_environment(name)
    except BadExperiment:
        return False
    return True


def test_the_worker_knows_what_is_declared_and_no_more() -> None:
    declared = {setting.name: set(setting.choices) for setting in _WITH_CHOICES}
    assert set(PRECISIONS) == declared["precision"]
    assert set(CHECKPOINTING) == declared["checkpointing"]
    assert set(OPTIMIZERS) == declared["optimizer"]
    assert set(SCHEDULES) == declared["schedule"] == set(_FACTORS)


@pytest.mark.full
def test_schedules_set_the_learning_rate_of_every_step(tunemark: Tunemark, world: World) -> None:
    rows = {row["schedule"]: row for row in _rows(tunemark, world, "--schedule", ",".join(_FACTORS))}
    for schedule, factors in _FACTORS.items():
        rates = [step["learning_rate"] for step in _steps(world, rows[schedule])]
        assert rates == pytest.approx([0.01 * factor for factor in factors], rel=1e-5), schedule


@pytest.mark.parametrize("batching", ["pack", pytest.param("pad", marks=pytest.mark.full)])
def test_weights_of_a_folder_have_the_loss_that_transformers_computes(
    tunemark: Tunemark, world: World, batching: str
) -> None:
    (row,) = _rows(tunemark, world, "--weights", f"pretrained:{world.own}", "--batching", batching)
    assignment = Assignment.from_json((_attempt(world, row) / "plan.json").read_text())
    expected = _reference_loss(assignment, world.own)
    assert row["loss_first"] == pytest.approx(expected, rel=1e-5)
    # It is these weights' loss, not that of guessing among 259 words.
    assert abs(expected - math.log(259)) > 0.1


def _reference_loss(assignment: Assignment, folder: Path) -> float:
    """The mean loss of the first step, each document by itself: no padding, no packing, no mask and no label of ours,
    and transformers' own sum."""
    model = MistralForCausalLM.from_pretrained(folder).eval()
    tokens = MappedTokens(assignment.token_file)
    rows = row_packing.make_batch_rows(
        tokens.lengths(), assignment.sequence, assignment.batching, assignment.seed, assignment.epochs
    )
    total, predicted = 0.0, 0
    for _ in range(assignment.global_batch):
        _, row = next(rows)
        for part in row:
            ids = tokens.batch([[part]], part.length, False).input_ids
            with torch.no_grad():
                mean = model(input_ids=ids, labels=ids).loss.item()
            # The first token is predicted by nothing.
            total += mean * (part.length - 1)
            predicted += part.length - 1
    return total / predicted


def test_weights_of_another_architecture_are_not_measured_under_the_models_name(
    tunemark: Tunemark, world: World, tmp_path: Path
) -> None:
    # One layer less than the model has: its rate and its FLOPs would be those of another model.
    MistralForCausalLM(MistralConfig(**{**_ARCHITECTURE, "num_hidden_layers": 1})).save_pretrained(tmp_path / "small")
    where = ["--weights", f"pretrained:{tmp_path / 'small'}", "--store", str(tmp_path / "runs")]
    done = tunemark("run", *_BASE, *where, environment=world.environment)
    # Refused, or failed, or measured and called invalid; whichever it is, the user is told why.
    assert done.returncode in (1, 2, 4), done.stdout
    assert re.search(r"layers|parameters|architecture", done.stdout + done.stderr)


@pytest.mark.alone
@pytest.mark.full
def test_a_breakdown_is_a_run_beside_the_undisturbed_one(tunemark: Tunemark, world: World, tmp_path: Path) -> None:
    plain, parted = _rows(tunemark, world, "--breakdown")
    assert (plain["breakdown"], parted["breakdown"]) == (False, True)
    assert plain["run_id"] != parted["run_id"]
    # What was waited for stays out of the run whose rate is quoted: no part is timed there, and every step is its own.
    assert plain["breakdown_s"] is None
    assert plain["attempts"] == parted["attempts"] == 1
    assert not any(step["marks"] for step in _steps(world, plain))
    # Waiting for the parts changes when things happen, never what is computed.
    assert (parted["tokens"], parted["loss_last"]) == (plain["tokens"], plain["loss_last"])

    parts = parted["breakdown_s"]
    assert list(parts) == ["data", "transfer", "forward", "backward", "optimizer"]
    assert all(seconds > 0 for seconds in parts.values())
    # A step's parts are contiguous from the end of the step before: what is left out is the little between the last
    # mark and the window's edge, and nothing is counted twice. A busy machine may take the process off its core there.
    step_s = parted["interval_s"] / parted["steps_measured"]
    assert 0.8 * step_s <= sum(parts.values()) <= step_s * (1 + 1e-9)
    # Two micro-batches a step: the three parts of each, then one update.
    each = ["transfer", "forward", "backward"]
    for step in _steps(world, parted):
        assert [name for name, _ in step["marks"]] == ["data", *each, *each, "optimizer"]
        instants = [instant_s for _, instant_s in step["marks"]]
        assert instants == sorted(instants)

    # As a person sees it: two rows, told apart, the undisturbed one first.
    words = ["--breakdown", "--store", str(world.store), "-o", str(tmp_path / "out")]
    shown = tunemark("run", *_BASE, *words, environment=world.environment).stdout
    head, _, *rows = [line.split("|")[1:-1] for line in shown.splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in head].index("breakdown")
    assert [row[column].strip() for row in rows] == ["no", "yes"]
    titles = [line.partition(": ")[0] for line in shown.splitlines() if line.startswith(_MODEL)]
    assert titles == [f"{_MODEL} cpu:1 none", f"{_MODEL} cpu:1 none breakdown"]
    report = (tmp_path / "out/report.md").read_text()
    assert "## Parts of a step" in report
    written = [json.loads(line) for line in (tmp_path / "out/runs.jsonl").read_text().splitlines()]
    assert [row["run_id"] for row in written] == [plain["run_id"], parted["run_id"]]
