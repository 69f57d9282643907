"""Copy the code that the worker runs to a folder of its own, one per content hash, so that the code of a run is known.

A copy holds the worker package, and the package of each runtime with an empty `__init__`: another interpreter needs
nothing installed, and the parent side of a plugin is never imported in the timed process. What lies in such a folder is
never trusted: it is compared with its hash before every start, so that no store that was copied, shared or received
brings code that runs.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.util
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunemark.atomic_write import write_folder_atomically
from tunemark.cache import cache_folder
from tunemark.errors import BadStore, PluginError
from tunemark_worker.contract import split_runtime

# Python runs a bytecode file of the right time and size instead of the source beside it.
_BYTECODE_FOLDER = "__pycache__"
# Seconds in which it must be possible to remove such files while other jobs start.
_BYTECODE_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeCopy:
    """A folder for PYTHONPATH, and the hash of its content."""

    folder: Path
    sha256: str

    def verify(self) -> None:
        """Raise `BadStore` unless the folder holds what was copied, nothing else, and nobody else may change it."""
        try:
            _remove_bytecode(self.folder)
            files = {path.relative_to(self.folder): path.read_bytes() for path in _own_files(self.folder)}
            found = _hash_files(files)
            if found != self.sha256:
                raise PermissionError(f"the hash of its content is {found[:16]}")
        except OSError as error:
            raise BadStore(
                what=f"{self.folder} is not the code that its name says",
                why=str(error),
                next=f"nothing of it was run; look who changed it, then remove it: rm -r {self.folder}",
            ) from error


def user_code_folder() -> Path:
    """Where this user's jobs on this machine have their code: a folder that only the user can read."""
    return cache_folder() / f"code-{os.getuid() if hasattr(os, 'getuid') else getpass.getuser()}"


def copy_code(runtimes: Iterable[str], place: Path, *, is_private: bool = True) -> CodeCopy:
    """Copy the worker package and the runtimes' top-level packages to `place`/<hash>, unless it is there. is_private:
    only this user may read it; other hosts may run a job as another user."""
    packages = sorted({"tunemark_worker", *(split_runtime(name)[0].partition(".")[0] for name in runtimes)})
    sources = {package: _package_folder(package) for package in packages}
    files = {
        Path(package, path.relative_to(folder)): _read_content(package, folder, path)
        for package, folder in sources.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _BYTECODE_FOLDER not in path.parts
    }
    sha256 = _hash_files(files)
    copied = CodeCopy(folder=place.absolute() / sha256[:16], sha256=sha256)
    if not os.path.lexists(copied.folder):
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700 if is_private else 0o755)
            write_folder_atomically(copied.folder, files, mode=0o700 if is_private else 0o755)
        except OSError as error:
            if not copied.folder.exists():  # otherwise another process has made the same copy in the meantime
                raise BadStore(
                    what=f"cannot write a copy of the code to {place}",
                    why=str(error),
                    next="choose a writable folder with free space: by TUNEMARK_CACHE for jobs of this machine, "
                    "by --store for those of others",
                ) from error
    copied.verify()
    return copied


def _remove_bytecode(folder: Path) -> None:
    """Remove compiled files, which a hash of sources says nothing about; the next start compiles them again."""
    until_s = time.monotonic() + _BYTECODE_S
    while found := list(folder.rglob(_BYTECODE_FOLDER)):
        if time.monotonic() > until_s:
            raise PermissionError(f"{found[0]} cannot be removed")
        for path in found:
            if path.is_symlink() or not path.is_dir():
                raise PermissionError(f"{path} is no folder")
            shutil.rmtree(path, ignore_errors=True)  # a job that just starts may be writing there


def _hash_files(files: Mapping[Path, bytes]) -> str:
    digest = hashlib.sha256()
    for relative, content in sorted(files.items()):
        digest.update(f"{relative.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _own_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that no other user can write to; PermissionError names what is something else."""
    for path in (folder, *folder.rglob("*")):
        state = path.lstat()
        if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
            raise PermissionError(f"{path} is neither a file nor a folder")
        if hasattr(os, "getuid") and state.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to the user {state.st_uid}")
        if os.name == "posix" and state.st_mode & 0o022:
            raise PermissionError(f"{path} can be changed by other users")
        if stat.S_ISREG(state.st_mode):
            yield path


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
