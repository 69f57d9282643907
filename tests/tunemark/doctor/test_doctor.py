"""Faults planted in the files of a machine are found, with their evidence and the command that mends them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tunemark.cgroups import read_cpu_quota, read_memory_limit
from tunemark.cli.main import main
from tunemark.doctor import Diagnosis, Machine, examine, examine_for_run
from tunemark.doctor.gpu_checks import check_amd, check_gpus, check_nvidia
from tunemark.doctor.known_faults import KNOWN_FAULTS, find_known_faults
from tunemark.doctor.software_checks import TorchBuild
from tunemark.results.run_rules import check_machine_state

_CPU = "sys/devices/system/cpu"
# A machine on which nothing is wrong: two cores, one node, 64 GiB.
_MEMORY = "MemTotal: 67108864 kB\nMemAvailable: 62914560 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
_SOUND = {
    "proc/stat": "cpu 0 0 0 0 0 0 0 0\ncpu0 100 0 0 900 0 0 0 0\ncpu1 100 0 0 900 0 0 0 0\n",
    "proc/vmstat": "pswpin 5\npswpout 7\n",
    "proc/loadavg": "0.01 0.02 0.00 1/100 4242\n",
    "proc/meminfo": _MEMORY,
    "proc/cpuinfo": "model name : A Processor\nflags : fpu avx2 avx512f\n",
    "proc/self/mounts": "shm /dev/shm tmpfs rw,size=8388608k 0 0\n",
    "proc/self/cgroup": "0::/job\n",
    "proc/sys/kernel/osrelease": "6.8.0\n",
    "proc/sys/kernel/numa_balancing": "0\n",
    "sys/devices/system/node/node0/cpulist": "0-1\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm\n",
    f"{_CPU}/intel_pstate/no_turbo": "0\n",
    "sys/class/thermal/thermal_zone0/temp": "45000\n",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "100000\n",
    **{f"{_CPU}/cpu{i}/cpufreq/scaling_governor": "performance\n" for i in (0, 1)},
    **{f"{_CPU}/cpu{i}/topology/thread_siblings_list": f"{i}\n" for i in (0, 1)},
    **{f"{_CPU}/cpu{i}/thermal_throttle/core_throttle_count": "0\n" for i in (0, 1)},
    f"{_CPU}/cpu0/cpufreq/scaling_max_freq": "3000000\n",
    f"{_CPU}/cpu0/cpufreq/cpuinfo_max_freq": "3000000\n",
}
_BUILD = TorchBuild(
    python="python",
    facts={"torch": "2.13.0", "blas": "mkl", "capability": "AVX512", "mkldnn": True, "openmp": True,
           "libc": "glibc 2.36", "gpus": []},
)  # fmt: skip
_VERSIONS = {"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.3.5", "accelerate": None}


def _plant(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _disk(free: int) -> Callable[[Path], os.statvfs_result]:
    return lambda path: os.statvfs_result((1, 1, free, free, free, 0, 0, 0, 0, 255))


def _examine(
    root: Path, files: Mapping[str, str], later: Mapping[str, str] | None = None, **more: object
) -> dict[str, Diagnosis]:
    """The answers by check. later: files as they are when the watch ends."""
    _plant(root, {**_SOUND, **files})
    facts = {
        "environment": {"HF_HOME": str(root / "hf")},
        "ask": lambda *words: None,
        "statvfs": _disk(1 << 40),
        **more,
    }
    machine = Machine(root=root, cores=(0, 1), wait=lambda seconds: _plant(root, later or {}), **facts)  # type: ignore[arg-type]
    return {each.check: each for each in examine(machine, _BUILD, _VERSIONS, root / "runs")}


def test_a_sound_machine_has_nothing_to_mend(tmp_path: Path) -> None:
    found = _examine(tmp_path, {})
    assert {name: each.evidence for name, each in found.items() if each.level != "fine"} == {}
    assert len(found) >= 20


# The planted fault: files, what they are when the watch ends, the check, its level, words of the evidence, the remedy.
_FAULTS = {
    "load": (
        {"proc/77/stat": "77 (cc1plus) R 1 1 1 0 -1 0 0 0 0 0 50 0 0 0"},
        {"proc/stat": "cpu0 200 0 0 900 0 0 0 0\ncpu1 100 0 0 1000 0 0 0 0\n",
         "proc/77/stat": "77 (cc1plus) R 1 1 1 0 -1 0 0 0 0 0 150 0 0 0"},
        "other load", "severe", "cc1plus (process 77, 100 % of a core)", "kill -STOP 77",
    ),
    "stolen": (
        {}, {"proc/stat": "cpu0 100 0 0 950 0 0 0 50\ncpu1 100 0 0 1000 0 0 0 0\n"},
        "stolen time", "severe", "25 %", "dedicated cores",
    ),
    "governor": (
        {f"{_CPU}/cpu1/cpufreq/scaling_governor": "powersave\n"}, {},
        "clock governor", "severe", "performance, powersave", "cpupower frequency-set -g performance",
    ),
    "powersave of intel_pstate": (
        {f"{_CPU}/cpu{i}/cpufreq/scaling_governor": "powersave\n" for i in (0, 1)}
        | {f"{_CPU}/cpu0/cpufreq/scaling_driver": "intel_pstate\n"},
        {}, "clock governor", "minor", "powersave of intel_pstate", "cpupower",
    ),
    "clock limit": (
        {f"{_CPU}/cpu0/cpufreq/scaling_max_freq": "1500000\n"}, {},
        "clock limit", "severe", "1.50 GHz", "frequency-set -u 3000000",
    ),
    "turbo": ({f"{_CPU}/intel_pstate/no_turbo": "1\n"}, {}, "turbo", "minor", "off", "echo 0 | sudo tee"),
    "heat": ({"sys/class/thermal/thermal_zone0/temp": "97000\n"}, {}, "heat", "severe", "97 °C", "cool"),
    "throttling": (
        {}, {f"{_CPU}/cpu0/thermal_throttle/core_throttle_count": "3\n"}, "heat", "severe", "3 slow-downs", "cool",
    ),
    "hyper-threads": (
        {f"{_CPU}/cpu{i}/topology/thread_siblings_list": "0-1\n" for i in (0, 1)}, {},
        "hyper-threads", "minor", "1 physical", "taskset -c 0 ",
    ),
    "quota": (
        {"sys/fs/cgroup/job/cpu.max": "150000 100000\n"}, {},
        "CPU quota", "severe", "/sys/fs/cgroup/job/cpu.max allows 1.5 cores", "docker update --cpus 2",
    ),
    "quota of a parent, version 1": (
        {"proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n0::/\n",
         "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us": "50000\n",
         "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us": "100000\n"}, {},
        "CPU quota", "severe", "0.5 cores", "echo -1 | sudo tee /sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us",
    ),
    "stopped by the quota": (
        {"sys/fs/cgroup/job/cpu.max": "200000 100000\n",
         "sys/fs/cgroup/job/cpu.stat": "nr_periods 9\nnr_throttled 2\n"},
        {"sys/fs/cgroup/job/cpu.stat": "nr_periods 19\nnr_throttled 7\n"},
        "CPU quota", "severe", "in 5 periods", "docker update",
    ),
    "clock source": (
        {"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n"}, {},
        "clock source", "minor", "hpet", "echo tsc",
    ),
    "memory": (
        {"proc/meminfo": _MEMORY.replace("62914560", "1048576")}, {},
        "memory", "severe", "1.000 of 64.00 GiB", "ps aux --sort=-rss",
    ),
    "memory limit": (
        {"sys/fs/cgroup/job/memory.max": str(8 << 30), "sys/fs/cgroup/job/memory.current": str(1 << 30)}, {},
        "memory", "minor", "/sys/fs/cgroup/job/memory.max allows 8.000 GiB", "docker update --memory",
    ),
    "memory limit that is used up": (
        {"sys/fs/cgroup/job/memory.max": str(8 << 30), "sys/fs/cgroup/job/memory.current": str(8 << 30),
         "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 1048576\n"}, {},
        "memory", "severe", "7.999 are in use", "docker update --memory",
    ),
    "swapping": (
        {"proc/meminfo": _MEMORY.replace("SwapTotal: 0", "SwapTotal: 1048576")},
        {"proc/vmstat": "pswpin 105\npswpout 7\n"},
        "swap", "severe", "100 pages", "swapoff -a",
    ),
    "NUMA": (
        {"sys/devices/system/node/node0/cpulist": "0\n", "sys/devices/system/node/node1/cpulist": "1,3-5\n",
         "proc/sys/kernel/numa_balancing": "1\n"}, {},
        "NUMA", "minor", "are on 2", "numactl --cpunodebind=0",
    ),
    "huge pages": (
        {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n"}, {},
        "huge pages", "minor", "off", "echo madvise",
    ),
    "small /dev/shm": (
        {"proc/self/mounts": "shm /dev/shm tmpfs rw,nosuid,size=65536k 0 0\n"}, {},
        "shared memory", "severe", "64 MiB", "--shm-size=8g",
    ),
    "old kernel": (
        {"proc/sys/kernel/osrelease": "4.18.0-553.el8\n"}, {}, "known faults", "minor", "linux 4.18", "kernel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(fault: str, tmp_path: Path) -> None:
    files, later, check, level, evidence, remedy = _FAULTS[fault]
    found = _examine(tmp_path, files, later)
    assert [each.check for each in found.values() if each.level != "fine"] == [check]
    assert found[check].level == level
    assert evidence in found[check].evidence
    assert remedy in found[check].remedy


def test_what_a_machine_does_not_say_stays_unknown(tmp_path: Path) -> None:
    machine = Machine(root=tmp_path, cores=(0,), environment={}, wait=lambda seconds: None, ask=lambda *words: None)
    found = {
        each.check: each.level for each in examine(machine, TorchBuild(python="p", facts={}, why="gone"), {}, tmp_path)
    }
    known = {"CPU quota", "disk", "GPU", "known faults", "offline readiness", "thread binding", "shared memory"}
    assert {name for name, level in found.items() if level != "unknown"} <= known
    assert found["torch"] == found["other load"] == found["memory"] == "unknown"


@pytest.mark.parametrize(
    ("environment", "check", "level", "remedy"),
    [
        ({"GOMP_CPU_AFFINITY": "0-1"}, "thread binding", "severe", "unset GOMP_CPU_AFFINITY"),
        ({"OMP_PROC_BIND": "close"}, "thread binding", "minor", "unset OMP_PROC_BIND"),
        ({"OMP_PROC_BIND": "false"}, "thread binding", "fine", ""),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, "allocator", "minor", "unset GLIBC_TUNABLES"),
        ({"LD_PRELOAD": "/usr/lib/libtcmalloc.so.4"}, "allocator", "fine", ""),
        ({"HF_HUB_OFFLINE": "1"}, "offline readiness", "minor", "HF_HUB_OFFLINE"),
    ],
)
def test_variables_of_the_environment(
    environment: dict[str, str], check: str, level: str, remedy: str, tmp_path: Path
) -> None:
    found = _examine(tmp_path, {}, environment={"HF_HOME": str(tmp_path / "hf"), **environment})[check]
    assert (found.level, remedy in found.remedy) == (level, True)


def test_a_download_that_was_cut_off_is_named(tmp_path: Path) -> None:
    found = _examine(tmp_path, {"hf/hub/models--a--b/blobs/12.incomplete": "x"})["offline readiness"]
    assert found.level == "minor"
    assert "1 models" in found.evidence


@pytest.mark.parametrize(("free", "level"), [(1 << 20, "severe"), (5 << 30, "minor"), (1 << 40, "fine")])
def test_a_full_disk(free: int, level: str, tmp_path: Path) -> None:
    assert _examine(tmp_path, {}, statvfs=_disk(free))["disk"].level == level


@pytest.mark.parametrize(
    ("facts", "level"),
    [({"capability": "DEFAULT"}, "severe"), ({"capability": "AVX2"}, "minor"), ({"openmp": False}, "severe"),
     ({"blas": "generic", "mkldnn": False}, "severe"), ({"capability": None}, "unknown")],
)  # fmt: skip
def test_a_torch_without_the_processors_instructions_or_a_library(
    facts: dict[str, object], level: str, tmp_path: Path
) -> None:
    _plant(tmp_path, _SOUND)
    from tunemark.doctor.software_checks import check_torch

    build = TorchBuild(python="python", facts={**_BUILD.facts, **facts})
    assert check_torch(Machine(root=tmp_path, environment={}), build).level == level


def test_known_faults_have_a_source_and_bounds_that_hold() -> None:
    assert all(fault.source.startswith("https://") and (fault.since or fault.fixed) for fault in KNOWN_FAULTS)
    numpy = find_known_faults({"torch": "2.2.2+cpu", "numpy": "2.0.1"}, has_gpu=False)
    assert [fault.package for fault in numpy] == ["torch"]
    assert find_known_faults({"torch": "2.2.2", "numpy": "1.26"}, has_gpu=False) == []
    assert find_known_faults({"torch": "2.13.0", "transformers": "4.46.0", "linux": "6.1"}, has_gpu=False) == []
    products, attention = (find_known_faults({"torch": "2.14.0"}, has_gpu=has_gpu) for has_gpu in (False, True))
    assert products != attention
    assert len(products) == len(attention) == 1


# One line for each GPU: the fields of `check_nvidia`'s question.
_H100 = "0, NVIDIA H100, Enabled, 700.00, 700.00, Enabled, 0, 16, 16, 0, 4"


@pytest.mark.parametrize(
    ("line", "check", "level"),
    [
        (_H100, "", "fine"),
        (_H100.replace("Enabled, 700", "Disabled, 700"), "GPU persistence", "minor"),
        (_H100.replace("700.00, 700", "400.00, 700"), "GPU power limit", "severe"),
        (_H100.replace("Enabled, 0, 16", "Enabled, 2, 16"), "GPU ECC", "severe"),
        (_H100.replace("16, 16", "4, 16"), "GPU PCIe", "severe"),
        (_H100.replace("0, 4", "97, 60000"), "GPU use", "severe"),
        (_H100.replace("700.00, 700.00", "[N/A], [N/A]"), "GPU power limit", "unknown"),
    ],
)
def test_nvidia_smi(line: str, check: str, level: str) -> None:
    other = _H100.replace("0, NVIDIA", "1, NVIDIA")
    found = [each for each in check_nvidia(f"{line}\n{other if level != 'unknown' else ''}\n") if each.level != "fine"]
    assert [(each.check, each.level) for each in found] == ([] if level == "fine" else [(check, level)])
    assert all(
        "GPU 0" in each.evidence
        or "nvidia-smi" in each.evidence
        or "0:" in each.evidence
        or "GPU 0" in f"GPU {each.evidence}"
        for each in found
    )


def test_amd_smi() -> None:
    static = [{"limit": {"max_power": {"value": 750, "unit": "W"}, "socket_power": {"value": 500, "unit": "W"}},
               "bus": {"max_pcie_width": 16}}]  # fmt: skip
    metric = {"gpu_data": [{"ecc": {"total_uncorrectable_count": 0}, "pcie": {"width": 8},
                            "usage": {"gfx_activity": {"value": 0, "unit": "%"}}}]}  # fmt: skip
    found = {each.check: each.level for each in check_amd(json.dumps(static), json.dumps(metric))}
    assert found == {"GPU power limit": "severe", "GPU ECC": "fine", "GPU PCIe": "minor", "GPU use": "fine"}
    assert [each.level for each in check_amd("no json", "")] == ["unknown"]


def test_a_gpu_that_no_program_answers_for_is_unknown(tmp_path: Path) -> None:
    _plant(tmp_path, {"dev/nvidia0": ""})
    (found,) = check_gpus(Machine(root=tmp_path, ask=lambda *words: None))
    assert found.level == "unknown"


def test_a_run_says_what_was_severe_when_it_began(tmp_path: Path) -> None:
    _plant(tmp_path, {**_SOUND, "sys/fs/cgroup/job/cpu.max": "150000 100000\n", "proc/self/mounts": ""})
    machine = Machine(root=tmp_path, cores=(0, 1), environment={"GOMP_CPU_AFFINITY": "0"}, statvfs=_disk(1 << 20))
    one = examine_for_run(machine, processes=1, threads=1)
    assert [each.check for each in one] == ["thread binding"], "a core and a half are enough for one thread"
    two = examine_for_run(machine, processes=2, threads=1)
    assert [each.check for each in two] == ["CPU quota", "thread binding", "shared memory"]
    found = check_machine_state([{"check": each.check, "evidence": each.evidence} for each in two])
    assert found is not None
    assert found.severity == "suspect"
    assert "1.5 cores" in found.message
    assert check_machine_state(()) is None


def test_limits_of_control_groups(tmp_path: Path) -> None:
    _plant(tmp_path, {"proc/self/cgroup": "3:memory:/a/b\n2:cpu:/a\n0::/\n",
                      "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4096",
                      "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712"})  # fmt: skip
    limit = read_memory_limit(tmp_path)
    assert limit is not None
    assert limit[0] == 4096
    assert read_cpu_quota(tmp_path) is None


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--seconds", "never"]) == 2
    assert "--seconds cannot be 'never'" in capsys.readouterr().err
    # An interpreter that answers as one with a torch of plain instructions does.
    python = tmp_path / "python"
    reply = {"python": "3.12.1", "found": {}, "versions": {"torch": "2.2.0", "numpy": "2.1.0"}, "model_types": None}
    build = {**_BUILD.facts, "torch": "2.2.0", "openmp": False}
    words = "*describe_build*"
    python.write_text(
        f"#!/bin/sh\ncase \"$2\" in {words}) echo '{json.dumps(build)}';; *) echo '{json.dumps(reply)}';; esac\n"
    )
    python.chmod(0o755)
    arguments = ["doctor", "--seconds", "0.01", "--store", str(tmp_path), "--python", str(python)]
    assert main([*arguments, "--json"]) == 1
    rows = {row["check"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {"other load", "CPU quota", "shared memory", "torch"} <= rows.keys()
    assert rows["torch"]["level"] == rows["known faults"]["level"] == "severe"
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "| severe | torch | torch 2.2.0, BLAS mkl" in said
    assert "Mend what is severe before you measure." in said
