"""The kit: what is promised of a plugin, held to what it does. `tunemark check` prints it, pytest runs it as tests.

Facts are looked at in the parent, a plugin's import in a process of its own, a model's arithmetic in a worker without
an accelerator, devices and strategies in real, short runs. Each check says why it passed, failed or could not be done.
"""

from __future__ import annotations

from typing import Any

# For who loads this package as a pytest plugin by name; pytest itself finds it by an entry point.
pytest_plugins = ("tunemark.testing.pytest_plugin",)

__all__ = ["NAMES", "Check", "Kit", "Outcome"]


def __getattr__(name: str) -> Any:
    """The kit, imported when it is used: every run of pytest loads this package."""
    if name in ("Check", "Outcome"):
        from tunemark.testing import check

        return getattr(check, name)
    if name in ("Kit", "NAMES"):
        from tunemark.testing import kit

        return getattr(kit, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
