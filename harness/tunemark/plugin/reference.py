"""A page for each hook, from the specifications: `python -m tunemark.plugin.reference docs/hooks` writes them.

The sources are read, not imported: the worker's types would bring torch, and text is the same under every Python.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tunemark.plugin.catalog import INTERFACE

# Where the hooks are, and where all that an author meets is defined.
_HOOKS = "tunemark.plugin.hooks"
_MODULES = (
    "tunemark.plugin.descriptors",
    "tunemark.plugin.protocols",
    "tunemark.plugin.claims",
    "tunemark_worker.contract",
    "tunemark_worker.batches",
)
# What does the work that an answer names: "package.module:Name" is one of these.
_WORK = {
    "Device": ("DeviceRuntime",),
    "Model": ("ModelRuntime", "Tokenizer"),
    "Dataset": ("DatasetSource",),
    "Strategy": ("StrategyRuntime",),
    "Launcher": ("Launching", "StartedJob"),
    "Importer": ("LogReader", "Claim"),
    "Monitor": ("MonitorReader",),
}
# Of the worker, what a plugin meets; it is given the first and the last of them, and makes the other.
_OF_WORKER = ("Assignment", "Place", "Batch")
_ONLY_READ = ("Assignment", "Batch")
_MADE = "Made by `python -m tunemark.plugin.reference docs/hooks`; not edited by hand."

Definition = ast.ClassDef | ast.Assign


def pages() -> Mapping[str, str]:
    """By file name: a page of Markdown for each hook, and README.md, which lists them."""
    module = _parsed(_HOOKS)
    known = _definitions()
    hooks = [f for f in module.body if isinstance(f, ast.FunctionDef) and f.name.startswith("tunemark_")]
    index = ["# The hooks of a plugin", f"Plugin interface {INTERFACE}. {_MADE}", _doc(module)]
    index.append("\n".join(f"- [{hook.name}]({hook.name}.md): {_first(_doc(hook))}" for hook in hooks))
    return {"README.md": "\n\n".join(index) + "\n", **{f"{hook.name}.md": _page(hook, known) for hook in hooks}}


def promised() -> Mapping[str, list[str]]:
    """What a plugin may rely on: the arguments of each hook and of each method, the fields of each type and which of
    them have to be given. A line that is gone, or a new one that must be given, breaks plugins."""
    found = {}
    for function in _parsed(_HOOKS).body:
        if isinstance(function, ast.FunctionDef) and function.name.startswith("tunemark_"):
            found[function.name] = [a.arg for a in function.args.args]
    for module in _MODULES:
        for node in _parsed(module).body:
            is_covered = not module.startswith("tunemark_worker") or getattr(node, "name", "") in _OF_WORKER
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and is_covered:
                found[node.name] = [line for each in node.body for line in _promise(each, node.name in _ONLY_READ)]
    return found


def write(folder: Path) -> None:
    """Write the pages, and remove a page of a hook that is no more."""
    folder.mkdir(parents=True, exist_ok=True)
    found = pages()
    for path in folder.glob("*.md"):
        if path.name not in found:
            path.unlink()
    for name, text in found.items():
        (folder / name).write_text(text, encoding="utf-8")


def _promise(node: ast.stmt, is_read: bool) -> list[str]:
    if isinstance(node, ast.AnnAssign):
        return [ast.unparse(node.target) + ("" if is_read or node.value is not None else " (must be given)")]
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
        return [f"{node.name}({', '.join(a.arg for a in (*node.args.args, *node.args.kwonlyargs))})"]
    return []


def _page(hook: ast.FunctionDef, known: Mapping[str, Definition]) -> str:
    parts = [f"# {hook.name}", f"Plugin interface {INTERFACE}. {_MADE}", _code(f"@hookimpl\n{_signature(hook)}")]
    parts.append(_doc(hook))
    answers = [name for name in _names(hook.returns) if name in known] if hook.returns else []
    work = [name for answer in answers for name in _WORK.get(answer, ())]
    more = [
        name
        for name, each in known.items()
        for answer in answers
        if any(_doc(each).startswith(f"What a `{whose}`") for whose in (answer, *_WORK.get(answer, ())))
    ]
    shown: list[str] = []
    for title, names in (("returns", answers), ("who does the work", work), ("optional", more)):
        for name in names:
            parts += [f"## {name} ({title})", *_description(known[name])]
            shown.append(name)
    used = _used(shown, known)
    for name in used:
        parts += [f"## {name}", *_description(known[name])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _description(definition: Definition) -> Iterator[str]:
    if isinstance(definition, ast.Assign):
        yield _code(ast.unparse(definition))
        return
    yield _doc(definition)
    fields = list(_fields(definition))
    if fields:
        yield _code("\n".join(fields))
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield _code(_signature(node))
            yield _doc(node)


def _fields(definition: ast.ClassDef) -> Iterator[str]:
    """Each field as it is written, what is said behind it as a comment."""
    for n, node in enumerate(definition.body):
        if isinstance(node, ast.AnnAssign):
            yield ast.unparse(node)
        elif n and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield "# " + " ".join(str(node.value.value).split())


def _used(shown: list[str], known: Mapping[str, Definition]) -> list[str]:
    """The types that what is shown mentions, and those that these mention."""
    found: list[str] = []
    waiting = list(shown)
    while waiting:
        definition = known[waiting.pop(0)]
        for name in _mentioned(definition):
            if name in known and name not in (*shown, *found):
                found.append(name)
                waiting.append(name)
    return found


def _mentioned(definition: Definition) -> Iterator[str]:
    for node in definition.body if isinstance(definition, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign):
            yield from _names(node.annotation)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            for argument in node.args.args:
                yield from _names(argument.annotation) if argument.annotation else ()
            yield from _names(node.returns) if node.returns else ()


def _names(node: ast.expr) -> Iterator[str]:
    yield from (each.id for each in ast.walk(node) if isinstance(each, ast.Name))


def _signature(function: ast.FunctionDef) -> str:
    arguments = ast.unparse(function.args)
    return f"def {function.name}({arguments})" + (f" -> {ast.unparse(function.returns)}" if function.returns else "")


def _definitions() -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for name in _MODULES:
        for node in _parsed(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, node)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and "Literal" in ast.dump(node):
                found.setdefault(node.targets[0].id, node)
    return found


def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _doc(node: ast.AST) -> str:
    found = node.body[0] if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) else None
    if isinstance(found, ast.Expr) and isinstance(found.value, ast.Constant) and isinstance(found.value.value, str):
        return inspect.cleandoc(found.value.value)
    return ""


def _first(doc: str) -> str:
    """The first sentence."""
    sentence, dot, _ = " ".join(doc.split()).partition(". ")
    return sentence + dot.strip()


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
