"""Imports torch in the plugin module, which should only describe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunemark.plugin import Model, hookimpl

# Only in the kit's process, so that no other command waits for it.
if "tunemark.testing.import_check" in sys.orig_argv:
    import torch

    assert torch.__version__


@hookimpl
def tunemark_models() -> Sequence[Model]:
    return []
