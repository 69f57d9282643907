"""A host that takes part in one attempt after another, as they are announced in a folder that all hosts share.

Files in this meeting folder:
    parent.json         the inviting command: its heartbeat, the attempt it has announced, and that attempt's members
    guest.<name>.json   a host that has joined: its heartbeat
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from typing import List

from tunemark_worker.heartbeat import Heartbeat, HeartbeatReader
from tunemark_worker.host_agent import EXIT_UNAVAILABLE, EXIT_UNREADABLE, HostAgent
from tunemark_worker.host_rendezvous import POLL_S

# Seconds that a host waits to be invited.
_INVITATION_S = 900.0


def join_attempts(place: str) -> int:
    """Take part in every attempt that is announced in the folder `place`, until the inviting command has ended."""
    name = "{}-{}".format(socket.gethostname(), os.getpid())
    heartbeat = Heartbeat(
        os.path.join(place, "guest.{}.json".format(name)), name=name, host=socket.gethostname(), trouble=""
    )
    reader, inviting = HeartbeatReader(), os.path.join(place, "parent.json")
    done: List[str] = []
    session = ""
    joined_s = time.monotonic()

    def beat() -> None:
        heartbeat.beat_if_due()
        # Keep reading during an attempt: otherwise a parent that died in the meantime would count as alive afterwards.
        reader.read(inviting)

    print("{} waits for attempts in {}; Ctrl-C leaves".format(name, place), flush=True)
    try:
        while True:
            parent = reader.read(inviting)
            if parent and not parent["closed"]:
                # This may be another command than before, which resumes an interrupted one.
                session = parent["session"]
                heartbeat.beat_if_due()
            elif session and (parent or reader.is_dead(inviting)):
                print("the inviting command has ended", flush=True)
                return 0
            elif not session and time.monotonic() - joined_s > _INVITATION_S:
                words = "no command invited this host in {}: it must be on a file system all hosts share".format(place)
                print(words, file=sys.stderr)
                return EXIT_UNAVAILABLE
            folder = parent.get("folder", "")
            if folder and folder not in done and name in parent["members"]:
                done.append(folder)
                agent = HostAgent(folder, parent["members"][name], beat=beat)
                print("node {} of {}".format(parent["members"][name], folder), flush=True)
                code = agent.run()
                print("ended with code {}".format(code), flush=True)
                if agent.was_terminated:
                    return 130
                if code == EXIT_UNREADABLE:
                    heartbeat.update(trouble="{} cannot be read on this host".format(os.path.join(folder, "job.json")))
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        return 130
    finally:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(place, "guest.{}.json".format(name)))
