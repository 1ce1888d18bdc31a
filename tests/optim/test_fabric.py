"""The projector together with Lightning Fabric."""

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from projunn_lightning import Projector, orthogonal


def set_up(when):
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1)
    model = nn.Sequential(orthogonal(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    projector = Projector(model)
    if when == "before":
        projector.attach(optimizer)
    net, optimizer = fabric.setup(model, optimizer)
    if when == "after":
        projector.attach(optimizer)
    return fabric, {"model": net, "optimizer": optimizer, "projector": projector}


def train(fabric, state, seed, steps=10):
    torch.manual_seed(seed)
    for _ in range(steps):
        state["optimizer"].zero_grad()
        input = torch.randn(8, 6)
        fabric.backward((state["model"](input) - input.sum(1, keepdim=True)).square().mean())
        state["optimizer"].step()
    return [parameter.detach() for parameter in state["model"].parameters()]


def test_attaching_before_or_after_setup_gives_the_same_result():
    results = []
    for when in ("before", "after"):
        fabric, state = set_up(when)
        results.append(train(fabric, state, seed=1))
        assert state["projector"].state_dict()["0.weight"]["step"] == 10
        assert max(state["projector"].unitarity_errors().values()) < 1e-5
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_detach_leaves_the_optimizer_as_it_was(when):
    fabric, state = set_up(when)
    state["projector"].detach()
    train(fabric, state, seed=1)
    assert state["projector"].unitarity_errors()["0.weight"] > 1e-5


def test_a_checkpoint_includes_the_state_of_the_projector(tmp_path):
    fabric, state = set_up("before")
    train(fabric, state, seed=1)
    fabric.save(tmp_path / "half.ckpt", state)
    unbroken = [parameter.clone() for parameter in train(fabric, state, seed=2)]

    fabric, state = set_up("before")
    fabric.load(tmp_path / "half.ckpt", state)
    assert state["projector"].state_dict()["0.weight"]["step"] == 10
    torch.testing.assert_close(train(fabric, state, seed=2), unbroken, rtol=0, atol=0)
