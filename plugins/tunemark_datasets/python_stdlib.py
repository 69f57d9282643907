"""Instructions from the running Python's standard library: a docstring is the prompt, the source without it the answer.

It is always available and the same for everyone with the same Python version. It has the format and the lengths of an
instruction set, not the quality of its content; another Python version is another dataset.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import os
import platform
import sysconfig
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemark.errors import BadData
from tunemark.plugin.descriptors import Example
from tunemark_datasets import sections_template

# Tests, programs and installed packages; some of lib2to3's files do not parse.
_SKIPPED_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}

# Part of the fingerprint: change it whenever the same sources would give different pairs.
_FORMAT_VERSION = "1"

# A class like decimal.Decimal has 200,000 characters; instruction sets have no such answers.
_LONGEST_CHARACTERS = 4000


@dataclass(frozen=True)
class PythonStdlib:
    """The sources in `folder`, ordered by path."""

    folder: Path

    def fingerprint(self) -> str:
        return f"{platform.python_version()}/{self._sources[0]}"

    def facts(self) -> Mapping[str, Any]:
        digest = hashlib.sha256()
        for instruction, response in self._pairs:
            digest.update(f"{len(instruction)},{len(response)}:{instruction}{response}".encode())
        return {
            "python": platform.python_version(),
            "files": len(self._sources[1]),
            "pairs": len(self._pairs),
            "pairs_sha256": digest.hexdigest(),
        }

    def examples(self) -> Iterator[Example]:
        for instruction, response in self._pairs:
            yield sections_template.make_example(sections_template.format_prompt(instruction), response)

    @functools.cached_property
    def _sources(self) -> tuple[str, list[bytes]]:
        digest = hashlib.sha256(_FORMAT_VERSION.encode())
        sources = []
        for path in _find_files(self.folder):
            source = path.read_bytes()
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{len(source)}\0".encode())
            digest.update(source)
            sources.append(source)
        if not sources:
            raise BadData(
                what="python-stdlib: this Python has no library sources",
                why=f"no .py file in {self.folder}",
                next="use another dataset, or a Python that was installed with its sources",
            )
        return digest.hexdigest(), sources

    @functools.cached_property
    def _pairs(self) -> list[tuple[str, str]]:
        # A dict drops duplicates and keeps the order.
        return list(dict.fromkeys(pair for source in self._sources[1] for pair in _extract_pairs(source)))


def load(options: Mapping[str, str], vocab_size: int) -> PythonStdlib:
    source = PythonStdlib(Path(sysconfig.get_path("stdlib")))
    source.fingerprint()
    return source


def _find_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in _SKIPPED_FOLDERS and not f.startswith(".")]
        found += [Path(parent, f) for f in files if f.endswith(".py")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _extract_pairs(source: bytes) -> Iterator[tuple[str, str]]:
    """(docstring, source without it) of each function and class of a file, in line order."""
    try:
        text = source.decode()
        with warnings.catch_warnings():
            # Ignore warnings about invalid escapes in the library.
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for node in _find_definitions(tree.body):
        first = node.body[0]
        if len(node.body) == 1 or not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            continue
        docstring = first.value.value
        if not isinstance(docstring, str) or not docstring.strip():
            continue
        start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        assert first.end_lineno is not None
        assert node.end_lineno is not None
        # `def f(): "..."` and `"..."; pass` share a line with the docstring: removing it would remove more.
        if first.lineno == node.lineno or node.body[1].lineno == first.end_lineno:
            continue
        kept = lines[start : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
        response = textwrap.dedent("\n".join(kept)).strip("\n")
        instruction = inspect.cleandoc(docstring).strip()
        if len(instruction) + len(response) <= _LONGEST_CHARACTERS and _is_encodable(instruction):
            yield instruction, response


def _find_definitions(body: Iterable[ast.AST]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """All functions and classes, nested ones included; skips expressions, which are most of a tree and hold none."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        for part in ("body", "handlers", "orelse", "finalbody", "cases"):
            yield from _find_definitions(getattr(node, part, None) or ())


def _is_encodable(value: str) -> bool:
    """False for a lone surrogate, which UTF-8 cannot encode."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
