"""The place of the hooks beside those of others, and copies of a model together with its optimizer and projector."""

import copy

import pytest
import torch
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import unitarity_error


def made(**settings):
    torch.manual_seed(0)
    layers = [orthogonal(nn.Linear(6, 6)), orthogonal(nn.Linear(6, 6))]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1])
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
    return model, optimizer, Projector(model, **settings).attach(optimizer)


def step(model, optimizer):
    optimizer.zero_grad()
    x = torch.linspace(-1, 1, 24).view(4, 6)
    (model(x) - x.flip(1)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_post_hook_of_the_user_sees_the_weights_on_the_manifold(when):
    model, optimizer, projector = made()
    projector.detach()
    seen = []

    def look(*_):
        seen.extend(unitarity_error(layer.weight.detach()) for layer in (model[0], model[2]))

    if when == "before":
        optimizer.register_step_post_hook(look)
    projector.attach(optimizer)
    if when == "after":
        optimizer.register_step_post_hook(look)
    step(model, optimizer)
    assert max(seen) < 1e-6


class TestCopies:
    """Of a model, its optimizer and its projector together."""

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"sampler": "tangent", "feedback": 0.5},
            {"sampler": "subspace"},
            {"coordinates": "skew", "rank": 2},
            {"rank": "full"},
        ],
        ids=str,
    )
    def test_train_as_the_original_does(self, settings):
        model, optimizer, projector = made(**settings)
        step(model, optimizer)
        copied, other, watcher = copy.deepcopy((model, optimizer, projector))
        before = [parameter.detach().clone() for parameter in model.parameters()]
        for _ in range(3):
            step(copied, other)
        assert all(torch.equal(old, parameter) for old, parameter in zip(before, model.parameters(), strict=True))
        for _ in range(3):
            step(model, optimizer)
        for mine, theirs in zip(model.parameters(), copied.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        assert watcher.is_attached_to(other)
        assert {name: state["step"] for name, state in watcher.state_dict().items()} == {"0.weight": 4, "2.weight": 4}

    def test_are_detached_alone(self):
        model, optimizer, projector = made(coordinates="skew")
        copied, other, watcher = copy.deepcopy((model, optimizer, projector))
        watcher.detach()
        step(copied, other)
        step(model, optimizer)
        assert unitarity_error(copied[0].weight.detach()) > 1e-4
        assert unitarity_error(model[0].weight.detach()) < 1e-6

    def test_of_a_projector_that_is_not_attached(self):
        model, optimizer, projector = made()
        projector.detach()
        copied, other, watcher = copy.deepcopy((model, optimizer, projector))
        watcher.attach(other)
        step(copied, other)
        assert unitarity_error(copied[0].weight.detach()) < 1e-6
