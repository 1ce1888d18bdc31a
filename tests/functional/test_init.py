import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from projunn_lightning.functional import init, unitarity_error
from tests.support.oracles import batches, seeds, shapes

INITS = {"haar": init.haar_, "henaff": init.henaff_, "cayley": init.cayley_, "identity": init.identity_}


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


@pytest.mark.parametrize("name", ["haar", "henaff", "cayley"])
def test_random_inits_differ_over_the_batch_and_repeat_with_the_generator(name):
    draw = lambda seed: INITS[name](torch.empty(2, 6, 6), generator=torch.Generator().manual_seed(seed))  # noqa: E731
    assert not torch.equal(*draw(0))
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_haar_has_the_moments_of_the_haar_measure(dtype):
    """E |tr U|^2 = 1 over the unitary and the orthogonal group. Without the phases of R it is different from 1."""
    traces = init.haar_(torch.empty(20_000, 3, 3, dtype=dtype)).diagonal(dim1=-2, dim2=-1).sum(-1)
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
