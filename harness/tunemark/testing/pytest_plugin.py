"""The kit in pytest: each check of a plugin is a separate test. Loaded by pytest wherever tunemark is installed.

    @pytest.mark.tunemark_plugin("my-model")
    def test_kit(tunemark_check):
        tunemark_check.require()

Checks run in the kit's order, as far as the selected tests need them; one that cannot be done here is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tunemark.testing.check import Check
    from tunemark.testing.kit import Kit

_MARKER = "tunemark_plugin"


class _LazyKit:
    """A kit whose checks run on demand."""

    def __init__(self, kit: Kit) -> None:
        self.expected_checks = kit.expected_checks
        self._checks: Iterator[Check] = kit.checks()
        self._results: dict[tuple[str, str], Check] = {}

    def check(self, name: str, subject: str) -> Check:
        while (name, subject) not in self._results:
            check = next(self._checks)
            self._results[check.name, check.subject] = check
        return self._results[name, subject]


# By plugin, and the interpreter that trains.
_KITS = pytest.StashKey[dict[tuple[str, str | None], _LazyKit]]()


def pytest_configure(config: pytest.Config) -> None:
    words = "the plugin whose checks the fixture tunemark_check runs, and the interpreter that trains in them"
    config.addinivalue_line("markers", f"{_MARKER}(name, python=None): {words}")
    config.stash[_KITS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tunemark_check" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(_MARKER)
    if marker is None or len(marker.args) != 1:
        raise pytest.UsageError(f'{metafunc.definition.nodeid}: name the plugin by @pytest.mark.{_MARKER}("NAME")')
    from tunemark.testing.kit import Kit  # heavy, and needed only by these tests

    (name,) = marker.args
    key = name, marker.kwargs.get("python")
    kits = metafunc.config.stash[_KITS]
    if key not in kits:
        kits[key] = _LazyKit(Kit(name, python=key[1]))
    expected_checks = kits[key].expected_checks
    ids = [f"{check} of {subject}" for check, subject in expected_checks]
    metafunc.parametrize("tunemark_check", [(key, *each) for each in expected_checks], ids=ids, indirect=True)


@pytest.fixture
def tunemark_check(request: pytest.FixtureRequest) -> Check:
    """A finished check; its `require()` fails the test with the reason. Skips if it could not be done here."""
    plugin, name, subject = request.param
    result = request.config.stash[_KITS][plugin].check(name, subject)
    if result.outcome == "skipped":
        pytest.skip(result.reason)
    return result
