"""The fixture `tunemark`, which runs an experiment inside a test and records its steps as pytest-benchmark rounds.

pytest imports this module at every start, so it imports nothing heavy and does nothing unless a test asks for the
fixture. If pytest-benchmark is absent or disabled, the experiment still runs and is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from tunemark.results import Result

# Schema versions of extra_info["tunemark"]: 1, the first.
SCHEMA = 1

_FIXTURE = "tunemark"

RunExperiment = Callable[..., "Result"]
"""The fixture's type: (experiment=None, **settings) -> Result, with the arguments of `tunemark.run`."""


class NoMeasurement(AssertionError):  # noqa: N818 - the name states the failure
    """The experiment ran but has no figure to record: out of memory, failed, or invalid."""


class ReplayTimer:
    """A timer that replays the times of measured steps; pytest-benchmark reads it around each round."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._remaining: Iterator[float] = iter(())

    def load(self, seconds: Sequence[float]) -> None:
        self._remaining = iter(seconds)

    def reset(self) -> None:
        """Set to 0 before each round, so that the difference of two readings is exactly a step's time."""
        self._now_s = 0.0

    def step(self) -> None:
        self._now_s = next(self._remaining, 0.0)

    def timer(self) -> float:
        """Read by pytest-benchmark, which saves this function's name in its JSON."""
        return self._now_s


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the fixture for pytest-benchmark or without it; called once, before collection."""
    fixture = _BenchmarkFixture() if config.pluginmanager.hasplugin("benchmark") else _PlainFixture()
    config.pluginmanager.register(fixture, "tunemark-fixture")


class _BenchmarkFixture:
    """The fixture if pytest-benchmark is active."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Give each test that uses the fixture its own timer, through pytest-benchmark's mark."""
        for item in items:
            # Another plugin's fixture of the same name does not use `benchmark`.
            if {_FIXTURE, "benchmark"} <= set(getattr(item, "fixturenames", ())):
                mark = item.get_closest_marker("benchmark")
                kept = dict(mark.kwargs) if mark else {}
                item.add_marker(pytest.mark.benchmark(**{**kept, "timer": ReplayTimer().timer}), append=False)

    @pytest.fixture
    def tunemark(
        self,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
        benchmark: BenchmarkFixture,
    ) -> RunExperiment:
        """Run one experiment, record its timed steps as rounds, and return its Result."""
        stopwatch = _stopwatch_of(request.node)

        def run(experiment: str | Path | None = None, **settings: Any) -> Result:
            failure: Exception | None = None
            result: Any = None
            seconds: tuple[float, ...] = ()
            try:
                result, seconds = _measure(tmp_path_factory, experiment, settings)
                benchmark.extra_info.update(_extra_info(result))
                require_figures(result, seconds)
            except Exception as error:
                failure = error
            stopwatch.load(seconds)

            def step() -> None:
                # Raised in here, so that pytest-benchmark saves nothing.
                if failure:
                    raise failure
                stopwatch.step()

            pedantic: Any = benchmark.pedantic  # untyped
            pedantic(step, setup=stopwatch.reset, rounds=max(1, len(seconds)))
            measured: Result = result
            return measured

        return run


class _PlainFixture:
    """The fixture if pytest-benchmark is absent or disabled."""

    @pytest.fixture
    def tunemark(self, tmp_path_factory: pytest.TempPathFactory) -> RunExperiment:
        """Run one experiment and return its Result; nothing is recorded, since pytest-benchmark is not active."""

        def run(experiment: str | Path | None = None, **settings: Any) -> Result:
            result, seconds = _measure(tmp_path_factory, experiment, settings)
            require_figures(result, seconds)
            return result

        return run


def _stopwatch_of(node: pytest.Item) -> ReplayTimer:
    marker = node.get_closest_marker("benchmark")
    timer = marker.kwargs.get("timer") if marker else None
    stopwatch = getattr(timer, "__self__", None)
    assert isinstance(stopwatch, ReplayTimer), "every test with this fixture got a timer at collection"
    return stopwatch


def _measure(
    folders: pytest.TempPathFactory, experiment: str | Path | None, settings: dict[str, Any]
) -> tuple[Result, tuple[float, ...]]:
    """The result of the experiment's single run, and the seconds of its timed steps in all successful attempts."""
    # Heavy, and needed only by tests that measure.
    import tunemark
    from tunemark.errors import BadExperiment
    from tunemark.experiment import make_experiment
    from tunemark.results import Store, timed_seconds_per_step

    given = make_experiment(settings, experiment).sources
    # By default a test measures again, in its own folder.
    if "store" not in given:
        settings["store"] = str(folders.mktemp("tunemark"))
    if "redo" not in given:
        settings["redo"] = True
    plans = tunemark.plan(experiment, **settings)
    if len(plans) != 1:
        raise BadExperiment(
            what=f"{len(plans)} runs in one test",
            why="one benchmark records one run",
            next="parametrize the test: @pytest.mark.parametrize('size', [1, 2])",
        )
    (result,) = tunemark.run(experiment, **settings).runs
    store = Store(Path(make_experiment(settings, experiment).store))
    successful = {row.name for row in result.each_attempt if row.status == "ok"}
    measurements = store.measurements(result.run_id)
    seconds = [s for m in measurements if m.assignment.attempt in successful for s in timed_seconds_per_step(m, result)]
    return result, tuple(seconds)


def require_figures(result: Result, seconds: Sequence[float]) -> None:
    """Raise `NoMeasurement` unless the run has usable figures."""
    if result.status != "ok":
        evidence = "; ".join(row.evidence for row in result.each_attempt if row.status != "ok")
        raise NoMeasurement(f"the run ended {result.status}: {evidence}")
    if result.verdict == "invalid":
        rules = "; ".join(f"{f.rule}: {f.message}" for f in result.findings if f.severity == "invalid")
        raise NoMeasurement(f"the run is invalid: {rules}")
    if not seconds:
        raise NoMeasurement("no step was timed")


def _extra_info(result: Result) -> dict[str, Any]:
    """The extra_info of pytest-benchmark's JSON: the rate first, then what the importer reads back."""
    import msgspec

    from tunemark.results import RunIdentity

    rate = result.tokens_per_s
    known = {name: getattr(result, name) for name in RunIdentity.__struct_fields__}
    names = (
        "status", "verdict", "attempts", "steps_measured", "interval_s", "tokens", "padding_fraction", "mfu",
        "peak_memory_bytes", "data_sha256",
    )  # fmt: skip
    kept = {**known, **{name: getattr(result, name) for name in names}}
    return {
        "tokens_per_s": rate.value if rate else None,
        "tokens_per_s_low": rate.low if rate else None,
        "tokens_per_s_high": rate.high if rate else None,
        "slot_tokens_per_s": result.slot_tokens_per_s.value if result.slot_tokens_per_s else None,
        "verdict": result.verdict,
        "findings": [f"{f.severity}: {f.rule}" for f in result.findings if f.severity != "note"],
        "tunemark": {"schema": SCHEMA, **msgspec.to_builtins(kept)},
    }
