"""The worker's way on MoAI with everything hidden from it that torch 2.1 does not have: what its images ship."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunemark_moai.simulator.cli import main as simulator

# What the worker, the loop and the device use of torch; each is in the documentation of torch 2.1, and of 1.13 too.
_TORCH_2_1 = [
    "torch.Tensor",
    "torch.device",
    "torch.tensor",
    "torch.zeros",
    "torch.ones",
    "torch.empty",
    "torch.full",
    "torch.full_like",
    "torch.zeros_like",
    "torch.ones_like",
    "torch.empty_like",
    "torch.arange",
    "torch.cat",
    "torch.stack",
    "torch.float32",
    "torch.bfloat16",
    "torch.float16",
    "torch.long",
    "torch.int64",
    "torch.int32",
    "torch.bool",
    "torch.uint8",
    "torch.dtype",
    "torch.autocast",
    "torch.no_grad",
    "torch.enable_grad",
    "torch.manual_seed",
    "torch.randn",
    "torch.mm",
    "torch.clamp",
    "torch.float64",
    "torch.linalg",
    "torch.linalg.vector_norm",
    "torch.matmul",
    "torch.from_numpy",
    "torch.frombuffer",
    "torch.get_num_threads",
    "torch.set_num_threads",
    "torch.__version__",
    "torch.version",
    "torch.version.cuda",
    "torch.get_default_dtype",
    "torch.set_default_dtype",
    "torch.where",
    "torch.cumsum",
    "torch.Generator",
    "torch.inference_mode",
    "torch.nn",
    "torch.nn.Module",
    "torch.nn.Parameter",
    "torch.nn.functional",
    "torch.nn.functional.cross_entropy",
    "torch.nn.functional.pad",
    "torch.nn.utils",
    "torch.nn.utils.clip_grad_norm_",
    "torch.optim",
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.optim.Optimizer",
    "torch.distributed",
    "torch.distributed.is_available",
    "torch.distributed.is_initialized",
    "torch.moreh",
    "torch.moreh.option",
    "torch.moreh.option.enable_advanced_parallelization",
    "torch.moreh.simulated",
    "torch.version.moreh",
    "torch.moreh.simulated_device",
]

_PROGRAM = """
import importlib, json, sys, types
import torch
import tunemark_moai.runtime
from tunemark_worker import __main__, batches, gradient_norm, matmul_peak, optimizer, training_loop

known, plan = set(json.loads(sys.argv[1])), sys.argv[2]
used, hidden = set(), set()

class Hidden:
    def __init__(self, module, name):
        self.__dict__.update(_module=module, _name=name)
    def __getattr__(self, attribute):
        name = self._name + "." + attribute
        value = getattr(self._module, attribute)
        if name not in known:
            hidden.add(name)
            raise AttributeError(name + " is hidden")
        used.add(name)
        return Hidden(value, name) if isinstance(value, types.ModuleType) else value

# The platform is there before the program, with all of torch in its own hands.
tunemark_moai.runtime.load_platform()
for module in (tunemark_moai.runtime, batches, gradient_norm, matmul_peak, optimizer, training_loop):
    for name, value in list(vars(module).items()):
        if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] == "torch":
            setattr(module, name, Hidden(value, value.__name__))
code = __main__.main(plan)
print(json.dumps([code, sorted(used), sorted(hidden)]))
"""


@pytest.mark.parametrize("strategy", [pytest.param("none", marks=pytest.mark.full), "auto:num_stages=1"])
def test_the_worker_uses_nothing_newer_than_torch_2_1(
    tmp_path: Path, tunemark_cache: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    folder = tmp_path / "sim"
    assert simulator(["up", "--version", "25.1.202", "--dir", str(folder)]) == 0
    monkeypatch.setenv("TUNEMARK_MOAI_SIM", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TUNEMARK_CACHE", str(tunemark_cache))
    words = ["--model", "mistral-tiny", "--dataset", "synthetic", "--device", "moai:Small.64GB", "--strategy", strategy]
    words += ["--sequence", "32", "--micro-batch", "1", "--steps", "2", "--warmup", "1", "--repeats", "1"]
    run = [sys.executable, "-m", "tunemark", "run", *words, "--store", "store"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert "ok, ended by steps" in done.stderr, done.stderr
    (plan,) = (tmp_path / "store").glob("*/*/plan.json")
    again = tmp_path / "again"
    again.mkdir()
    words = [sys.executable, "-c", _PROGRAM, json.dumps(_TORCH_2_1), str(plan)]
    done = subprocess.run(words, cwd=again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code, used, hidden = json.loads(done.stdout.splitlines()[-1])
    assert (code, hidden) == (0, []), done.stderr
    assert {"torch.nn.functional.cross_entropy", "torch.linalg.vector_norm"} <= set(used)
    if strategy != "none":
        assert "torch.moreh.option.enable_advanced_parallelization" in used
