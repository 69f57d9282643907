"""`tunemark-moai-sim`: start a simulator of the platform, change its behaviour, remove it. Prints shell commands."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import List, Optional

from tunemark_moai.simulator import state as sim


def main(words: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tunemark-moai-sim",
        description=__doc__,
        epilog="KEY=VALUE: " + "; ".join("{}: {}".format(k, v[1]) for k, v in sim.BEHAVIOUR.items()),
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help='start it: eval "$(tunemark-moai-sim up --version 24.5.0)"')
    up.add_argument("--version", default="24.5.0", help=", ".join(sim.VERSIONS))
    up.add_argument("--dir", help="folder of its state (default: a new temporary folder)")
    up.add_argument("--flavor", help="initial flavor of its accelerators")
    up.add_argument("--devices", type=int, default=1, help="number of accelerators, 1 to 5")
    up.add_argument("behaviour", nargs="*", metavar="KEY=VALUE")
    change = commands.add_parser("set", help="change its behaviour")
    change.add_argument("behaviour", nargs="+", metavar="KEY=VALUE")
    commands.add_parser("show", help="print its state")
    commands.add_parser("down", help='remove it: eval "$(tunemark-moai-sim down)"')
    args = parser.parse_args(words)
    try:
        return {"up": _up, "set": _set, "show": _show, "down": _down}[args.command](args)
    except ValueError as error:
        print("tunemark-moai-sim: {}".format(error), file=sys.stderr)
        return 2


def _up(args: argparse.Namespace) -> int:
    if args.version not in sim.VERSIONS:
        raise ValueError("no version {!r}; there are: {}".format(args.version, ", ".join(sim.VERSIONS)))
    names = sim.list_flavors(args.version)
    flavor = args.flavor or names[0]
    if flavor not in names:
        raise ValueError("no flavor {!r} in {}; there are: {}".format(flavor, args.version, ", ".join(names)))
    if not 1 <= args.devices <= 5:
        raise ValueError("1 to 5 accelerators, not {}".format(args.devices))
    state = sim.make_state(args.version, flavor, args.devices)
    state["behaviour"] = _behaviour(args.behaviour)
    folder = Path(args.dir).absolute() if args.dir else Path(tempfile.mkdtemp(prefix="tunemark-moai-sim-"))
    if (folder / sim.STATE_FILE).exists():
        raise ValueError("a simulator already runs in {}".format(folder))
    tools = ["ap-smi"] if sim.VERSIONS[args.version].by_variable else ["moreh-smi", "moreh-switch-model"]
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    sim.write_state(str(folder / sim.STATE_FILE), state)
    packages = Path(sim.__file__).absolute().parents[2]
    for tool in tools:
        stub = folder / "bin" / tool
        python = "{} -S -m tunemark_moai.simulator.tools {}".format(shlex.quote(sys.executable), tool)
        variables = "{}={} PYTHONPATH={}".format(
            sim.SIMULATOR_VARIABLE, shlex.quote(str(folder)), shlex.quote(str(packages))
        )
        stub.write_text('#!/bin/sh\n{} exec {} "$@"\n'.format(variables, python))
        stub.chmod(0o755)
    print("export {}={}".format(sim.SIMULATOR_VARIABLE, shlex.quote(str(folder))))
    print("export PATH={}:$PATH".format(shlex.quote(str(folder / "bin"))))
    return 0


def _set(args: argparse.Namespace) -> int:
    changed = _behaviour(args.behaviour)
    with sim.edit_state() as state:
        state["behaviour"].update(changed)
    return 0


def _show(args: argparse.Namespace) -> int:
    state = sim.read_state()
    state["behaviour"] = {key: sim.get_behaviour(state, key) for key in sim.BEHAVIOUR}
    print(json.dumps(state, indent=1))
    return 0


def _down(args: argparse.Namespace) -> int:
    folder = sim.find_state_folder()
    shutil.rmtree(folder)
    ours = os.path.join(folder, "bin")
    left = [place for place in os.environ.get("PATH", "").split(os.pathsep) if place != ours]
    print("unset {}".format(sim.SIMULATOR_VARIABLE))
    print("export PATH={}".format(shlex.quote(os.pathsep.join(left))))
    return 0


def _behaviour(words: List[str]) -> dict[str, object]:
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError("{!r} is not KEY=VALUE".format(word))
        found[key] = sim.parse_behaviour(key, value)
    return found


if __name__ == "__main__":
    sys.exit(main())
