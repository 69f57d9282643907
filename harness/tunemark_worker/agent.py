"""One host's part of a job that a launcher has started beyond the parent's machine: `python -m tunemark_worker.agent`.

It runs next to the timed processes and wakes twice a second. It meets the other hosts, starts the ranks through
`rank_supervisor`, carries out what the parent asks through files in the attempt's folder, and leaves no process
behind, even if the parent, the scheduler or the network is gone. It never imports torch.
"""

from __future__ import annotations

import argparse
import sys
from typing import List

from tunemark_worker.attempt_joining import join_attempts
from tunemark_worker.host_agent import HostAgent


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(prog="tunemark_worker.agent")
    parser.add_argument("folder", help="an attempt's folder, or with --join the meeting folder")
    parser.add_argument("--node", type=int, default=0, help="which host of the job this is")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    parser.add_argument(
        "--join", action="store_true", help="take part in one attempt after another, announced in the meeting folder"
    )
    given = parser.parse_args(arguments)
    if given.join:
        return join_attempts(given.folder)
    return HostAgent(given.folder, given.node, with_parent=given.with_parent).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
