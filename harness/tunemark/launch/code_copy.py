"""Copy the code that the worker runs into the store, one copy per content hash, so that the code of a run is known.

A copy holds the worker package, and the package of each runtime with an empty `__init__`: another interpreter needs
nothing installed, and the parent side of a plugin is never imported in the timed process.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunemark.atomic_write import write_folder_atomically
from tunemark.errors import BadStore, PluginError
from tunemark_worker.contract import split_runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeCopy:
    """A folder for PYTHONPATH, and the hash of its content."""

    folder: Path
    sha256: str


def copy_code(runtimes: Iterable[str], store: Path) -> CodeCopy:
    """Copy the worker package and the runtimes' top-level packages to `store`/.code/<hash>, unless it exists."""
    packages = sorted({"tunemark_worker", *(split_runtime(name)[0].partition(".")[0] for name in runtimes)})
    sources = {package: _package_folder(package) for package in packages}
    files = {
        Path(package, path.relative_to(folder)): _read_content(package, folder, path)
        for package, folder in sources.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    digest = hashlib.sha256()
    for relative, content in sorted(files.items()):
        digest.update(f"{relative.as_posix()}\0{len(content)}\0".encode() + content)
    target = store.absolute() / ".code" / digest.hexdigest()[:16]
    if not target.exists():
        try:
            write_folder_atomically(target, files)
        except OSError as error:
            if not target.exists():  # otherwise another process has made the same copy in the meantime
                raise BadStore(
                    what=f"cannot write a copy of the code to {target.parent}",
                    why=str(error),
                    next="choose a writable folder with free space by --store",
                ) from error
    return CodeCopy(folder=target, sha256=digest.hexdigest())


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PluginError(
            what=f"a runtime is in {package!r}, which is not an installed package",
            next="a plugin's runtime must be a module inside a package (a folder with an __init__.py)",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _read_content(package: str, folder: Path, path: Path) -> bytes:
    if package != "tunemark_worker" and path == folder / "__init__.py":
        return b""
    return path.read_bytes()
