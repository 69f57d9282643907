"""Processes end in the status that their records and exit show. The workers are small real programs, not mocks."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tunemark_worker
from tunemark.errors import BadExperiment, PluginError
from tunemark.launch import AttemptEnd, AttemptFollower, copy_code, query_interpreter
from tunemark.launch.local_launcher import LocalLauncher
from tunemark.plugin import JobSpec

_WRITE = """
import json, os, sys, time
def write(kind, **fields):
    life = int(os.environ.get("TUNEMARK_LIFE", "0"))
    with open("records.{}{}.jsonl".format(os.environ.get("RANK", "0"), ".life1" if life else ""), "a") as file:
        file.write(json.dumps(dict(kind=kind, rank=0, instant_s=time.monotonic(), **fields)) + "\\n")
write("start", pid=os.getpid())
"""


def _run(
    tmp_path: Path,
    body: str,
    *,
    timeout_s: float = 30.0,
    processes: int = 1,
    max_restarts: int = 0,
    before: str = "",
) -> tuple[AttemptEnd, list[str]]:
    """Run `body` as the worker package of a code folder. before: what it does before its first record."""
    package = tmp_path / "code" / "tunemark_worker"
    shutil.copytree(Path(tunemark_worker.__file__).parent, package)
    (package / "__main__.py").write_text("import os, time\n" + before + _WRITE + body)
    folder = tmp_path / "attempt"
    folder.mkdir()
    kinds: list[str] = []
    job = JobSpec(
        name=folder.name,
        python=sys.executable,
        processes=processes,
        threads=1,
        environment={},
        code=tmp_path / "code",
        folder=folder,
        max_restarts=max_restarts,
    )
    following = AttemptFollower(
        job,
        LocalLauncher({}).start(job),
        timeout_s=timeout_s,
        on_record=lambda record: kinds.append(record["kind"]),
        is_waiting=lambda: False,
    )
    try:
        while not following.look():
            time.sleep(0.05)
    finally:
        ended = following.close()
    return ended, kinds


def test_an_end_record_is_success_even_if_the_exit_fails(tmp_path: Path) -> None:
    ended, kinds = _run(tmp_path, "write('end', reason='steps', status='ok')\nos._exit(3)")
    assert (ended.status, ended.reason) == ("ok", "steps")
    assert kinds == ["start", "end"]


def test_a_kill_is_killed_and_its_records_stay(tmp_path: Path) -> None:
    ended, kinds = _run(tmp_path, "write('step', step=0)\nos.kill(os.getpid(), 9)")
    assert (ended.status, ended.reason) == ("killed", signal.Signals.SIGKILL.name)
    assert kinds == ["start", "step"]


def test_out_of_memory_and_error_are_told_apart_by_the_end_record(tmp_path: Path) -> None:
    ended, _ = _run(
        tmp_path / "a", "write('end', reason='raised', status='oom', error='tried to allocate')\nsys.exit(1)"
    )
    assert (ended.status, ended.evidence) == ("oom", "tried to allocate")
    ended, _ = _run(tmp_path / "b", "write('end', reason='raised', status='error', error='bad shape')\nsys.exit(1)")
    assert (ended.status, ended.evidence) == ("error", "bad shape")


def test_an_exit_without_an_end_record_is_an_error_with_the_last_words(tmp_path: Path) -> None:
    ended, _ = _run(tmp_path, "raise SystemExit('no such module')")
    assert ended.status == "error"
    assert "no such module" in ended.evidence


def test_a_line_that_is_no_record_ends_its_attempt_alone(tmp_path: Path) -> None:
    ended, kinds = _run(tmp_path, "open('records.0.jsonl', 'a').write('garbage\\n')\ntime.sleep(60)")
    assert (ended.status, ended.reason) == ("error", "records")
    assert "records.0.jsonl has a line that is no record" in ended.evidence
    assert kinds == ["start"]


def test_silence_is_a_timeout_and_leaves_no_process(tmp_path: Path) -> None:
    ended, _ = _run(tmp_path, "print('waiting', file=sys.stderr, flush=True)\ntime.sleep(60)", timeout_s=0.5)
    assert ended.status == "timeout"
    assert "waiting" in ended.evidence


def test_code_is_copied_once_per_content_with_empty_plugin_packages(tmp_path: Path) -> None:
    first = copy_code(["tunemark_torch.runtime:CpuRuntime"], tmp_path)
    again = copy_code(["tunemark_torch.runtime:CpuRuntime"], tmp_path)
    assert first == again
    assert (first.folder / "tunemark_worker" / "contract.py").is_file()
    assert (first.folder / "tunemark_torch" / "__init__.py").read_bytes() == b""
    assert [p.name for p in tmp_path.iterdir()] == [first.folder.name]


def test_a_runtime_in_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="not an installed package"):
        copy_code(["nowhere_to_be_found.runtime:X"], tmp_path)


def test_an_interpreter_without_what_is_required_is_refused_with_the_command() -> None:
    with pytest.raises(BadExperiment) as caught:
        query_interpreter(sys.executable, ["json", "no_such_module_here"])
    assert "lacks no_such_module_here" in caught.value.what
    assert "pip install no_such_module_here" in caught.value.next


def test_a_teardown_that_hangs_after_the_end_record_is_cut_short(tmp_path: Path) -> None:
    ended, kinds = _run(tmp_path, "write('end', reason='steps', status='ok')\ntime.sleep(60)")
    assert (ended.status, kinds[-1]) == ("ok", "end")


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("write('end', reason='steps', status='ok')\n", id="teardown"),
        pytest.param("", id="silence", marks=pytest.mark.full),
    ],
)
def test_ranks_in_sessions_of_their_own_are_not_left_behind(tmp_path: Path, ending: str) -> None:
    pids = "open(str(os.getpid()) + '.pid', 'w').close()\n"
    timeout_s = 60.0 if ending else 5.0
    ended, _ = _run(tmp_path, f"{pids}{ending}time.sleep(600)", processes=2, timeout_s=timeout_s)
    assert ended.status == ("ok" if ending else "timeout")
    ranks = [int(path.stem) for path in (tmp_path / "attempt").glob("*.pid")]
    assert len(ranks) == 2
    until = time.monotonic() + 10
    while any(_is_alive(pid) for pid in ranks) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(_is_alive(pid) for pid in ranks)


@pytest.mark.full
def test_ranks_that_have_all_failed_may_still_be_started_again(tmp_path: Path) -> None:
    """However long that takes: the parent's patience with a teardown, five seconds, is over before."""
    is_again = "os.environ['TUNEMARK_LIFE'] == '1'"
    body = f"""
if {is_again}:
    write('end', reason='steps', status='ok')
else:
    write('end', reason='raised', status='error', error='bad')
    while not all(os.path.exists(f'records.{{rank}}.jsonl') for rank in range(2)):
        pass
    sys.exit(1)
"""
    slow = f"if {is_again}: time.sleep(7)\n"
    ended, kinds = _run(tmp_path, body, processes=2, max_restarts=1, timeout_s=60.0, before=slow)
    assert (ended.status, ended.reason) == ("ok", "steps")
    assert kinds[-1] == "end"


class Written:
    """A job of three ranks whose records are written by the test, at the instants that it chooses."""

    def __init__(
        self, folder: Path, *, timeout_s: float = 60.0, max_restarts: int = 0, every_record: bool = False
    ) -> None:
        self.folder = folder
        self.seen: list[tuple[int, str]] = []
        self.code: int | None = None
        self.stopped: list[Mapping[int, int]] = []
        job = JobSpec(
            name="written", python="", processes=3, threads=1, environment={}, code=folder, folder=folder,
            max_restarts=max_restarts,
        )  # fmt: skip
        self.following = AttemptFollower(
            job,
            self,
            timeout_s=timeout_s,
            on_record=lambda record: self.seen.append((record["rank"], record["kind"])),
            every_record=every_record,
        )

    def write(self, rank: int, kind: str, *, life: int = 0, **fields: Any) -> None:
        row = {"kind": kind, "rank": rank, "instant_s": time.monotonic(), **fields}
        name = f"records.{rank}.life{life}.jsonl" if life else f"records.{rank}.jsonl"
        with open(self.folder / name, "a") as file:
            file.write(json.dumps(row) + "\n")

    def exit_code(self) -> int | None:
        return self.code

    def is_waiting(self) -> bool:
        return False

    def interrupt(self) -> None:
        pass

    def stacks(self, pids: Mapping[int, int]) -> str:
        return ""

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        self.code = 0 if self.code is None else self.code
        self.stopped.append(pids)

    def facts(self) -> Mapping[str, Any]:
        return {}


_OK = {"reason": "steps", "status": "ok", "error": None}


@pytest.mark.parametrize("every_record", [False, True])
def test_of_other_ranks_it_is_read_how_they_begin_and_end_unless_all_is_asked_for(
    tmp_path: Path, every_record: bool
) -> None:
    written = Written(tmp_path, every_record=every_record)
    for rank in range(3):
        written.write(rank, "start", pid=100 + rank)
    written.following.look()
    for rank in range(3):
        for step in range(4):
            written.write(rank, "step", step=step)
        # Longer than any block that is read at once.
        written.write(rank, "end", **_OK, words="x" * 20_000 * rank)
    assert not written.following.look()
    ended = written.following.close()
    assert (ended.status, ended.evidence) == ("ok", "every rank wrote its end record")
    assert written.stopped[0] == {0: 100, 1: 101, 2: 102}
    whole = ["start", *["step"] * 4, "end"]
    for rank in range(3):
        expected = whole if every_record or rank == 0 else ["start", "end"]
        assert [kind for of, kind in written.seen if of == rank] == expected


def test_a_rank_that_says_nothing_is_told_from_one_that_speaks_and_from_one_that_has_ended(tmp_path: Path) -> None:
    written = Written(tmp_path, timeout_s=0.1)
    for rank in range(3):
        written.write(rank, "start", pid=100 + rank)
    written.write(1, "end", **_OK)
    # Rank 2 is stopped: rank 0 writes on, and rank 1 has nothing more to say.
    until_s = time.monotonic() + 20
    while not (is_over := written.following.look()) and time.monotonic() < until_s:
        written.write(0, "step", step=0)
        time.sleep(0.02)
    assert is_over
    ended = written.following.close()
    assert ended.status == "timeout"
    assert ended.evidence.startswith("no record of rank 2 for 0 s")


def test_an_end_of_processes_that_are_started_again_is_none(tmp_path: Path) -> None:
    written = Written(tmp_path, max_restarts=1)
    for rank in range(3):
        written.write(rank, "start", pid=100 + rank)
        written.write(rank, "end", reason="raised", status="error", error="bad")
    assert not written.following.look()
    for rank in range(3):
        written.write(rank, "start", life=1, pid=200 + rank)
    written.write(0, "end", life=1, **_OK)
    written.write(1, "end", life=1, **_OK)
    assert not written.following.look()
    written.code = -9
    assert written.following.look()
    ended = written.following.close()
    # Rank 2 has none in its second life, whatever it wrote in its first.
    assert (ended.status, written.stopped[0]) == ("killed", {0: 200, 1: 201, 2: 202})


def _is_alive(pid: int) -> bool:
    """A killed process whose new parent has not noticed yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
