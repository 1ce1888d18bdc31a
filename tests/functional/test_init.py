import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import INITS, init, unitarity_error
from tests.support.oracles import batches, seeds, shapes


@pytest.mark.parametrize("name", INITS)
@given(
    shape=shapes,
    batch=batches,
    dtype=st.sampled_from([torch.float32, torch.float64, torch.complex64, torch.complex128]),
    seed=seeds,
)
def test_every_init_fills_in_place_on_the_manifold(name, shape, batch, dtype, seed):
    torch.manual_seed(seed)
    tensor = torch.full((*batch, *shape), float("nan"), dtype=dtype)
    assert INITS[name](tensor) is tensor
    assert unitarity_error(tensor).max() < (1e-6 if dtype in (torch.float32, torch.complex64) else 1e-14)


@pytest.mark.parametrize("name", sorted(INITS.keys() - {"identity"}))
def test_random_inits_differ_over_the_batch_and_repeat_with_the_generator(name):
    draw = lambda seed: INITS[name](torch.empty(2, 6, 6), generator=torch.Generator().manual_seed(seed))  # noqa: E731
    assert not torch.equal(*draw(0))
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize("name", ["haar", "haar_so"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_haar_has_the_moments_of_the_haar_measure(name, dtype):
    """E |tr U|^2 = 1 over U(3), O(3) and SO(3). Without the phases of R it is different from 1."""
    traces = INITS[name](torch.empty(20_000, 3, 3, dtype=dtype)).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(traces.abs().square().mean().item() - 1) < 0.05
    assert abs(traces.mean().item()) < 0.05


def phases(matrix):
    return torch.linalg.eigvals(matrix).angle()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_henaff_spreads_the_phases_over_the_circle_and_cayley_over_its_right_half(dtype):
    henaff = phases(init.henaff_(torch.empty(400, 400, dtype=dtype)))
    assert henaff.abs().max() > 0.95 * torch.pi
    assert abs((henaff.abs() > torch.pi / 2).double().mean() - 0.5) < 0.1
    cayley = phases(init.cayley_(torch.empty(400, 400, dtype=dtype)))
    assert cayley.abs().max() <= torch.pi / 2
    assert cayley.min() < -0.45 * torch.pi
    assert cayley.max() > 0.45 * torch.pi


def test_henaff_is_block_diagonal_and_keeps_an_odd_last_entry():
    matrix = init.henaff_(torch.empty(5, 5))
    assert matrix[4, 4] == 1
    assert (matrix[:2, 2:] == 0).all()
    torch.testing.assert_close(matrix[0, 0], matrix[1, 1])
    torch.testing.assert_close(matrix[0, 1], -matrix[1, 0])


def determinants(tensor):
    return torch.linalg.det(tensor).round().tolist()


@pytest.mark.parametrize("name", INITS)
@pytest.mark.parametrize("size", [1, 4, 5])
def test_every_init_but_haar_starts_in_the_component_of_determinant_1(name, size):
    found = determinants(INITS[name](torch.empty(30, size, size)))
    assert set(found) == ({1.0, -1.0} if name == "haar" else {1.0})


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_haar_so_is_haar_where_there_is_one_component(shape, dtype):
    draws = []
    for name in ("haar", "haar_so"):
        generator = torch.Generator().manual_seed(1)
        draws.append(INITS[name](torch.empty(3, *shape, dtype=dtype), generator=generator))
    assert torch.equal(*draws) == (shape[0] != shape[1] or dtype.is_complex)


@pytest.mark.parametrize("name", INITS)
def test_flip_leads_to_the_other_component_and_back(name):
    start = INITS[name](torch.empty(3, 4, 4))
    weight = nn.Parameter(start.clone())
    assert init.flip_(weight) is weight
    assert unitarity_error(weight.detach()).max() < 1e-6
    assert determinants(weight.detach()) == [-d for d in determinants(start)]
    assert torch.equal(init.flip_(weight), start)


@pytest.mark.parametrize("start", ["identity", "haar_so"])
def test_training_keeps_the_determinant(start):
    for flipped in (False, True):
        layer = orthogonal(nn.Linear(4, 4, bias=False), init=start)
        if flipped:
            init.flip_(layer.weight)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        Projector(layer, rank="full").attach(optimizer)
        target = init.flip_(init.identity_(torch.empty(4, 4)))
        for _ in range(200):
            optimizer.zero_grad()
            distance = (layer.weight - target).square().sum()
            distance.backward()
            optimizer.step()
        assert determinants(layer.weight.detach()) == (-1 if flipped else 1)
        assert distance < 1e-3 if flipped else distance > 3.9  # the other component is at least |2|^2 away
