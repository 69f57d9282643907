"""Readers of vendors' libraries against fakes at their documented interface, and the fakes against the libraries."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunemark.errors import TunemarkError
from tunemark_telemetry.amdsmi_library import AmdSmiLibraryReader, make_reader
from tunemark_telemetry.amdsmi_program import AmdSmiProgramReader
from tunemark_telemetry.host import HostReader
from tunemark_telemetry.nvml import NvmlReader

_FAKES = Path(__file__).parents[2] / "fakes"


_READERS = [NvmlReader, AmdSmiLibraryReader, AmdSmiProgramReader]
Reader = type[NvmlReader] | type[AmdSmiLibraryReader] | type[AmdSmiProgramReader]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Set what is wrong with the two GPUs; the vendors' libraries and programs are the fakes meanwhile."""
    monkeypatch.setenv("PATH", f"{_FAKES / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    names = ("gpus", "pynvml", "amdsmi")
    former = {name: sys.modules.pop(name, None) for name in names}
    monkeypatch.syspath_prepend(str(_FAKES))
    yield lambda **wrong: monkeypatch.setenv("FAKE_GPUS", json.dumps(wrong))
    for name in names:
        sys.modules.pop(name, None)
        if former[name] is not None:
            sys.modules[name] = former[name]


@pytest.mark.parametrize("kind", _READERS)
def test_units_are_si(fakes: Any, kind: Reader) -> None:
    fakes()
    opened = kind()
    facts = opened.open(["0", "1"])
    first, second = opened.sample()
    assert (first.power_w, second.power_w) == (300, 200)
    assert first.clock_hz in (1980e6, 1700e6)
    assert first.memory_used_bytes == 16 << 30
    assert facts["each"]["0"]["memory_bytes"] == 64 << 30
    assert first.throttle == ()
    assert first.processes is not None
    begun = opened.sample()[0].energy_j
    later = opened.sample()[0].energy_j
    assert begun is not None
    assert later is not None
    assert later > begun
    opened.close()


@pytest.mark.parametrize("kind", _READERS)
def test_what_a_device_does_not_tell_is_unknown_with_a_reason(fakes: Any, kind: Reader) -> None:
    fakes(quiet=[0])
    opened = kind()
    opened.open(["0", "1"])
    first, second = opened.sample()
    assert first.energy_j is None
    assert second.energy_j is not None
    assert kind is not NvmlReader or "Volta" in str(first.energy_reason)


@pytest.mark.parametrize("kind", _READERS)
def test_a_lost_device_stays_lost_and_the_other_is_still_sampled(fakes: Any, kind: Reader) -> None:
    # The program is asked once more, when it is opened.
    fakes(lost={"0": 2 if kind is AmdSmiProgramReader else 1})
    opened = kind()
    opened.open(["0", "1"])
    rows = [opened.sample() for _ in range(3)]
    assert [bool(first.lost) for first, _ in rows] == [False, True, True]
    assert all(second.power_w == 200 for _, second in rows)


@pytest.mark.parametrize("kind", [AmdSmiLibraryReader, AmdSmiProgramReader])
def test_the_dies_of_a_package_share_its_counter(
    fakes: Any, kind: type[AmdSmiLibraryReader] | type[AmdSmiProgramReader]
) -> None:
    fakes(package=True)
    both = kind()
    facts = both.open(["0", "1"])
    first, second = both.sample()
    assert facts["each"]["0"]["dies"] == 2
    assert first.energy_j is not None
    assert (second.energy_j, second.shares_energy_of, second.power_w) == (None, "0", None)
    alone = kind()
    alone.open(["1"])
    (sample,) = alone.sample()
    assert sample.energy_j is None
    assert "its other die is not the job's" in str(sample.energy_reason)


def test_nvml_knows_gpus_by_uuid_and_refuses_others(fakes: Any) -> None:
    fakes()
    opened = NvmlReader()
    assert opened.open(["GPU-1"])["each"]["GPU-1"]["uuid"] == "GPU-1"
    for other in (NvmlReader(), AmdSmiLibraryReader(), AmdSmiProgramReader()):
        with pytest.raises(TunemarkError, match="no telemetry"):
            other.open(["7"])


@pytest.mark.parametrize("kind", _READERS)
def test_heat_a_power_limit_and_a_foreigner_are_seen(fakes: Any, kind: Reader) -> None:
    fakes(throttle=[0], capped=[1], foreign={"1": 1})
    opened = kind()
    facts = opened.open(["0", "1"])
    first, second = opened.sample()
    assert first.throttle
    assert "heat" in first.throttle[0]
    assert (second.throttle, first.power_capped, second.power_capped) == ((), False, True)
    assert second.processes is not None
    assert [(p.pid, p.command) for p in second.processes] == [(os.getpid(), "python"), (1, "other_job")]
    assert facts["links"][0][0] == "self"
    assert facts["links"][0][1] in ("nvlink", "xgmi")


@pytest.mark.parametrize(("release", "throttle"), [("6.2", None), ("6.3", ()), ("7.0", ())])
def test_each_release_of_amd_smi_is_understood(
    fakes: Any, monkeypatch: pytest.MonkeyPatch, release: str, throttle: object
) -> None:
    fakes()
    monkeypatch.setenv("FAKE_AMD_SMI", release)
    opened = AmdSmiProgramReader()
    assert opened.open(["1"])["each"]["1"]["power_limit_w"] == 560
    (sample,) = opened.sample()
    assert (sample.throttle, sample.power_w) == (throttle, 200)


def test_the_program_stands_in_where_the_library_cannot_be_imported(
    fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes()
    assert isinstance(make_reader(), AmdSmiLibraryReader)
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "amdsmi", None)
        assert isinstance(make_reader(), AmdSmiProgramReader)
        changed.setenv("PATH", "/nowhere")
        with pytest.raises(TunemarkError, match="amdsmi cannot be imported"):
            make_reader().open(["0"])


def test_a_program_that_says_nonsense_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "amd-smi"
    program.write_text("#!/bin/sh\necho broken\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    with pytest.raises(TunemarkError, match="is not understood"):
        AmdSmiProgramReader().open(["0"])


def test_the_hosts_energy_goes_on_where_its_counter_begins_anew(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    rapl = "sys/class/powercap/intel-rapl:0"
    put(f"{rapl}/name", "package-0\n")
    put(f"{rapl}/max_energy_range_uj", "10000000\n")
    put(f"{rapl}/energy_uj", "9000000\n")
    put("sys/class/powercap/intel-rapl:0:0/name", "core\n")
    put("sys/class/hwmon/hwmon0/name", "k10temp\n")
    put("sys/class/hwmon/hwmon0/temp1_input", "61500\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2400000\n")
    host = HostReader(tmp_path)
    assert host.open(["host"])["packages"] == 1
    (first,) = host.sample()
    assert (first.energy_j, first.temperature_c, first.clock_hz) == (9.0, 61.5, 2.4e9)
    put(f"{rapl}/energy_uj", "2000000\n")
    # 1 J to the end of the counter, 2 J from its beginning.
    assert host.sample()[0].energy_j == pytest.approx(12.0)


def test_a_host_without_counters_says_so(tmp_path: Path) -> None:
    with pytest.raises(TunemarkError, match="no /sys/class/powercap"):
        HostReader(tmp_path).open(["host"])


def _signatures(path: Path) -> dict[str, list[str]]:
    """Arguments of each function of a module, read without importing it."""
    module = ast.parse(path.read_text())
    return {f.name: [a.arg for a in f.args.args] for f in module.body if isinstance(f, ast.FunctionDef)}


def _real(name: str, file: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"the real {name} is not installed")
    return Path(spec.origin).parent / file


@pytest.mark.parametrize(
    ("module", "file", "prefix"), [("pynvml", "pynvml.py", "nvml"), ("amdsmi", "amdsmi_interface.py", "amdsmi_")]
)
def test_the_fakes_have_the_real_librarys_functions(module: str, file: str, prefix: str) -> None:
    real = _signatures(_real(module, file))
    fake = {
        name: arguments for name, arguments in _signatures(_FAKES / f"{module}.py").items() if name.startswith(prefix)
    }
    assert len(fake) >= 14
    assert {name: real.get(name) for name in fake} == fake


@pytest.mark.parametrize(("reader", "module"), [(NvmlReader, "pynvml"), (AmdSmiLibraryReader, "amdsmi")])
def test_the_readers_use_nothing_that_the_fakes_lack(reader: type[Any], module: str) -> None:
    """So that what they use is held to the real library above."""
    used = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(sys.modules[reader.__module__])))
        if isinstance(node, ast.Attribute) and node.attr.startswith(("nvml", "NVML", "amdsmi_", "AmdSmi"))
    }
    fake = (_FAKES / f"{module}.py").read_text()
    older = {"nvmlDeviceGetCurrentClocksThrottleReasons"}
    assert {name for name in used - older if name not in fake} == set()
