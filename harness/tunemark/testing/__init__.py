"""The kit: conformance checks of plugins. `tunemark check` prints their results, pytest runs them as tests.

Facts are checked in the parent, a plugin's import in a process of its own, a model's arithmetic in a worker without an
accelerator, devices and strategies in short real runs. Each check gives the reason for passing, failing or skipping.
"""

from __future__ import annotations

from typing import Any

# For loading this package by name as a pytest plugin; pytest itself uses the entry point.
pytest_plugins = ("tunemark.testing.pytest_plugin",)

__all__ = ["NAMES", "Check", "Kit", "Outcome"]


def __getattr__(name: str) -> Any:
    """Import the kit only when it is used, because every run of pytest loads this package."""
    if name in ("Check", "Outcome"):
        from tunemark.testing import check

        return getattr(check, name)
    if name in ("Kit", "NAMES"):
        from tunemark.testing import kit

        return getattr(kit, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
