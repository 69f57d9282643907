"""What other programs' training loops do not take is refused in the plan, before any process is started."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import tunemark
from tunemark.errors import BadExperiment
from tunemark.plugin import Catalog

_RUN: dict[str, Any] = {"model": "mistral-tiny", "dataset": "synthetic", "device": "cpu:1", "sequence": 64}
_TRAINERS = Catalog().trainers()
_WITH_RUNTIME = [name for name, each in _TRAINERS.items() if each.runtime and not each.file_options]


def _refusal(**settings: Any) -> BadExperiment:
    with pytest.raises(BadExperiment) as caught:
        tunemark.plan(**{**_RUN, **settings})
    return caught.value


@pytest.mark.parametrize("name", [name for name, each in _TRAINERS.items() if each.absent])
def test_a_program_without_a_runtime_is_refused_with_what_was_tried(name: str) -> None:
    error = _refusal(trainer=name)
    assert f"{name!r} cannot be run" in error.what
    assert _TRAINERS[name].absent in error.why
    assert "--trainer script:path=" in error.next


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "tp", "pp", "fsdp:2+tp:2", "auto"])
def test_several_processes_are_refused(strategy: str) -> None:
    name = "hf"
    error = _refusal(trainer=name, strategy=strategy, device="cpu:4", oversubscribe=True, python=sys.executable)
    assert f"{name!r} does not take --strategy" in error.what
    assert "it takes none" in error.why


def test_a_size_of_several_processes_is_refused() -> None:
    error = _refusal(trainer="hf", device="cuda:2", oversubscribe=True)
    assert "cannot use 2 GPUs" in error.what


def test_no_trainer_honours_a_strategy_and_so_each_trains_in_one_process() -> None:
    assert not [name for name in _WITH_RUNTIME if "strategy" in _TRAINERS[name].honours]


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora"}, {"checkpointing": "full"}, {"loss": "chunked"}, {"activations": "host"},
        {"compile": "full"}, {"attention": "varlen"}, {"optimizer": "adamw-8bit"}, {"precision": "fp8"},
        {"update": "in-backward"},
    ],
    ids=lambda settings: next(iter(settings)),
)  # fmt: skip
def test_settings_of_tunemarks_own_loop_are_refused(settings: dict[str, Any]) -> None:
    (flag,) = settings
    error = _refusal(trainer="accelerate", python=sys.executable, **settings)
    assert f"--{flag.replace('_', '-')}" in f"{error.what} {error.next}"
