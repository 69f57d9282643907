"""Plugins that misbehave: each is named with its reason, and everything else stays usable."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import sys
from collections.abc import Callable
from pathlib import Path

from campaign.cases import Outcome, TooLong, Trial, add_case, ask, limit_time
from campaign.made_store import two_plans, write_attempt
from tunemark.errors import PluginError
from tunemark.exit_codes import ExitCode
from tunemark.loading import load_runs
from tunemark.plugin import Catalog
from tunemark.report import write_report
from tunemark.results import Store

_HEAD = """
from tunemark.plugin import Architecture, Format, Model, hookimpl
A = Architecture(model_type="x", vocab_size=259, hidden_size=16, intermediate_size=16, num_hidden_layers=0,
                 num_attention_heads=1, num_key_value_heads=1, head_dim=16, max_position_embeddings=64)
def model(name, **more):
    return Model(**{"name": name, "description": "d", "architecture": A, "tokenizer": None, "runtime": None, **more})
"""
_MODELS = _HEAD + "@hookimpl\ndef tunemark_models():\n    "
_MODULE = "tunemark_campaign_plugin"


@contextlib.contextmanager
def _installed(folder: Path, source: str) -> io.StringIO:  # type: ignore[misc]  # benchmarks are not typed
    """A module of this source as a plugin, beside the installed ones; gives what it prints."""
    (folder / f"{_MODULE}.py").write_text(source)
    sys.path.insert(0, str(folder))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield said
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(_MODULE, None)


def _make_catalog() -> Catalog:
    own = importlib.metadata.EntryPoint(name="campaign", value=_MODULE, group="tunemark")
    return Catalog([*importlib.metadata.entry_points(group="tunemark"), own])


def _add(name: str, what: str, source: str, expected: str) -> None:
    """A plugin's own code is at fault. expected: in what the catalog says of it."""

    def run(trial: Trial) -> Outcome:
        problems = []
        with _installed(trial.folder, source):
            catalog = _make_catalog()
            try:
                with limit_time(20):
                    models = catalog.models()
                    catalog.formats()
                said = " ".join(
                    [
                        *catalog.remarks(),
                        *(f"{offer.name} is claimed by {offer.plugin}" for offer in catalog.offers() if offer.is_taken),
                    ]
                )
            except TooLong:
                return Outcome(seen="no end", problems=("it takes more than 20 s",))
            except Exception as error:
                return Outcome(seen="", problems=(f"it ends the command: {type(error).__name__}: {error}",))
        if len(models) < 10:
            problems.append("other plugins' models are gone")
        if expected not in said:
            problems.append("nothing is said of it")
        return Outcome(seen=said[:200] or "used as it is", problems=tuple(problems))

    add_case(f"plugin-{name}", "plugins", what, run, cheap=True)


_add("import", "a plugin that imports what is not there", "import nowhere_at_all", "No module named")
_add("syntax", "a plugin with an error of syntax", "def (", "SyntaxError")
_add("exit", "a plugin that ends the process when it is imported", "import sys; sys.exit(0)", "SystemExit")
_add("stop", "a plugin that raises what is no Exception", "class Stop(BaseException): pass\nraise Stop('now')", "Stop")
_add("deep", "a plugin that recurses endlessly", "def f(): return f()\nf()", "RecursionError")
_add("memory", "a plugin that takes more memory than there is", "x = bytearray(1 << 60)", "MemoryError")
_add("hook-raises", "a hook that raises", _MODELS + "1 / 0", "division by zero")
_add("hook-exits", "a hook that ends the process", _MODELS + "import os, sys; sys.exit(0)", "SystemExit")
_add("hook-number", "a hook that returns a number", _MODELS + "return 7", "not a sequence")
_add("hook-none", "a hook that returns nothing", _MODELS + "return None", "not a sequence")
_add("hook-texts", "a hook that returns texts", _MODELS + "return ['mistral-tiny']", "is not a Model")
_add(
    "hook-half",
    "a hook that raises after its first answer",
    _MODELS + "yield model('half'); raise ValueError('half')",
    "half",
)
_add(
    "hook-misspelt", "a hook that is misspelt", _HEAD + "@hookimpl\ndef tunemark_modells(): return []", "no hook named"
)
_add(
    "hook-arguments",
    "a hook that wants what nobody gives",
    _HEAD + "@hookimpl\ndef tunemark_models(more): return []",
    "more",
)
_add("nothing", "a plugin without a hook", "x = 1", "implements no hook")
_add("future", "a plugin of an interface of the future", "TUNEMARK_INTERFACE = '9.0'\n" + _MODELS + "return []", "9.0")
_add("taken", "a plugin that takes another's name", _MODELS + "return [model('mistral-tiny')]", "mistral-tiny")
_add("twice", "a plugin that gives a name twice", _MODELS + "return [model('twin'), model('twin')]", "twin")


# -- formats of reports


def _add_format(name: str, what: str, render: str, expected: str, **fields: str) -> None:
    """A format of reports is at fault: the others are written, and nothing outside the report's folder."""
    given = "".join(f", {key}={value!r}" for key, value in {"suffix": ".bad", **fields}.items())
    hook = f"@hookimpl\ndef tunemark_formats(): return [Format(name='bad', render='{_MODULE}:render'{given})]"
    source = f"{_HEAD}{hook}\ndef render(report):\n    {render}\n"

    def run(trial: Trial) -> Outcome:
        report = trial.folder / "deep" / "report"
        write_attempt(Store(trial.folder / "runs"), two_plans()[0], "attempt-0")
        said = ""
        problems = []
        with _installed(trial.folder, source):
            catalog = _make_catalog()
            catalog_formats = catalog.formats()
            for each in [name for name in catalog_formats if name not in ("bad", "csv", "markdown")]:
                del catalog_formats[each]  # the page and the charts take longer, and nothing is different with them
            before = {path for path in trial.folder.rglob("*") if path.is_file()}
            loaded = load_runs([trial.folder / "runs"], lambda result: result)
            try:
                write_report(loaded.results, report, catalog)
            except PluginError as error:
                said = error.one_line()
            except BaseException as error:
                problems.append(f"{type(error).__name__}: {error}")
            said = " ".join([said, *catalog.remarks()])
        outside = [path for path in trial.folder.rglob("*") if path.is_file() and path not in before]
        outside = [path for path in outside if "__pycache__" not in path.parts and not path.is_relative_to(report)]
        problems += [f"it wrote {outside[0].relative_to(trial.folder)}"] if outside else []
        problems += [] if expected in said else ["nothing is said of it"]
        problems += [] if (report / "report.md").exists() else ["the other formats were not written"]
        return Outcome(seen=said.strip()[:200], problems=tuple(problems))

    add_case(f"format-{name}", "plugins", what, run, cheap=True)


_add_format("raises", "a format that raises", "1 / 0", "division by zero")
_add_format("exits", "a format that ends the process", "raise SystemExit(0)", "SystemExit")
_add_format("text", "a format that returns text", "return 'text'", "bad")
_add_format("nothing", "a format that returns nothing", "return None", "bad")
_add_format(
    "outside",
    "a format whose files lie outside the report",
    "return {'../../x.bad': b'x'}",
    "not a file name",
    folder="bad",
)
_add_format(
    "folder-outside",
    "a format whose folder is outside the report",
    "return {'x.bad': b'x'}",
    "../../X",
    folder="../../X",
)
_add_format("folder-root", "a format whose folder is /tmp", "return {'x.bad': b'x'}", "/tmp", folder="/tmp")
_add_format(
    "suffix-outside", "a format whose suffix leads out of the report", "return b'x'", "/../..", suffix="/../../../x"
)


def _hooks_of_results(trial: Trial, body: str, expected: str) -> Outcome:
    source = f"{_HEAD}@hookimpl\ndef tunemark_audit(plan, result):\n    {body}\n"
    write_attempt(Store(trial.folder / "runs"), two_plans()[0], "attempt-0")
    from tunemark.analysis import judge

    with _installed(trial.folder, source):
        catalog = _make_catalog()
        problems = []
        try:
            (result,) = load_runs([trial.folder / "runs"], lambda result: judge(result, catalog)).results
            said = "; ".join(f.message for f in result.findings) + " ".join(catalog.remarks())
        except BaseException as error:
            return Outcome(seen="", problems=(f"it ends the command: {type(error).__name__}: {error}",))
    if expected not in said:
        problems.append("nothing is said of it")
    return Outcome(seen=said[-200:], problems=tuple(problems))


def _add_audit(name: str, what: str, body: str, expected: str) -> None:
    run: Callable[[Trial], Outcome] = lambda trial: _hooks_of_results(trial, body, expected)  # noqa: E731
    add_case(f"audit-{name}", "plugins", what, run, cheap=True)


_add_audit("raises", "a rule of a plugin that raises", "1 / 0", "division by zero")
_add_audit("exits", "a rule of a plugin that ends the process", "raise SystemExit(0)", "SystemExit")
_add_audit("number", "a rule of a plugin that returns a number", "return 7", "int")
_add_audit("nothing", "a rule of a plugin that returns nothing", "return None", "None")


def _list_is_whole(trial: Trial) -> Outcome:
    answer = ask("list", "plugins", codes=(ExitCode.SUCCESS,))
    return Outcome(seen=f"{len(answer.out.splitlines())} lines", problems=answer.problems)


add_case("plugins-list", "plugins", "none of them: what is installed is listed", _list_is_whole, cheap=True)
