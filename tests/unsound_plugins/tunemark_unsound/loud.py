"""Prints to standard output, is slow, and starts a process without ending it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from tunemark.plugin import Dataset, hookimpl

print("loud: imported")


@hookimpl
def tunemark_datasets() -> Sequence[Dataset]:
    # Only in the kit's process, so that no other command waits for it or leaves a process behind.
    if "tunemark.testing.import_check" in sys.orig_argv:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        time.sleep(1.05)
    return []
