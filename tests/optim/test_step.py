import dataclasses

import pytest
import torch
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, unitarity_error
from projunn_lightning.optim import step
from tests.support.toys import registered


@pytest.fixture(autouse=True, scope="module")
def _toy():
    with registered():
        yield


def layers(*shapes, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.ModuleList(
        orthogonal(nn.Linear(p, n, bias=False, dtype=dtype), init="haar" if n >= p else "polar") for n, p in shapes
    )


def trained(model, steps=5, **options):
    """Weights after some steps with given gradients."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, **options).attach(optimizer)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
        optimizer.step()
    return projector, [parameter.detach() for parameter in model.parameters()]


SHAPES = [(6, 6), (6, 6), (7, 4), (6, 6), (4, 7), (7, 4)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("sampler", [*SAMPLERS, "toy"])
@pytest.mark.parametrize("retraction", [*RETRACTIONS, "toy"])
def test_small_weights_get_the_same_values_in_a_batch_as_one_by_one(dtype, rank, sampler, retraction, monkeypatch):
    options = {"rank": rank, "sampler": sampler, "retraction": retraction}
    _, together = trained(layers(*SHAPES, dtype=dtype), **options)
    monkeypatch.setattr(step, "SMALL", 0)
    _, alone = trained(layers(*SHAPES, dtype=dtype), **options)
    torch.testing.assert_close(together, alone)
    assert all(unitarity_error(weight) < 1e-13 for weight in together)


def test_small_weights_are_updated_in_one_call_and_large_weights_one_by_one(monkeypatch):
    def shapes():
        seen = []
        model = layers(*SHAPES)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model).attach(optimizer)
        projector.on_update = lambda names, update, *_: seen.append((len(names), tuple(update.d.shape)))
        optimizer.step()
        return sorted(seen)

    assert shapes() == [(1, (1, 4, 7)), (2, (2, 7, 4)), (3, (3, 6, 6))]
    monkeypatch.setattr(step, "SMALL", 30)
    assert shapes() == [(1, (1, 4, 7)), *[(1, (1, 6, 6))] * 3, (2, (2, 7, 4))]


@pytest.mark.parametrize("sampler", ["lsi", "subspace"])
def test_an_update_of_a_batch_that_is_not_finite_leaves_the_others_alone(sampler):
    outcomes = []
    for bad in (1.0, torch.nan):
        model = layers((6, 6), (6, 6))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model, sampler=sampler).attach(optimizer)
        first, second = model.parameters()
        before = first.detach().clone()
        first.grad, second.grad = torch.full_like(first, bad), torch.ones_like(second)
        optimizer.step()
        outcomes.append(second.detach())
    assert torch.equal(first, before)
    assert torch.equal(*outcomes)
    assert [int(state["skipped"]) for state in projector.state_dict().values()] == [1, 0]


def test_an_interrupt_during_an_update_leaves_all_weights_and_counts_as_before_the_step(monkeypatch):
    model = layers((6, 6), (5, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    first, second = model.parameters()
    first.grad, second.grad = torch.full_like(first, torch.nan), torch.ones_like(second)
    calls = []

    def interrupted_the_second_time(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return RETRACTIONS["exponential"].core(*args)

    interrupted = dataclasses.replace(RETRACTIONS["exponential"], core=interrupted_the_second_time)
    monkeypatch.setitem(RETRACTIONS, "interrupted", interrupted)
    projector = Projector(model, sampler="subspace", retraction="interrupted").attach(optimizer)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    assert all((s["step"], int(s["skipped"]), s["basis"]) == (0, 0, None) for s in projector.state_dict().values())


def test_after_detach_no_weight_is_half_written_by_an_interrupted_step():
    model = layers((6, 6))
    (weight,) = model.parameters()

    class Stopped(torch.optim.SGD):
        def step(self, closure=None):
            weight.data.add_(1)
            raise KeyboardInterrupt

    optimizer = Stopped(model.parameters(), lr=0.1)
    projector = Projector(model).attach(optimizer)
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    projector.detach()
    assert torch.equal(weight, before)
