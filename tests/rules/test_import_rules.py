"""Who may import whom: stations in their order, a worker that stands alone, and facts that come without torch."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tunemark.plugin import Catalog

_ROOT = Path(__file__).parents[2]
_HARNESS = _ROOT / "harness/tunemark"
_WORKER = sorted((_ROOT / "harness/tunemark_worker").glob("*.py"))
_RUNTIMES = [
    *sorted((_ROOT / "plugins").glob("*/runtime.py")),
    *sorted((_ROOT / "plugins").glob("*/parallel/*.py")),
    *(
        _ROOT / "plugins/tunemark_models" / f"{name}.py"
        for name in (
            "document_attention",
            "head_loss",
            "model_trace",
            "packed_mask",
            "packing_probe",
            "parameter_roles",
            "pipeline_probe",
            "shrunken_copy",
        )
    ),
    _ROOT / "plugins/tunemark_models/shrunken_copy.py",
    _ROOT / "tests/example_plugin/tunemark_example/runtime.py",
]
_STATIONS = (
    "errors",
    "number_format",
    "version_order",
    "fields",
    "visible_text",
    "given_file",
    "markdown",
    "atomic_write",
    "exit_codes",
    "cache",
    "temporary",
    "redaction",
    "cgroups",
    "hub",
    "plugin",
    "scaffold",
    "physics",
    "experiment",
    "data",
    "predict",
    "launch",
    "results",
    "doctor",
    "analysis",
    "loading",
    "exporting",
    "report",
    "runner",
    "testing",
    "cli",
    "__main__",
)


def _station(path: Path) -> str:
    return path.relative_to(_HARNESS).parts[0].removesuffix(".py")


def _imports(node: ast.AST, *, is_member_named: bool = False) -> Iterator[str]:
    """Names of modules imported anywhere in the code, except for type checking alone. is_member_named: with what is
    imported from them, which may be a module too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            # `from tunemark import units` names a module by what is imported.
            if is_member_named or child.module == "tunemark":
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            if not is_member_named:
                yield child.module or ""
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        else:
            yield from _imports(child, is_member_named=is_member_named)


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


def _imported_files(path: Path, modules: Mapping[str, Path]) -> set[Path]:
    """The files of ours that a file imports anywhere, except for type checking alone."""
    found = set()
    for name in _imports(ast.parse(path.read_text()), is_member_named=True):
        file = modules.get(name) or modules.get(name.rpartition(".")[0])
        found |= {file} if file is not None else set()
    return found - {path}


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {}
    for root in (_ROOT / "harness", _ROOT / "plugins"):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {path: _imported_files(path, modules) for path in modules.values()}
    assert graph[_HARNESS / "predict/search.py"] > {_HARNESS / "predict/candidates.py"}, "imports are found"
    list(graphlib.TopologicalSorter(graph).static_order())


# Words that are also names of built-in parts: a setting's value for "find it yourself", and how a layout was chosen.
_COMMON_WORDS = {"none", "auto", "manual", "text", "claims"}
# By file, the names that it may use, with the reason.
_NAMED_PARTS: Mapping[str, set[str]] = {
    # The settings' defaults and the trainers of others, and what `--device auto` chooses from.
    "experiment/settings.py": {"mistral-tiny", "python-stdlib", "megatron", "deepspeed", "xla"},
    "experiment/device_choice.py": {"cuda", "cpu"},
    # Recipes are of classes of devices.
    "experiment/recipes.py": {"cpu", "cuda", "rocm"},
    # Columns and degrees of published tables, whose names are not ours.
    "predict/published_rows.py": {"ddp", "fsdp", "tp", "pp", "megatron"},
    # Frameworks of others, some of which have an importer or a device of the same name.
    "predict/cost_model.py": {"deepspeed"},
    "predict/layer_costs.py": {"deepspeed"},
    "predict/layout.py": {"megatron", "deepspeed", "xla"},
    "predict/prediction_bounds.py": {"megatron", "deepspeed", "xla"},
    "predict/row_model.py": {"megatron"},
    "predict/software_stacks.py": {"megatron", "huggingface", "deepspeed", "maxtext", "xla"},
    "predict/row_cells.py": {"fsdp", "tp", "pp"},
    "predict/row_layout.py": {"ddp", "fsdp", "tp", "pp"},
    "predict/row_memory.py": {"fsdp"},
    "analysis/claim_rules.py": {"tp", "pp"},
    # A controller of control groups, cores in /proc/stat, and folders of caches.
    "cgroups.py": {"cpu"},
    "doctor/processor_checks.py": {"cpu"},
    "doctor/software_checks.py": {"huggingface"},
    # What probes are planned with, and what a plugin's parts are tested together with.
    "runner/calibration.py": {"llama-2-7b", "synthetic"},
    "testing/kit.py": {"cpu", "mistral-tiny", "synthetic"},
    "testing/run_checks.py": {"cpu"},
}


def test_the_harness_knows_no_built_in_part_by_its_name() -> None:
    catalog = Catalog()
    kinds = (catalog.devices, catalog.models, catalog.datasets, catalog.strategies, catalog.importers)
    names = {each.name for kind in kinds for each in kind().values()} - _COMMON_WORDS
    assert {"cpu", "fsdp", "gpt2", "synthetic", "megatron"} <= names
    found: dict[str, set[str]] = {}
    for path in sorted(_HARNESS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.rstrip(":+") in names:
                found.setdefault(str(path.relative_to(_HARNESS)), set()).add(node.value.rstrip(":+"))
    assert found == _NAMED_PARTS
