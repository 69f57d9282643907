"""Exported runs hold the figures of runs.jsonl: what needs no extra package here, trackers read back by their own
libraries in the tests marked full."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from tunemark.cli.main import main
from tunemark.plugin import Catalog

_ROOT = Path(__file__).parents[2]
_EXAMPLE = _ROOT / "reports/example"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's first two runs, with their steps."""
    folder = tmp_path_factory.mktemp("report")
    lines = (_EXAMPLE / "runs.jsonl").read_text().splitlines()[:2]
    ids = [json.loads(line)["run_id"] for line in lines]
    (folder / "runs.jsonl").write_text("\n".join(lines) + "\n")
    steps = (_EXAMPLE / "steps.jsonl").read_text().splitlines()
    (folder / "steps.jsonl").write_text("\n".join(s for s in steps if json.loads(s)["run_id"] in ids) + "\n")
    return folder


def _rows(report: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (report / "runs.jsonl").read_text().splitlines()]


def _figures(row: dict[str, Any]) -> dict[str, float]:
    """Some figures of every kind: an estimate with its bounds, a nested one, plain ones."""
    return {
        "tokens_per_s": row["tokens_per_s"]["value"],
        "tokens_per_s_low": row["tokens_per_s"]["low"],
        "slot_tokens_per_s": row["slot_tokens_per_s"]["value"],
        "tokens_content": row["tokens"]["content"],
        "step_time_s_p50": row["step_time_s"]["p50"],
        "steps_measured": row["steps_measured"],
        "loss_last": row["loss_last"],
    }


def test_an_export_names_no_host_unless_asked_to(report: Path, tmp_path: Path) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    rows = _rows(report)
    for row in rows:
        row["environment"]["worker"]["node"] = "planted-host"
        row["each_attempt"][0]["evidence"] = "planted-host did not answer"
    (folder / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for more in ([], ["--no-redact"]):
        file = tmp_path / f"{len(found)}.db"
        assert main(["export", str(folder), "--to", "sqlite", "-o", str(file), *more]) == 0
        found.append(b"planted-host" in file.read_bytes())
    assert found == [False, True]


def test_sqlite_holds_what_runs_jsonl_holds(report: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    assert main(["export", str(report), "--to", "sqlite", "-o", str(file)]) == 0
    connection = sqlite3.connect(file)
    for row in _rows(report):
        wanted = _figures(row)
        (found,) = connection.execute(
            f"SELECT {', '.join(wanted)} FROM runs WHERE run_id = ?", [row["run_id"]]
        ).fetchall()
        assert dict(zip(wanted, found, strict=True)) == wanted
        attempts = connection.execute("SELECT tokens_per_s FROM attempts WHERE run_id = ?", [row["run_id"]]).fetchall()
        assert [rate for (rate,) in attempts] == [each["tokens_per_s"] for each in row["each_attempt"]]
        findings = connection.execute("SELECT rule FROM findings WHERE run_id = ?", [row["run_id"]]).fetchall()
        assert [rule for (rule,) in findings] == [each["rule"] for each in row["findings"]]
    connection.close()


def test_a_file_that_is_no_database_is_kept(report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("mine")
    assert main(["export", str(report), "--to", "sqlite", "-o", str(tmp_path / "notes")]) == 2
    assert (tmp_path / "notes").read_text() == "mine"
    assert "is not overwritten" in capsys.readouterr().err


def test_parquet_holds_what_runs_jsonl_holds_and_the_windows_add_up(report: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    assert main(["export", str(report), "--to", "parquet", "-o", str(tmp_path)]) == 0
    runs = pyarrow.parquet.read_table(tmp_path / "runs.parquet").to_pylist()
    for row, found in zip(_rows(report), runs, strict=True):
        wanted = _figures(row)
        assert {name: found[name] for name in wanted} == wanted
    windows = pyarrow.parquet.read_table(tmp_path / "windows.parquet").to_pylist()
    one = _rows(report)[0]["each_attempt"][0]
    begun_s, tokens, seconds = 0.0, 0.0, 0.0
    for window in (w for w in windows if w["attempt"] == one["name"]):
        length_s, begun_s = window["end_s"] - begun_s, window["end_s"]
        if window["is_timed"]:
            tokens, seconds = tokens + window["tokens_per_s"] * length_s, seconds + length_s
    assert tokens / seconds == pytest.approx(one["tokens_per_s"], rel=1e-9)


def test_tensorboard_holds_the_figures_with_all_digits(report: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    for _ in range(2):  # a second export replaces the first
        assert main(["export", str(report), "--to", "tensorboard", "-o", str(tmp_path)]) == 0
    for row in _rows(report):
        events = EventAccumulator(str(tmp_path / row["run_id"]))
        events.Reload()
        for name, value in _figures(row).items():
            (event,) = events.Tensors(name)
            assert tensor_util.make_ndarray(event.tensor_proto).item() == value
        for attempt in row["each_attempt"]:
            events = EventAccumulator(str(tmp_path / row["run_id"] / attempt["name"]))
            events.Reload()
            assert len(events.Tensors("window/tokens_per_s")) > 3


def test_sql_over_runs(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT run_id, max(tokens_per_s) AS rate FROM runs GROUP BY 1", str(report), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["run_id"]: row["rate"] for row in rows} == {
        row["run_id"]: row["tokens_per_s"]["value"] for row in _rows(report)
    }
    assert main(["query", "SELECT * FROM nothing", str(report)]) == 2
    assert "attempts (run_id, name, " in capsys.readouterr().err
    assert main(["query", "DELETE FROM runs", str(report)]) == 2


def test_a_missing_package_is_named_with_what_installs_it(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [each for each in json.loads(_list_exporters(capsys)) if each["missing"]]
    for each in missing:
        assert main(["export", str(report), "--to", each["name"], "-o", str(tmp_path / "x")]) == 2
        assert f"pip install 'tunemark[{each['extra']}]'" in capsys.readouterr().err
    assert main(["export", str(report), "--to", "tensorbord", "-o", "x"]) == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err


def _list_exporters(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["list", "exporters", "--json"]) == 0
    return capsys.readouterr().out


def test_every_extra_of_an_exporter_is_one_of_the_package() -> None:
    text = (_ROOT / "pyproject.toml").read_text()
    for exporter in Catalog().exporters().values():
        assert not exporter.extra or f"\n{exporter.extra} = [" in text


# How each library reads its own files: {run_id: {figure: value}}.
_READERS = {
    "prometheus": """
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(open(destination).read()):
    for sample in family.samples:
        found.setdefault(sample.labels["run_id"], {})[sample.name.removeprefix("tunemark_")] = sample.value
""",
    "mlflow": """
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=f"sqlite:///{destination}")
experiment = client.get_experiment_by_name("tunemark")
for run in client.search_runs([experiment.experiment_id]):
    found[run.data.params["run_id"]] = dict(run.data.metrics)
""",
    "wandb": """
from wandb.proto import wandb_internal_pb2
def read_records(data):
    # LevelDB's log format, which has no reader in wandb's Python: blocks of 32 KiB after a header of 7 bytes.
    at, parts = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
for path in Path(destination).glob("wandb/offline-run-*/run-*.wandb"):
    figures = found.setdefault(path.stem.removeprefix("run-"), {})
    for data in read_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.summary.update:
            figures[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
""",
    "trackio": """
import os
os.environ["TRACKIO_DIR"] = destination
from trackio.sqlite_storage import SQLiteStorage
for run in SQLiteStorage.get_runs("tunemark"):
    name = run if isinstance(run, str) else run["name"]
    figures = found.setdefault(name.split()[-1], {})
    for row in SQLiteStorage.get_logs("tunemark", name):
        figures.update(row)
""",
    "duckdb": """
import duckdb
for row in duckdb.sql(f"SELECT * FROM '{destination}/runs.parquet'").fetchdf().to_dict("records"):
    found[row["run_id"]] = row
""",
}
_PACKAGES = {
    "prometheus": "prometheus-client",
    "mlflow": "mlflow-skinny>=3 sqlalchemy alembic",
    "wandb": "wandb",
    "trackio": "trackio",
    "duckdb": "duckdb",
}


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(_READERS))
def test_a_trackers_own_library_reads_the_figures_of_runs_jsonl(name: str, report: Path, tmp_path: Path) -> None:
    """In an environment of its own: a tracker may pin other versions than our tests do."""
    python = _make_environment(tmp_path / "venv", _PACKAGES[name])
    destination = tmp_path / "out"
    exporter = "parquet" if name == "duckdb" else name
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = [python, "-m", "tunemark", "export", str(report), "--to", exporter, "-o", str(destination)]
    done = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reader = f"import json\nfrom pathlib import Path\nfound = {{}}\ndestination = {str(destination)!r}\n"
    reader += f"{_READERS[name]}\nprint(json.dumps(found, default=str))"
    done = subprocess.run([python, "-c", reader], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for row in _rows(report):
        wanted = _figures(row)
        assert {key: found[row["run_id"]][key] for key in wanted} == wanted


def _make_environment(folder: Path, package: str) -> str:
    """The Python of an environment with a package, which sees all that this one has."""
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        (site / "outer.pth").write_text(f"import site; site.addsitedir({path!r})\n")
    python = str(folder / "bin/python")
    # Its own requirements come first, whatever is installed outside.
    done = subprocess.run([python, "-m", "pip", "install", "-q", *package.split()], capture_output=True, text=True)
    if done.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"{package} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python
