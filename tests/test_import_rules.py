"""Who may import whom: stations in their order, a worker that stands alone, and facts that come without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_HARNESS = _ROOT / "harness/tunemark"
_WORKER = sorted((_ROOT / "harness/tunemark_worker").glob("*.py"))
_RUNTIMES = [
    *sorted((_ROOT / "plugins").glob("*/runtime.py")),
    *sorted((_ROOT / "plugins").glob("*/parallel/*.py")),
    _ROOT / "tests/example_plugin/tunemark_example/runtime.py",
]
_STATIONS = (
    "errors",
    "units",
    "markdown",
    "atomic_write",
    "exit_codes",
    "cache",
    "plugin",
    "scaffold",
    "physics",
    "experiment",
    "data",
    "predict",
    "launch",
    "results",
    "analysis",
    "loading",
    "report",
    "runner",
    "testing",
    "cli",
    "__main__",
)


def _station(path: Path) -> str:
    return path.relative_to(_HARNESS).parts[0].removesuffix(".py")


def _imports(node: ast.AST) -> Iterator[str]:
    """Names of modules imported anywhere in the code, except for type checking alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            # `from tunemark import units` names a module by what is imported.
            yield from ([f"{child.module}.{a.name}" for a in child.names] if child.module == "tunemark" else [])
            yield child.module or ""
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        else:
            yield from _imports(child)


@pytest.mark.parametrize("path", sorted(_HARNESS.rglob("*.py")), ids=lambda p: str(p.relative_to(_HARNESS)))
def test_a_module_imports_from_its_own_station_or_an_earlier_one(path: Path) -> None:
    if path == _HARNESS / "__init__.py":
        # Every station's import runs it, so it may import nothing itself; its functions may.
        module = ast.parse(path.read_text())
        module.body = [node for node in module.body if not isinstance(node, ast.FunctionDef)]
        assert set(_imports(module)) <= {"__future__", "typing"}
        return
    own = _STATIONS.index(_station(path))
    for module in _imports(ast.parse(path.read_text())):
        top, _, rest = module.partition(".")
        if top == "tunemark" and rest and rest != "__version__":
            assert _STATIONS.index(rest.partition(".")[0]) <= own, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", [*_WORKER, *_RUNTIMES], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_timed_process_needs_nothing_of_the_parent(path: Path) -> None:
    imported = {module.partition(".")[0] for module in _imports(ast.parse(path.read_text()))}
    assert "tunemark" not in imported


@pytest.mark.parametrize("path", [*_WORKER, *_RUNTIMES], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_timed_process_keeps_to_the_syntax_of_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_facts_come_without_torch() -> None:
    plugins = [f"{path.parent.name}.plugin" for path in sorted((_ROOT / "plugins").glob("*/plugin.py"))]
    assert plugins
    program = f"""
import importlib, sys
for name in ["tunemark.cli.main", "tunemark.plugin", *{plugins!r}]:
    importlib.import_module(name)
print(sorted({{"torch", "transformers", "datasets", "pandas", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
