"""What the README.md of a folder says of its files, as datasets on the hub have it: `configs`, each with `data_files`.

Source: the hub's documentation, "Manual configuration" of datasets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemark_datasets.files import list_visible_files
from tunemark_datasets.row_errors import make_bad_data

CARD = "README.md"


def find_configured_files(name: str, folder: Path, config: str | None) -> dict[str, list[Path]] | None:
    """The files of each split of a configuration; None where the folder has no README.md that names files.

    config: by default the only one, or the one that is marked as default. BadData where there are several, or none of
    that name, or no file of it.
    """
    configs = {str(each.get("config_name", "default")): each for each in _read_configs(folder)}
    if not configs:
        if config is not None:
            raise make_bad_data(name, folder, f"no {CARD} of it has configurations", f"config={config} was given")
        return None
    if config is None:
        marked = [key for key, each in configs.items() if each.get("default") or key == "default"]
        config = next(iter(configs)) if len(configs) == 1 else marked[0] if marked else None
    if config not in configs:
        raise make_bad_data(
            name,
            folder,
            f"its {CARD} has no configuration {config!r}" if config else f"its {CARD} has several configurations",
            f"it names {', '.join(list(configs)[:20])}",
            f"name one, {name}:path=FOLDER:config={next(iter(configs))}; or give a file: path=FILE",
        )
    splits: dict[str, list[Path]] = {}
    for split, pattern in _list_patterns(configs[config]):
        # In a folder that is named, all files.
        found = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        found += [
            path for place in sorted(folder.glob(pattern)) if place.is_dir() for path in list_visible_files(place)
        ]
        if not found:
            why = f"{CARD} names it as of the configuration {config}, split {split}"
            raise make_bad_data(name, folder, f"it has no file {pattern}", why, "download the whole repository")
        splits.setdefault(split, []).extend(found)
    return splits


def _read_configs(folder: Path) -> list[Mapping[str, Any]]:
    """The configurations with files; none where the file is missing or is no description in YAML."""
    card = folder / CARD
    try:
        text = card.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError):
        return []
    head, _, _ = text.removeprefix("---").partition("\n---")
    if not text.startswith("---") or "\nconfigs:" not in head:
        return []
    import yaml  # only for folders that have such a file

    try:
        said = yaml.safe_load(head)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())[:200]
        raise make_bad_data("dataset", card, "what it says of its files is not YAML", why, "remove it") from error
    configs = said.get("configs") if isinstance(said, dict) else None
    rows = configs if isinstance(configs, list) else []
    return [each for each in rows if isinstance(each, dict) and {"data_files", "data_dir"} & set(each)]


def _list_patterns(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(split, pattern of paths) of a configuration."""
    files, folder = config.get("data_files"), config.get("data_dir")
    prefix = f"{folder}/" if folder else ""
    if files is None:
        yield "train", str(folder)
        return
    for each in files if isinstance(files, list) else [files]:
        if not isinstance(each, dict):
            yield "train", f"{prefix}{each}"
        elif "path" in each:
            paths = each["path"]
            for path in paths if isinstance(paths, list) else [paths]:
                yield str(each.get("split", "train")), f"{prefix}{path}"
        else:
            for split, paths in each.items():
                for path in paths if isinstance(paths, list) else [paths]:
                    yield str(split), f"{prefix}{path}"
