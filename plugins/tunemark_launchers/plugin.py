"""The launchers for several machines: one command on each, Slurm, and Ray. The harness itself has `local`."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Launcher
from tunemark.plugin.hooks import hookimpl


@hookimpl
def tunemark_launchers() -> Sequence[Launcher]:
    from tunemark_launchers import nodes, ray_launcher, slurm

    offered = (
        ("nodes", "NodesLauncher", nodes, "this host and others, on each of which the user types one command"),
        ("slurm", "SlurmLauncher", slurm, "a Slurm batch job for each attempt"),
        ("ray", "RayLauncher", ray_launcher, "a Ray placement group for each attempt"),
    )
    return [
        Launcher(
            name=name,
            loader=f"{module.__name__}:{launcher}",
            description=description,
            options=module.OPTIONS,
            is_remote=True,
        )
        for name, launcher, module, description in offered
    ]
