"""Ends the importing process in a way that no `except` can catch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tunemark.plugin import Dataset, hookimpl

# Only in the kit's process, so that other commands survive.
if "tunemark.testing.import_check" in sys.orig_argv:
    os._exit(3)


@hookimpl
def tunemark_datasets() -> Sequence[Dataset]:
    return []
