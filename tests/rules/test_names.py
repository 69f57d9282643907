"""Names: a class is called by one name in the whole project, what nobody uses is not there, and what is long says
why."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_TREES = {
    path: ast.parse(path.read_text())
    for top in ("harness", "plugins", "benchmarks")
    for path in sorted((_ROOT / top).rglob("*.py"))
}
# Benchmarks use names, and their own are nobody else's.
_OURS = {path: tree for path, tree in _TREES.items() if not path.is_relative_to(_ROOT / "benchmarks")}
# Whoever imports from these is not of this project.
_INTERFACES = ("harness/tunemark/__init__.py", "harness/tunemark/plugin/__init__.py")
# Called under these names by others: pytest, and Python itself. The last two write what tests hold true of the docs:
# tests/interface.json, and the README's settings.
_CALLED_BY_OTHERS = re.compile(r"__\w+__|pytest_\w+|interface_members|settings_table|lap")
_MOST_LINES, _MOST_PARAMETERS = 80, 10
_REFERENCE = re.compile(r"(?:[\w.]+:)?(\w+)(\.\w+)*")


def test_a_class_name_is_that_of_one_class() -> None:
    found = defaultdict(list)
    for path, tree in _OURS.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(f"{path.relative_to(_ROOT)}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_every_top_level_name_is_used() -> None:
    """By some file of the project, or by a string: its name alone, or a reference such as "tunemark_torch.runtime:Ddp".
    A re-export and a test are no use."""
    uses = Counter(name for path, tree in _TREES.items() for name in _uses(path, tree))
    unused = [
        f"{path.relative_to(_ROOT)}: {name}"
        for path, tree in _OURS.items()
        for name, node in _definitions(tree)
        if not _CALLED_BY_OTHERS.fullmatch(name) and not (uses[name] and uses[name] > Counter(_loads(node))[name])
    ]
    assert unused == []


def test_a_long_function_and_one_of_many_parameters_has_its_reason_above_it() -> None:
    unexplained = [
        f"{path.relative_to(_ROOT)}:{node.lineno}: {node.name}"
        for path, tree in _OURS.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if _lines(node) > _MOST_LINES or _parameters(node) > _MOST_PARAMETERS
        if not _line_above(path, node).startswith("#")
    ]
    assert unexplained == []


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    a = node.args
    return len([*a.posonlyargs, *a.args, *a.kwonlyargs]) + (a.vararg is not None) + (a.kwarg is not None)


def _line_above(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return path.read_text().splitlines()[first - 2].strip()


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Names bound at the top of a module, and where."""
    for node in tree.body:
        names = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            # A hook or a fixture is found by its decorator.
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            names = [] if re.search(r"hookimpl|hookspec|fixture|register", decorators) else [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        yield from ((name, node) for name in names)


def _loads(node: ast.AST) -> Iterator[str]:
    return (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))


def _uses(path: Path, tree: ast.Module) -> Iterator[str]:
    yield from _loads(tree)
    is_interface = str(path.relative_to(_ROOT)) in _INTERFACES
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and is_interface:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (match[1] for match in [_REFERENCE.fullmatch(node.value)] if match)
