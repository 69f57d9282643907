"""Which methods of a runtime are capabilities, and what is said of one that cannot be called as it will be."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from tunemark_moai.runtime import AdvancedParallelization, MoaiRuntime
from tunemark_models.runtime import CausalLm
from tunemark_torch.parallel.mesh import MeshStrategy
from tunemark_torch.runtime import CpuRuntime, CudaRuntime, Ddp, NoStrategy, RocmRuntime
from tunemark_worker.capabilities import (
    RUNTIMES,
    ClipsGradients,
    ComputesGradients,
    EndsSteps,
    GathersFullState,
    PlacesRanks,
    find_protocol_problems,
    load_strategy,
)
from tunemark_xla.runtime import XlaRuntime


class Plain:
    def __init__(self, assignment):
        pass

    def prepare(self):
        pass

    def apply(self, model, place):
        return model

    def selected(self):
        return None


class WrongClip(Plain):
    def clip(self, parameters):
        return 0.0


class Misspelt(Plain):
    def clips(self, parameters):
        return 0.0


class WrongEnd(CpuRuntime):
    def end_step(self, number):
        pass


class NotAMethod(Plain):
    place = 3


class Incomplete:
    def __init__(self, assignment):
        pass

    def prepare(self, place):
        pass

    def apply(self, model, place):
        return model


def _problems(kind, found):
    return find_protocol_problems(found, *RUNTIMES[kind])


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        *(("device", each) for each in (CpuRuntime, CudaRuntime, RocmRuntime, MoaiRuntime, XlaRuntime)),
        *(("strategy", each) for each in (Plain, NoStrategy, Ddp, MeshStrategy, AdvancedParallelization)),
        ("model", CausalLm),
    ],
)
def test_a_runtime_that_follows_its_protocol_has_no_problem(kind, found):
    assert _problems(kind, found) == []


def test_a_capability_with_wrong_arguments_is_named_with_both_lists():
    (problem,) = _problems("strategy", WrongClip(None))
    assert "`clip`" in problem
    assert "ClipsGradients" in problem
    assert "called with (parameters, max_norm), which (parameters) does not accept" in problem
    assert _problems("strategy", WrongClip) == [problem]
    assert "`place` is not a method" in _problems("strategy", NotAMethod(None))[0]


def test_the_moment_at_which_a_step_ends_is_checked_too():
    (problem,) = _problems("device", WrongEnd())
    assert "`end_step` is called with (), which (number) does not accept, so it is no `EndsSteps`" in problem
    assert isinstance(XlaRuntime(), EndsSteps)
    assert not isinstance(CpuRuntime(), EndsSteps)


def test_a_misspelt_method_is_no_capability():
    assert _problems("strategy", Misspelt(None)) == []
    assert not isinstance(Misspelt(None), ClipsGradients)


def test_what_every_runtime_must_have_is_required():
    assert _problems("strategy", Incomplete(None)) == [
        "it has no `selected`",
        "`prepare` is called with (), which (place) does not accept, so it is no `StrategyRuntime`",
    ]
    # A field may be set when the object is constructed.
    device = type("Device", (), {name: getattr(CpuRuntime, name) for name in ("open", "facts", "synchronize")})
    device.peak_memory_bytes = CpuRuntime.peak_memory_bytes
    assert _problems("device", device) == []
    assert _problems("device", device()) == ["it has no `is_synchronous`"]


def test_it_is_refused_when_it_is_loaded(monkeypatch):
    module = ModuleType("wrong")
    module.WrongClip = WrongClip
    monkeypatch.setitem(sys.modules, "wrong", module)
    with pytest.raises(TypeError, match="wrong:WrongClip: `clip` is called with"):
        load_strategy("wrong:WrongClip", None)


def test_only_a_strategy_with_a_pipeline_computes_gradients_itself():
    strategy = MeshStrategy(SimpleNamespace(axes=[{"strategy": "fsdp", "degree": 2, "options": {}}]))
    assert isinstance(strategy, PlacesRanks)
    assert isinstance(strategy, GathersFullState)
    assert not isinstance(strategy, ComputesGradients)
