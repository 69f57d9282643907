"""Reports say nothing of whose machine it was, and no file that is written holds a secret."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunemark.analysis.comparability import comparison_key
from tunemark.cli.main import main
from tunemark.loading import load_report
from tunemark.plugin import Catalog
from tunemark.redaction import hide_paths, hide_secrets, make_digest, redact_text
from tunemark.report import write_report
from tunemark.results import Result

# Made up, in the forms that real ones have.
_SECRETS = {
    "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwx", "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "MY_PASSWORD": "correct-horse-battery",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("--token abc123 --steps 3", "--token (hidden) --steps 3"),
        ("--hub-token=abc123", "--hub-token=(hidden)"),
        ("HF_TOKEN=abc python train.py", "HF_TOKEN=(hidden) python train.py"),
        ("https://ann:pw@host.example/x", "https://(hidden)@host.example/x"),
        ("https://h/x?sig=aBc&v=1", "https://h/x?sig=(hidden)&v=1"),
        ("https://h/x?X-Amz-Signature=aBc", "https://h/x?X-Amz-Signature=(hidden)"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer (hidden)"),
        ("password: hunter2", "password: (hidden)"),
        ("key AKIAABCDEFGHIJKLMNOP is", "key (hidden) is"),
        ("sees hf_abcdefghijklmnopqrstuv", "sees (hidden)"),
    ],
)
def test_secrets_are_hidden_by_name_and_form(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden
    assert hide_secrets(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    ["--max-tokens 512", "--tokenizer mistral", "tokens_per_s=123.4", "tokens: 12", "unexpected token: {", "3 tokens/s",
     "https://huggingface.co/a/b", "a key=value pair"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ann/data/a.jsonl", "{/home/ann/data}/a.jsonl"),
        ("/home/ann/my data/a.jsonl", "{/home/ann/my data}/a.jsonl"),
        ("no file '/home/ann/a.jsonl' there", "no file '{/home/ann}/a.jsonl' there"),
        ("hf:/srv/models/llama", "hf:{/srv/models}/llama"),
        ("files:path=~/x/y", "files:path={~/x}/y"),
        (r"C:\Users\ann\a.txt", r"{C:\Users\ann}/a.txt"),
        (
            "2 tokens/s, and/or 1/2 of https://h/a/b at 12/05/2026",
            "2 tokens/s, and/or 1/2 of https://h/a/b at 12/05/2026",
        ),
        ("/proc/self/maps", "/proc/self/maps"),
        ("peer 10.1.2.3 and fe80::1 and 127.0.0.1", "peer {10.1.2.3} and {fe80::1} and 127.0.0.1"),
        ("torch 2.13.0, at 12:30:45", "torch 2.13.0, at 12:30:45"),
        ("aa:bb:cc:dd:ee:ff", "{aa:bb:cc:dd:ee:ff}"),
        ("rank 0 on ann-laptop, not ann-laptop-2", "rank 0 on {ann-laptop}, not ann-laptop-2"),
    ],
)
def test_names_folders_and_addresses_are_hidden_and_equal_ones_stay_equal(text: str, shown: str) -> None:
    expected = re.sub(r"\{(.+?)\}", lambda found: make_digest(found[1]), shown)
    assert redact_text(text, ["ann-laptop"]) == expected
    assert redact_text(expected, ["ann-laptop"]) == expected


def _walk(*folders: Path) -> dict[Path, str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_text(errors="replace") for path in files}


def _run_of_ann(made_run: Callable[..., Result]) -> Result:
    host = {"name": "ann-laptop", "processor": "P"}
    worker = {"node": "ann-laptop", "python": "3.11", "affinity": [0], "allocator": {}, "processor": "P"}
    environment = {"host": host, "worker": worker, "interpreter": {"path": "/home/ann/venv/bin/python"},
                   "launcher": {"hosts": ["ann-laptop", "ann-desktop"], "address": "10.1.2.3"}}  # fmt: skip
    found: Result = made_run(
        model="hf:/home/ann/models/llama", dataset="files:path=/home/ann/data", python="/home/ann/venv/bin/python",
        environment=environment, status="error", stop_reason="error",
    )  # fmt: skip
    return found


def test_no_file_of_a_report_names_the_machine_and_its_runs_stay_comparable(
    made_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = _run_of_ann(made_run)
    write_report([run], tmp_path / "report", Catalog())
    for path, text in _walk(tmp_path / "report").items():
        for word in ("ann-laptop", "ann-desktop", "/home/ann", "10.1.2.3"):
            assert word not in text, path
    (read,) = load_report(tmp_path / "report")
    assert comparison_key(read, ()) == comparison_key(run, ())
    assert read.environment["worker"]["node"] == read.environment["host"]["name"] == make_digest("ann-laptop")
    # Whoever wants the report for themselves gets it as it is.
    write_report([run], tmp_path / "own", Catalog(), is_redacted=False)
    assert hide_paths(json.loads((tmp_path / "own/runs.jsonl").read_text())["model"]) == read.model
    assert "ann-laptop" in (tmp_path / "own/runs.jsonl").read_text()


def test_no_written_file_holds_a_secret_of_the_environment_a_url_or_a_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEMARK_LOCKS", str(tmp_path / "locks"))
    program = "for n in range(9): print(f'step {n} loss 2.0 tokens/s 1234.5')"
    url = "https://ann:s3cr3t-of-ann@data.example/x?sig=s1gn4tur3"
    words = ["--token", "t0k3n-of-ann", "--password=p4ssw0rd", url, f"WANDB_API_KEY={_SECRETS['WANDB_API_KEY']}"]
    written = ["--store", str(tmp_path / "store"), "-o", str(tmp_path / "report")]
    assert main(["audit", *written, "--", sys.executable, "-c", program, *words]) in (0, 1, 3)
    files = _walk(tmp_path)
    assert len(files) > 5
    for path, text in files.items():
        for secret in ("t0k3n-of-ann", "p4ssw0rd", "s3cr3t-of-ann", "s1gn4tur3", *_SECRETS.values()):
            assert secret not in text, path
