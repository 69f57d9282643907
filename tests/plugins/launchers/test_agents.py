"""What a job's agents say in its folder, as the parent takes it in."""

from __future__ import annotations

import json
from pathlib import Path

from tunemark_launchers.agents import HostAgents


def _say(folder: Path, node: int, event: str, **fields: object) -> None:
    with open(folder / f"agent.{node}.jsonl", "a") as file:
        file.write(json.dumps({"event": event, "node": node, **fields}) + "\n")


def test_what_agents_say_is_taken_in_as_it_comes_and_a_half_line_is_none(tmp_path: Path) -> None:
    agents = HostAgents(tmp_path, 2)
    assert (agents.last_events("started"), agents.exit_code(), agents.all_ended()) == ({}, None, False)
    _say(tmp_path, 1, "started", host="b")
    assert [row["host"] for row in agents.last_events("started").values()] == ["b"]
    with open(tmp_path / "agent.0.jsonl", "w") as file:
        file.write('{"event": "started", "ho')
        file.flush()
        assert list(agents.last_events("started")) == [1]
        file.write('st": "a"}\n')
    assert [row["host"] for row in agents.last_events("started").values()] == ["a", "b"]
    _say(tmp_path, 0, "ended", code=0, why="", kills=0)
    assert (agents.exit_code(), agents.all_ended()) == (None, False)
    _say(tmp_path, 1, "ended", code=3, why="", kills=0)
    # The last word of a host counts, and the first code that is not 0.
    assert (agents.exit_code(), agents.all_ended()) == (3, True)
    _say(tmp_path, 1, "ended", code=5, why="", kills=0)
    assert agents.exit_code() == 5


def test_hosts_that_a_signal_asked_to_end_are_named(tmp_path: Path) -> None:
    agents = HostAgents(tmp_path, 2)
    _say(tmp_path, 0, "ended", host="a", code=0, why="", kills=0)
    _say(tmp_path, 1, "terminated", host="b", signal="SIGINT")
    assert agents.facts()["asked"] == "the agent of host b was ended by SIGINT"
    _say(tmp_path, 1, "ended", host="b", code=69, why="ended while the hosts were meeting", kills=0)
    assert agents.facts()["failure_status"] == "killed"
