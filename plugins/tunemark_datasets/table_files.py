"""Files of tables: their format by suffix or content, which of a folder's are read, and what the folder says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunemark_datasets.dataset_card import find_configured_files
from tunemark_datasets.files import LFS_POINTER, check_no_pointer, list_visible_files, make_missing_file_error
from tunemark_datasets.row_errors import make_bad_data
from tunemark_datasets.text_files import COMPRESSED_SUFFIXES, open_binary, report_unreadable

# Formats by suffix, in lower case. In a folder only the files of the first format that occurs are read: a clone of a
# hub repository holds parquet and, next to it, json that describes it.
FORMATS: Mapping[str, Sequence[str]] = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "json lines": (".jsonl", ".ndjson", ".jsonlines"),
    "json": (".json",),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
}
# Files that describe a dataset or a model, of the libraries of the hub and of LLaMA-Factory.
_DESCRIPTIONS = frozenset(
    ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "package.json")
)
_REGISTRY = "dataset_info.json"
# Of files that hold others, which are not looked into.
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
# Words of file and folder names that name a split, as `datasets` reads them.
_SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "dev": "validation",
    "val": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(_SPLIT_WORDS)})(?![a-z])")


class FoundFiles(NamedTuple):
    """split: the one that was chosen of several; "" where there is no choice. unread: a folder's other tables and
    archives."""

    paths: list[Path]
    split: str = ""
    unread: Sequence[Path] = ()


def find_format(path: Path) -> str | None:
    """The format of a file by its suffix, or else by its first bytes; None where neither says it."""
    return find_format_of_name(path) or (_find_format_of_content(path) if path.is_file() else None)


def find_format_of_name(path: Path) -> str | None:
    """The format that a file's suffix says."""
    names = [each.lower() for each in path.suffixes if each.lower() not in COMPRESSED_SUFFIXES]
    return next((kind for kind, suffixes in FORMATS.items() if names and names[-1] in suffixes), None)


def _find_format_of_content(path: Path) -> str | None:
    with open_binary(path) as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith((b"PAR1", b"ARROW1")):
        return "parquet" if head.startswith(b"PAR1") else "arrow"
    return "json" if re.match(rb'\{\s*"|\[\s*[{\[\]]', head) else None


def find_files(
    name: str,
    path: Path,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    split: str | None = None,
    config: str | None = None,
) -> FoundFiles:
    """The files at a path, with only formats and first bytes checked. split: of a folder whose files' names or
    README.md name several, train if None; all takes them together. config: of those that its README.md names."""
    if path.is_dir():
        found = _find_files_of_folder(name, path, formats, split, config)
    elif path.is_file():
        found = FoundFiles([path])
    else:
        raise make_missing_file_error(name, path)
    for each in found.paths:
        _check_file(name, each, formats)
    return found


def _find_files_of_folder(
    name: str, folder: Path, formats: Sequence[str], split: str | None, config: str | None
) -> FoundFiles:
    shown = [each for each in list_visible_files(folder) if each.name not in _DESCRIPTIONS]
    splits = find_configured_files(name, folder, config)
    if splits is None:
        known = {each: find_format_of_name(each) for each in shown}
        kinds = ([each for each in shown if known[each] == kind] for kind in formats)
        splits = _divide_by_name(folder, next((kind for kind in kinds if kind), []))
    if not splits:
        why = f"it has no {', '.join(suffix for kind in formats for suffix in FORMATS[kind])} file"
        archives = ", ".join(each.name for each in shown if each.suffix.lower() in _ARCHIVES)
        advice = f"unpack what it has: {archives}" if archives else ""
        raise make_bad_data(name, folder, "there is no file to read", why, advice)
    paths, chosen = _choose_split(name, folder, splits, split)
    data = [each for each in shown if find_format_of_name(each) or each.suffix.lower() in _ARCHIVES]
    return FoundFiles(paths, chosen, [each for each in data if each not in paths])


def _divide_by_name(folder: Path, paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The files by the split that their names, or else their folders', say; those without one are of `train`."""
    splits: dict[str, list[Path]] = {}
    for path in paths:
        words = _SPLIT.findall(path.relative_to(folder).as_posix().lower())
        splits.setdefault(_SPLIT_WORDS[words[-1]] if words else "train", []).append(path)
    return splits


def _choose_split(
    name: str, folder: Path, splits: Mapping[str, list[Path]], split: str | None
) -> tuple[list[Path], str]:
    """(the files, the split if there are several)"""
    if split == "all" or (split is None and len(splits) == 1):
        return list(dict.fromkeys(path for paths in splits.values() for path in paths)), ""
    word = split or "train"
    wanted = word if word in splits else _SPLIT_WORDS.get(word, word)
    if wanted not in splits:
        counts = ", ".join(f"{key} ({len(files)} files)" for key, files in splits.items())
        raise make_bad_data(
            name,
            folder,
            f"it has no split {wanted!r}",
            f"by its files' names it has {counts}",
            "split=NAME, or split=all",
        )
    return splits[wanted], wanted


def _check_file(name: str, path: Path, formats: Sequence[str]) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
    except OSError as error:
        raise make_bad_data(name, path, "it cannot be read", str(error)) from error
    if not head:
        raise make_bad_data(name, path, "it is empty", "0 bytes")
    check_no_pointer(name, path, head)
    with report_unreadable(name, path, "utf-8"):
        kind = find_format(path)
    if kind not in formats:
        suffixes = ", ".join(suffix for known in formats for suffix in FORMATS[known])
        raise make_bad_data(
            name,
            path,
            f"its format {path.suffix or 'without a suffix'} is not known",
            f"the known formats are {suffixes}; texts also with {', '.join(COMPRESSED_SUFFIXES)}",
            "convert it, for example with pandas: to_parquet(FILE), or to_json(FILE, orient='records', lines=True)",
        )
    if kind == "parquet" and not head.startswith(b"PAR1"):
        raise make_bad_data(name, path, "it is not parquet", f"it begins with {head[:4]!r} instead of b'PAR1'")


class RegisteredDataset(NamedTuple):
    """An entry of LLaMA-Factory's dataset_info.json. columns: by their meaning there. tags: names in its messages."""

    name: str
    path: Path
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    is_ranking: bool

    def roles(self) -> dict[str, str]:
        """The roles of messages by the names that the tags give them."""
        return {self.tags[f"{tag}_tag"]: role for tag, role in _TAGGED_ROLES.items() if f"{tag}_tag" in self.tags}


# Roles of messages, as chat templates know them, by LLaMA-Factory's tags; a function's call has a form of its own.
_TAGGED_ROLES = {
    "user": "user", "assistant": "assistant", "observation": "tool", "function": "function_call", "system": "system",
}  # fmt: skip


def find_registered(name: str, folder: Path, entry: str | None) -> RegisteredDataset | None:
    """The entry of a folder's dataset_info.json, if that is one of LLaMA-Factory's; BadData where there are several
    and none is named."""
    entries = _read_registry(folder / _REGISTRY)
    if not entries:
        if entry is not None:
            raise make_bad_data(name, folder, f"it has no {_REGISTRY} that names files", f"entry={entry} was given")
        return None
    if entry is None and len(entries) == 1:
        (entry,) = entries
    if entry not in entries:
        raise make_bad_data(
            name,
            folder,
            f"its {_REGISTRY} has no entry {entry!r}" if entry else f"its {_REGISTRY} describes several datasets",
            f"it names {', '.join(sorted(entries)[:20])}",
            f"name one, {name}:path=FOLDER:entry={min(entries)}; or give its file: path=FILE",
        )
    found = entries[entry]
    return RegisteredDataset(
        name=entry,
        path=folder / found["file_name"],
        columns={key: value for key, value in (found.get("columns") or {}).items() if isinstance(value, str)},
        tags={key: value for key, value in (found.get("tags") or {}).items() if isinstance(value, str)},
        is_ranking=bool(found.get("ranking")),
    )


def _read_registry(path: Path) -> dict[str, dict[str, Any]]:
    """The entries with a file; none where the file is missing or of another library, whose entries name no file."""
    try:
        read = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    entries = read.items() if isinstance(read, dict) else ()
    return {name: each for name, each in entries if isinstance(each, dict) and isinstance(each.get("file_name"), str)}
