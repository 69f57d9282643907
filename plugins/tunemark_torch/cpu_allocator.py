"""The memory allocators of jobs on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunemark.errors import BadExperiment

# glibc's own environment variable.
GLIBC_VARIABLE = "GLIBC_TUNABLES"
# By default glibc returns large blocks to the kernel at once, and the next step faults them in again page by page.
# Keeping them made a step of a 60 M-parameter Mistral 1.5 to 2.2 times as fast on two cores (November 2026).
KEEP_FREED_BLOCKS = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864"
# Library and Debian package of each other allocator.
_LIBRARIES = {
    "tcmalloc": (("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"), "libtcmalloc-minimal4"),
    "jemalloc": (("libjemalloc.so.2",), "libjemalloc2"),
}
_FOLDERS = ("usr/lib", "usr/lib64", "usr/local/lib", "lib", "usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu*")


def allocator_environment(name: str, root: Path = Path("/")) -> Mapping[str, str]:
    """The variables of "system", "tcmalloc" or "jemalloc"; `BadExperiment` where there is no such library."""
    if name not in ("system", *_LIBRARIES):
        raise BadExperiment(
            what=f"{name} is no allocator of host memory",
            why="it is one of a GPU's memory",
            next="--allocator tuned, system, tcmalloc or jemalloc",
        )
    if name == "system":
        # Empty, because a variable of the user's own would be inherited.
        return {GLIBC_VARIABLE: ""}
    libraries, package = _LIBRARIES[name]
    found = [each for library in libraries for folder in _FOLDERS for each in sorted(root.glob(f"{folder}/{library}"))]
    if not found:
        raise BadExperiment(
            what=f"there is no {name} on this machine",
            why=f"none of {', '.join(libraries)} in {', '.join('/' + folder for folder in _FOLDERS[:5])}",
            next=f"apt-get install {package}, or --allocator tuned",
        )
    return {GLIBC_VARIABLE: "", "LD_PRELOAD": str(found[0])}
