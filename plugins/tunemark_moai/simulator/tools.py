"""Imitations of `moreh-smi`, `moreh-switch-model` and `ap-smi`, as documented: `python -m ...tools TOOL ARGUMENTS`."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any, Dict, List, Optional, Sequence

from tunemark_moai.flavor_table import DEVICE_MIB
from tunemark_moai.simulator import state as sim

_IN_USE = "The model cannot be switched while the {} is in use."


def main(words: Sequence[str]) -> int:
    tool, arguments = words[0], list(words[1:])
    now = sim.read_state()
    time.sleep(sim.get_behaviour(now, "latency_s"))
    kind = "switch" if tool == "moreh-switch-model" else "smi"
    how = sim.get_behaviour(now, kind)
    if how == "hang":
        print("Current {}: ".format(sim.VERSIONS[now["version"]].name), end="", flush=True)
        time.sleep(1e6)
    if kind == "smi" and how == "die":
        print("Segmentation fault (core dumped)", file=sys.stderr)
        return 139
    if kind == "smi" and how == "garbage":
        print("| ##@ |\n|?|")
        return 0
    {"moreh-smi": _moreh_smi, "moreh-switch-model": _switch_model, "ap-smi": _ap_smi}[tool](now, arguments)
    return int(sim.get_behaviour(sim.read_state(), "exit_code"))


# -- moreh-smi


def _moreh_smi(now: Dict[str, Any], arguments: List[str]) -> None:
    if not arguments or arguments[0] == "-i":
        print(format_status(now, int(arguments[1]) if len(arguments) > 1 else None))
    elif arguments[0] == "-p":
        print(format_physical_devices(now))
    elif arguments[0] in ("-v", "--version"):
        print("Moreh AI Platform {}".format(now["version"]))
    elif arguments[0] in ("-t", "--token"):
        rows = [[_device_cell(now, d), _accelerator_name(now), "c2ltdWxhdGVk", d["flavor"]] for d in now["devices"]]
        print(format_table(["Device", "Name", "Token", "Model"], rows))
    elif arguments[0] in ("-r", "--reset"):
        print("Device release success." if _reset() else "Device release failed. (Not running job.)")
    elif arguments[0] == "device":
        _change_devices(arguments[1:])
    else:
        print("Usage: moreh-smi [-h] [-r] [-v] [-t] [-p] [-i N] [device {--add|--rm|--switch} N]")


def format_status(now: Dict[str, Any], only: Optional[int] = None) -> str:
    """The status table, followed by the table of processes if there are any."""
    version = sim.VERSIONS[now["version"]]
    rows, processes = [], []
    for device in now["devices"]:
        if only is not None and device["id"] != only:
            continue
        jobs = sim.find_holding_processes(now, device["id"])
        used = sum(job["memory_mib"] for job in jobs)
        total = sim.flavor_hardware(device["flavor"])[0] * DEVICE_MIB
        state = ["{} MiB".format(used), "{} MiB".format(total), "100 %"] if jobs else ["-", "-", "-"]
        rows.append([_device_cell(now, device), version.name, device["flavor"], *state])
        for job in jobs:
            memory = "{} MiB".format(job["memory_mib"])
            processes.append([str(device["id"]), str(job["job_id"]), str(job["pid"]), job["command"], memory])
    title = "Current Version: {0}  Latest Version: {0}".format(now["version"])
    header = ["Device", "Name", version.column, "Memory Usage", "Total Memory", "Utilization"]
    lines = [datetime.now().strftime("%H:%M:%S %B %d, %Y")] if version.has_date else []
    lines.append(format_table(header, rows, title))
    if processes:
        lines += ["", "Processes:", format_table(["Device", "Job ID", "PID", "Process", "Memory Usage"], processes)]
    return "\n".join(lines)


def format_physical_devices(now: Dict[str, Any]) -> str:
    """The table of physical devices behind the busy accelerators."""
    rows: List[List[str]] = []
    for device in now["devices"]:
        jobs = sim.find_holding_processes(now, device["id"])
        devices = sim.flavor_hardware(device["flavor"])[0]
        for i in range(devices if jobs else 0):
            share = 100 * sum(job["memory_mib"] for job in jobs) // (devices * DEVICE_MIB)
            place = "back{:02d}:{}".format(1 + i // 8, i % 8)
            rows.append([str(i), place, "{} C".format(50 + i % 7), "59 C", "100 %", "33 %", "{} %".format(share)])
    header = ["Dev", "Location", "Dev Temp", "Mem Temp", "Dev Util", "Mem Util", "Mem Usage"]
    return datetime.now().strftime("%H:%M:%S %B %d, %Y") + "\n" + format_table(header, rows)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """A bordered table, as wide as its cells; its title is right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) + 4 for i in range(len(header))]
    whole = sum(widths) + len(widths) - 1
    if title and whole < len(title) + 4:
        widths[0] += len(title) + 4 - whole
        whole = len(title) + 4
    top = "+" + "-" * whole + "+"
    lines = [top]
    if title:
        lines += ["|" + title.rjust(whole - 2) + "  |", top]
    lines.append("|" + "|".join(cell.center(width) for cell, width in zip(header, widths)) + "|")
    lines.append("+" + "=" * whole + "+")
    lines += ["|" + "|".join(cell.center(width) for cell, width in zip(row, widths)) + "|" for row in rows]
    return "\n".join([*lines, top])


def _device_cell(now: Dict[str, Any], device: Dict[str, Any]) -> str:
    star = device["id"] == now["default"] and not sim.get_behaviour(now, "unmarked")
    return "{} {}".format("*" if star else " ", device["id"])


def _accelerator_name(now: Dict[str, Any]) -> str:
    return sim.VERSIONS[now["version"]].name


def _reset() -> bool:
    with sim.edit_state() as state:
        had = bool(state["jobs"])
        state["jobs"] = []
    return had


def _change_devices(arguments: List[str]) -> None:
    what, number = arguments[0], int(arguments[1]) if len(arguments) > 1 else None
    with sim.edit_state() as state:
        ids = [d["id"] for d in state["devices"]]
        done = ""
        if what == "--switch" and number in ids:
            state["default"] = number
            done = "Switch Current Device success."
        elif what == "--rm" and number in ids and len(ids) > 1:
            state["devices"] = [d for d in state["devices"] if d["id"] != number]
            done = "Remove device success."
        elif what == "--add" and number is not None:
            flavor = sim.list_flavors(state["version"])[number - 1]
            state["devices"].append({"id": max(ids) + 1, "flavor": flavor})
            done = "Create device success."
        rows = [[_device_cell(state, d), _accelerator_name(state), d["flavor"]] for d in state["devices"]]
    print(format_table(["Device", "Name", "Model"], rows))
    print(done or "Fail.")


# -- moreh-switch-model


def _switch_model(now: Dict[str, Any], arguments: List[str]) -> None:
    name = _accelerator_name(now)
    if sim.find_holding_processes(now, now["default"]):
        print(_IN_USE.format(name))
        return
    if sim.get_behaviour(now, "switch") == "unknown_menu":
        print("Choose one of the sizes below, by its letter\n[a] Small.64GB\n[b] Medium.128GB\n> ", end="", flush=True)
        sys.stdin.readline()
        return
    if arguments[:1] == ["-M"]:
        _select_flavor(int(arguments[1]))
        return
    print("Current {}: {}\n".format(name, _default_device(now)["flavor"]))
    while True:
        names = sim.list_flavors(now["version"])
        for i, flavor in enumerate(names, 1):
            print("{}. {}{}".format(i, flavor, "  *" if flavor == _default_device(sim.read_state())["flavor"] else ""))
        print("\nSelection (1-{}, q, Q): ".format(len(names)), end="", flush=True)
        typed = sys.stdin.readline()
        if not typed:
            if sim.get_behaviour(sim.read_state(), "eof") == "hang":
                time.sleep(1e6)
            return
        word = typed.strip()
        if word in ("q", "Q"):
            return
        if word.isdigit() and 1 <= int(word) <= len(names):
            if sim.get_behaviour(now, "switch") == "die":
                sys.exit(1)
            _select_flavor(int(word))
            continue
        how = sim.get_behaviour(sim.read_state(), "invalid_input")
        if how == "exit":
            return
        if how == "message":
            print("Invalid selection: {}\n".format(word))


def _select_flavor(number: int) -> None:
    with sim.edit_state() as state:
        names = sim.list_flavors(state["version"])
        wanted = names[number - 1]
        how = sim.get_behaviour(state, "switch")
        _default_device(state)["flavor"] = names[number % len(names)] if how == "wrong_flavor" else wanted
        version = state["version"]
    if how != "silent":
        word = "flavor" if version == "24.2.0" else "model"
        print('The {} {} is successfully switched to  "{}".\n'.format(sim.VERSIONS[version].name, word, wanted))


def _default_device(state: Dict[str, Any]) -> Dict[str, Any]:
    found: Dict[str, Any] = next(d for d in state["devices"] if d["id"] == state["default"])
    return found


# -- ap-smi


def _ap_smi(now: Dict[str, Any], arguments: List[str]) -> None:
    rows = []
    for job in sim.find_holding_processes(now, 0):
        flavor = job.get("flavor", "flavor-default-8")
        share = 100 * job["memory_mib"] // (sim.flavor_hardware(flavor)[0] * DEVICE_MIB)
        rows.append(["0", "1779", flavor, str(max(1, share)), "100"])
    idle = sim.get_behaviour(now, "idle_ap")
    if not rows and idle == "empty":
        return
    if not rows and idle == "row":
        rows.append(["0", "1779", "-", "0", "0"])
    header = ["#", "NAME", "FLAVOR", "MEM USAGE(%)", "GPU UTIL(%)"]
    widths = [max(len(row[i]) for row in [header, *rows]) + 4 for i in range(len(header))]
    widths[2] = max(widths[2], 24)
    whole = sum(widths) + len(widths) - 1
    border = "+" + "+".join("-" * width for width in widths) + "+"
    framework = "MoAI Framework Version : {0} Latest Version : {0}  ".format(now["version"])
    print("+" + "-" * whole + "+")
    print("|" + "Accelerator platform Version : v0.0.30  ".rjust(whole) + "|")
    print("|" + framework.rjust(whole) + "|")
    print(border)
    for row in [header, None, *rows]:
        print(border if row is None else "|" + "|".join(c.center(w) for c, w in zip(row, widths)) + "|")
    print(border)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
