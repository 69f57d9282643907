"""`tunemark plan` and `tunemark list` as a user calls them, with the plugins that are installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tunemark.cli.main import main

# Each costs more than the whole start-up may.
HEAVY = ("torch", "transformers", "datasets", "pandas", "numpy", "msgspec", "sentencepiece")

QUESTION = """
import sys
from tunemark.cli.main import main
code = main(sys.argv[1:])
print([m for m in {names!r} if m in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def in_new_process(*words, names=HEAVY):
    command = [sys.executable, "-W", "error", "-c", QUESTION.format(names=names), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "words",
    [["plan", "--model", "mistral-7b"], ["list", "models"], ["list", "devices"], ["plan", "--help"], ["--help"]],
)
def test_nothing_heavy_is_imported(words):
    # Facts of traced models and an interpreter's answer are decoded by msgspec, which help needs not.
    done = in_new_process(*words, names=HEAVY if "--help" in words else set(HEAVY) - {"msgspec"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    assert done.stdout


def test_help_needs_no_plugins():
    assert in_new_process("--help", names=("pluggy", "tunemark.plugin", "json")).stderr == "[]\n"


def test_the_table_of_mistral_7b_can_be_pasted(capsys):
    assert main(["plan", "--model", "mistral-7b,mistral-7b-v0.3", "--device", "cpu:1", "--sequence", "2048"]) == 0
    out = capsys.readouterr().out
    shared, blank, header, rule, first, second, *_ = out.splitlines()
    assert "dataset python-stdlib" in shared
    assert "device cpu; size 1" in shared
    assert "model" not in shared
    assert blank == ""
    assert len({line.count("|") for line in (header, rule, first, second)}) == 1
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    row = dict(zip(columns, [cell.strip() for cell in first.strip("|").split("|")], strict=True))
    assert row["model"] == "mistral-7b"
    assert row["parameters"] == "7,241,732,096"
    # 44,273,762,304 FLOPs; 16 bytes x 7,241,732,096 / 2^30.
    assert row["FLOPs per token (GFLOP, causal)"] == "44.27"
    assert row["memory floor, unsharded (GiB)"] == "107.9"
    assert row["tokens per step (slots)"] == "8,192"


def test_json_is_one_object_a_line(capsys):
    assert main(["plan", "--device", "cpu:1", "--sequence", "128,256", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["sequence"] for row in rows] == [128, 256]
    assert rows[0]["tokens_per_step"] == rows[0]["global_batch"] * 128
    assert rows[0]["run_id"] != rows[1]["run_id"]


def test_a_value_that_is_not_the_default_is_shown(capsys):
    assert main(["plan", "--device", "cpu:1", "--optimizer", "sgd", "--seed", "1,2", "--breakdown"]) == 0
    shared, _, header, *_ = capsys.readouterr().out.splitlines()
    assert "optimizer sgd" in shared
    assert "| seed | breakdown |" in header


def test_the_file_and_the_flags(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text('device = "cpu:1"\nsequence = [128, 256]\nmicro_batch = 2\n')
    assert main(["plan", str(file), "--json", "--micro-batch", "3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["sequence"], row["micro_batch"]) for row in rows] == [(128, 3), (256, 3)]


BAD = [
    (["plna"], "did you mean 'plan'"),
    (["--nonsense"], "no command named"),
    (["plan", "--modle", "x"], "did you mean '--model'"),
    (["plan", "--modle=x"], "did you mean '--model'"),
    (["plan", "--zzzzzz"], "see `tunemark plan --help`"),
    (["plan", "--model"], "expected one argument"),
    (["plan", "--model", "mistral-7"], "did you mean 'mistral-7b'"),
    (["plan", "--device", "cpu:0"], "has no size '0'"),
    (["plan", "--device", "cpu:100000"], "--oversubscribe"),
    (["plan", "--learning-rate", "-inf"], "expected one argument"),
    (["plan", "--learning-rate=-inf"], "finite"),
    (["plan", "--sequence", "1000000"], "is longer than mistral-tiny's maximum"),
    (["plan", "missing.toml"], "cannot read the experiment 'missing.toml'"),
    (["plan", "."], "cannot read the experiment '.'"),
    (["plan", "a.toml", "b.toml"], "unexpected argument 'b.toml'"),
    (["plan", "--python", "/etc/passwd"], "not an executable file"),
    (["list"], "required"),
    (["list", "modles"], "did you mean 'models'"),
]


@pytest.mark.parametrize(("words", "expected"), BAD)
def test_a_mistake_is_one_message_and_exit_code_2(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("tunemark: ") == 1
    assert printed.err.startswith("tunemark: ")
    assert expected.lower() in printed.err.lower()
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("command", ["plan", "predict"])
def test_what_fits_is_answered_and_what_does_not_is_said(command, capsys):
    words = [command, "--oversubscribe", "--strategy", "tp", "--json"]
    assert main([*words, "--device", "cpu:1,2,3"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.count("tunemark: ") == 1
    assert "tp:3 cannot divide 8 attention heads" in err
    assert main([*words, "--device", "cpu:3"]) == 2
    assert capsys.readouterr().out == ""


def test_no_model_that_a_search_cannot_lay_out_is_left_out_in_silence(capsys):
    assert main(["plan", "--model", "llama-3.1-70b,mistral-tiny", "--device", "cpu:1", "--strategy", "auto"]) == 0
    out, err = capsys.readouterr()
    assert "mistral-tiny cpu:1 auto" in out
    assert "tunemark: llama-3.1-70b on cpu:1 cannot be laid out" in err


def test_a_mistake_in_a_new_process_has_no_traceback():
    done = in_new_process("plan", "--model", "mistral-7")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_words_print_the_commands_and_fail(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "tunemark.cli.main", "plan", "--device", "cpu:1", "--json", "--seed", "1-900+1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout, process.stderr:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


def test_models_are_listed_with_their_arithmetic(capsys):
    assert main(["list", "models", "--json"]) == 0
    models = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    row = models["mistral-7b"]
    assert row["parameters"] == 7_241_732_096
    assert row["sequence"] == 2048
    assert row["flops_per_token"] == 44_273_762_304
    assert row["architecture"]["num_key_value_heads"] == 8
    assert models["mistral-7b-v0.3"]["parameters"] == 7_248_023_552


@pytest.mark.parametrize("kind", ["devices", "models", "datasets", "strategies", "plugins"])
def test_every_list_is_a_table_or_an_array(kind, capsys):
    assert main(["list", kind]) == 0
    assert capsys.readouterr().out.startswith("| ")
    assert main(["list", kind, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_the_output_of_an_unknown_tool_is_refused_with_the_tools_that_are_read(capsys, tmp_path):
    (tmp_path / "smi.txt").write_text("Mon Nov 30 | some-smi 1.0 |")
    assert main(["list", "devices", "--backend", "cpu", "--from", str(tmp_path / "smi.txt")]) == 2
    said = capsys.readouterr().err
    assert "device 'cpu' reads no status tool's output" in said
    assert "moai (Any table of `moreh-smi` or `ap-smi`)" in said
