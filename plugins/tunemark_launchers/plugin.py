"""The launchers beyond one machine: the same command on several, under Slurm and on Ray. `local` is the harness's."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Launcher
from tunemark.plugin.hooks import hookimpl


@hookimpl
def tunemark_launchers() -> Sequence[Launcher]:
    from tunemark_launchers import nodes, ray_groups, slurm

    return [
        Launcher(
            name="nodes",
            loader="tunemark_launchers.nodes:Nodes",
            description="this host and others, where one command is typed on each",
            options=nodes.OPTIONS,
            elsewhere=True,
        ),
        Launcher(
            name="slurm",
            loader="tunemark_launchers.slurm:Slurm",
            description="a Slurm batch job for each attempt",
            options=slurm.OPTIONS,
            elsewhere=True,
        ),
        Launcher(
            name="ray",
            loader="tunemark_launchers.ray_groups:Ray",
            description="a placement group of Ray's for each attempt",
            options=ray_groups.OPTIONS,
            elsewhere=True,
        ),
    ]
