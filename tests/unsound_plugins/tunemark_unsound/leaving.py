"""Ends the process that imports it, in a way that no `except` can catch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tunemark.plugin import Dataset, hookimpl

# Only where the kit looks, so that other commands live.
if "tunemark.testing.imported" in sys.orig_argv:
    os._exit(3)


@hookimpl
def tunemark_datasets() -> Sequence[Dataset]:
    return []
