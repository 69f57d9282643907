"""The fixture `tunemark`: one line runs an experiment inside a test and records its steps as pytest-benchmark's rounds.

pytest imports this module at every start, so it imports nothing heavy and does nothing unless a test asks for the
fixture. pytest-benchmark may be absent or switched off: the experiment then runs and is recorded nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from tunemark.results import Result

# History of what stands under "tunemark" in extra_info: 1, first form.
SCHEMA = 1

_FIXTURE = "tunemark"

RunExperiment = Callable[..., "Result"]
"""What the fixture is: (experiment=None, **settings) -> Result, with the arguments of `tunemark.run`."""


class NoMeasurement(AssertionError):  # noqa: N818 - it says what happened
    """The experiment ran and gave no figure that could be recorded: out of memory, failed, or invalid."""


class Stopwatch:
    """A timer whose time is that of steps measured elsewhere: pytest-benchmark reads it around each round."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._left: Iterator[float] = iter(())

    def load(self, seconds: Sequence[float]) -> None:
        self._left = iter(seconds)

    def reset(self) -> None:
        """At 0 before each round, so that the difference of two readings is a step's time to the last bit."""
        self._now_s = 0.0

    def step(self) -> None:
        self._now_s = next(self._left, 0.0)

    def timer(self) -> float:
        """Read by pytest-benchmark; its name stands in the saved JSON."""
        return self._now_s


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the fixture by whether pytest-benchmark is active; called once, before collection."""
    chosen = _Recording() if config.pluginmanager.hasplugin("benchmark") else _Alone()
    config.pluginmanager.register(chosen, "tunemark-fixture")


class _Recording:
    """Where pytest-benchmark is active."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Give the tests that use the fixture a timer of their own, by pytest-benchmark's own mark."""
        for item in items:
            # A fixture of the same name that is somebody else's asks for no benchmark.
            if {_FIXTURE, "benchmark"} <= set(getattr(item, "fixturenames", ())):
                former = item.get_closest_marker("benchmark")
                kept = dict(former.kwargs) if former else {}
                item.add_marker(pytest.mark.benchmark(**{**kept, "timer": Stopwatch().timer}), append=False)

    @pytest.fixture
    def tunemark(
        self,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
        benchmark: BenchmarkFixture,
    ) -> RunExperiment:
        """Run one experiment, record the steps of its timed part as rounds, and return its Result."""
        stopwatch = _stopwatch(request.node)

        def run(experiment: str | Path | None = None, **settings: Any) -> Result:
            failure: Exception | None = None
            result: Any = None
            seconds: tuple[float, ...] = ()
            try:
                result, seconds = _measured(tmp_path_factory, experiment, settings)
                benchmark.extra_info.update(_extra_info(result))
                prove(result, seconds)
            except Exception as error:
                failure = error
            stopwatch.load(seconds)

            def step() -> None:
                # In here, so that pytest-benchmark knows that there is nothing to save.
                if failure:
                    raise failure
                stopwatch.step()

            pedantic: Any = benchmark.pedantic  # untyped
            pedantic(step, setup=stopwatch.reset, rounds=max(1, len(seconds)))
            measured: Result = result
            return measured

        return run


class _Alone:
    """Where pytest-benchmark is absent or switched off."""

    @pytest.fixture
    def tunemark(self, tmp_path_factory: pytest.TempPathFactory) -> RunExperiment:
        """Run one experiment and return its Result; nothing is recorded, since pytest-benchmark is not active."""

        def run(experiment: str | Path | None = None, **settings: Any) -> Result:
            result, seconds = _measured(tmp_path_factory, experiment, settings)
            prove(result, seconds)
            return result

        return run


def _stopwatch(node: pytest.Item) -> Stopwatch:
    marker = node.get_closest_marker("benchmark")
    timer = marker.kwargs.get("timer") if marker else None
    stopwatch = getattr(timer, "__self__", None)
    assert isinstance(stopwatch, Stopwatch), "every test with this fixture was given a timer when it was collected"
    return stopwatch


def _measured(
    folders: pytest.TempPathFactory, experiment: str | Path | None, settings: dict[str, Any]
) -> tuple[Result, tuple[float, ...]]:
    """The result of the one run asked for, and its timed steps' seconds, of all attempts that ended well."""
    # Heavy, and needed by a test that measures alone.
    import tunemark
    from tunemark.errors import BadExperiment
    from tunemark.experiment import make_experiment
    from tunemark.results import Store, timed_steps

    written = make_experiment(settings, experiment).sources
    # A test measures anew, in a folder of its own, unless it says otherwise.
    if "store" not in written:
        settings["store"] = str(folders.mktemp("tunemark"))
    if "redo" not in written:
        settings["redo"] = True
    plans = tunemark.plan(experiment, **settings)
    if len(plans) != 1:
        raise BadExperiment(
            what=f"{len(plans)} runs in one test",
            why="a benchmark is of one run",
            next="parametrize the test: @pytest.mark.parametrize('size', [1, 2])",
        )
    (result,) = tunemark.run(experiment, **settings).runs
    store = Store(Path(make_experiment(settings, experiment).store))
    good = {row.name for row in result.each_attempt if row.status == "ok"}
    measurements = store.measurements(result.run_id)
    seconds = [s for m in measurements if m.assignment.attempt in good for s in timed_steps(m, result)]
    return result, tuple(seconds)


def prove(result: Result, seconds: Sequence[float]) -> None:
    """Raise `NoMeasurement` unless the run's figures are some."""
    if result.status != "ok":
        evidence = "; ".join(row.evidence for row in result.each_attempt if row.status != "ok")
        raise NoMeasurement(f"the run ended {result.status}: {evidence}")
    if result.verdict == "invalid":
        rules = "; ".join(f"{f.rule}: {f.message}" for f in result.findings if f.severity == "invalid")
        raise NoMeasurement(f"the run is invalid: {rules}")
    if not seconds:
        raise NoMeasurement("no step was timed")


def _extra_info(result: Result) -> dict[str, Any]:
    """What stands beside the seconds in pytest-benchmark's JSON: the rate first, then all that reads it back."""
    import msgspec

    from tunemark.results import Identity

    rate = result.tokens_per_s
    known = {name: getattr(result, name) for name in Identity.__struct_fields__}
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
