"""The parent's side of a job on other hosts: it reads the events that an agent on each (`tunemark_worker.agent`) writes
into the attempt's folder, and leaves orders there. The folder must be on a file system that all hosts share."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.atomic_write import write_atomically
from tunemark.errors import BadExperiment
from tunemark.plugin import JobSpec

# Agents check for orders twice a second, and a file may take a moment to appear on another host.
_REPLY_S = 3.0
# The agent gives its ranks 35 s after SIGTERM.
GRACE_S = 40.0
POLL_S = 0.1


def parse_numeric_options(options: Mapping[str, str], numbers: Sequence[str], launcher: str) -> dict[str, int]:
    """Parse the options that must be positive integers; `BadExperiment` names one that is not."""
    found = {}
    for name in numbers:
        if name in options:
            if not options[name].isdigit() or int(options[name]) == 0:
                raise BadExperiment(
                    what=f"{name} of the launcher {launcher!r} cannot be {options[name]!r}",
                    next="give a number of at least 1",
                )
            found[name] = int(options[name])
    return found


def count_nodes(nodes: int | None, options: Mapping[str, str], otherwise: int, launcher: str) -> int:
    """The number of hosts of a job: from its size (`cuda:2x8`), else the launcher's option or default, `otherwise`."""
    if nodes is not None and "nodes" in options and nodes != otherwise:
        raise BadExperiment(
            what=f"the size says {nodes} hosts, and the launcher {otherwise}",
            why=f"--launcher {launcher}:nodes={otherwise}",
            next="leave out nodes where the size is written as hosts x devices",
        )
    return otherwise if nodes is None else nodes


def check_nodes(processes: int, nodes: int, launcher: str) -> None:
    if processes % nodes:
        raise BadExperiment(
            what=f"{processes} processes cannot be spread evenly over {nodes} hosts",
            why=f"--launcher {launcher}:nodes={nodes}",
            next="another size, or another number of nodes",
        )


def write_job(job: JobSpec, nodes: int, export: Sequence[str], **more: object) -> None:
    """Write what the agents are to start into the job's folder; of exported variables only the names. more: `host`, the
    first host's address; `meeting_s`, how long hosts wait for each other; `cores`, the number of cores that each
    agent must find on its host and no other agent has, None for all of them."""
    contents = {
        "key": secrets.token_hex(32),
        "nodes": nodes,
        "processes": job.processes,
        "python": job.python,
        "environment": dict(job.environment),
        "code": str(job.code),
        "max_restarts": job.max_restarts,
        "export": list(export),
        **more,
    }
    path = job.folder / "job.json"
    path.touch(mode=0o600)  # only the user may read the key
    path.write_text(json.dumps(contents, indent=1), encoding="utf-8")


class HostAgents:
    """The events of one job's agents, and the orders to them."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder, self._nodes = folder, nodes
        # By host: bytes of its file that were read, and its last row of each event. Read at every poll of the job,
        # most of which find nothing new.
        self._read_bytes = dict.fromkeys(range(nodes), 0)
        self._rows: dict[int, dict[str, Mapping[str, Any]]] = {node: {} for node in range(nodes)}

    def last_events(self, event: str) -> dict[int, Mapping[str, Any]]:
        """The last such event of each host that has one."""
        for node in self._read_bytes:
            self._read_events(node)
        return {node: rows[event] for node, rows in self._rows.items() if event in rows}

    def _read_events(self, node: int) -> None:
        try:
            # Opened each time, which makes a shared file system refresh it.
            with open(self._folder / f"agent.{node}.jsonl", "rb") as file:
                if os.fstat(file.fileno()).st_size <= self._read_bytes[node]:
                    return
                file.seek(self._read_bytes[node])
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read_bytes[node] += len(whole)
        for line in whole.splitlines():
            # A host that broke down may leave half a line, and the lines after it count.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                row = json.loads(line)
                self._rows[node][row["event"]] = row

    def all_ended(self) -> bool:
        return len(self.last_events("ended")) == self._nodes

    def exit_code(self) -> int | None:
        """The first exit code other than 0, else 0; None while a host has not ended."""
        ended = self.last_events("ended")
        if len(ended) < self._nodes:
            return None
        return next((int(row["code"]) for _, row in sorted(ended.items()) if row["code"]), 0)

    def write_order(self, word: str) -> None:
        # A full disk takes no order; the launcher can still end the job in its own way.
        with contextlib.suppress(OSError):
            write_atomically(self._folder / "order", word)

    def kill_if_one_refused(self) -> None:
        """End the job where a host could not begin: the others would wait for it."""
        ended = self.last_events("ended")
        if any(row["why"] for row in ended.values()) and len(ended) < self._nodes:
            self.write_order("kill")

    def stacks(self) -> str:
        self.write_order("stacks")
        until_s = time.monotonic() + _REPLY_S
        while time.monotonic() < until_s and len(self.last_events("stacks")) < len(self.last_events("started")):
            time.sleep(POLL_S)
        answers = self.last_events("stacks")
        states = {int(rank): state for row in answers.values() for rank, state in row["states"].items()}
        words = [f"rank {rank} was stopped" for rank, state in sorted(states.items()) if state in ("T", "t")]
        silent = [row["host"] for node, row in self.last_events("started").items() if node not in answers]
        return "; ".join([*words, *(f"host {host} does not answer" for host in silent)])

    def wait_for_end(self, seconds: float) -> bool:
        until_s = time.monotonic() + seconds
        while not self.all_ended() and time.monotonic() < until_s:
            time.sleep(POLL_S)
        return self.all_ended()

    def facts(self) -> dict[str, Any]:
        started, ended = self.last_events("started"), self.last_events("ended")
        found: dict[str, Any] = {}
        if started:
            found["hosts"] = [row["host"] for _, row in sorted(started.items())]
            found["cores"] = [row["cores"] for _, row in sorted(started.items())]
            if any(row.get("nice") for row in started.values()):
                found["nice"] = [row["nice"] for _, row in sorted(started.items())]
            found["processors"] = sorted({row["processor"] for row in started.values()})
        if ended:
            found["kills"] = sum(int(row["kills"]) for row in ended.values())
        for row in self.last_events("terminated").values():
            words = f"the agent of host {row['host']} was ended by {row['signal']}"
            found["asked"] = f"{found['asked']}, {words}" if "asked" in found else words
        why = [f"{row['host']}: {row['why']}" for row in ended.values() if row["why"]]
        if why:
            status = "killed" if "asked" in found else "error"
            found.update(failure="; ".join(why), failure_status=status, failure_reason="launcher")
        return found
