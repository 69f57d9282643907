"""All settings: the flags, TOML keys, README table and JSON Schema follow from the declarations.

What trains is declared in `tunemark_worker.training_settings`, the rest here, each setting once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunemark.experiment.recipes import RECIPE_NAMES
from tunemark.markdown import markdown_table
from tunemark_worker.training_settings import TRAINING_SETTINGS, Setting, declare, read_settings


def _scalar(default: Any, help: str, **more: Any) -> Any:
    """A setting that takes one value and, unless stated otherwise, tells no runs apart."""
    return declare(default, help, **{"is_axis": False, "is_compared": False, "is_in_label": False, **more})


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What is trained where. dataset, strategy: in a plan with their options, sorted. python: None is the harness's own
    interpreter."""

    model: str = declare("mistral-tiny", "model (`tunemark list models`)", names_itself=True)
    dataset: str = declare("python-stdlib", "dataset, options after colons: `python-code-alpaca:path=FILE`")
    device: str = declare(
        "auto", "device, optionally with sizes: `cpu:1,2`; `auto` is cuda if it is usable, else cpu", names_itself=True
    )
    size: str = declare(
        None,
        "accelerator size, as the device names it (`tunemark list devices`)",
        unset="default",
        is_in_label=False,
    )
    strategy: str = declare(
        "none",
        "parallelization strategy, options after colons (`tunemark list strategies`)",
        stored="strategy_requested",
        names_itself=True,
    )
    train_on: str = declare(
        "all", "tokens that contribute to the loss", choices=("all", "response"), follows="global_batch"
    )
    python: str | None = declare(
        None, "Python interpreter that runs the training; `auto` is the current one", unset="auto", follows="seed"
    )


@dataclass(frozen=True, kw_only=True)
class RecipeSettings:
    """A named set of other settings. It identifies no run, because the settings that it gives do."""

    recipe: str | None = declare(
        None,
        "named set of settings, for those that are not given: `plain`, a loop as by hand, or `tuned` for the device",
        unset="none",
        choices=RECIPE_NAMES,
        is_compared=False,
        is_in_label=False,
    )


@dataclass(frozen=True, kw_only=True)
class MeasurementSettings:
    """How a run is measured, and what happens before and after. epochs, steps: None sets no such limit. warmup: None
    detects when step times settle. budget, window: seconds; no budget is no limit. save: in a plan an absolute path."""

    warmup: int | None = _scalar(
        None,
        "warm-up steps before the measured ones; `auto` detects when step times settle",
        unset="auto",
        minimum=0,
        title="warm-up",
        stored="warmup_requested",
        is_in_label=True,
    )
    steps: int | None = _scalar(
        None, "stop after this many measured steps", unset="none", minimum=1, stored="steps_requested", is_in_label=True
    )
    epochs: int | None = _scalar(
        None, "stop after this many passes over the data", unset="none", minimum=1, is_in_label=True
    )
    budget: float | None = _scalar(
        None,
        "stop after this many seconds of steps; `auto` is 20, or no limit if --steps or --epochs is given",
        unset="auto",
        above=0,
        unit="s",
        stored="budget_s",
        is_in_label=True,
    )
    target_interval: float = _scalar(0.02, "stop at a confidence interval of ± this fraction (0: never)", minimum=0)
    window: float = _scalar(
        1.0,
        "seconds per measurement window, at whose end the device is synchronized",
        above=0,
        unit="s",
        stored="window_s",
    )
    evaluate: int | None = _scalar(
        None, "held-out documents for a loss before and after training", unset="none", minimum=1
    )
    sample: str | None = _scalar(None, "prompt to complete greedily before and after training", unset="none")
    save: str | None = _scalar(None, "new folder to save the trained model to, in transformers' format", unset="none")
    breakdown: bool = _scalar(
        False, "repeat every run with each part of a step timed", is_compared=True, is_in_label=True, names_itself=True
    )


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """What identifies no run: the machine as declared, how runs are started, kept and reported."""

    chip: str | None = _scalar(
        None, "chip model of the accelerator, if the device cannot detect it", unset="unknown", is_compared=True
    )
    chips: int | None = _scalar(
        None, "number of --chip in the chosen size", unset="unknown", minimum=1, is_compared=True
    )
    peak_flops: float | None = _scalar(
        None,
        "dense FLOP/s of one --chip in the run's precision, such as 312e12, where no table has it; marked as declared",
        unset="published",
        above=0,
        unit="FLOP/s",
    )
    memory: float | None = _scalar(
        None,
        "GiB of one --chip, where no table has it; marked as declared. Without --chip a limit, beyond which an "
        "allocation of the job fails",
        unset="published",
        above=0,
        unit="GiB",
    )
    trials: int = _scalar(4, "layouts that strategy auto tries before choosing; 0 trusts its prediction", minimum=0)
    trust_remote_code: bool = _scalar(False, "allow Python code from a model's repository to run")
    allow_pickle: bool = _scalar(False, "allow weights to be loaded from pickle files, which can run code")
    verify: bool = _scalar(
        False,
        "first check losses over five steps of each strategy and trainer against one process of tunemark's own loop",
    )
    repeats: int = _scalar(3, "attempts per run, each in fresh processes", minimum=1)
    timeout: float = _scalar(
        1800.0, "seconds without a record from a rank after which an attempt is killed", above=0, unit="s"
    )
    launcher: str = _scalar("local", "how processes are started, options after colons (`tunemark list launchers`)")
    export: str | None = _scalar(
        None, "environment variables to forward to remote processes, joined by plus", unset="none"
    )
    max_restarts: int = _scalar(0, "how often an attempt's processes may be restarted after a failure", minimum=0)
    redo: bool = _scalar(False, "run again what has already finished")
    no_wait: bool = _scalar(False, "refuse to run while another measurement uses the device, instead of waiting for it")
    oversubscribe: bool = _scalar(False, "allow a size that is larger than this machine")
    no_measure_peak: bool = _scalar(
        False, "do not measure the peak FLOP/s of devices without a published peak", aliases=("no_calibrate",)
    )
    store: str = _scalar("runs", "folder in which all attempts are stored")
    output: str | None = _scalar(None, "folder or file to write the report to", unset="none")
    language: str = _scalar("en", "language of the report", choices=("en", "ko"))
    no_redact: bool = _scalar(
        False, "show names of hosts and users, folders and addresses in the report, which hides them else"
    )
    prices: str | None = _scalar(
        None, "TOML or CSV file of hourly prices, for the cost of tokens in reports", unset="none"
    )
    dry_run: bool = _scalar(False, "print the plan and exit")
    json: bool = _scalar(False, "print one JSON object per line instead of a table")


def _assumed(help: str, **more: Any) -> Any:
    """A setting of predictions that is unknown unless given."""
    return _scalar(None, help, **{"unset": "unknown", **more})


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """What a prediction cannot know of a machine that is not here, and of a trainer other than ours. What is not given
    is assumed, listed and widens the bounds. They change no run. intra_gb_s, inter_gb_s: GB/s of one device in one
    direction."""

    cluster: str | None = _assumed(
        "cloud instance or machine whose node and network are known, for predictions: p5, ..."
    )
    node_devices: int | None = _assumed("devices that a node's fast links connect, for predictions", minimum=1)
    intra_gb_s: float | None = _assumed("GB/s of a device within its node, one direction, for predictions", above=0)
    inter_gb_s: float | None = _assumed("GB/s of a device between nodes, one direction, for predictions", above=0)
    framework: str | None = _assumed(
        "whose trainer is predicted",
        unset="ours",
        choices=("ours", "megatron", "torch", "torch-compiled", "hf", "deepspeed", "xla", "native"),
    )
    framework_version: str | None = _assumed("year of --framework, which older software of is slower")
    base_bits: int | None = _assumed("bits of frozen weights, with --framework: 4, 8, 16 or 32", minimum=4, maximum=32)
    optimizer_bits: int | None = _assumed(
        "bits of each optimizer state, with --framework: 4, 8, 16 or 32", minimum=4, maximum=32
    )
    offload: str | None = _assumed(
        "what waits in host memory, with --framework", unset="none", choices=("none", "optimizer")
    )
    optimizer_in_backward: bool = _scalar(False, "update as soon as a gradient is there, with --framework")


def _list_settings() -> tuple[Setting, ...]:
    every = (
        *read_settings(JobSettings),
        *read_settings(RecipeSettings),
        *TRAINING_SETTINGS,
        *read_settings(MeasurementSettings),
        *read_settings(SessionSettings),
        *read_settings(PredictionSettings),
    )
    found = [each for each in every if not each.follows]
    for each in every:
        if each.follows:
            found.insert(1 + [other.name for other in found].index(each.follows), each)
    return tuple(found)


SETTINGS = _list_settings()
# Predictions without any of their settings.
NOTHING_SAID = PredictionSettings(**{each.name: each.default for each in read_settings(PredictionSettings)})
SETTINGS_BY_NAME = {each.name: each for each in SETTINGS}
# Former names of settings.
ALIASES = {alias: each.name for each in SETTINGS for alias in each.aliases}


def settings_table() -> str:
    """All settings as a Markdown table."""
    rows = []
    for each in SETTINGS:
        values = ", ".join(f"`{c}`" for c in each.choices) or {str: "text", int: "integer", float: "number"}.get(
            each.type, "`true`, `false`"
        )
        flag = f"`{each.flag}`" + (", `-o`" if each.name == "output" else "")
        values += ", list" if each.is_axis else ""
        rows.append([flag, f"`{each.name}`", f"`{format_default(each)}`", values, each.help])
    return markdown_table(["flag", "TOML key", "default", "values", "meaning"], rows, "<")


def format_default(setting: Setting) -> str:
    """A setting's default as the user would write it."""
    if setting.default is None:
        return str(setting.unset)
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)


def experiment_schema() -> dict[str, Any]:
    """JSON Schema of an experiment's TOML file."""
    former = {alias: {**_property(SETTINGS_BY_NAME[name]), "deprecated": True} for alias, name in ALIASES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tunemark experiment",
        "type": "object",
        "additionalProperties": False,
        "properties": {**{each.name: _property(each) for each in SETTINGS}, **former},
    }


def _property(setting: Setting) -> dict[str, Any]:
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    one: dict[str, Any] = {"type": names[setting.type]}
    if setting.minimum is not None:
        one["minimum"] = setting.minimum
    if setting.maximum is not None:
        one["maximum"] = setting.maximum
    if setting.above is not None:
        one["exclusiveMinimum"] = setting.above
    if setting.name == "size":
        one = {"type": ["string", "integer"]}
    kinds = [one]
    # "1,2,4", a range, or the word that means None.
    if setting.type in (int, float):
        kinds.append({"type": "string"})
    if setting.is_axis:
        items = kinds[0] if len(kinds) == 1 else {"anyOf": list(kinds)}
        kinds.append({"type": "array", "items": items, "minItems": 1})
    described = {
        "description": setting.help,
        "default": format_default(setting) if setting.default is None else setting.default,
    }
    return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **described}
