"""All settings: the flags, TOML keys, README table and JSON Schema are derived from `SETTINGS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunemark.markdown import markdown_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A flag `--micro-batch` that is also a TOML key `micro_batch`.

    is_axis: the setting may be a list, each value of which adds runs. choices: all allowed values; one that ends in
    ":PATH" takes any path. unset: the word that means None. minimum, maximum: inclusive bounds.
    above: an exclusive lower bound.
    """

    name: str
    type: type[str] | type[int] | type[float] | type[bool]
    default: str | int | float | bool | None
    is_axis: bool
    help: str
    choices: tuple[str, ...] = ()
    unset: str | None = None
    minimum: float | None = None
    above: float | None = None
    maximum: int | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _axis(name: str, kind: Any, default: Any, help: str, **more: Any) -> Setting:
    return Setting(name=name, type=kind, default=default, is_axis=True, help=help, **more)


def _scalar(name: str, kind: Any, default: Any, help: str, **more: Any) -> Setting:
    return Setting(name=name, type=kind, default=default, is_axis=False, help=help, **more)


SETTINGS = (
    _axis("model", str, "mistral-tiny", "model (`tunemark list models`)"),
    _axis("dataset", str, "python-stdlib", "dataset, options after colons: `python-code-alpaca:path=FILE`"),
    _axis("device", str, "auto", "device, optionally with sizes: `cpu:1,2`; `auto` is cuda if it is usable, else cpu"),
    _axis("size", str, None, "accelerator size, as the device names it (`tunemark list devices`)", unset="default"),
    _axis("strategy", str, "none", "parallelization strategy, options after colons (`tunemark list strategies`)"),
    _axis("method", str, "full", "train everything (`full`) or LoRA adapters: `lora:r=16:alpha=32:targets=all-linear`"),
    _axis("precision", str, "bf16-autocast", "pure fp32, fp32 weights with bf16 autocast, or pure bf16",
        choices=("fp32", "bf16-autocast", "bf16")),
    _axis("checkpointing", str, "none",
        "activation checkpointing: recompute whole layers (full) or everything except matmul outputs (selective)",
        choices=("none", "selective", "full")),
    _axis("batching", str, "pack", "pack several documents into a sequence, or pad each document to a sequence",
        choices=("pack", "pad")),
    _axis("sequence", int, 512, "sequence length in tokens", minimum=2),
    _axis("micro_batch", int, 4, "sequences per forward pass and data-parallel rank", minimum=1),
    _axis("global_batch", int, None,
        "sequences per step of the whole job; `auto` is micro_batch x data-parallel ranks (x pipeline stages)",
        unset="auto", minimum=1),
    _axis("train_on", str, "all", "tokens that contribute to the loss", choices=("all", "response")),
    _axis("weights", str, "random", "initial weights: random, the model's published weights, or those in a folder",
        choices=("random", "pretrained", "pretrained:PATH")),
    _axis("optimizer", str, "adamw", "optimizer; sgd has no momentum", choices=("adamw", "sgd", "adafactor")),
    _axis("learning_rate", float, 1e-4, "peak learning rate", above=0),
    _axis("schedule", str, "constant", "learning-rate schedule", choices=("constant", "linear", "cosine")),
    _axis("clip_norm", float, 1.0, "max gradient norm (0 disables clipping)", minimum=0),
    _axis("seed", int, 0, "random seed of the weights and the data order", minimum=0, maximum=2**32 - 1),
    _axis("python", str, None, "Python interpreter that runs the training; `auto` is the current one", unset="auto"),
    _scalar("chip", str, None, "chip model of the accelerator, if the device cannot detect it", unset="unknown"),
    _scalar("chips", int, None, "number of --chip in the chosen size", unset="unknown", minimum=1),
    _scalar("epochs", int, None, "stop after this many passes over the data", unset="none", minimum=1),
    _scalar("steps", int, None, "stop after this many measured steps", unset="none", minimum=1),
    _scalar("warmup", int, None, "warm-up steps before the measured ones; `auto` detects when step times settle",
        unset="auto", minimum=0),
    _scalar("budget", float, None,
        "stop after this many seconds of steps; `auto` is 20, or no limit if --steps or --epochs is given",
        unset="auto", above=0),
    _scalar("target_interval", float, 0.02, "stop at a confidence interval of ± this fraction (0: never)", minimum=0),
    _scalar("window", float, 1.0, "seconds per measurement window, at whose end the device is synchronized", above=0),
    _scalar("trials", int, 4, "layouts that strategy auto tries before choosing; 0 trusts its prediction", minimum=0),
    _scalar("evaluate", int, None, "held-out documents for a loss before and after training", unset="none", minimum=1),
    _scalar("sample", str, None, "prompt to complete greedily before and after training", unset="none"),
    _scalar("save", str, None, "new folder to save the trained model to, in transformers' format", unset="none"),
    _scalar("trust_remote_code", bool, False, "allow Python code from a model's repository to run"),
    _scalar("allow_pickle", bool, False, "allow weights to be loaded from pickle files, which can run code"),
    _scalar("breakdown", bool, False, "repeat every run with each part of a step timed"),
    _scalar("verify", bool, False, "first check each strategy's losses over five steps against a single process"),
    _scalar("repeats", int, 3, "attempts per run, each in fresh processes", minimum=1),
    _scalar("timeout", float, 1800.0, "seconds without a record from a rank after which an attempt is killed", above=0),
    _scalar("launcher", str, "local", "how processes are started, options after colons (`tunemark list launchers`)"),
    _scalar("export", str, None, "environment variables to forward to remote processes, joined by plus", unset="none"),
    _scalar("max_restarts", int, 0, "how often torch's elastic agent may restart an attempt's processes", minimum=0),
    _scalar("redo", bool, False, "run again what has already finished"),
    _scalar("oversubscribe", bool, False, "allow a size that is larger than this machine"),
    _scalar("no_calibrate", bool, False, "do not measure the peak FLOP/s of devices without a published peak"),
    _scalar("store", str, "runs", "folder in which all attempts are stored"),
    _scalar("output", str, None, "folder or file to write the report to", unset="none"),
    _scalar("language", str, "en", "language of the report", choices=("en", "ko")),
    _scalar("prices", str, None, "TOML or CSV file of hourly prices, for the cost of tokens in reports", unset="none"),
    _scalar("dry_run", bool, False, "print the plan and exit"),
    _scalar("json", bool, False, "print one JSON object per line instead of a table"),
)  # fmt: skip

SETTINGS_BY_NAME = {each.name: each for each in SETTINGS}


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
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tunemark experiment",
        "type": "object",
        "additionalProperties": False,
        "properties": {each.name: _property(each) for each in SETTINGS},
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
