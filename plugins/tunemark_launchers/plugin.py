"""The launchers for several machines: one command on each, Slurm, and Ray. The harness itself has `local`."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Launcher
from tunemark.plugin.hooks import hookimpl


@hookimpl
def tunemark_launchers() -> Sequence[Launcher]:
    from tunemark_launchers import nodes, ray_launcher, slurm

    return [
        Launcher(
            name="nodes",
            loader="tunemark_launchers.nodes:NodesLauncher",
            description="this host and others, on each of which the user types one command",
            options=nodes.OPTIONS,
            is_remote=True,
        ),
        Launcher(
            name="slurm",
            loader="tunemark_launchers.slurm:SlurmLauncher",
            description="a Slurm batch job for each attempt",
            options=slurm.OPTIONS,
            is_remote=True,
        ),
        Launcher(
            name="ray",
            loader="tunemark_launchers.ray_launcher:RayLauncher",
            description="a Ray placement group for each attempt",
            options=ray_launcher.OPTIONS,
            is_remote=True,
        ),
    ]
