"""Make a virtual environment for a trainer, by pip's ordinary ways, in the user's data folder.

Nothing is installed into an environment that tunemark did not make."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from tunemark.atomic_write import write_atomically
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment.trainer_environments import (
    ENVIRONMENT_FILE,
    InstalledEnvironment,
    environment_folder,
    find_environment,
)
from tunemark.number_format import GIB
from tunemark.plugin.descriptors import Trainer, TrainerEnvironment

# Written first: the folder is tunemark's, and may be removed by it.
_MARK = "made-by-tunemark"
_LIST_VERSIONS = "import json; from importlib.metadata import distributions as d; \
print(json.dumps({x.metadata['Name']: x.version for x in d()}))"


def list_constraints(environment: TrainerEnvironment) -> list[str]:
    """The versions that tunemark's own interpreter has of what the trainer shares with it, so that both compute with
    the same kernels."""
    found = []
    for name in environment.as_here:
        try:
            # A local version, such as +cpu, is the index's to choose.
            found.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            continue
    return found


def check_space(environment: TrainerEnvironment, folder: Path) -> None:
    """Refuse where the disk has no room for the environment, and as much again for what is downloaded."""
    parent = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(parent).free
    if free < 2 * environment.bytes:
        raise BadExperiment(
            what=f"there is no room for an environment of {environment.bytes / GIB:.1f} GiB in {folder}",
            why=f"{free / GIB:.1f} GiB are free, and pip needs as much again for a while",
            next="free some space, or choose another folder by TUNEMARK_DATA",
        )


def install_environment(trainer: Trainer, say: Callable[[str], None]) -> InstalledEnvironment:
    """Make the trainer's environment anew; `TunemarkError` with the end of pip's words where that fails. say: told what
    is done."""
    environment = trainer.environment
    assert environment is not None, "asked for by a trainer that needs none"
    folder = environment_folder(trainer)
    check_space(environment, folder)
    remove_environment(trainer)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    python = str(folder / "bin" / "python")
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{each}\n" for each in list_constraints(environment)), encoding="utf-8")
    _run([sys.executable, "-m", "venv", str(folder)], trainer, say)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    needed = [*list_constraints(environment), *environment.requirements]
    _run([*pip, "-c", str(constraints), *needed], trainer, say)
    if environment.without_dependencies:
        _run([*pip, "--no-deps", *environment.without_dependencies], trainer, say)
    listed = _run([python, "-c", _LIST_VERSIONS], trainer, say)
    made_of = [*needed, *environment.without_dependencies]
    content = json.dumps({"versions": json.loads(listed), "requirements": made_of}, indent=1, sort_keys=True)
    write_atomically(folder / ENVIRONMENT_FILE, content.encode())
    found = find_environment(trainer)
    assert found is not None, "it was just written"
    return found


def remove_environment(trainer: Trainer) -> bool:
    """Remove the trainer's environment, whether it was finished or not; False if there was none."""
    folder = environment_folder(trainer)
    if not folder.exists():
        return False
    if not (folder / _MARK).exists():
        raise BadExperiment(
            what=f"{folder} is not an environment that tunemark has made",
            why=f"it has no file {_MARK}",
            next="move it away, or choose another folder by TUNEMARK_DATA",
        )
    shutil.rmtree(folder)
    return True


def _run(command: Sequence[str], trainer: Trainer, say: Callable[[str], None]) -> str:
    say(" ".join(command[:2] if command[1] == "-c" else command))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise TunemarkError(
            what=f"the environment of {trainer.name} could not be made",
            why="; ".join(words[-3:])[-600:] or f"it ended with code {done.returncode}",
            next=f"see what pip refuses: {' '.join(command)}",
        )
    return done.stdout
