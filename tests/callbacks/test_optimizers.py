"""Optimizers with nested, interrupted or failing steps, and optimizers that are replaced or shared."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from projunn_lightning import ConstraintError, Projector, ProjUNN, orthogonal
from tests.support.fits import Net, error, loader, steps, trainer


class Decaying(torch.optim.SGD):
    """Changes the weights after the step of its base class. Torch runs hooks at both steps."""

    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(0.9).add_(0.05)
        return loss


class Breaking(torch.optim.SGD):
    """Raises an exception once, after it has written to the weights."""

    broken = False

    def step(self, closure=None):
        loss = super().step(closure)
        if not self.broken:
            self.broken = True
            raise RuntimeError("broken off")
        return loss


def one(kind=torch.optim.SGD):
    layer = orthogonal(nn.Linear(6, 6, bias=False))
    return layer, kind(layer.parameters(), lr=0.1)


def step(layer, optimizer):
    layer.weight.grad = torch.randn(6, 6)
    optimizer.step()


def test_a_nested_step_and_the_changes_after_it_are_one_update():
    plain, twin = one()  # now torch has hooked the base class
    layer, optimizer = one(Decaying)
    plain.load_state_dict(layer.state_dict())
    projector = Projector(layer).attach(optimizer)
    gradient = torch.randn(6, 6)
    for number in range(1, 4):
        layer.weight.grad = gradient
        optimizer.step()
        assert error(layer.weight) < 1e-6
        assert projector.state_dict()["weight"]["step"] == number
    # An optimizer that makes both changes in one step gives the same result.
    twin.param_groups[0]["lr"] = 1.0
    Projector(plain).attach(twin)
    for _ in range(3):
        plain.weight.grad = plain.weight.detach() - ((plain.weight.detach() - 0.1 * gradient) * 0.9 + 0.05)
        twin.step()
    torch.testing.assert_close(layer.weight, plain.weight, rtol=0, atol=1e-5)


def test_an_interrupted_step_is_undone_at_the_next_step():
    one()
    layer, optimizer = one(Breaking)
    Projector(layer).attach(optimizer)
    with pytest.raises(RuntimeError, match="broken off"):
        step(layer, optimizer)
    for _ in range(5):
        step(layer, optimizer)
        assert error(layer.weight) < 1e-6


def test_the_step_after_a_closure_that_raised_is_complete():
    layer = orthogonal(nn.Linear(6, 6, bias=False))
    optimizer = torch.optim.LBFGS(layer.parameters(), lr=0.1, max_iter=3)
    Projector(layer).attach(optimizer)
    broken = []

    def closure():
        if broken:
            raise RuntimeError
        optimizer.zero_grad()
        loss = (layer(torch.ones(6)) - torch.arange(6.0)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    broken.append(True)
    with pytest.raises(RuntimeError):
        optimizer.step(closure)
    broken.clear()
    for _ in range(3):
        optimizer.step(closure)
        assert error(layer.weight) < 1e-6


def test_optimizers_that_are_set_up_again_in_mid_run():
    class Anew(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.strategy.setup_optimizers(trainer)

    model, method = Net(), ProjUNN("first.weight")
    trainer(method, Anew()).fit(model, loader())
    assert error(model.first.weight) < 1e-6
    assert steps(method) == {"first.weight": 12}


def test_two_projectors_of_one_weight_are_refused():
    layer, optimizer = one()
    first = Projector(layer).attach(optimizer)
    with pytest.raises(ConstraintError, match="weight is constrained by another projector that is attached"):
        Projector(layer).attach(optimizer)
    first.detach()
    Projector(layer).attach(optimizer)


def test_a_step_under_autocast_is_in_full_precision():
    layer, optimizer = one()
    Projector(layer).attach(optimizer)
    with torch.autocast("cpu", torch.bfloat16):
        step(layer, optimizer)
    assert error(layer.weight) < 1e-6
