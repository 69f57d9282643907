"""Apply the settings of predictions to a plan: the machine's node and network, and another trainer than ours."""

from __future__ import annotations

from dataclasses import replace

from tunemark.errors import BadExperiment
from tunemark.experiment.settings import SETTINGS_BY_NAME, PredictionSettings
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.assumption_list import AssumptionList
from tunemark.predict.clusters import find_cluster
from tunemark.predict.layout import Workload
from tunemark.predict.software_stacks import StackFacts, change_states, choose_stack, find_state_bits, read_year
from tunemark_worker.training_settings import IN_BACKWARD

NETWORK_ASSUMED = "the network of the vendor's reference system between nodes, because none is stated"


def apply_network(facts: DeviceFacts, said: PredictionSettings) -> DeviceFacts:
    """The device with the node and links that were said; `UnknownName` for a cluster that is not known, `BadData`
    for one without that chip."""
    cluster = find_cluster(said.cluster, facts.name) if said.cluster else None
    node = said.node_devices or (cluster.node if cluster else facts.node)
    inter = said.inter_gb_s or (cluster.inter_gb_s if cluster else None)
    return replace(
        facts,
        node=node,
        intra_bytes_per_s=said.intra_gb_s * 1e9 if said.intra_gb_s else facts.intra_bytes_per_s,
        inter_bytes_per_s=inter * 1e9 if inter else facts.inter_bytes_per_s,
        is_network_known=facts.is_network_known or inter is not None,
    )


def apply_trainer(work: Workload, said: PredictionSettings, loss: str) -> Workload:
    """The workload as the named trainer would do it; unchanged where none is named. loss: the setting's value."""
    if said.framework is None:
        return work
    year = read_year(said.framework_version)
    if said.framework_version and not year:
        raise BadExperiment(
            what=f"framework version {said.framework_version!r} names no year",
            why="software is known by the year of the run",
            next="--framework-version 2024",
        )
    facts = StackFacts(
        framework=said.framework,
        year=year,
        is_year_stated=bool(year),
        is_compiled=False if said.framework == "torch" else None,
        precision=work.precision,
        zero=3,
    )
    stack = choose_stack(facts, AssumptionList())[1]
    try:
        stack = change_states(
            stack,
            optimizer_bits=said.optimizer_bits or find_state_bits(work.optimizer),
            base_bits=said.base_bits or work.stack.base_bits or None,
            is_frozen=work.trained_fraction < 1.0,
            is_offloaded=said.offload == "optimizer",
            loss=loss,
            is_in_backward=said.optimizer_in_backward or work.update == IN_BACKWARD,
        )
    except ValueError as error:
        flags = f"{SETTINGS_BY_NAME['base_bits'].flag}, {SETTINGS_BY_NAME['optimizer_bits'].flag}"
        raise BadExperiment(what=str(error), next=f"{flags} with another number") from error
    return replace(work, stack=stack)
