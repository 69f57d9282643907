"""Facts about this process and its host, for the record `facts`."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any, Dict, List, Optional

from tunemark_worker.linux_proc import cpu_affinity, read_cpu_model, read_text


def collect_facts() -> Dict[str, Any]:
    """Versions of the software, the host's processor, this process's cores, and the settings of memory allocators."""
    variables = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "platform": platform.platform(),
        "node": platform.node(),
        "processor": read_cpu_model(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "affinity": cpu_affinity(),
        "preloaded": _list_preloaded(),
        "allocator": {name: os.environ[name] for name in variables if name in os.environ},
    }


def _list_preloaded() -> List[str]:
    """Names of the libraries that the loader put before all others, which may change what a clock says."""
    variables = (os.environ.get(name, "") for name in ("LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES"))
    words = " ".join([*variables, read_text("/etc/ld.so.preload")]).replace(":", " ").split()
    # Mapped by a program that has removed the variable, as `faketime` may.
    words += [line.split()[-1] for line in read_text("/proc/self/maps").splitlines() if "faketime" in line]
    return sorted({os.path.basename(word) for word in words})


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
