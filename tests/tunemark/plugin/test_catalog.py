"""A plugin's failure is its own: the others stay usable, and it is named."""

from __future__ import annotations

import itertools
import sys
from importlib.metadata import EntryPoint

import pytest

from tunemark.cli.listing import make_rows, print_kind
from tunemark.errors import PluginError, UnknownName
from tunemark.plugin import Catalog

_numbers = itertools.count()

DATASETS = """
from tunemark.plugin import Dataset, hookimpl

@hookimpl
def tunemark_datasets():
    return [Dataset(name=n, loader="m:L") for n in {names}]
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a plugin module and return its entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name, text):
        module = f"catalog_plugin_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(text)
        written.append(module)
        return EntryPoint(name=name, value=module, group="tunemark")

    yield write
    for module in written:
        sys.modules.pop(module, None)


def test_a_name_taken_twice_is_refused_and_the_others_stay(plugin):
    points = [plugin("a", DATASETS.format(names=["both", "mine"])), plugin("b", DATASETS.format(names=["both"]))]
    catalog = Catalog(points)
    assert catalog.dataset("mine").name == "mine"
    assert "both" not in catalog.datasets()
    with pytest.raises(PluginError, match="'both' is claimed by 2 plugins: a, b"):
        catalog.dataset("both")


def test_a_misspelt_name_is_answered_with_the_nearest(plugin):
    catalog = Catalog([plugin("a", DATASETS.format(names=["python-stdlib", "random"]))])
    with pytest.raises(UnknownName) as caught:
        catalog.dataset("Python-stdlb")
    assert "did you mean 'python-stdlib'?" in str(caught.value)


def test_a_slow_plugin_and_a_broken_one_are_named(plugin):
    points = [plugin("a", DATASETS.format(names=["mine"])), plugin("b", "import no_such_module_at_all")]
    catalog = Catalog(points, slow_s=0.0)
    assert set(catalog.datasets()) == {"mine"}
    broken, slow, also_slow = catalog.remarks()
    assert broken.startswith("plugin 'b' (unknown) is not used: ModuleNotFoundError")
    assert "plugin 'a' (unknown) is slow: import took" in slow
    assert "tunemark_datasets took" in slow
    assert "plugin 'b'" in also_slow
    assert Catalog(points, slow_s=60.0).remarks() == []  # nothing has been asked
    quick = Catalog(points[:1], slow_s=60.0)
    quick.datasets()
    assert quick.remarks() == []


BROKEN = {
    "import": ("import no_such_module_at_all", "no_such_module_at_all"),
    "syntax": ("def (", "SyntaxError"),
    "no hook": ("x = 1", "it implements no hook"),
    "misspelt hook": (
        "from tunemark.plugin import hookimpl\n@hookimpl\ndef tunemark_datasetz():\n    return []\n",
        "tunemark_datasetz",
    ),
    "raising hook": (
        "from tunemark.plugin import hookimpl\n@hookimpl\ndef tunemark_datasets():\n    raise RuntimeError('boom')\n",
        "RuntimeError: boom",
    ),
    "wrong kind": (
        "from tunemark.plugin import hookimpl\n@hookimpl\ndef tunemark_datasets():\n    return ['text']\n",
        "which is not a Dataset",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_and_the_others_stay(plugin, kind, capsys):
    text, reason = BROKEN[kind]
    catalog = Catalog([plugin("bad", text), plugin("good", DATASETS.format(names=["mine"]))])
    assert list(catalog.datasets()) == ["mine"]
    assert [b.plugin for b in catalog.broken] == ["bad"]
    assert reason in catalog.broken[0].reason
    rows = {row["name"]: row for row in make_rows("plugins", catalog)}
    assert reason in rows["bad"]["broken"]
    assert rows["good"]["broken"] is None
    assert print_kind("datasets", catalog, as_json=False) == 0
    printed = capsys.readouterr()
    assert "mine" in printed.out
    assert "'bad'" in printed.err


def test_a_missing_name_mentions_the_broken_plugin_that_may_have_had_it(plugin):
    with pytest.raises(UnknownName, match="no dataset named 'x'") as caught:
        Catalog([plugin("bad", "import no_such_module_at_all")]).dataset("x")
    assert "no_such_module_at_all" in str(caught.value)


def test_what_a_plugin_prints_stays_off_standard_output(plugin, capsys):
    text = "from tunemark.plugin import hookimpl\nprint('at import')\n"
    text += "@hookimpl\ndef tunemark_datasets():\n    print('when asked')\n    return []\n"
    text += "@hookimpl\ndef tunemark_record(plan, record):\n    print('of a record')\n"
    catalog = Catalog([plugin("a", text)])
    catalog.datasets()
    for _, function in catalog.observers("tunemark_record"):
        function(plan=None, record={})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split("\n") == ["at import", "when asked", "of a record", ""]
