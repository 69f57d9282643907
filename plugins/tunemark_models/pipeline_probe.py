"""Whether a family computes the same in the stages of a pipeline as in one: tried on a shrunken copy with one layer in
each stage, so that every passage from layer to layer is one from stage to stage."""

from __future__ import annotations

from typing import Any

import torch

from tunemark_models.packing_probe import make_probe_model
from tunemark_worker.decoder import find_decoder_parts


def find_pipeline_problem(config: Any) -> str | None:
    """Why the family cannot be divided into stages; None where it can, or where that cannot be tried: the worker then
    tries it with the model itself."""
    try:
        from tunemark_torch.parallel.stage_check import check_stages
    except ImportError:  # a torch without pipelines, in which the plan refuses them
        return None
    try:
        module = make_probe_model(config)
        with torch.no_grad():
            module(input_ids=torch.arange(3, 19)[None], use_cache=False)
    except Exception:  # of dimensions that do not fit each other, in any form
        return None
    try:
        return check_stages(module, len(find_decoder_parts(module).layers), "fp32").problem
    # A layer that misses what an earlier one hands on can raise anything.
    except Exception as error:
        return "in stages it fails: {}: {}".format(type(error).__name__, " ".join(str(error).split())[:160])
