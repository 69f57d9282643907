"""How an attempt ended, from what is left of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.launch.attempt_end import AttemptEnd, AttemptEvidence, decide_end

_OK = {"status": "ok", "reason": "steps"}
_GONE = {"status": "error", "reason": "error", "error": "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:1"}


def _exit(rank: int, pid: int, code: int, *, asked: bool = False, life: int = 0) -> dict[str, Any]:
    return {"life": life, "rank": rank, "pid": pid, "code": code, "asked": asked}


def _judge(
    folder: Path,
    ends: Sequence[Mapping[str, Any] | None],
    exits: Sequence[Mapping[str, Any]] = (),
    code: int = 1,
    **platform: Any,
) -> AttemptEnd:
    (folder / "exits.0.jsonl").write_text("".join(json.dumps(each) + "\n" for each in exits) + '{"life": 0, "ra')
    kills = int(platform.pop("kills", 0))
    return decide_end(AttemptEvidence(code=code, ends=ends, silence="", kills=kills, platform=platform, folder=folder))


def test_records_go_before_the_exit_code(tmp_path: Path) -> None:
    assert _judge(tmp_path, [_OK, _OK], code=1).status == "ok"


def test_the_rank_that_was_killed_goes_before_what_the_others_say_of_it(tmp_path: Path) -> None:
    ended = _judge(tmp_path, [_GONE, None], [_exit(1, 4711, -9), _exit(0, 4710, 1, asked=True)])
    assert (ended.status, ended.reason) == ("killed", "SIGKILL")
    assert "rank 1 (process 4711)" in ended.evidence
    assert "no end record of rank 1" in ended.evidence


def test_the_killed_rank_is_named_though_its_peer_was_seen_to_fail_first(tmp_path: Path) -> None:
    ended = _judge(tmp_path, [_GONE, None], [_exit(0, 4710, 1), _exit(1, 4711, -9)])
    assert (ended.status, ended.reason) == ("killed", "SIGKILL")
    assert "rank 1 (process 4711)" in ended.evidence
    # The supervisor ends the others by a signal, and a life that is over says nothing of the next: neither is a cause.
    assert _judge(tmp_path, [_GONE, None], [_exit(0, 4710, 1), _exit(1, 4711, -9, asked=True)]).status == "error"
    assert _judge(tmp_path, [_GONE, None], [_exit(1, 4711, -9), _exit(0, 4712, 1, life=1)]).status == "error"


def test_a_kill_of_the_kernel_for_memory_is_out_of_memory(tmp_path: Path) -> None:
    assert _judge(tmp_path, [_GONE, None], [_exit(1, 4711, -9)], kills=1).status == "oom"


def test_an_allocation_that_ended_a_rank_is_out_of_memory(tmp_path: Path) -> None:
    words = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    (tmp_path / "stderr.log").write_text(words)
    ended = _judge(tmp_path, [None], [_exit(0, 4711, -6)])
    assert (ended.status, ended.reason) == ("oom", "host memory")
    assert "std::bad_alloc" in ended.evidence
    (tmp_path / "stderr.log").write_text(words.replace("bad_alloc", "runtime_error"))
    assert _judge(tmp_path, [None], [_exit(0, 4711, -6)]).status == "killed"


def test_the_first_thing_that_happened_is_told_not_the_loss_of_the_peer(tmp_path: Path) -> None:
    shape = {"status": "error", "reason": "error", "error": "RuntimeError: shapes cannot be multiplied"}
    assert "shapes" in _judge(tmp_path, [_GONE, shape]).evidence


def test_what_the_scheduler_says_of_a_lost_node_stands_before_an_orderly_end(tmp_path: Path) -> None:
    interrupted = {"status": "ok", "reason": "interrupted"}
    ended = _judge(tmp_path, [interrupted], failure="job 7 ended as NODE_FAIL", failure_reason="node failed")
    assert (ended.status, ended.reason) == ("killed", "node failed")
    assert "NODE_FAIL" in ended.evidence


def test_a_host_that_was_asked_to_end_is_named_and_hides_no_error_of_a_rank(tmp_path: Path) -> None:
    asked = "the agent of host n2 was ended by SIGTERM"
    for ends in ([_GONE, None], [{"status": "ok", "reason": "interrupted"}] * 2, [None, None]):
        ended = _judge(tmp_path, ends, asked=asked)
        assert (ended.status, ended.evidence.startswith(asked)) == ("killed", True)
    # A scheduler asks the other hosts to end where one rank has failed.
    assert _judge(tmp_path, [{"status": "oom", "reason": "oom", "error": "full"}, None], asked=asked).status == "oom"
    assert _judge(tmp_path, [_OK, _OK], asked=asked).status == "ok"
