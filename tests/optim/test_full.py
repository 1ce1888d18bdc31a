"""The setting rank="full": the whole update by dense algebra."""

import pytest
import torch
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import RETRACTIONS, unitarity_error
from tests.support.oracles import ORACLES, SHAPES


def stack(shape, dtype):
    """A module with one weight of any shape."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.empty(shape, dtype=dtype))
    return orthogonal(module, init="haar")


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_dense_formula_for_the_optimizer_s_update(shape, dtype, retraction):
    module = stack(shape, dtype)
    before = module.weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    Projector(module, rank="full", retraction=retraction, lr_divider=2.0).attach(optimizer)
    module.weight.grad = torch.randn(shape, dtype=dtype)
    optimizer.step()
    expected = ORACLES[retraction](before, -0.05 * module.weight.grad)
    torch.testing.assert_close(module.weight.detach(), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("sampler", ["svd", "tangent"])
def test_rank_n_equals_the_whole_update(sampler):
    found = []
    for rank in (7, "full"):
        torch.manual_seed(0)
        module = stack((7, 7), torch.float64)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        Projector(module, rank=rank, sampler=sampler).attach(optimizer)
        module.weight.grad = torch.randn(7, 7, dtype=torch.float64)
        optimizer.step()
        found.append(module.weight.detach())
    torch.testing.assert_close(*found, atol=1e-10, rtol=0)


@pytest.mark.parametrize("retraction", RETRACTIONS)
def test_an_update_of_a_batch_that_is_not_finite_is_skipped(retraction):
    model = nn.ModuleList([orthogonal(nn.Linear(5, 5)), orthogonal(nn.Linear(5, 5))])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, rank="full", retraction=retraction).attach(optimizer)
    before = [layer.weight.detach().clone() for layer in model]
    model[0].weight.grad, model[1].weight.grad = torch.full((5, 5), torch.inf), torch.ones(5, 5)
    optimizer.step()
    assert torch.equal(model[0].weight, before[0])
    assert not torch.equal(model[1].weight, before[1])
    assert projector.skipped_updates == 1


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("norm", [1e-4, 1.0, 100.0])
def test_stays_unitary_over_many_steps_of_float32(retraction, norm):
    module = stack((24, 24), torch.float32)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    Projector(module, rank="full", retraction=retraction).attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        gradient = torch.randn(24, 24, generator=generator)
        module.weight.grad = norm * gradient / gradient.norm()
        optimizer.step()
        assert unitarity_error(module.weight.detach()) < 1e-5
