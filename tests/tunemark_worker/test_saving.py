"""A model is saved from the host, with its shared weights still shared."""

from __future__ import annotations

import torch

from tunemark_worker.evaluation import move_to_host


def test_a_shared_weight_stays_shared_on_its_way_to_the_host() -> None:
    module = torch.nn.ModuleDict({"first": torch.nn.Embedding(8, 4), "last": torch.nn.Linear(4, 8, bias=False)})
    module["last"].weight = module["first"].weight
    module.register_buffer("ones", torch.ones(3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    old = module["first"].weight
    move_to_host(module)
    assert module["first"].weight is module["last"].weight
    assert module["first"].weight is not old
    assert set(module.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
