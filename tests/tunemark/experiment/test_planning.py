"""Experiments into points and plans, with small fakes for all that plugins bring."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from contextlib import nullcontext
from importlib.metadata import EntryPoint

import jsonschema
import pytest

from tunemark.errors import TunemarkError
from tunemark.experiment import (
    SETTINGS,
    Experiment,
    RunSpec,
    experiment_schema,
    make_experiment,
    make_grid_points,
    make_plans,
    run_id,
    settings_table,
)
from tunemark.experiment.value_parsing import parse_named_options
from tunemark.plugin import (
    Accelerator,
    Architecture,
    Catalog,
    Dataset,
    LaunchConfig,
    Model,
    Strategy,
    TokenizerSpec,
    hookimpl,
)
from tunemark_worker.contract import Assignment, TokenFile

TINY = Architecture(
    model_type="mistral",
    vocab_size=10,
    hidden_size=4,
    intermediate_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=2,
    max_position_embeddings=1024,
)


class Cpu:
    """Two processes' worth of a machine; four are oversubscribed, and there is nothing beyond eight."""

    name = "cpu"
    runtime = "fake:Runtime"

    def accelerators(self):
        return [self.accelerator("1"), self.accelerator("2")]

    def accelerator(self, size):
        if size not in ("1", "2", "4", "8"):
            return None
        return Accelerator(name=size, chip="fake", chips=1, memory_bytes=10_000, oversubscribed=int(size) > 2)

    def default_size(self):
        return "1"

    def occupy(self, accelerator, store):
        return nullcontext({})

    def launch(self, accelerator, strategy):
        return LaunchConfig(processes=int(accelerator.name), threads=3, options={"cores": [0]})


class Absent(Cpu):
    name = "cuda"

    def accelerators(self):
        return []


def fake_plugin():
    plugin = types.ModuleType("experiment_fakes")

    @hookimpl
    def tunemark_devices():
        return [Cpu(), Absent()]

    @hookimpl
    def tunemark_models():
        tokenizer = TokenizerSpec(name="t", loader="fake:Tokenizer")
        return [
            Model(name="mistral-tiny", architecture=TINY, tokenizer=tokenizer, runtime="fake:Model"),
            Model(name="known", architecture=TINY, tokenizer=tokenizer, runtime="fake:Model", pretrained="org/known"),
        ]

    @hookimpl
    def tunemark_datasets():
        return [
            Dataset(name="python-stdlib", loader="fake:Text", roles=("response",)),
            Dataset(name="instructions", loader="fake:Text", options={"path": "the file"}),
        ]

    @hookimpl
    def tunemark_strategies():
        return [
            Strategy(name="none", runtime="fake:None_", distributed=False),
            Strategy(name="ddp", runtime="fake:Ddp", options={"bucket": "MiB"}),
            Strategy(name="tensor", runtime="fake:Tensor", data_ranks=lambda processes: 1),
        ]

    for each in (tunemark_devices, tunemark_models, tunemark_datasets, tunemark_strategies):
        setattr(plugin, each.__name__, each)
    return plugin


@pytest.fixture
def catalog(monkeypatch):
    monkeypatch.setitem(sys.modules, "experiment_fakes", fake_plugin())
    return Catalog([EntryPoint(name="fakes", value="experiment_fakes", group="tunemark")])


def plans(catalog, toml=None, **flags):
    return make_plans(make_grid_points(make_experiment(flags, toml)), catalog)


# -- settings


def test_every_setting_is_a_field_of_the_experiment_and_every_axis_of_the_run():
    declared = {f.name for f in dataclasses.fields(Experiment)} - {"sources", "axes"} | set(make_experiment({}).axes)
    assert {s.name for s in SETTINGS} == declared
    assert {s.name for s in SETTINGS if s.is_axis} - {"recipe"} <= {f.name for f in dataclasses.fields(RunSpec)}


def test_the_table_names_every_flag_and_the_schema_accepts_the_defaults():
    assert all(s.flag in settings_table() for s in SETTINGS)
    schema = experiment_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"sequence": "256-1024*2", "micro_batch": [1, 2], "size": 2, "warmup": "auto"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"sequenze": 1}, schema)


# -- values


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sequence", "256", (256,)),
        ("sequence", "1024,2048, 4096", (1024, 2048, 4096)),
        ("sequence", "256-1024*2", (256, 512, 1024)),
        ("sequence", "256-1000*2,7", (256, 512, 7)),
        ("micro_batch", "1-7+3", (1, 4, 7)),
        ("learning_rate", "1e-5-1e-3*10", (1e-5, 1e-4, 1e-3)),
        ("learning_rate", "1e-4,2", (1e-4, 2.0)),
        ("device", "cpu", ("cpu",)),
        ("device", "cpu:1,2", ("cpu:1", "cpu:2")),
        ("device", "cpu:1-4*2,cuda:1", ("cpu:1", "cpu:2", "cpu:4", "cuda:1")),
        ("device", "cpu,cuda", ("cpu", "cuda")),
        ("size", "1,2", ("1", "2")),
        ("size", "default", (None,)),
        ("global_batch", "auto,8", (None, 8)),
        ("warmup", "auto", None),
        ("warmup", "0", 0),
        ("budget", "90", 90.0),
        ("budget", "auto", None),
        ("clip_norm", "0", (0.0,)),
    ],
)
def test_values_as_they_are_written(name, text, expected):
    assert make_experiment({name: text})[name] == expected


def test_options_follow_colons():
    assert parse_named_options("a:path=x/y=z:k=v") == ("a", {"path": "x/y=z", "k": "v"})


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "e.toml"
    file.write_text('sequence = [128, "256-512*2"]\nseed = 3\nmicro_batch = "1,2"\nsize = 2\nverify = true\n')
    experiment = make_experiment({"seed": "5", "verify": None}, file)
    assert experiment["sequence"] == (128, 256, 512)
    assert experiment["micro_batch"] == (1, 2)
    assert experiment["size"] == ("2",)
    assert experiment["seed"] == (5,)
    assert experiment.verify is True
    assert experiment.repeats == 3
    assert experiment.sources["sequence"] == f"{file}, key 'sequence'"
    assert experiment.sources["seed"] == "flag --seed"


def test_the_default_experiment_s_file_says_the_defaults():
    assert dataclasses.replace(make_experiment({}, "default"), sources={}) == make_experiment({})


def test_a_file_of_the_users_comes_before_a_built_in_experiment_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").write_text("sequence = 64\n")
    assert make_experiment({}, "default").axes["sequence"] == (64,)


# -- points and plans


def test_points_are_in_product_order_with_the_last_axis_fastest():
    found = make_grid_points(make_experiment({"sequence": "128,256", "micro_batch": "1,2"}))
    assert [(p["sequence"], p["micro_batch"]) for p in found] == [(128, 1), (128, 2), (256, 1), (256, 2)]


def test_breakdown_doubles_every_run(catalog):
    without, with_parts = plans(catalog, breakdown=True)
    assert (without.spec.breakdown, with_parts.spec.breakdown) == (False, True)
    assert without.run_id != with_parts.run_id
    assert dataclasses.replace(with_parts.spec, breakdown=False) == without.spec


def test_a_plan_has_everything_resolved(catalog):
    (plan,) = plans(catalog, device="cpu:2", strategy="ddp:bucket=25", dataset="instructions:path=f", sequence="64")
    assert (plan.spec.device, plan.spec.size, plan.data_ranks) == ("cpu", "2", 2)
    assert plan.spec.global_batch == 4 * 2
    assert plan.gradient_accumulation == 1
    assert plan.tokens_per_step == 8 * 64
    assert plan.parameters == plan.trainable_parameters == 340
    assert plan.memory_floor_bytes == 340 * 16
    # 1680 + 96 per key; 32.5 visible keys on average, or all 64.
    assert plan.flops_per_token == 1680 + 96 * 32.5
    assert plan.flops_per_token_full_attention == 1680 + 96 * 64
    assert plan.dataset_options == {"path": "f"}
    assert plan.strategy_options == {"bucket": "25"}
    assert plan.run_id == run_id(plan.spec)


def test_only_a_run_without_another_end_has_a_budget_of_its_own(catalog):
    assert [plan.spec.budget for plan in plans(catalog)] == [20.0]
    assert [plans(catalog, **{end: "5"})[0].spec.budget for end in ("steps", "epochs")] == [None, None]
    assert plans(catalog, steps="5", budget="7")[0].spec.budget == 7.0


def test_gradient_accumulation_is_counted_per_data_rank(catalog):
    (ddp,) = plans(catalog, device="cpu:2", strategy="ddp", micro_batch="2", global_batch="16")
    (tensor,) = plans(catalog, device="cpu:2", strategy="tensor", micro_batch="2", global_batch="16")
    assert (ddp.gradient_accumulation, tensor.gradient_accumulation) == (4, 8)


def test_run_id_depends_on_values_and_not_on_how_they_are_written(catalog):
    (a,) = plans(catalog, learning_rate="1e-4")
    (b,) = plans(catalog, learning_rate="0.0001", device="cpu:1", global_batch="4", repeats="7")
    (c,) = plans(catalog, seed="1")
    assert a.run_id == b.run_id != c.run_id
    assert len(a.run_id) == 16
    assert int(a.run_id, 16) >= 0


def test_how_a_report_is_written_is_no_part_of_a_run(catalog):
    (plain,), (other,) = plans(catalog), plans(catalog, language="ko", prices="p.toml", output="x")
    assert plain.run_id == other.run_id
    with pytest.raises(TunemarkError, match="language"):
        plans(catalog, language="de")


def test_every_value_of_the_spec_changes_its_run_id(catalog):
    spec = plans(catalog)[0].spec
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        other = not value if isinstance(value, bool) else "other" if isinstance(value, str) else (value or 0) + 1
        assert run_id(dataclasses.replace(spec, **{field.name: other})) != run_id(spec), field.name


def test_duplicate_runs_collapse_with_a_note(catalog):
    (plan,) = plans(catalog, seed="1,1", size="default,1")
    assert plan.notes[-1] == f"run {plan.run_id} is requested 4 times and is measured once"


def test_auto_is_cpu_where_no_cuda_is_present_and_says_so(catalog):
    (plan,) = plans(catalog)
    assert plan.spec.device == "cpu"
    assert "device auto is cpu: no cuda accelerator is present" in plan.notes


@pytest.mark.parametrize(
    ("version", "device"),
    [
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "cuda"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.2'\n", "cuda"),
        ("cuda = None\nhip = None\n", "cpu"),
        (None, "cpu"),
    ],
)
def test_auto_is_cuda_only_where_the_torch_that_trains_can_use_it(catalog, tmp_path, version, device):
    class Present(Cpu):
        name = "cuda"

    catalog.devices()["cuda"] = Present()
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    if version is not None:
        torch = tmp_path / "lib" / "python3.8" / "site-packages" / "torch"
        torch.mkdir(parents=True)
        (torch / "version.py").write_text(f"__version__ = '2.1'\n{version}")
    (plan,) = plans(catalog, python=str(python))
    assert plan.spec.device == device
    assert plan.spec.python == str(python)
    assert any(note.startswith(f"device auto is {device}") for note in plan.notes)


def test_a_memory_floor_above_the_accelerator_s_memory_is_a_note(catalog, tmp_path):
    assert not any("run out of memory" in n for n in plans(catalog)[0].notes)

    class Small(Cpu):
        def accelerator(self, size):
            return dataclasses.replace(super().accelerator(size), memory_bytes=340 * 16 - 1)

    catalog.devices()["cpu"] = Small()
    assert any("run out of memory" in n for n in plans(catalog)[0].notes)


def test_the_assignment_survives_its_own_json(catalog, tmp_path):
    tokens = TokenFile(path="/t", sha256="0", documents=1, tokens=2, pad_id=0)
    (plan,) = plans(catalog, model="known", weights="pretrained", strategy="ddp:bucket=1")
    assignment = plan.assignment(tokens, "a1", measure_peak=True)
    assert Assignment.from_json(assignment.to_json()) == assignment
    assert assignment.weights == "pretrained:org/known"
    assert assignment.architecture["head_dim"] == 2
    assert (assignment.strategy, assignment.strategy_options) == ("ddp", {"bucket": "1"})
    assert (assignment.processes, assignment.threads, assignment.device_options) == (1, 3, {"cores": [0]})
    (tmp_path / "model.safetensors").touch()
    (folder,) = plans(catalog, weights=f"pretrained:{tmp_path}")
    assert folder.assignment(tokens, "a1", measure_peak=False).weights == f"pretrained:{tmp_path}"


def test_oversubscription_is_allowed_when_asked_for(catalog):
    (plan,) = plans(catalog, device="cpu:4", strategy="ddp", oversubscribe=True)
    assert plan.accelerator.oversubscribed


def test_a_spec_is_json(catalog):
    assert json.loads(json.dumps(dataclasses.asdict(plans(catalog)[0].spec)))["model"] == "mistral-tiny"


# -- what is refused


BAD_FLAGS = [
    ({"model": "mistral-tinny"}, "did you mean 'mistral-tiny'"),
    ({"dataset": "python-stdlb"}, "did you mean 'python-stdlib'"),
    ({"device": "cpux"}, "did you mean 'cpu'"),
    ({"strategy": "dpp"}, "did you mean 'ddp'"),
    ({"dataset": "instructions:paht=f"}, "did you mean 'path'"),
    ({"dataset": "instructions:path"}, "is not an option KEY=VALUE"),
    ({"dataset": "instructions:path=a:path=b"}, "given twice"),
    ({"strategy": "ddp:x=1"}, "has no option 'x'"),
    ({"device": "cpu:3"}, "cpu offers: 1, 2"),
    ({"device": "cpu:1,cuda"}, "cuda:SIZE"),
    ({"device": "cpu:"}, "no size follows"),
    ({"device": "cpu:4", "strategy": "ddp"}, "--oversubscribe"),
    ({"device": "cuda"}, "there is no cuda on this machine"),
    ({"device": "cpu:1", "size": "2"}, "given twice"),
    ({"device": "cpu:2"}, "strategy 'none' has one"),
    ({"sequence": "2048"}, "maximum of 1024"),
    ({"sequence": "1"}, "at least 2"),
    ({"sequence": ""}, "empty"),
    ({"sequence": "1,,2"}, "empty"),
    ({"sequence": "1.5"}, "an integer"),
    ({"sequence": "512-256*2"}, "must grow"),
    ({"sequence": "2-256*1"}, "must grow"),
    ({"sequence": "2-99999+1"}, "at most 1000"),
    ({"sequence": "2-256"}, "an integer"),
    ({"micro_batch": "0"}, "at least 1"),
    ({"micro_batch": "3", "global_batch": "8"}, "--global-batch 9"),
    ({"micro_batch": "8", "global_batch": "4"}, "--global-batch 8"),
    ({"train_on": "response"}, "does not distinguish prompts"),
    ({"train_on": "responce"}, "did you mean 'response'"),
    ({"schedule": "cosine"}, "--steps N --warmup N"),
    ({"schedule": "linear", "steps": "10"}, "--steps N --warmup N"),
    ({"learning_rate": "nan"}, "finite"),
    ({"learning_rate": "inf"}, "finite"),
    ({"learning_rate": "1e999"}, "finite"),
    ({"learning_rate": "0"}, "greater than 0"),
    ({"learning_rate": "-1"}, "greater than 0"),
    ({"clip_norm": "-1"}, "at least 0"),
    ({"global_batch": "1" + "0" * 400}, "at most 9223372036854775807"),
    ({"seed": "-" + "9" * 400}, "at least 0"),
    ({"seed": "4294967296"}, "at most 4294967295"),
    ({"micro_batch": "2", "global_batch": "9007199254740993"}, "--global-batch 9007199254740994"),
    ({"budget": "0"}, "greater than 0"),
    ({"budget": "60,120"}, "a number"),
    ({"repeats": "0"}, "at least 1"),
    ({"steps": "none?"}, "an integer or 'none'"),
    ({"precision": "bf16-mixed"}, "there is: bf16, bf16-autocast"),
    ({"precision": "fp4"}, "There is: bf16"),
    ({"method": "qora"}, "did you mean 'qlora'"),
    ({"optimizer": "adam"}, "did you mean 'adamw'"),
    ({"weights": "pretrained"}, "no published weights"),
    ({"weights": "pretrained:/no/such/folder"}, "there is no folder"),
    ({"weights": "pretrained:"}, "not one of the choices"),
    ({"python": "/no/such/python"}, "not an executable file"),
]


@pytest.mark.parametrize(("flags", "words"), BAD_FLAGS, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_bad_flags_are_refused_with_their_flag_and_a_remedy(catalog, flags, words):
    with pytest.raises(TunemarkError) as caught:
        plans(catalog, **flags)
    text = str(caught.value)
    assert words in text
    assert any(f"--{name.replace('_', '-')}" in text for name in flags), text
    assert caught.value.next


BAD_FILES = [
    ("sequnce = 1", "sequnce", "did you mean 'sequence'"),
    ("micro-batch = 1", "micro-batch", "did you mean 'micro_batch'"),
    ("sequence = []", "sequence", "the list is empty"),
    ("sequence = 1.0", "sequence", "an integer"),
    ("sequence = true", "sequence", "an integer"),
    ("sequence = [[1]]", "sequence", "an integer"),
    ("model = 3", "model", "text"),
    ('model = ""', "model", "empty"),
    ("budget = [1, 2]", "budget", "not a list"),
    ("learning_rate = nan", "learning_rate", "finite"),
    ("learning_rate = 1" + "0" * 400, "learning_rate", "finite"),
    ('redo = "true"', "redo", "without quotes"),
    ("redo = 1", "redo", "without quotes"),
    ("seed = 2026-01-01", "seed", "an integer"),
    ("[model]\nname = 1", "model", "text"),
    ('model = "mistral-tinny"', "model", "did you mean 'mistral-tiny'"),
]


@pytest.mark.parametrize(("text", "key", "words"), BAD_FILES)
def test_bad_files_are_refused_with_file_and_key(catalog, tmp_path, text, key, words):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(TunemarkError) as caught:
        plans(catalog, toml=file)
    assert f"{file}, key '{key}'" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [b"model = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_named(tmp_path, content):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(TunemarkError, match="cannot read the experiment") as caught:
        make_experiment({}, file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(TunemarkError, match=r"missing\.toml"):
        make_experiment({}, tmp_path / "missing.toml")


def test_a_recipe_gives_what_was_not_given_and_says_so(catalog):
    tuned = plans(catalog, device="cpu", recipe="tuned", batching=None)[0]
    assert tuned.spec.batching == "pack"
    assert any("batching pack" in note for note in tuned.notes)
    # What this model's runtime cannot do is named with its reason.
    assert any("--attention varlen is not used: mistral-tiny cannot" in note for note in tuned.notes)
    assert any("--loss chunked is not used: the loss cannot be chunked" in note for note in tuned.notes)
    mixed = plans(catalog, device="cpu", recipe="plain", batching="pack")[0]
    assert mixed.spec.batching == "pack"
    assert any("--batching pad is not used, since another was given" in note for note in mixed.notes)
