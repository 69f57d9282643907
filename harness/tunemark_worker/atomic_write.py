"""Write files that appear whole: a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import json
import os
from typing import Any


def write_json(path: str, value: Any) -> None:
    """Replace the content of a file that only one process writes at a time."""
    part = path + ".part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(part, path)
