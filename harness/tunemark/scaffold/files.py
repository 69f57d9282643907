"""Writes the files of a small installable distribution, atomically: all of them or none."""

from __future__ import annotations

import importlib.util
import keyword
import re
import string
from dataclasses import asdict, dataclass
from pathlib import Path

from tunemark.atomic_write import write_folder_atomically
from tunemark.errors import BadExperiment
from tunemark.plugin import INTERFACE, Catalog

KINDS = ("model", "dataset", "device", "trainer")
_NAME = re.compile(r"[a-z][a-z0-9]*([-.][a-z0-9]+)*")
_TEMPLATES = Path(__file__).with_name("templates")
# The path each template is written to; `package` stands for the import package's folder.
_TARGET_PATHS = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "check.yml": ".github/workflows/check.yml",
    "test_kit.py": "tests/test_kit.py",
    "init.py": "package/__init__.py",
    "plugin.py": "package/plugin.py",
    "runtime.py": "package/runtime.py",
    "tokenizer.py": "package/tokenizer.py",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginNames:
    """The names of a new plugin. name: in tunemark. distribution: for pip. package: for import. type_name: of the class
    in `runtime.py`. interface: the version of the plugin interface that the files are written for."""

    name: str
    kind: str
    distribution: str
    package: str
    type_name: str
    interface: str = INTERFACE


def make_names(kind: str, name: str, catalog: Catalog) -> PluginNames:
    """All names of a new plugin; raises `BadExperiment` if one is invalid or taken by an installed package."""
    if kind not in KINDS:
        raise BadExperiment(what=f"there is no scaffold of a {kind!r}", next=f"one of: {', '.join(KINDS)}")
    if not _NAME.fullmatch(name) or len(name) > 60:
        raise BadExperiment(
            what=f"a plugin cannot be named {name!r}",
            why="it becomes the name of a distribution, of a package and of an offer on the command line",
            next="lower-case letters and digits, words joined by - or ., a letter first: `my-model`",
        )
    package = "tunemark_" + re.sub(r"[-.]", "_", name)
    offered = [o.plugin for o in catalog.offers() if o.name == name]
    plugins = [p.name for p in catalog.plugins if p.name == name] + [
        b.plugin for b in catalog.broken if b.plugin == name
    ]
    for taken in (*offered, *plugins):
        raise BadExperiment(
            what=f"the name {name!r} is taken",
            why=f"the installed plugin {taken!r} has it, and a name that two claim belongs to neither",
            next="choose another, or uninstall that plugin",
        )
    if importlib.util.find_spec(package) is not None:
        raise BadExperiment(
            what=f"the name {name!r} is taken", why=f"a package {package!r} is installed", next="choose another name"
        )
    type_name = "".join(word.capitalize() for word in re.split(r"[-.]", name))
    # `layer` would clash with a class of the template, and `true` with a Python keyword.
    texts = [path.read_text(encoding="utf-8") for path in _templates(kind)]
    if keyword.iskeyword(type_name) or any(re.search(rf"\b{type_name}\b", text) for text in texts):
        type_name += kind.capitalize()
    return PluginNames(name=name, kind=kind, distribution=f"tunemark-{name}", package=package, type_name=type_name)


def _templates(kind: str) -> list[Path]:
    return sorted((*(_TEMPLATES / "all").iterdir(), *(_TEMPLATES / kind).iterdir()))


def write_files(chosen: PluginNames, folder: Path) -> list[Path]:
    """Write the distribution into `folder`, which must not exist yet, and return its files."""
    if folder.exists() or folder.is_symlink():
        raise BadExperiment(
            what=f"{folder} already exists",
            why="existing files are never overwritten",
            next="choose another name or another folder by --output, or move it away",
        )
    values = asdict(chosen)
    files = {}
    for template in _templates(chosen.kind):
        target = _TARGET_PATHS[template.name.removesuffix(".template")].replace("package", chosen.package)
        text = string.Template(template.read_text(encoding="utf-8")).substitute(values)
        files[Path(target)] = text.encode()
    try:
        write_folder_atomically(folder, files)
    except OSError as error:
        raise BadExperiment(
            what=f"cannot write {folder}", why=str(error), next="choose a folder that you may write to by --output"
        ) from error
    return sorted(path for path in folder.rglob("*") if path.is_file())
