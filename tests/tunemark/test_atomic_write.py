"""A file or a folder appears whole, and a failure leaves neither a part nor the old content changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunemark.atomic_write import write_atomically, write_folder_atomically


def test_a_file_is_replaced_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomically(path, "old")
    write_atomically(path, "héllo")
    assert path.read_bytes() == "héllo".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    write_folder_atomically(folder, {Path("a/b.py"): b"1"})
    with pytest.raises(OSError, match="not empty"):
        write_folder_atomically(folder, {Path("a/b.py"): b"2"})
    assert (folder / "a/b.py").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == [folder]
