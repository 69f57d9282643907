"""Writes the files with which a CI service runs the regression gate."""

from __future__ import annotations

from pathlib import Path

from tunemark.atomic_write import write_atomically
from tunemark.errors import BadExperiment, did_you_mean

_FOLDER = Path(__file__).with_name("ci")
_WORKFLOWS = {"github": Path(".github/workflows/tunemark.yml"), "gitlab": Path("tunemark.gitlab-ci.yml")}
_EXPERIMENT = Path("tunemark.toml")


def write_ci_files(service: str, folder: Path) -> list[Path]:
    """Write the workflow of a service and, unless there is one, the experiment that it measures; return their paths.
    Raises `BadExperiment` for an unknown service or where the workflow exists already."""
    if service not in _WORKFLOWS:
        raise BadExperiment(what=f"no workflow for {service!r}", next=did_you_mean(service, _WORKFLOWS))
    workflow = folder / _WORKFLOWS[service]
    if workflow.exists():
        raise BadExperiment(
            what=f"{workflow} already exists", why="existing files are never overwritten", next="move it away"
        )
    wanted = {workflow: f"{service}.yml"}
    if not (folder / _EXPERIMENT).exists():
        wanted[folder / _EXPERIMENT] = "tunemark.toml"
    try:
        for path, name in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (_FOLDER / name).read_bytes())
    except OSError as error:
        raise BadExperiment(
            what=f"cannot write {workflow}", why=str(error), next="choose a folder that you may write to by --output"
        ) from error
    return list(wanted)
