"""One rank of benchmarks/parity.py: `python parity_ranks.py LIST`, whole attempts of the worker one after another.

LIST is a file of JSON, the attempts' folders. A failed attempt ends the process, because the ranks are then out of
step. It runs in the interpreter that trains: in Python 3.8, without tunemark.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback

from tunemark_worker.contract import Assignment, records_file_name
from tunemark_worker.recorder import Recorder
from tunemark_worker.worker_attempt import WorkerAttempt


def main(listed: str) -> None:
    rank = int(os.environ.get("RANK", "0"))
    with open(listed) as file:
        folders = json.load(file)
    for folder in folders:
        with open(os.path.join(folder, "plan.json")) as file:
            assignment = Assignment.from_json(file.read())
        recorder = Recorder(os.path.join(folder, records_file_name(rank)), rank, time.monotonic)
        attempt = WorkerAttempt()
        try:
            reason = attempt.run(assignment, recorder, lambda: False)
        except Exception as error:
            recorder.write("end", reason="error", status="error", error="{}: {}".format(type(error).__name__, error))
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        recorder.write("end", reason=reason, status="ok", error=None, **attempt.facts())
    os._exit(0)  # leaving a process group can abort; everything is written


if __name__ == "__main__":
    main(sys.argv[1])
