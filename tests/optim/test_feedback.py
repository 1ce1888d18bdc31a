import copy

import pytest
import torch
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, init, rank_k, rotate, sample_tangent, unitarity_error
from projunn_lightning.functional.sampling import tangent

SHAPES = [(6, 6), (8, 5), (5, 8)]


def layer(shape, dtype=torch.float64):
    n, p = shape
    return orthogonal(nn.Linear(p, n, bias=False, dtype=dtype), init="haar")


def gradients(shape, dtype, count):
    return torch.randn(count, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def run(model, grads, **settings):
    return run_on(Projector(model, **settings), model, grads)


def run_on(projector, model, grads):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector.attach(optimizer)
    for gradient in grads:
        model.weight.grad = gradient.clone()
        optimizer.step()
    return projector


def residual(projector):
    (state,) = projector.state_dict().values()
    return state["residual"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_tangent_sampler_with_feedback_equals_the_formula_of_the_method(shape, dtype, monkeypatch):
    model, grads = layer(shape, dtype), gradients(shape, dtype, 5)
    w, e = model.weight.detach().clone(), torch.zeros(shape, dtype=dtype)
    projector = Projector(model, rank=2, sampler="tangent", feedback=0.7, lr_divider=3.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector.attach(optimizer)
    for gradient in grads:
        g = torch.randn(max(shape), 2, dtype=dtype)
        monkeypatch.setattr(tangent, "gaussian", lambda update, *_, g=g: g.expand(*update.shape[:-2], *g.shape))
        model.weight.grad = gradient.clone()
        optimizer.step()
        m = 0.7 * e - 0.1 * gradient
        q, s = sample_tangent(w, m, 2)
        a = q @ s @ q.mH
        e = m - (a @ w if shape[0] >= shape[1] else (a @ w.mH).mH)
        w = rotate(w, q, s / 3.0)
        torch.testing.assert_close(model.weight.detach(), w, atol=1e-12, rtol=0)
        torch.testing.assert_close(residual(projector), e, atol=1e-12, rtol=0)


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_residual_is_the_update_minus_the_first_order_change_of_the_weight(shape, retraction):
    model, (gradient,) = layer(shape), gradients(shape, torch.float64, 1)
    before = model.weight.detach().clone()
    projector = run(model, [1e-4 * gradient], rank=2, sampler="svd", feedback=0.5, retraction=retraction)
    moved = model.weight.detach() - before
    update = -1e-5 * gradient
    torch.testing.assert_close(residual(projector), update - moved, atol=1e-8, rtol=0)
    assert moved.norm() > 1e-6
    a, b = rank_k(update, 2, "svd")
    assert (residual(projector) - (update - a @ b.mH)).norm() > 1e-6  # a b^H is not the change of the weight


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_feedback_there_is_no_residual_and_no_bit_changes(sampler):
    model = layer((6, 6), torch.float32)
    models = [model, copy.deepcopy(model)]
    grads = gradients((6, 6), torch.float32, 5)
    plain = run(models[0], grads, rank=2, sampler=sampler)
    zero = run(models[1], grads, rank=2, sampler=sampler, feedback=0.0)
    assert torch.equal(*(model.weight for model in models))
    assert residual(plain) is None
    assert residual(zero) is None


@pytest.mark.parametrize("sampler", ["tangent", "lsi"])
def test_an_update_that_is_not_finite_leaves_the_residual_untouched(sampler):
    model, grads = layer((6, 6)), gradients((6, 6), torch.float64, 3)
    projector = run(model, grads, rank=1, sampler=sampler, feedback=0.5)
    before, weight = residual(projector).clone(), model.weight.detach().clone()
    assert before.norm() > 0
    projector.detach()
    run_on(projector, model, [torch.full_like(weight, torch.nan)])
    assert torch.equal(residual(projector), before)
    assert torch.equal(model.weight, weight)
    assert projector.skipped_updates == 1


def test_a_checkpoint_restores_every_bit_of_the_residual():
    settings = {"rank": 1, "sampler": "tangent", "feedback": 0.8}
    dtype = torch.complex128
    model, grads = layer((6, 6), dtype), gradients((6, 6), dtype, 8)
    unbroken = run(model, grads[:4], **settings)
    saved, weights = copy.deepcopy(unbroken.state_dict()), copy.deepcopy(model.state_dict())
    assert saved["weight"]["residual"].dtype == dtype
    unbroken.detach()
    run_on(unbroken, model, grads[4:])
    resumed = layer((6, 6), dtype)
    resumed.load_state_dict(weights)
    projector = Projector(resumed, **settings)
    projector.load_state_dict(saved)
    run_on(projector, resumed, grads[4:])
    assert torch.equal(resumed.weight, model.weight)
    assert torch.equal(residual(projector), residual(unbroken))


@pytest.mark.parametrize("values", ["unitary", "any"])
def test_loading_a_weight_during_training_clears_its_residual(values):
    model, grads = layer((6, 6)), gradients((6, 6), torch.float64, 3)
    projector = Projector(model, rank=1, sampler="tangent", feedback=0.5)
    run_on(projector, model, grads)
    assert residual(projector).norm() > 0
    loaded = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q * (1 if values == "unitary" else 2)
    model.load_state_dict({"weight": loaded})
    (attachment,) = projector._attachments
    model.weight.grad = torch.zeros_like(model.weight)
    if values == "any":
        with pytest.warns(UserWarning, match="weight has unitarity error .* moved to the nearest unitary matrix"):
            attachment.optimizer.step()
    else:
        attachment.optimizer.step()
    assert residual(projector).norm() == 0
    assert unitarity_error(model.weight.detach()) < 1e-12


def test_moving_a_weight_to_the_nearest_unitary_matrix_clears_its_residual():
    model, grads = layer((6, 6)), gradients((6, 6), torch.float64, 3)
    projector = run(model, grads, rank=1, sampler="tangent", feedback=0.5)
    assert residual(projector).norm() > 0
    nn.init.normal_(model.weight)
    with pytest.warns(UserWarning, match="moved to the nearest unitary matrix"):
        projector.recheck()
    assert residual(projector).norm() == 0
    assert unitarity_error(model.weight) < 1e-12


def test_small_weights_in_a_batch_have_their_own_residuals(monkeypatch):
    from projunn_lightning.optim import step

    def trained():
        torch.manual_seed(0)
        model = nn.ModuleList([layer((6, 6)), layer((6, 6)), layer((8, 5))])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model, rank=2, sampler="tangent", feedback=0.6).attach(optimizer)
        generator = torch.Generator().manual_seed(2)
        for _ in range(4):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
            optimizer.step()
        return [*model.parameters()], [state["residual"] for state in projector.state_dict().values()]

    together = trained()
    monkeypatch.setattr(step, "SMALL", 0)
    torch.testing.assert_close(together, trained())


def test_feedback_brings_rmsprop_closer_to_a_rotation_at_rank_one():
    torch.manual_seed(0)
    x = torch.randn(32, 32, dtype=torch.float64)
    target = torch.matrix_exp((x - x.mT) / 12)

    def distance(feedback, lr):
        model = nn.Linear(32, 32, bias=False, dtype=torch.float64)
        init.identity_(model.weight.data)
        optimizer = torch.optim.RMSprop(model.parameters(), lr=lr)
        Projector(model, "weight", rank=1, sampler="tangent", feedback=feedback).attach(optimizer)
        for _ in range(150):
            optimizer.zero_grad()
            (model.weight - target).square().sum().backward()
            optimizer.step()
        return float((model.weight.detach() - target).norm())

    rates = (3e-3, 1e-2, 3e-2)
    assert min(distance(0.9, lr) for lr in rates) < 0.6 * min(distance(0.0, lr) for lr in rates)
