"""Skew coordinates, in which the optimizer works in the Lie algebra."""

import contextlib

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from projunn_lightning import ConstraintError, Projector, orthogonal
from projunn_lightning.functional import RETRACTIONS, unitarity_error
from tests.support.oracles import along

DTYPES = [torch.float64, torch.complex128]
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def layer(size=6, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return orthogonal(nn.Linear(size, size, bias=False, dtype=dtype), init="haar")


def problem(dtype=torch.float64, size=6, batch=8):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, batch, size, dtype=dtype, generator=generator)
    return x, y


def loss(model, x, y):
    return (model(x) - y).abs().square().sum()


def skew(weight, gradient):
    product = weight.mH @ gradient
    return (product - product.mH) / 2


def moved(retraction, weight, a):
    """``W exp(A)``, or the other retractions of A from the right."""
    return along(retraction, weight.mH, -a).mH


def train(model, steps=5, optimizer="adam", backward=None, **settings):
    """Full-rank steps in skew coordinates; ``backward`` fills the gradients."""
    x, y = problem(next(model.parameters()).dtype)
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    projector = Projector(model, **{"rank": "full", "coordinates": "skew", **settings}).attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (backward or (lambda: loss(model, x, y).backward()))()
        optimizer.step()
    projector.detach()
    return model.get_parameter(next(iter(dict(model.named_parameters())))).detach()


def written_out(model, steps, optimizer, retraction):
    """The optimizer on a free skew matrix at 0, and the weight moved along it by the dense formula."""
    x, y = problem(model.weight.dtype)
    free = nn.Parameter(torch.zeros_like(model.weight))
    optimizer = OPTIMIZERS[optimizer]([free])
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(model, x, y), model.weight)
        free.grad = skew(model.weight.detach(), gradient)
        optimizer.step()
        with torch.no_grad():
            model.weight.copy_(moved(retraction, model.weight, free))
            free.zero_()
    return model.weight.detach()


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_at_full_rank_the_update_is_the_step_of_the_optimizer_on_a_free_skew_matrix(optimizer, dtype, retraction):
    found = train(layer(dtype=dtype), 20, optimizer, retraction=retraction)
    expected = written_out(layer(dtype=dtype), 20, optimizer, retraction)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)
    assert (found - layer(dtype=dtype).weight.detach()).norm() > 0.1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_step_of_sgd_is_a_riemannian_gradient_step(dtype):
    model, (x, y) = layer(dtype=dtype), problem(dtype)
    (gradient,) = torch.autograd.grad(loss(model, x, y), model.weight)
    before = model.weight.detach().clone()
    found = train(model, 1, "sgd")
    expected = moved("exponential", before, -0.05 * skew(before, gradient))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("sampler", ["tangent", "svd"])
def test_at_rank_n_the_sample_is_the_whole_update(sampler):
    whole = train(layer(), 5, "rmsprop")
    sampled = train(layer(), 5, "rmsprop", rank=6, sampler=sampler)
    torch.testing.assert_close(sampled, whole, atol=1e-10, rtol=0)


class TestTheGradientIsRight:
    def test_when_it_is_accumulated_by_micro_batches_of_unequal_size(self):
        model, (x, y) = layer(), problem()

        def backward():
            for part in (slice(0, 2), slice(2, 3), slice(3, 8)):
                loss(model, x[part], y[part]).backward()

        torch.testing.assert_close(train(model, backward=backward), train(layer()))

    def test_when_the_loss_is_scaled_and_the_gradient_unscaled_and_clipped(self):
        def clipped(scale):
            model, (x, y) = layer(), problem()

            def backward():
                (scale * loss(model, x, y)).backward()
                for parameter in model.parameters():
                    parameter.grad /= scale
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)

            return train(model, optimizer="sgd", backward=backward)

        torch.testing.assert_close(clipped(1024.0), clipped(1.0))

    def test_in_a_closure(self):
        model, (x, y) = layer(), problem()
        optimizer = OPTIMIZERS["adam"](model.parameters())
        Projector(model, rank="full", coordinates="skew").attach(optimizer)

        def closure():
            optimizer.zero_grad()
            value = loss(model, x, y)
            value.backward()
            return value

        for _ in range(5):
            optimizer.step(closure)
        torch.testing.assert_close(model.weight.detach(), train(layer()))

    def test_under_gradient_checkpointing(self):
        model, (x, y) = layer(), problem()

        def backward():
            output = checkpoint(model, x.clone().requires_grad_(), use_reentrant=False)
            (output - y).abs().square().sum().backward()

        torch.testing.assert_close(train(model, backward=backward), train(layer()))

    def test_under_compile(self):
        model, (x, y) = layer(), problem()
        compiled = torch.compile(model, backend="aot_eager")
        found = train(model, backward=lambda: loss(compiled, x, y).backward())
        torch.testing.assert_close(found, train(layer()))

    def test_for_a_stack_of_matrices_and_for_small_weights_in_a_batch(self):
        torch.manual_seed(0)
        rnn = orthogonal(nn.LSTM(4, 4, dtype=torch.float64), "weight_hh_l0", init="haar", chunks=4)
        x = torch.randn(3, 2, 4, dtype=torch.float64)
        optimizer = OPTIMIZERS["adam"](rnn.parameters())
        Projector(rnn, rank=2, sampler="tangent", coordinates="skew", feedback=0.5).attach(optimizer)
        rnn(x)[0].square().sum().backward()
        for block in rnn.weight_hh_l0.grad.view(4, 4, 4):
            torch.testing.assert_close(block, -block.mT)
        optimizer.step()
        assert unitarity_error(rnn.weight_hh_l0.detach().view(4, 4, 4)).max() < 1e-12


def test_detach_removes_the_hook():
    model, (x, y) = layer(), problem()
    train(model)
    model.weight.grad = None
    loss(model, x, y).backward()
    assert (model.weight.grad + model.weight.grad.mT).norm() > 0.1


def test_a_weight_that_is_unfrozen_later_gets_the_hook():
    model, (x, y) = layer(), problem()
    model.weight.requires_grad_(False)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    Projector(model, rank="full", coordinates="skew").attach(optimizer)
    optimizer.step()
    model.weight.requires_grad_()
    optimizer.step()
    loss(model, x, y).backward()
    torch.testing.assert_close(model.weight.grad, -model.weight.grad.mT)


@pytest.mark.parametrize(
    ("module", "optimizer", "message"),
    [
        (lambda: nn.Linear(4, 5), lambda p: torch.optim.SGD(p, 0.1), r"are for square matrices, and weight is 5 x 4"),
        (lambda: nn.Linear(4, 4), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1), r"weight_decay=0.1 on weight"),
        (lambda: nn.Linear(4, 4), lambda p: torch.optim.LBFGS(p), "LBFGS evaluates its closure at several weights"),
    ],
    ids=["rectangular", "weight decay", "LBFGS"],
)
def test_unsupported_weights_and_optimizers_are_refused(module, optimizer, message):
    model = module()
    with pytest.raises(ConstraintError, match=message), contextlib.ExitStack():
        Projector(model, "weight", coordinates="skew").attach(optimizer(model.parameters()))
