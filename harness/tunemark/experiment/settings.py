"""Every setting once: flags, TOML keys, the README's table and the JSON Schema are all derived from `SETTINGS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A flag `--micro-batch` that is also a TOML key `micro_batch`.

    is_axis: it may be a list, and every value makes another run. choices: all there is; one that ends in ":PATH"
    takes any path. unset: the word that means None. minimum, maximum: bounds that are allowed themselves;
    above: a bound that is not.
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
    _axis("device", str, "auto", "device, sizes after a colon: `cpu:1,2`; `auto` is cuda where it is usable, else cpu"),
    _axis("size", str, None, "size of the accelerator, as the device calls it", unset="default"),
    _axis("strategy", str, "none", "way to parallelize, options after colons (`tunemark list strategies`)"),
    _axis("method", str, "full", "what is trained: all (`full`), or adapters: `lora:r=16:alpha=32:targets=all-linear`"),
    _axis(
        "precision",
        str,
        "bf16-autocast",
        "fp32; fp32 weights under bf16 autocast; or all in bf16",
        choices=("fp32", "bf16-autocast", "bf16"),
    ),
    _axis(
        "checkpointing",
        str,
        "none",
        "activations computed again for backward: those of whole layers (full), or all but what matrix products gave",
        choices=("none", "selective", "full"),
    ),
    _axis("batching", str, "pack", "fill sequences with documents, or pad each to one", choices=("pack", "pad")),
    _axis("sequence", int, 512, "slots in a sequence, tokens", minimum=2),
    _axis("micro_batch", int, 4, "sequences per forward and data rank", minimum=1),
    _axis(
        "global_batch",
        int,
        None,
        "sequences per step of the whole job; `auto` is micro_batch x data ranks (x stages of a pipeline)",
        unset="auto",
        minimum=1,
    ),
    _axis("train_on", str, "all", "tokens that a loss is taken on", choices=("all", "response")),
    _axis(
        "weights",
        str,
        "random",
        "initial weights: random, the published ones, or a folder's",
        choices=("random", "pretrained", "pretrained:PATH"),
    ),
    _axis("optimizer", str, "adamw", "optimizer; sgd is without momentum", choices=("adamw", "sgd", "adafactor")),
    _axis("learning_rate", float, 1e-4, "peak learning rate", above=0),
    _axis("schedule", str, "constant", "learning rate over the steps", choices=("constant", "linear", "cosine")),
    _axis("clip_norm", float, 1.0, "largest norm of the gradient; 0 does not clip", minimum=0),
    _axis("seed", int, 0, "seed of weights and order", minimum=0, maximum=2**32 - 1),
    _axis("python", str, None, "interpreter that trains; `auto` is this one", unset="auto"),
    _scalar("chip", str, None, "what the accelerator is made of, where the device does not know", unset="unknown"),
    _scalar("chips", int, None, "how many of --chip one size has", unset="unknown", minimum=1),
    _scalar("epochs", int, None, "end after so many passes over the data", unset="none", minimum=1),
    _scalar("steps", int, None, "end after so many measured steps", unset="none", minimum=1),
    _scalar(
        "warmup", int, None, "steps before the measured ones; `auto` finds where they settle", unset="auto", minimum=0
    ),
    _scalar(
        "budget",
        float,
        None,
        "end after so many seconds of steps; `auto` is 20, or no limit where --steps or --epochs is given",
        unset="auto",
        above=0,
    ),
    _scalar("target_interval", float, 0.02, "end at an interval of ± this fraction; 0 never ends early", minimum=0),
    _scalar("window", float, 1.0, "seconds between waits for the device", above=0),
    _scalar("trials", int, 4, "layouts that strategy auto tries for real; 0 trusts its prediction", minimum=0),
    _scalar(
        "evaluate", int, None, "documents kept out of training: their loss before and after", unset="none", minimum=1
    ),
    _scalar("sample", str, None, "a text to complete greedily, before and after training", unset="none"),
    _scalar("save", str, None, "new folder for the trained model, as transformers reads it", unset="none"),
    _scalar("trust_remote_code", bool, False, "let a model's repository bring Python code that is run"),
    _scalar("allow_pickle", bool, False, "read weights from pickles too, which can run code"),
    _scalar("breakdown", bool, False, "run everything a second time with every part of a step timed"),
    _scalar("verify", bool, False, "hold each strategy to the losses of one process over five steps first"),
    _scalar("repeats", int, 3, "attempts per run, each in fresh processes", minimum=1),
    _scalar(
        "timeout", float, 1800.0, "seconds without a new record of a rank after which an attempt is ended", above=0
    ),
    _scalar("launcher", str, "local", "what starts the processes, options after colons (`tunemark list launchers`)"),
    _scalar("export", str, None, "variables that processes elsewhere get, names joined by plus", unset="none"),
    _scalar(
        "max_restarts", int, 0, "times that torch's elastic agent may start an attempt's processes again", minimum=0
    ),
    _scalar("redo", bool, False, "repeat what is finished already"),
    _scalar("oversubscribe", bool, False, "allow a size larger than this machine"),
    _scalar("no_calibrate", bool, False, "do not measure the peak FLOP/s of devices that publish none"),
    _scalar("store", str, "runs", "folder that keeps all attempts"),
    _scalar("output", str, None, "folder or file that the report is written to", unset="none"),
    _scalar("language", str, "en", "of the report that --output names", choices=("en", "ko")),
    _scalar(
        "prices", str, None, "file of prices of an hour, TOML or CSV: reports then say what tokens cost", unset="none"
    ),
    _scalar("dry_run", bool, False, "print the plan and stop"),
    _scalar("json", bool, False, "print one JSON object a line instead of a table"),
)

BY_NAME = {each.name: each for each in SETTINGS}


def markdown_table() -> str:
    """All settings as a Markdown table."""
    lines = ["| flag | TOML key | default | values | meaning |", "|---|---|---|---|---|"]
    for each in SETTINGS:
        values = ", ".join(f"`{c}`" for c in each.choices) or {str: "text", int: "integer", float: "number"}.get(
            each.type, "`true`, `false`"
        )
        flag = f"`{each.flag}`" + (", `-o`" if each.name == "output" else "")
        values += ", list" if each.is_axis else ""
        lines.append(f"| {flag} | `{each.name}` | `{default_word(each)}` | {values} | {each.help} |")
    return "\n".join(lines)


def default_word(setting: Setting) -> str:
    """A setting's default as the user would write it."""
    if setting.default is None:
        return str(setting.unset)
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)


def json_schema() -> dict[str, Any]:
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
        "default": default_word(setting) if setting.default is None else setting.default,
    }
    return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **described}
