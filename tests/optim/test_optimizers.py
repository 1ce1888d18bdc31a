"""Which optimizers a projector takes, and what it says of weights that change outside of steps."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from projunn_lightning import ConstraintError, Projector, ProjUNN, ProjUNNError, orthogonal
from projunn_lightning.functional import unitarity_error
from tests.support.fits import Net, loader, trainer


class SAM(torch.optim.SGD):
    """Sharpness-aware minimisation as it is usually written: its two steps are not ``step``."""

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["old"] = parameter.clone()
                parameter.add_(parameter.grad, alpha=0.1)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.copy_(self.state[parameter]["old"]).add_(parameter.grad, alpha=-group["lr"])
        self.zero_grad()


class Unhooked(torch.optim.Optimizer):
    """A wrapper that does not call ``Optimizer.__init__``, and so has no hooked step."""

    def __init__(self, base):
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        self.base, self.param_groups, self.state, self.defaults = base, base.param_groups, base.state, base.defaults

    def step(self, closure=None):
        return self.base.step(closure)


class Lookahead(torch.optim.Optimizer):
    """A wrapper with a step of its own, and the inner optimizer in the attribute that Fabric's wrapper has, too."""

    def __init__(self, optimizer):
        self.optimizer, self.count = optimizer, 0
        super().__init__([p for group in optimizer.param_groups for p in group["params"]], {})
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        self.optimizer.step(closure)
        self.count += 1
        if self.count % 3 == 0:
            for slow, parameter in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.add_(parameter - slow, alpha=0.5)
                parameter.copy_(slow)


class ScheduleFree(torch.optim.SGD):
    def train(self): ...

    def eval(self): ...


def layer():
    return orthogonal(nn.Linear(8, 8, bias=False))


def backward(model):
    x = torch.randn(16, 8)
    (model(x) - x.flip(1)).square().mean().backward()


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            Unhooked,
            "Unhooked does not run the hooks of torch's optimizers, because it does not call Opt",
        ),
        (lambda base: ScheduleFree(base.param_groups[0]["params"], 0.1), "ScheduleFree is schedule-free: its eval"),
    ],
    ids=["unhooked", "schedule-free"],
)
def test_an_optimizer_whose_steps_the_hooks_do_not_see_is_refused(wrap, message):
    model = layer()
    with pytest.raises(ConstraintError, match=message):
        Projector(model).attach(wrap(torch.optim.SGD(model.parameters(), lr=0.5)))


def test_the_step_of_a_wrapper_is_taken_as_a_whole():
    model = layer()
    optimizer = Lookahead(torch.optim.SGD(model.parameters(), lr=0.5))
    projector = Projector(model).attach(optimizer)
    for _ in range(10):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        assert unitarity_error(model.weight.detach()) < 1e-6
    assert projector.state_dict()["weight"]["step"] == 10


@pytest.mark.filterwarnings("error")
def test_weights_that_change_outside_of_steps_are_reported_with_the_usual_causes():
    model = layer()
    optimizer = SAM(model.parameters(), lr=0.5)
    projector = Projector(model).attach(optimizer)
    for first in (True, False):
        backward(model)
        optimizer.first_step()
        backward(model)
        optimizer.second_step()
        if first:
            with pytest.warns(UserWarning, match=r"weight has changed outside of the steps .* SAM, a callback"):
                projector.unitarity_errors()
        else:
            projector.unitarity_errors()  # it says so once


def test_the_callback_reports_them_when_it_logs():
    class WithSAM(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers().optimizer
            for step in (optimizer.first_step, optimizer.second_step):
                self.manual_backward(self.loss(batch))
                step()

    with pytest.warns(UserWarning, match=r"first\.weight has changed outside of the steps that the projector sees"):
        trainer(ProjUNN("first.weight"), max_epochs=1).fit(WithSAM(SAM), loader())


def test_an_error_above_the_tolerance_is_reported():
    model = layer()
    projector = Projector(model).attach(torch.optim.SGD(model.parameters(), lr=0.1))
    model.weight.data.mul_(2)  # torch does not count this change
    with pytest.warns(UserWarning, match=r"weight is off: its unitarity error is 3\.0e\+00, and the tol"):
        projector.unitarity_errors()


@pytest.mark.parametrize("wrong", [lambda model: [torch.optim.SGD(model.parameters(), 0.1)], lambda m: m.parameters()])
def test_anything_but_optimizers_is_refused_with_the_right_way(wrong):
    model = layer()
    with pytest.raises(ProjUNNError, match=r"attach takes torch optimizers, as in attach\(optimizer\) or"):
        Projector(model).attach(wrong(model))


def test_a_cell_that_is_run_twice_is_told_the_way_out():
    model = layer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = Projector(model).attach(optimizer)
    with pytest.raises(ConstraintError, match=r"another projector .* taken twice; detach\(\) the other one"):
        Projector(model).attach(optimizer)
    first.detach()
    Projector(model).attach(optimizer)
