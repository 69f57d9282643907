"""Checks of the processor: who else uses it, how fast its clock may run, and how much of it this process may have.

Sources: the Linux kernel's documents filesystems/proc (stat), admin-guide/pm/cpufreq, admin-guide/pm/intel_pstate,
admin-guide/cgroup-v2, ABI/testing/sysfs-devices-system-cpu, timers/timekeeping, and driver-api/thermal/sysfs-api.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tunemark.cgroups import read_cpu_quota, read_throttled_periods
from tunemark.doctor.diagnosis import Diagnosis, fine, minor, severe, unknown
from tunemark.doctor.machine import Machine
from tunemark.number_format import percent_text
from tunemark.results.run_rules import HEAVY_LOAD, LIGHT_LOAD
from tunemark_worker.linux_proc import read_busy_s

_Number = TypeVar("_Number", int, float)

_CPU = "sys/devices/system/cpu"
# Governors under which a busy core runs at its highest clock; schedutil and ondemand reach it only after a while.
_STEADY_GOVERNORS = {"performance"}
_SLOW_GOVERNORS = {"powersave", "conservative", "userspace"}
# Clock sources that are read without leaving the process.
_FAST_CLOCKS = {
    "tsc",
    "arch_sys_counter",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "timebase",
    "xen",
    "riscv_clocksource",
}
# Degrees below a zone's critical point from which on the chip slows down or is about to.
_NEAR_CRITICAL = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchedTime:
    """What changed while the machine was watched. busy: the share of the usable cores' time that programs used, None
    where unknown. stolen: the share that a hypervisor gave to others. processes: (seconds of processor time, pid,
    command) of the busiest. throttled_periods: of the CPU quota. heat_events: slow-downs by heat. swapped_pages: in and
    out."""

    seconds: float
    busy: float | None
    stolen: float | None
    processes: tuple[tuple[float, int, str], ...]
    throttled_periods: int | None
    heat_events: int | None
    swapped_pages: int | None


def watch(machine: Machine) -> WatchedTime:
    """Watch the machine for its `watch_s`, in which this process itself does nothing."""
    before = _read_counters(machine)
    machine.wait(machine.watch_s)
    after = _read_counters(machine)
    share = machine.watch_s * len(machine.cores)
    stolen = _difference(before.stolen_s, after.stolen_s)
    busy = _difference(before.busy_s, after.busy_s)
    # `read_busy_s` counts it too.
    busy = None if busy is None else max(0.0, busy - (stolen or 0.0))
    used = [(seconds - before.processes[pid][0], pid, name)
            for pid, (seconds, name) in after.processes.items()
            if pid in before.processes and pid != os.getpid()]  # fmt: skip
    return WatchedTime(
        seconds=machine.watch_s,
        busy=None if busy is None else min(1.0, busy / share),
        stolen=None if stolen is None else min(1.0, stolen / share),
        processes=tuple(sorted((each for each in used if each[0] > 0), reverse=True)[:3]),
        throttled_periods=_difference(before.throttled, after.throttled),
        heat_events=_difference(before.heat_events, after.heat_events),
        swapped_pages=_difference(before.swapped, after.swapped),
    )


def check_load(machine: Machine, seen: WatchedTime) -> Diagnosis:
    """Other programs on the cores that a run would use."""
    if seen.busy is None:
        return unknown("other load", "/proc/stat does not say how busy the cores are")
    names = ", ".join(
        f"{name} (process {pid}, {percent_text(s / seen.seconds)} of a core)" for s, pid, name in seen.processes
    )
    average = (machine.read("proc/loadavg") or "").partition(" ")[0]
    evidence = f"{percent_text(seen.busy)} of {len(machine.cores)} cores' time was used in {seen.seconds:g} s"
    evidence += f"; load average {average}" if average else ""
    evidence += (
        f"; busiest: {names}"
        if names
        else "; by processes that are not seen from here"
        if seen.busy > LIGHT_LOAD
        else ""
    )
    if seen.busy <= LIGHT_LOAD:
        return fine("other load", evidence)
    pids = " ".join(str(pid) for _, pid, _ in seen.processes)
    remedy = f"end or stop what is not needed ({f'kill -STOP {pids}' if pids else 'on the host'}), or wait"
    return (severe if seen.busy > HEAVY_LOAD else minor)("other load", evidence, remedy)


def check_stolen_time(machine: Machine, seen: WatchedTime) -> Diagnosis:
    """Processor time that a hypervisor gave to other virtual machines."""
    if seen.stolen is None:
        return unknown("stolen time", "/proc/stat does not say how much time the hypervisor took")
    evidence = f"the hypervisor took {percent_text(seen.stolen)} of the cores' time in {seen.seconds:g} s"
    if seen.stolen <= LIGHT_LOAD:
        return fine("stolen time", evidence)
    remedy = "use a virtual machine with dedicated cores, or measure when its host is idle"
    return (severe if seen.stolen > HEAVY_LOAD else minor)("stolen time", evidence, remedy)


def check_governor(machine: Machine) -> Diagnosis:
    """The rule by which the kernel chooses the clock."""
    paths = machine.find(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor")
    found = {text for path in paths if (text := machine.read(str(path.relative_to(machine.root))))}
    if not found:
        return unknown("clock governor", "no cpufreq here, as on most virtual machines: the host decides")
    evidence = f"scaling_governor is {', '.join(sorted(found))}"
    if found <= _STEADY_GOVERNORS:
        return fine("clock governor", evidence)
    drivers = machine.read(f"{_CPU}/cpu0/cpufreq/scaling_driver") or ""
    remedy = "sudo cpupower frequency-set -g performance"
    # These drivers' powersave is what others call schedutil.
    is_active = drivers in ("intel_pstate", "amd-pstate-epp")
    if found & _SLOW_GOVERNORS and not (is_active and found == {"powersave"}):
        return severe("clock governor", evidence, remedy)
    return minor("clock governor", evidence + (f" of {drivers}" if drivers else ""), remedy)


def check_clock_limit(machine: Machine) -> Diagnosis:
    """The highest clock that is allowed, against the highest that the processor has."""
    allowed = machine.number(f"{_CPU}/cpu0/cpufreq/scaling_max_freq")
    highest = machine.number(f"{_CPU}/cpu0/cpufreq/cpuinfo_max_freq")
    if not allowed or not highest:
        return unknown("clock limit", "no cpufreq here: the highest clock is not known")
    evidence = f"at most {allowed / 1e6:.2f} GHz are allowed of {highest / 1e6:.2f} GHz"
    if allowed >= 0.99 * highest:
        return fine("clock limit", evidence)
    remedy = f"sudo cpupower frequency-set -u {highest}"
    return (severe if allowed < 0.9 * highest else minor)("clock limit", evidence, remedy)


def check_turbo(machine: Machine) -> Diagnosis:
    """Clocks above the rated one."""
    off, boost = machine.number(f"{_CPU}/intel_pstate/no_turbo"), machine.number(f"{_CPU}/cpufreq/boost")
    if off is None and boost is None:
        return unknown("turbo", "neither intel_pstate/no_turbo nor cpufreq/boost is here")
    is_on = off == 0 if off is not None else boost == 1
    if is_on:
        return fine("turbo", "on: figures of a cool and of a warm machine differ, which many repeats show")
    name, value = ("intel_pstate/no_turbo", 0) if off is not None else ("cpufreq/boost", 1)
    return minor("turbo", f"off by {name}: slower than the same processor elsewhere",
                 f"echo {value} | sudo tee /{_CPU}/{name}")  # fmt: skip


def check_heat(machine: Machine, seen: WatchedTime) -> Diagnosis:
    """Temperatures near the critical point, and slow-downs by heat."""
    remedy = "let it cool down, clean the fans, or lower the room's temperature"
    if seen.heat_events:
        return severe("heat", f"{seen.heat_events} slow-downs by heat in {seen.seconds:g} s", remedy)
    zones = []
    for zone in machine.find("sys/class/thermal/thermal_zone*"):
        name = str(zone.relative_to(machine.root))
        degrees, limit = machine.number(f"{name}/temp"), _critical_point(machine, name)
        if degrees is not None:
            zones.append((degrees / 1000, limit, machine.read(f"{name}/type") or zone.name))
    counted = _count_heat_events(machine)
    if not zones and counted is None:
        return unknown("heat", "no thermal zone and no count of slow-downs here")
    near = [(t, limit, name) for t, limit, name in zones if limit is not None and t >= limit - _NEAR_CRITICAL]
    if near:
        t, limit, name = near[0]
        return severe("heat", f"{name} is at {t:.0f} °C, its critical point is {limit:.0f} °C", remedy)
    evidence = f"{max(t for t, *_ in zones):.0f} °C at most" if zones else "no thermal zone"
    if counted:
        return minor("heat", f"{evidence}; {counted} slow-downs by heat since the start", remedy)
    return fine("heat", evidence + ("" if counted is None else "; no slow-down by heat since the start"))


def check_hyper_threads(machine: Machine) -> Diagnosis:
    """Whether several of the usable cores are threads of one physical core."""
    groups: dict[str, list[int]] = {}
    for core in machine.cores:
        siblings = machine.read(f"{_CPU}/cpu{core}/topology/thread_siblings_list")
        if siblings is None:
            return unknown("hyper-threads", "the topology of the cores is not here")
        groups.setdefault(siblings, []).append(core)
    shared = {siblings: cores for siblings, cores in groups.items() if len(cores) > 1}
    if not shared:
        return fine("hyper-threads", f"{len(machine.cores)} usable cores are {len(groups)} physical ones")
    first = ",".join(str(cores[0]) for cores in groups.values())
    evidence = (
        f"{len(machine.cores)} usable cores are {len(groups)} physical ones: two threads of one core share its units"
    )
    return minor("hyper-threads", evidence, f"taskset -c {first} tunemark run ..., which uses each physical core once")


def check_cpu_quota(machine: Machine, seen: WatchedTime | None, wanted: int | None = None) -> Diagnosis:
    """The control group's share of the processor. wanted: cores that a run uses; None is all usable ones."""
    quota = read_cpu_quota(machine.root)
    cores = len(machine.cores) if wanted is None else wanted
    if quota is None:
        return fine("CPU quota", "no control group limits the processor's time")
    share, path = quota
    evidence = (
        f"{machine.shown(path)} allows {share:g} cores of time, {cores} are {'usable' if wanted is None else 'used'}"
    )
    if seen is not None and seen.throttled_periods:
        evidence += f"; the kernel stopped the group in {seen.throttled_periods} periods of {seen.seconds:g} s"
    elif counted := read_throttled_periods(machine.root):
        evidence += f"; stopped in {counted} periods since the group was made"
    if share >= cores and not (seen is not None and seen.throttled_periods):
        return fine("CPU quota", evidence)
    value = "max" if path.name == "cpu.max" else "-1"
    remedy = f"docker update --cpus {cores} CONTAINER, or: echo {value} | sudo tee {machine.shown(path)}"
    if share >= 1:
        remedy += f"; or use fewer: --device cpu:{int(share)}"
    return severe("CPU quota", evidence, remedy)


def check_clock_source(machine: Machine) -> Diagnosis:
    """Where the kernel reads the time from."""
    folder = "sys/devices/system/clocksource/clocksource0"
    found, offered = (
        machine.read(f"{folder}/current_clocksource"),
        machine.read(f"{folder}/available_clocksource") or "",
    )
    if found is None:
        return unknown("clock source", f"/{folder} is not here")
    if found in _FAST_CLOCKS:
        return fine("clock source", found)
    better = next((name for name in offered.split() if name in _FAST_CLOCKS), None)
    evidence = f"{found}: reading the time takes a system call or a device, of {offered or 'one source'}"
    remedy = (
        f"echo {better} | sudo tee /{folder}/current_clocksource" if better else "the kernel offers none that is faster"
    )
    return minor("clock source", evidence, remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counters:
    busy_s: float | None
    stolen_s: float | None
    processes: dict[int, tuple[float, str]]
    throttled: int | None
    heat_events: int | None
    swapped: int | None


def _read_counters(machine: Machine) -> _Counters:
    swaps = re.findall(r"^pswp(?:in|out) (\d+)$", machine.read("proc/vmstat") or "", re.MULTILINE)
    return _Counters(
        busy_s=read_busy_s(machine.cores, str(machine.root / "proc/stat")),
        stolen_s=_read_stolen_s(machine),
        processes=dict(_read_processes(machine)),
        throttled=read_throttled_periods(machine.root),
        heat_events=_count_heat_events(machine),
        swapped=sum(map(int, swaps)) if swaps else None,
    )


def _read_stolen_s(machine: Machine) -> float | None:
    """Field 8 of each usable core's line."""
    own = {f"cpu{core}" for core in machine.cores}
    lines = [line.split() for line in (machine.read("proc/stat") or "").splitlines()]
    stolen = [int(fields[8]) for fields in lines if fields and fields[0] in own and len(fields) > 8]
    return sum(stolen) / float(os.sysconf("SC_CLK_TCK")) if stolen else None


def _read_processes(machine: Machine) -> list[tuple[int, tuple[float, str]]]:
    """(pid, (seconds of processor time, command)) of every process that is seen."""
    found = []
    for path in (machine.root / "proc").glob("[0-9]*/stat"):
        text = machine.read(str(path.relative_to(machine.root))) or ""
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        # Fields 14 and 15 of proc(5), the third being the first here.
        if len(fields) > 12:
            seconds = (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))
            found.append((int(path.parent.name), (seconds, head.partition("(")[2])))
    return found


def _count_heat_events(machine: Machine) -> int | None:
    counts = [machine.number(str(path.relative_to(machine.root)))
              for path in machine.find(f"{_CPU}/cpu[0-9]*/thermal_throttle/*_throttle_count")]  # fmt: skip
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _critical_point(machine: Machine, zone: str) -> float | None:
    """Degrees at which a zone's hardware protects itself; None if it does not say."""
    for path in machine.find(f"{zone}/trip_point_*_type"):
        name = str(Path(zone) / path.name)
        if machine.read(name) in ("critical", "hot"):
            limit = machine.number(name.replace("_type", "_temp"))
            return limit / 1000 if limit is not None and limit > 0 else None
    return None


def _difference(before: _Number | None, after: _Number | None) -> _Number | None:
    return None if before is None or after is None else after - before
