"""What the installed torch is built with and finds here: a program for the interpreter that trains, and a function.

As a program it prints one line of JSON. A fact that this torch does not state is null.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from typing import Any, Dict, Optional


def describe_build() -> Dict[str, Any]:
    """blas: the library of matrix products. capability: the instructions that torch's own kernels use. mkldnn: whether
    oneDNN is used. libc: name and version. gpus: those that torch sees. threads: that it would use."""
    import torch  # a file of the parent imports this module for its path

    shown = str(torch.__config__.show())
    backends: Any = torch.backends
    gpus = []
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "blas": _first(r"BLAS_INFO=([\w.-]+)", shown),
        "capability": _first(r"CPU capability usage: (.+)", shown),
        "mkldnn": bool(backends.mkldnn.is_available()),
        "openmp": bool(backends.openmp.is_available()),
        "cuda": torch.version.cuda,
        "cudnn": backends.cudnn.version() if torch.version.cuda else None,
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "libc": " ".join(filter(None, platform.libc_ver())) or None,
    }


def _first(pattern: str, text: str) -> Optional[str]:
    found = re.search(pattern, text)
    return found.group(1).strip() if found else None


if __name__ == "__main__":
    # Not the folder that the interpreter was started in.
    sys.path = [path for path in sys.path if path]
    print(json.dumps(describe_build()))
