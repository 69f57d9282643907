"""What is predicted of a chip that is not here: settings change it as they change a plan's, or are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tunemark.errors import BadExperiment
from tunemark.experiment import make_experiment, make_grid_points
from tunemark.plugin import Catalog
from tunemark.predict.absent_device import make_absent_device_search


def _search(**settings: Any) -> Any:
    given = {"model": "mistral-tiny", "device": "H100:2", "strategy": "auto", **settings}
    (point,) = make_grid_points(make_experiment(given))
    return make_absent_device_search(point, Catalog()).question.work


def test_how_the_optimizer_is_computed_is_part_of_the_work() -> None:
    assert _search(optimizer_impl="fused").optimizer_impl == "fused"


@pytest.mark.parametrize("settings", [{"activations": "host"}, {"update": "in-backward", "clip_norm": 0.0}])
def test_what_no_search_of_layouts_can_run_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadExperiment, match="is not part of a search of layouts"):
        _search(**settings)
