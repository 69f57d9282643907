"""Choosing a size through the simulator's tools, with everything that can go wrong there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunemark.errors import TunemarkError
from tunemark_moai.device_status import read_devices
from tunemark_moai.flavor_control import ToolFlavorControl, VariableFlavorControl, find_flavor_control
from tunemark_moai.moreh_smi import TABLE_KINDS, parse_status
from tunemark_moai.plugin import MoaiDevice
from tunemark_moai.restore_record import RECORD_NAME, read_restore_record
from tunemark_moai.simulator.cli import main as simulator
from tunemark_moai.simulator.state import VERSIONS
from tunemark_moai.tables import find_tables
from tunemark_moai.terminal_text import split_lines
from tunemark_moai.tools import MoaiTools, ToolFailed


class Site:
    """One simulated platform: its state, its tools, and a store."""

    def __init__(self, root: Path, patience_s: float = 10.0) -> None:
        self.root, self.store = root, root / "store"
        self.store.mkdir()
        self.tools = MoaiTools(path=str(root / "sim" / "bin"), patience_s=patience_s)

    def set(self, *words: str) -> None:
        assert simulator(["set", *words]) == 0

    @property
    def state(self):
        return json.loads((self.root / "sim" / "state.json").read_text())

    @property
    def flavor(self) -> str:
        return self.state["devices"][self.state["default"]]["flavor"]


@pytest.fixture
def up(tmp_path, monkeypatch, capsys):
    def bring(version="24.5.0", *words, patience_s=10.0):
        folder = tmp_path / "sim"
        assert simulator(["up", "--version", version, "--dir", str(folder), *words]) == 0
        assert f"export TUNEMARK_MOAI_SIM={folder}" in capsys.readouterr().out
        monkeypatch.setenv("TUNEMARK_MOAI_SIM", str(folder))
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        return Site(tmp_path, patience_s)

    return bring


def hold(site, flavor, environment=None):
    control = find_flavor_control(site.tools, environment or {})
    assert control is not None
    return control.hold(flavor, site.store)


@pytest.mark.parametrize("version", [v for v, how in VERSIONS.items() if not how.by_variable])
def test_a_size_is_current_while_it_is_held_and_the_former_one_afterwards(up, version):
    site = up(version, "--flavor", "Medium.128GB")
    with hold(site, "4XLARGE.2048gb") as variables:
        assert (site.flavor, variables) == ("4xLarge.2048GB", {})
        former = read_restore_record(site.store)
        assert former
        assert (former.flavor, former.device, former.pid) == ("Medium.128GB", 0, os.getpid())
    assert site.flavor == "Medium.128GB"
    assert read_restore_record(site.store) is None


def test_nothing_is_switched_or_recorded_where_the_size_is_current(up):
    site = up("24.5.0", "--flavor", "xLarge.512GB", "switch=hang")
    with hold(site, "xlarge.512gb"):
        assert not (site.store / RECORD_NAME).exists()
    assert site.flavor == "xLarge.512GB"


def test_another_accelerator_that_has_the_flavor_becomes_the_default_one_for_a_while(up):
    site = up("24.5.0", "--devices", "3", "switch=hang")
    path = site.root / "sim" / "state.json"
    state = site.state
    state["devices"][2]["flavor"] = "xLarge.512GB"
    path.write_text(json.dumps(state))
    with hold(site, "xLarge.512GB") as variables:
        assert (site.state["default"], variables) == (2, {"MOREH_VISIBLE_DEVICE": "2"})
    assert site.state["default"] == 0
    assert [d["flavor"] for d in site.state["devices"]] == ["Small.64GB", "Small.64GB", "xLarge.512GB"]


def test_without_the_interactive_tool_and_without_the_flavor_the_person_is_told_what_to_type(up):
    site = up()
    (site.root / "sim" / "bin" / "moreh-switch-model").unlink()
    with pytest.raises(TunemarkError, match="no accelerator here has the flavor") as caught, hold(site, "xLarge.512GB"):
        pass
    assert "moreh-smi device --add" in caught.value.next


def test_from_25_3_208_on_a_variable_chooses(up):
    site = up("25.5.3005")
    for idle in ("header", "empty", "row"):
        site.set(f"idle_ap={idle}")
        with hold(site, "flavor-default-16") as variables:
            assert variables == {"ACCELERATOR_PLATFORM_FLAVOR": "flavor-default-16"}
    assert isinstance(find_flavor_control(site.tools, {}), VariableFlavorControl)
    site.set("busy=1")
    with pytest.raises(TunemarkError, match="is in use"), hold(site, "flavor-default-16"):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("switch=hang", "does not answer"),
        ("switch=unknown_menu", "is not understood|does not answer"),
        ("switch=wrong_flavor", "did not become"),
        ("busy=1", "is in use"),
        ("smi=hang", "does not answer"),
        ("smi=die", "there is no table|no table"),
        ("smi=garbage", "table"),
    ],
)
def test_a_tool_that_fails_is_an_error_within_the_limit(up, words, said):
    site = up("24.5.0", "--flavor", "Small.64GB", words, patience_s=1.0)
    began = time.monotonic()
    with pytest.raises(TunemarkError, match=said), hold(site, "xLarge.512GB"):
        pytest.fail("the size is held though it is not current")
    assert time.monotonic() - began < 15.0


@pytest.mark.parametrize("words", ["switch=silent", "exit_code=3", "eof=hang", "invalid_input=exit", "latency_s=0.2"])
def test_what_no_document_says_changes_nothing(up, words):
    site = up("24.5.0", words)
    with hold(site, "Large.256GB"):
        assert site.flavor == "Large.256GB"
    assert site.flavor == "Small.64GB"


def test_a_tool_that_dies_after_the_selection_leaves_the_flavor_or_the_offer(up):
    site = up("24.5.0", "switch=die")
    with pytest.raises(TunemarkError, match="did not become"), hold(site, "Large.256GB"):
        pass
    assert site.flavor == "Small.64GB"
    assert read_restore_record(site.store) is None


def test_a_wrong_answer_leaves_the_restore_to_the_next_run(up):
    site = up("24.5.0", "switch=wrong_flavor", patience_s=2.0)
    with pytest.raises(TunemarkError) as caught, hold(site, "Large.256GB"):
        pass
    assert "could not be restored" in str(caught.value)
    former = read_restore_record(site.store)
    assert former
    assert former.flavor == "Small.64GB"
    site.set("switch=ok")
    with hold(site, "Medium.128GB"):
        assert site.flavor == "Medium.128GB"
    assert site.flavor == "Small.64GB"
    assert read_restore_record(site.store) is None


_HOLDER = """
import signal, sys, time
from pathlib import Path
from tunemark_moai.flavor_control import find_flavor_control
from tunemark_moai.tools import MoaiTools
# A background job of some shells ignores it from the start; Python then leaves it so.
signal.signal(signal.SIGINT, signal.default_int_handler)
with find_flavor_control(MoaiTools(path=sys.argv[1]), {}).hold("xLarge.512GB", Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_after_a_kill_the_next_run_is_told_and_puts_the_flavor_back(up):
    site = up()
    words = [sys.executable, "-c", _HOLDER, str(site.root / "sim" / "bin"), str(site.store)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TunemarkError, match="another run is switching"), hold(site, "Large.256GB"):
            pass
        holder.send_signal(signal.SIGKILL)
    assert site.flavor == "xLarge.512GB"
    words = MoaiDevice(environment={}).unrestored_state(site.store)
    assert words
    assert "it was Small.64GB" in words
    with hold(site, "xLarge.512GB"):
        assert site.flavor == "xLarge.512GB"
    assert site.flavor == "Small.64GB"
    assert MoaiDevice(environment={}).unrestored_state(site.store) is None


def test_an_interrupt_puts_the_flavor_back(up):
    site = up()
    words = [sys.executable, "-c", _HOLDER, str(site.root / "sim" / "bin"), str(site.store)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGINT)
        assert holder.wait(20) != 0
    assert site.flavor == "Small.64GB"


def test_a_record_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    (tmp_path / RECORD_NAME).write_text("{")
    with pytest.raises(TunemarkError, match="cannot be read"):
        read_restore_record(tmp_path)


def test_a_menu_is_read_without_selecting(up):
    site = up("24.5.0", "--flavor", "Medium.128GB")
    control = find_flavor_control(site.tools, {})
    assert isinstance(control, ToolFlavorControl)
    assert len(control.sizes()) == 13
    assert site.flavor == "Medium.128GB"
    with pytest.raises(ToolFailed, match="no flavor 'Tiny'"):
        site.tools.select("Tiny")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_simulators_tables_say_what_its_state_says(up, version):
    by_variable = VERSIONS[version].by_variable
    site = up(version, *([] if by_variable else ["--devices", "2", "--flavor", "4xLarge.2048GB"]), "busy=1")
    text = site.tools.printed("ap-smi" if by_variable else "moreh-smi")
    reading = read_devices(text)
    assert reading.version_current == version
    if by_variable:
        assert [(d.id, d.flavor, d.utilization) for d in reading.devices] == [(0, "flavor-default-8", 1.0)]
        return
    assert [(d.id, d.flavor, d.default, d.memory_total_mib) for d in reading.devices] == [
        (0, "4xLarge.2048GB", True, 2096640),
        (1, "4xLarge.2048GB", False, None),
    ]
    status = parse_status(find_tables(split_lines(text), TABLE_KINDS))
    assert status.processes
    assert [(p.device, p.pid, p.command) for p in status.processes] == [(0, 10000, "python train.py")]


@pytest.mark.parametrize(
    "words",
    [
        ["up", "--version", "1.2.3"],
        ["up", "--flavor", "Tiny"],
        ["up", "--devices", "9"],
        ["up", "color=blue"],
        ["up", "switch=never"],
        ["up", "queue_s=-1"],
        ["up", "queue_s"],
    ],
)
def test_the_simulator_refuses_what_it_does_not_know(words, capsys, tmp_path):
    assert simulator([*words[:1], "--dir", str(tmp_path / "sim"), *words[1:]]) == 2
    assert capsys.readouterr().err.startswith("tunemark-moai-sim: ")
    assert not (tmp_path / "sim").exists()


def test_down_removes_everything_and_undoes_the_exports(up, capsys):
    site = up()
    assert simulator(["show"]) == 0
    assert json.loads(capsys.readouterr().out)["behaviour"]["switch"] == "ok"
    assert simulator(["down"]) == 0
    out = capsys.readouterr().out
    assert "unset TUNEMARK_MOAI_SIM" in out
    assert str(site.root / "sim") not in out
    assert not (site.root / "sim").exists()
