"""Files of strangers that commands read: reports, experiments, logs, tables, models. What cannot be read is refused
with a word, what can is no command to a terminal or a spreadsheet, and nothing outside is read, written or removed."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaign.cases import Outcome, Trial, add_case, ask
from campaign.made_store import two_plans, write_attempt
from tunemark.results import Store

_ESCAPES = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\u202egpj.exe\x9b31m"
# Exit codes: what was given cannot be used; it can, and something may be wrong with it.
_REFUSED, _READ = (2,), (0, 1, 3)


def _add(
    kind: str,
    name: str,
    what: str,
    make: Callable[[Path], Any],
    words: Callable[[Path], Sequence[str]],
    codes: Sequence[int] = (*_REFUSED, *_READ),
    *,
    cheap: bool = True,
    within_s: float = 20.0,
) -> None:
    """One command on what `make` puts into a path."""

    def run(trial: Trial) -> Outcome:
        path = trial.folder / "given"
        make(path)
        before = _list_files(trial.folder)
        answer = ask(*words(path), within_s=within_s, codes=codes)
        problems = list(answer.problems)
        if missing := before - _list_files(trial.folder):
            problems.append(f"{sorted(missing)[0]} was removed")
        code = "no end" if answer.code is None else f"exit code {int(answer.code)}"
        return Outcome(seen=f"{code}: {answer.last_words}".replace(str(trial.folder), "..."), problems=tuple(problems))

    add_case(name, kind, what, run, cheap=cheap)


def _list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# -- reports


def _write_report(folder: Path, edit: Callable[[dict[str, Any]], Any] = lambda row: None) -> None:
    """A report's folder of two runs, whose rows are edited."""
    store = Store(folder.parent / "runs")
    for plan in two_plans():
        write_attempt(store, plan, "attempt-0")
    answer = ask("report", str(store.root), "--json")
    folder.mkdir()
    rows = [json.loads(line) for line in answer.out.splitlines()]
    for row in rows:
        edit(row)
    (folder / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _report(name: str, what: str, make: Callable[[Path], Any], codes: Sequence[int] = (*_REFUSED, *_READ)) -> None:
    _add("strangers' reports", f"report-{name}", what, make, lambda path: ("report", str(path)), codes)


def _edit_row(**values: Any) -> Callable[[Path], Any]:
    return lambda path: _write_report(path, lambda row: row.update(values))


def _row_file(text: str | bytes) -> Callable[[Path], Any]:
    def make(path: Path) -> None:
        path.mkdir()
        content = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
        (path / "runs.jsonl").write_bytes(content)

    return make


def _link_in_report(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def planted(path: Path) -> None:
        _write_report(path)
        (path / name).unlink(missing_ok=True)
        make(path / name)

    return planted


_report("escapes", "names in a report have commands for a terminal", _edit_row(model=_ESCAPES, device=_ESCAPES))
_report("huge", "numbers of 400 digits in a report", _edit_row(chips=10**400, parameters=10**400))
_report("negative", "negative sizes in a report", _edit_row(chips=-1, processes=-5, sequence=-1, micro_batch=0))
_report("nested", "a line of 100,000 levels in a report", _row_file("[" * 10**5 + "\n"))
_report("binary", "a report's rows are no text", _row_file(os.urandom(4096)))
_report("future", "a report of a schema of the future", _edit_row(schema=99, warp=9), _READ)
_report("garbage", "ten thousand lines that are no rows", _row_file("garbage\n" * 10_000))
_report("pipe", "a report's rows are a pipe", _link_in_report("runs.jsonl", os.mkfifo))
_report(
    "zeros",
    "a report's rows are a link to /dev/zero",
    _link_in_report("runs.jsonl", lambda p: p.symlink_to("/dev/zero")),
)
_report("steps-pipe", "a report's steps are a pipe", _link_in_report("steps.jsonl", os.mkfifo))
_report(
    "claims-zeros",
    "a report's claims are a link to /dev/zero",
    _link_in_report("imported.jsonl", lambda p: p.symlink_to("/dev/zero")),
)
_report("list-pipe", "a report's list of files is a pipe", _link_in_report("report.json", os.mkfifo))


def _claim_own(path: Path) -> None:
    """A list of files that calls the user's files its own, so that the next report would remove them."""
    _write_report(path)
    victim = path.parent / "thesis.txt"
    victim.write_text("years of work\n")
    hashes = {f"../{victim.name}": hashlib.sha256(victim.read_bytes()).hexdigest(), str(victim): "0" * 64}
    from tunemark.results.report_seal import ReportSeal

    (path / "report.json").write_bytes(ReportSeal(files=hashes).encode())


_add(
    "strangers' reports",
    "report-claims-files",
    "a report's list of files names files of the user",
    _claim_own,
    lambda path: ("report", str(path.parent / "runs"), "-o", str(path)),
)


def _formulas(trial: Trial) -> Outcome:
    """Names that a spreadsheet would compute, written into a report's tables."""
    bad = [f"{first}cmd|' /C calc'!A0" for first in "=+-@"]
    problems = []
    shown = 0
    for number, name in enumerate(bad):
        path = trial.folder / f"given-{number}"
        table = io.StringIO()
        csv.writer(table).writerows([["model", "hardware", "gpus", "tokens_per_s"], [name, name, "8", "12345"]])
        path.with_suffix(".csv").write_text(table.getvalue())
        answer = ask("audit", str(path.with_suffix(".csv")), "-o", str(path), codes=_READ)
        problems += answer.problems
        for written in sorted(path.rglob("*.csv")):
            for cell in (cell for row in csv.reader(written.read_text().splitlines()) for cell in row):
                shown += "calc" in cell
                if "calc" in cell and cell[:1] in "=+-@":
                    problems.append(f"{written.name} has a formula: {cell[:20]}")
    return Outcome(seen=f"{shown} cells have such a name, none of them first", problems=tuple(dict.fromkeys(problems)))


add_case("csv-formulas", "strangers' tables", "names that are formulas of a spreadsheet", _formulas, cheap=False)


# -- logs and tables


def _log(name: str, what: str, text: str | bytes, codes: Sequence[int] = (*_REFUSED, *_READ), **more: Any) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    _add(
        "strangers' logs",
        f"log-{name}",
        what,
        lambda path: path.write_bytes(content),
        lambda path: ("audit", str(path)),
        codes,
        **more,
    )


_LINES = "".join(f"step {n} loss {9 - n / 100:.3f} tokens/s 12345.6 time {n * 0.5:.2f}\n" for n in range(100))
_log("escapes", "a log with commands for a terminal", _LINES.replace("step", f"{_ESCAPES}step"))
_log("zeros", "a log with zeros in it", _LINES.encode().replace(b"loss", b"\0\0\0loss"))
_log("utf16", "a log in UTF-16", _LINES.encode("utf-16"))
_log("commas", "a line of 40,000 numbers before the words tokens/s", ",".join(["1"] * 40_000) + " tokens/s\n" + _LINES)
_log("words", "a line of 100,000 words", "tokens " * 100_000 + "\n" + _LINES)
_log("brackets", "a line of 100,000 brackets", "{[" * 50_000 + "\n" + _LINES)
_log("digits", "a rate of 100,000 digits", "tokens/s: " + "9" * 100_000 + "\n" + _LINES)
_log("json-nested", "a log of JSON of 100,000 levels", '{"tokens_per_s":' * 100_000)
_log("not-finite", "rates that are no numbers", _LINES.replace("12345.6", "nan").replace("0.50", "inf"))
_log("empty", "an empty log", "", _REFUSED)
_log("dates", "dates of the year 99999", _LINES.replace("step", "99999-99-99T99:99:99 step"))


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("log.txt", "w") as file:
        for _ in range(256):
            file.write(bytes(1 << 20))


_add(
    "strangers' logs",
    "log-gzip-bomb",
    "a gzip file of 256 MB of zeros",
    lambda path: path.write_bytes(gzip.compress(bytes(256 << 20), 1)),
    lambda path: ("audit", str(path)),
    cheap=False,
    within_s=120,
)
_add(
    "strangers' logs",
    "log-zip-bomb",
    "a zip file of 256 MB of zeros",
    _zip_bomb,
    lambda path: ("audit", str(path)),
    cheap=False,
    within_s=120,
)
_add(
    "strangers' logs",
    "log-long-line",
    "a line of 64 MB",
    lambda path: path.write_bytes(b"x 1 tokens/s " * (5 << 20)),
    lambda path: ("audit", str(path)),
    cheap=False,
    within_s=300,
)


# -- experiments


def _experiment(name: str, what: str, text: str | bytes, codes: Sequence[int] = _REFUSED, **more: Any) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    _add(
        "strangers' experiments",
        f"toml-{name}",
        what,
        lambda path: path.write_bytes(content),
        lambda path: ("plan", str(path)),
        codes,
        **more,
    )


_experiment("nested", "TOML of 100,000 levels", "a = " + "[" * 100_000)
_experiment("huge", "numbers of 400 digits", "sequence = 1" + "0" * 400)
_experiment(
    "many",
    "a hundred million runs",
    "seed = " + str(list(range(10_000))) + "\nsequence = " + str(list(range(16, 10_016))),
)
_experiment("binary", "an experiment that is no text", os.urandom(4096))
_experiment("escapes", "a model's name with commands for a terminal", 'model = "\\u001b]52;c;x\\u0007\\u202e"')
_experiment("keys", "a key with commands for a terminal", '"\\u001b[2J" = 1')
_experiment("paths", "a model's name that leads out of its folder", 'model = "../../../etc/passwd"')
_experiment("types", "texts for numbers", 'sequence = "many"\nmicro_batch = {a = 1}')
_experiment("not-finite", "a learning rate that is no number", "learning_rate = nan")
_add(
    "strangers' experiments",
    "toml-long",
    "an experiment of 100 MB",
    lambda path: path.write_bytes(b"# " + b"x" * (100 << 20) + b"\n"),
    lambda path: ("plan", str(path)),
    (0, 2),
    cheap=False,
    within_s=60,
)
_add(
    "strangers' experiments",
    "toml-folder",
    "an experiment that is a folder",
    Path.mkdir,
    lambda path: ("plan", str(path)),
    _REFUSED,
)
_add(
    "strangers' experiments",
    "toml-pipe",
    "an experiment that is a pipe",
    os.mkfifo,
    lambda path: ("plan", str(path)),
    _REFUSED,
    cheap=False,
)
_add(
    "strangers' experiments",
    "toml-zeros",
    "an experiment that is a link to /dev/zero",
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: ("plan", str(path)),
    _REFUSED,
)
_add(
    "strangers' tables",
    "prices-escapes",
    "prices with commands for a terminal",
    lambda path: path.write_text(f'"{_ESCAPES.encode("unicode_escape").decode()}" = "free"\n'),
    lambda path: ("plan", "--prices", str(path)),
    _REFUSED,
)
_add(
    "strangers' tables",
    "rows-escapes",
    "published rows with commands for a terminal",
    lambda path: path.write_text(f"model,device,devices,tokens_per_s\n{_ESCAPES},{_ESCAPES},8,1\n"),
    lambda path: ("predict", "--rows", str(path)),
)
_add(
    "strangers' tables",
    "rows-huge",
    "published rows of endless numbers",
    lambda path: path.write_text(f"model,device,devices,tokens_per_s\nllama-2-7b,A100,1{'0' * 400},1e999\n"),
    lambda path: ("predict", "--rows", str(path)),
)
_add(
    "strangers' tables",
    "signers-pipe",
    "a file of allowed signers that is a pipe",
    os.mkfifo,
    lambda path: ("verify", str(path.parent), "--allowed-signers", str(path)),
    _REFUSED,
)


# -- models


def _model(
    name: str, what: str, files: dict[str, Any], codes: Sequence[int] = (*_REFUSED, 0), *, cheap: bool = True
) -> None:
    """cheap: not where transformers is asked, in a process of its own."""

    def make(path: Path) -> None:
        path.mkdir()
        for each, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (path / each).write_text(text)

    _add(
        "strangers' models",
        f"hf-{name}",
        what,
        make,
        lambda path: ("plan", "--model", f"hf:{path}"),
        codes,
        cheap=cheap,
        within_s=120,
    )


_LLAMA = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}
_CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
_RAN = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n"
_model(
    "code",
    "a model that brings its own code",
    {"config.json": {**_LLAMA, "model_type": "own", "auto_map": _CODE}, "own.py": _RAN},
    _REFUSED,
    cheap=False,
)
_model("nested", "a model's config of 100,000 levels", {"config.json": "[" * 100_000}, _REFUSED)
_model("endless", "a model of a billion layers", {"config.json": {**_LLAMA, "num_hidden_layers": 10**9}})
_model("huge", "a model of sizes of 400 digits", {"config.json": {**_LLAMA, "hidden_size": 10**400}}, _REFUSED)
_model("negative", "a model of negative sizes", {"config.json": {**_LLAMA, "hidden_size": -64}}, _REFUSED)
_model("zero", "a model without heads", {"config.json": {**_LLAMA, "num_attention_heads": 0}}, _REFUSED)
_model("texts", "a model whose sizes are texts", {"config.json": {**_LLAMA, "hidden_size": "wide"}}, _REFUSED)
_model(
    "escapes",
    "a model's type with commands for a terminal",
    {"config.json": {**_LLAMA, "model_type": _ESCAPES}},
    _REFUSED,
    cheap=False,
)
