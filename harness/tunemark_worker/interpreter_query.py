"""What an interpreter has, found without importing torch: a module of the parent, and a program for other interpreters.

As a program it prints one line of JSON for the packages named as arguments. Its syntax is that of Python 3.5, older
than what the worker needs, so that a Python that is too old is refused in words.
"""

import importlib.util
import json
import os
import re
import sys
from typing import Any, Dict, List, Optional, Sequence


def query(names: Sequence[str]) -> Dict[str, Any]:
    """Which of the packages are there, their versions, and the types of causal language models of transformers."""
    return {
        "python": sys.version.split()[0],
        "found": {name: bool(_find_file(name)) for name in names},
        "versions": {name: _find_version(name) for name in names},
        "model_types": _find_model_types() if "transformers" in names else None,
    }


def _find_file(name: str) -> Optional[str]:
    """The file of a package; a user's folder of the same name has none."""
    spec = importlib.util.find_spec(name)
    return spec.origin if spec is not None else None


def _find_version(name: str) -> Optional[str]:
    """The version of a package by its metadata; None if these do not say."""
    try:
        from importlib import metadata  # Python 3.8 and newer

        return metadata.version(name)
    except Exception:  # metadata of any age and origin
        return None


def _find_model_types() -> Optional[List[str]]:
    """The keys of `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`, read from its text, as importing it takes seconds; None if it is
    not where it is from transformers 4.9 to 5.23."""
    file = _find_file("transformers")
    if not file:
        return None
    try:
        with open(os.path.join(os.path.dirname(file), "models", "auto", "modeling_auto.py"), "rb") as text:
            table = re.search(r"\nMODEL_FOR_CAUSAL_LM_MAPPING_NAMES = (.*?)\n\)\n", text.read().decode("utf-8"), re.S)
    except (OSError, UnicodeDecodeError):
        return None
    return re.findall(r"\(\s*\"([^\"]+)\",", table.group(1)) if table else None


if __name__ == "__main__":
    # Not the folder that the interpreter was started in.
    sys.path = [path for path in sys.path if path]
    print(json.dumps(query(sys.argv[1:])))
