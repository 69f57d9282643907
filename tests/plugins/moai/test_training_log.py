"""What the platform writes into a training program's output."""

from datetime import datetime

import pytest

from tunemark.errors import TunemarkError
from tunemark_moai.parallel_configuration import parse_configuration
from tunemark_moai.terminal_text import TerminalLine
from tunemark_moai.training_log import ConfigurationSearch, HoldingProcess, parse_messages, read_training_log


def at(clock):
    return datetime.fromisoformat(f"2024-03-02T{clock}")


def test_phases_carry_the_instants_at_which_they_began(printed):
    log = read_training_log(printed("training-24.2"))
    assert [(p.phase, p.at) for p in log.phases] == [
        ("requesting", at("10:00:03.250")),
        ("waiting for a process", at("10:00:03.260")),
        ("waiting in the queue", at("10:04:00.000")),
        ("preparing", at("10:19:00.500")),
        ("running", at("10:19:05.750")),
    ]
    assert log.holders == (HoldingProcess(pid=4711, command="python train.py --epochs 3"),)
    assert (log.accelerator, log.nodes, log.build) == ("Some AI Device", 2, "1.13.1+cu116.moreh24.2.0")
    assert (log.version, log.job_id, log.out_of_memory, log.failure, log.others) == (None, None, None, None, ())


def test_a_search_is_put_together(printed):
    (search,) = read_training_log(printed("training-24.2")).searches
    assert (search.candidates, search.possible, search.compile_ms, search.cost_ms) == (18, 5, 30001, 1002)
    assert search.trains is True
    assert search.selected
    assert (search.selected.num_stages, search.selected.num_micro_batches, search.selected.batch_per_device) == (
        2,
        16,
        1,
    )


def test_a_second_graph_is_a_second_search(printed):
    log = read_training_log(printed("training-24.5"))
    first, second = log.searches
    assert (first.candidates, first.possible, first.compile_ms, first.cost_ms, first.trains) == (
        50,
        40,
        90000,
        50000,
        True,
    )
    assert (second.candidates, second.possible, second.compile_ms, second.cost_ms) == (6, 2, 600, 200)
    assert second.trains is False
    assert second.selected
    assert second.selected.recomputation_level == 2
    assert (log.version, log.job_id, log.nodes) == ("24.5.0", 981234, 1)
    assert [line.text for line in log.others] == ["[info] Something that no document mentions."]
    assert [p.at for p in log.phases] == [None, None, None]


def test_out_of_memory_tells_bytes_of_one_physical_device(printed):
    log = read_training_log(printed("training-out-of-memory"))
    memory = log.out_of_memory
    assert memory
    assert (memory.requested_bytes, memory.available_bytes) == (70000000001, 68702699520)
    assert (memory.accelerator, memory.line.number) == ("Other AI Device", 5)
    assert (log.accelerator, log.failure, [p.phase for p in log.phases]) == (
        "Some AI Device",
        None,
        ["running", "failed"],
    )


def test_older_versions_tell_no_bytes():
    memory = read_training_log("[error] Some AI Device memory not enough.\n").out_of_memory
    assert memory
    assert (memory.accelerator, memory.requested_bytes, memory.available_bytes) == ("Some AI Device", None, None)


@pytest.mark.parametrize(
    "text",
    [
        "The connection to the server has been lost. Please contact technical support if the problem persists.",
        "The current version of Moreh AI Framework is outdated and no longer supported in the system",
        "Failed to initialize the worker daemon for Some AI Device.",
        "An internal error occurred in the Some AI Device",
        "Error Code 7: SOMETHING_ELSE",
        "SDA token is not given.",
    ],
)
def test_a_failure_is_told_with_and_without_its_level(text):
    for prefix in ("", "[error] ", "[2024-03-02 10:00:00.000] [error] "):
        log = read_training_log(f"hello\n{prefix}{text}\n")
        assert log.failure
        assert (log.failure.text, log.failure.line.number) == (text, 2)
        assert [p.phase for p in log.phases] == ["failed"]


def test_a_connection_that_is_lost_ends_the_phases(printed):
    log = read_training_log(printed("training-connection-lost"))
    assert [p.phase for p in log.phases] == ["requesting", "preparing", "failed"]


def test_a_process_that_ends_lets_the_program_go_on():
    text = (
        "[warning] Two or more processes cannot use X Y at the same time. The program will resume automatically after "
        'the process 10000 terminates... If this message is displayed even though the process 10000 has already, "try"'
    )
    (message,) = parse_messages(TerminalLine(number=1, text=text))
    assert (message.what, message.name, message.number) == ("in use until", "X Y", 10000)


def test_messages_of_one_line_are_told_apart():
    line = TerminalLine(
        number=3, text="100%|##| 2/2 [2024-03-02 10:00:00.000] [info] Moreh Version: 24.5.0[info] Moreh Job ID: 5"
    )
    version, job = parse_messages(line)
    assert (version.what, version.text, version.at) == ("version", "24.5.0", at("10:00:00"))
    assert (job.what, job.number, job.at) == ("job", 5, None)


def test_a_program_that_never_met_the_platform_tells_nothing():
    log = read_training_log("step 1\nCurrent loss: 0.5\nTraceback (most recent call last):\n")
    assert (log.messages, log.phases, log.searches, log.accelerator) == ((), (), (), None)


@pytest.mark.parametrize(
    ("spelled", "stages", "micro_batches", "recomputation", "level", "low"),
    [
        ("num_stages : 4, num_micro_batches : 2, batch_per_device : 1, No TP, recomputation : true, "
         "distribute_param : true", 4, 2, True, None, None),
        ("num_stages : 4, num_micro_batches : 2, batch_per_device : 1, No TP, recomputation : false, "
         "distribute_param : true", 4, 2, False, None, None),
        ("num_stages : 2, num_micro_batches : 4, batch_per_device : 1, No TP, recomputation : 0, "
         "distribute_param : true, distribute_low_prec_param : false", 2, 4, False, 0, False),
        ("No PP, No TP, recomputation : 1, distribute_param : true, distribute_low_prec_param : true",
         1, None, True, 1, True),
        ("No PP, No TP, recomputation : default(1), distribute_param : true, distribute_low_prec_param : false",
         1, None, True, 1, False),
        ("num_stages : 8, num_micro_batches : 64, batch_per_device : 1, No TP, recomputation : full(2), "
         "distribute_param : true, distribute_low_prec_param : false", 8, 64, True, 2, False),
    ],
)  # fmt: skip
def test_every_documented_spelling_of_a_configuration(spelled, stages, micro_batches, recomputation, level, low):
    logs = (f"\n[info] {spelled}\n", f"[2024-03-02 10:00:00.000] [info] {spelled}")
    searches = [search for text in logs for search in read_training_log(text).searches]
    assert len(searches) == len(logs)
    for read in (parse_configuration(TerminalLine(number=1, text=spelled)), *(search.selected for search in searches)):
        assert (read.num_stages, read.num_micro_batches) == (stages, micro_batches)
        assert (read.recomputation, read.recomputation_level) == (recomputation, level)
        assert (read.tensor_parallel, read.distribute_param, read.distribute_low_prec_param) == (1, True, low)
        assert read.spelled == spelled


@pytest.mark.parametrize("width", range(30, 140, 7))
def test_a_configuration_that_a_narrow_terminal_broke_is_made_whole(width):
    spelled = (
        "num_stages : 2, num_micro_batches : 16, batch_per_device : 1, No TP, recomputation : false, "
        "distribute_param : true, distribute_low_prec_param : true"
    )
    line = f"[info] {spelled}"
    broken = "\n".join(line[i : i + width].rstrip() for i in range(0, len(line), width))
    log = read_training_log(f"{broken}\n[info] train: true\n")
    selected = parse_configuration(TerminalLine(number=1, text=spelled))
    assert log.searches == (ConfigurationSearch(selected=selected, trains=True),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("No PP, num_tp : 4, recomputation : 1, distribute_param : true", "the part 'num_tp : 4'"),
        ("No PP, recomputation : 1, distribute_param : true", "does not say No TP"),
        ("num_stages : 2, num_micro_batches : 16, No TP, recomputation : ", "the part 'recomputation :'"),
        ("num_stages : 2, num_stages : 3, No TP, recomputation : 1, distribute_param : true", "'num_stages : 3'"),
        ("num_stages : two, No TP, recomputation : 1, distribute_param : true", "num_stages : two is not a number"),
        ("num_stages : 0, No TP, recomputation : 1, distribute_param : true", "num_stages : 0 is not a number"),
        ("No PP, No TP, recomputation : some, distribute_param : true", "recomputation : some is not understood"),
        ("No PP, No TP, recomputation : 1, distribute_param : yes", "'yes' is neither true nor false"),
    ],
)
def test_an_unknown_configuration_is_refused(text, complaint):
    with pytest.raises(TunemarkError, match=complaint):
        parse_configuration(TerminalLine(number=1, text=text))
    with pytest.raises(TunemarkError, match=complaint):
        read_training_log(f"hello\n[info] {text}\n[info] train: true\n")
