"""Real interpreters with a torch and a transformers of their own, each made once in a cache folder.

    python benchmarks/real_interpreters.py        # makes all of them, and prints what each occupies

The folder is `$XDG_CACHE_HOME/tunemark/interpreters` (`~/.cache` where that is not set); delete it to make them anew.
pip takes the builds for CPUs where it reaches their index, else PyPI's builds for CUDA, of whose libraries only those
are kept that `import torch` loads. Nothing of tunemark is installed into any of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"

# In the new environment: remove the CUDA libraries that importing torch does not load; a CPU never asks for them.
_PRUNE = """
import os, pathlib, torch, torch.distributed
loaded = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
for path in pathlib.Path(torch.__file__).parents[1].glob("nvidia/**/*"):
    if path.is_file() and path.suffix != ".py" and os.path.realpath(str(path)) not in loaded:
        path.unlink()
"""


class NotAvailableError(Exception):
    """An interpreter that cannot be made here, in words."""


@dataclass(frozen=True, kw_only=True)
class RealInterpreter:
    """A Python, and the releases that pip installs into an environment made of it."""

    python: str
    torch: str
    transformers: str
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"python{self.python}-torch{self.torch}-transformers{self.transformers}"


# numpy 2 came after torch 2.1 was built. Of tokenizers and the hub's client pip chooses what the release admits.
INTERPRETERS = {
    "1.13": RealInterpreter(python="3.8", torch="1.13.1", transformers="4.46.3", also=("numpy<2",)),
    "2.1": RealInterpreter(python="3.10", torch="2.1.0", transformers="4.46.3", also=("numpy<2",)),
    "2.4": RealInterpreter(python="3.11", torch="2.4.1", transformers="4.46.3", also=("numpy<2",)),
    "2.6": RealInterpreter(python="3.13", torch="2.6.0", transformers="4.49.0"),
    "2.9": RealInterpreter(python="3.12", torch="2.9.1", transformers="4.57.6"),
    "2.13": RealInterpreter(python="3.11", torch="2.13.0", transformers="5.0.0"),
}


@dataclass(frozen=True, kw_only=True)
class ExtendedInterpreter:
    """One of `INTERPRETERS`, and distributions installed without what they ask for: torch is there, and of CUDA they
    need nothing on a CPU."""

    base: str
    packages: tuple[str, ...]


# Of lazy devices, whose torch is no release of torch's own, and with adapters for the images of MoAI: the last releases
# that Python 3.8 can install, for both.
_ADAPTERS = ("peft==0.13.2", "accelerate==1.0.1", "psutil")
EXTENDED_INTERPRETERS = {
    "lora-1.13": ExtendedInterpreter(base="1.13", packages=_ADAPTERS),
    "lora-2.1": ExtendedInterpreter(base="2.1", packages=_ADAPTERS),
    "xla": ExtendedInterpreter(base="2.9", packages=("torch_xla==2.9.0", "absl-py")),
    # It looks for all of these libraries when it is imported, though a CPU uses none: 2 GB.
    "nntile": ExtendedInterpreter(
        base="2.9",
        packages=(
            "torch_nntile==0.1.0",
            *(
                f"nvidia-{name}-cu12=={version}"
                for name, version in (
                    ("cublas", "12.8.4.1"),
                    ("cudnn", "9.10.2.21"),
                    ("cusparse", "12.5.8.93"),
                    ("cusolver", "11.7.3.90"),
                    ("nvjitlink", "12.8.93"),
                    ("cuda-runtime", "12.8.90"),
                )
            ),
        ),
    ),
}


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tunemark/interpreters"


def real_interpreter(name: str) -> str:
    """The path of an interpreter of `INTERPRETERS`, made now if it was not; NotAvailableError says why it cannot be."""
    wanted = INTERPRETERS[name]
    folder = cache_folder() / wanted.name
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv/bin/python"
    # Two test processes may want the same one: the second waits.
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            _make(wanted, folder, python)
            (folder / "made").write_text("")
    return str(python)


def extended_interpreter(name: str) -> str:
    """The path of an interpreter of `EXTENDED_INTERPRETERS`, which sees all that its base has."""
    wanted = EXTENDED_INTERPRETERS[name]
    base = Path(real_interpreter(wanted.base))
    folder = cache_folder() / f"{INTERPRETERS[wanted.base].name}-{wanted.packages[0].replace('==', '')}"
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv/bin/python"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            shutil.rmtree(folder / "venv", ignore_errors=True)
            _do([str(base.resolve()), "-m", "venv", str(folder / "venv")])
            (site,) = (folder / "venv").glob("lib/python*/site-packages")
            (theirs,) = base.parents[1].glob("lib/python*/site-packages")
            (site / "base.pth").write_text(f"{theirs}\n")
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
            # The base has some of them, without the files that it does not need itself.
            _do([*pip, "--no-deps", "--ignore-installed", *wanted.packages])
            (folder / "made").write_text("")
    return str(python)


def _make(wanted: RealInterpreter, folder: Path, python: Path) -> None:
    shutil.rmtree(folder / "venv", ignore_errors=True)
    _do([_find_python(wanted.python), "-m", "venv", str(folder / "venv")])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    # The index of CPU builds may be out of reach: pip then goes on without it.
    where = ["--retries", "1", "--extra-index-url", CPU_BUILDS]
    packages = [f"torch=={wanted.torch}", f"transformers=={wanted.transformers}", *wanted.also]
    # setuptools: torch imports it without asking for it, and a Python from 3.12 does not bring it.
    _do([*pip, *where, "setuptools<80", *packages])
    # A compiler for GPUs that no test here uses, and which is large.
    _do([str(python), "-m", "pip", "--disable-pip-version-check", "uninstall", "--quiet", "--yes", "triton"])
    _do([str(python), "-c", _PRUNE])
    _do([str(python), "-c", "import torch, torch.distributed, transformers"])


def _find_python(version: str) -> str:
    """An interpreter that says of itself that it is of this version: a shim of that name may lead nowhere."""
    candidates = [shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        candidates += [str(path) for path in sorted(Path(root).glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        said = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        if said.returncode == 0 and said.stdout.startswith(f"Python {version}."):
            return candidate
    raise NotAvailableError(
        f"no Python {version} here: neither python{version} on the PATH nor one of pyenv's versions"
    )


def _do(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith("ERROR")] or lines
        raise NotAvailableError(f"{' '.join(command)[:200]}: {' '.join(said[-1:])}")


def occupied_bytes(name: str) -> int:
    """What an interpreter's environment occupies on the disk."""
    folder = cache_folder() / INTERPRETERS[name].name
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    for name in sys.argv[1:] or INTERPRETERS:
        path = real_interpreter(name)
        versions = "import torch, transformers; print(torch.__version__, transformers.__version__)"
        said = subprocess.run([path, "-c", versions], capture_output=True, text=True).stdout.strip()
        print(json.dumps({"path": path, "says": said, "gb": round(occupied_bytes(name) / 1e9, 2)}), flush=True)
