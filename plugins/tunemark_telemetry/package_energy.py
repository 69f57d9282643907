"""Dies that share a package: AMD counts the energy of a package once, at its first die."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def find_energy_counter(
    name: str, packages: Sequence[str | None], ours: Collection[str]
) -> tuple[str | None, str | None]:
    """(the die whose counter holds the energy of the die `name`, None for its own; why its energy is unknown).

    packages: the package of every die of the machine, in order, None where unknown. ours: the job's dies.
    """
    package = packages[int(name)]
    mates = [i for i, each in enumerate(packages) if package is not None and each == package]
    if len(mates) < 2:
        return None, None
    if any(str(i) not in ours for i in mates):
        return None, f"energy is counted for the package of device {name}, and its other die is not the job's"
    first = str(mates[0])
    return (None, None) if name == first else (first, None)
