import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import RETRACTIONS, rotate, sample_tangent, unitarity_error
from tests.support.oracles import DTYPES, SHAPES, along, batches, norms, random_weight, seeds, shapes, tangent_sample

every_retraction = pytest.mark.parametrize("retraction", RETRACTIONS)


def orthonormal(shape, rank, dtype):
    return torch.linalg.qr(torch.randn(*shape[:-2], max(shape[-2:]), rank, dtype=dtype)).Q


def dense(q, s):
    return q @ s @ q.mH


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_dense_projection_of_omega(shape, dtype, rank):
    weight, update, c = random_weight(shape, dtype), torch.randn(shape, dtype=dtype), orthonormal(shape, rank, dtype)
    q, s = sample_tangent(weight, update, rank, basis=c)
    expected = tangent_sample(weight, update, c)
    torch.testing.assert_close(dense(q, s), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(dense(q, s) @ c, expected @ c, atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_basis_spans_a_sketch_of_omega(shape, dtype):
    weight, update = random_weight(shape, dtype), torch.randn(shape, dtype=dtype)
    g = torch.empty(*shape[:-2], max(shape[-2:]), 3, dtype=dtype).normal_(generator=torch.Generator().manual_seed(5))
    tall = (weight, update) if shape[-2] >= shape[-1] else (weight.mH, update.mH)
    x = tall[1] @ tall[0].mH
    c = torch.linalg.qr((x - x.mH) @ g).Q
    q, s = sample_tangent(weight, update, 3, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(dense(q, s), tangent_sample(weight, update, c), atol=1e-10, rtol=0)


@every_retraction
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_rotation_equals_the_dense_formula(shape, dtype, retraction):
    weight, update = random_weight(shape, dtype), torch.randn(shape, dtype=dtype)
    q, s = sample_tangent(weight, update, 3)
    new = rotate(weight, q, s, retraction)
    torch.testing.assert_close(new, along(retraction, weight, dense(q, s)), atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_at_full_rank_the_sample_is_omega(dtype):
    weight, update = random_weight((9, 9), dtype), torch.randn(9, 9, dtype=dtype)
    q, s = sample_tangent(weight, update, 9)
    x = update @ weight.mH
    torch.testing.assert_close(dense(q, s), (x - x.mH) / 2, atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_update_that_is_normal_to_the_manifold_moves_nothing(shape, dtype):
    weight = random_weight(shape, dtype)
    tall = weight if shape[-2] >= shape[-1] else weight.mH
    x = torch.randn(*tall.shape[:-2], tall.shape[-1], tall.shape[-1], dtype=dtype)
    normal = tall @ (x + x.mH)
    update = normal if shape[-2] >= shape[-1] else normal.mH
    q, s = sample_tangent(weight, update, 3)
    assert (rotate(weight, q, s) - weight).abs().max() < 1e-13


@every_retraction
@given(shape=shapes, batch=batches, norm=norms, complex=st.booleans(), single=st.booleans(), seed=seeds, data=st.data())
def test_stays_unitary_whatever_the_update(retraction, shape, batch, norm, complex, single, seed, data):
    torch.manual_seed(seed)
    dtype = torch.complex128 if complex else torch.float64
    dtype = {torch.complex128: torch.complex64, torch.float64: torch.float32}[dtype] if single else dtype
    rank = data.draw(st.integers(1, min(shape)))
    weight = random_weight((*batch, *shape), dtype)
    q, s = sample_tangent(weight, norm * torch.randn(*batch, *shape, dtype=dtype), rank)
    new = rotate(weight, q, s, retraction)
    assert new.dtype == dtype
    assert unitarity_error(new).max() < (1e-5 if single else 1e-13)


@every_retraction
@pytest.mark.parametrize("norm", [1e-8, 1e-4, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_float32_stays_unitary_whatever_the_size_of_the_update(retraction, norm, rank, dtype):
    weight = random_weight((100, 24, 24), dtype)
    q, s = sample_tangent(weight, norm * torch.randn(100, 24, 24, dtype=dtype), rank)
    assert unitarity_error(rotate(weight, q, s, retraction)).max() < 2e-6


def test_a_basis_that_omega_maps_to_itself_is_no_special_case():
    """Omega C is parallel to C for complex updates that multiply each vector by a phase."""
    weight = torch.eye(6, dtype=torch.complex128)
    update = 1j * torch.diag(torch.arange(1.0, 7.0).double())
    c = torch.eye(6, 2, dtype=torch.complex128)
    q, s = sample_tangent(weight, update, 2, basis=c)
    torch.testing.assert_close(dense(q, s), torch.diag(torch.tensor([1j, 2j, 0, 0, 0, 0], dtype=torch.complex128)))


def test_a_zero_update_gives_every_bit_of_the_weight_back():
    weight = random_weight((7, 5), torch.float32)
    for retraction in RETRACTIONS:
        for rank in (1, 3):
            q, s = sample_tangent(weight, torch.zeros(7, 5), rank)
            assert torch.equal(rotate(weight, q, s, retraction), weight)


def test_keeps_the_strong_directions_of_an_update_that_nothing_came_before():
    weight = torch.eye(30, dtype=torch.float64)
    v = torch.linalg.qr(torch.randn(30, 2, dtype=torch.float64)).Q
    x = torch.randn(30, 30, dtype=torch.float64)
    update = 5 * (v[:, :1] @ v[:, 1:].mT - v[:, 1:] @ v[:, :1].mT) + 0.001 * (x - x.mT)
    q, s = sample_tangent(weight, update, 2)
    assert torch.linalg.norm(dense(q, s) - update) < 0.01 * torch.linalg.norm(update)


@given(rank=st.integers(1, 4), seed=seeds)
def test_an_update_of_rank_k_is_kept_whole_at_rank_2_k(rank, seed):
    """Omega has twice the rank of its update, however large the matrix is and whatever the updates before were."""
    torch.manual_seed(seed)
    weight = random_weight((40, 40), torch.float64)
    update = torch.randn(40, rank, dtype=torch.float64) @ torch.randn(rank, 40, dtype=torch.float64)
    q, s = sample_tangent(weight, update, 2 * rank)
    x = update @ weight.mT
    torch.testing.assert_close(dense(q, s), (x - x.mT) / 2, atol=1e-8, rtol=0)


def test_no_direction_is_left_out_for_good():
    """A power iteration on a constant update finds the strongest directions and never looks at the others."""
    weight = torch.eye(6, dtype=torch.float64)
    x = torch.randn(6, 6, dtype=torch.float64)
    covered = torch.zeros(6, 6, dtype=torch.float64)
    for _ in range(30):
        q, s = sample_tangent(weight, x, 1)
        covered += dense(q, s) @ dense(q, s).mT
    assert torch.linalg.eigvalsh(covered).min() > 0.01


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ProjUNNError, match=r"must have the same shape and the basis \(5, 1\), found \(5, 4\)"):
        sample_tangent(torch.eye(5, 4), torch.zeros(5, 4), 1, basis=torch.zeros(4, 1))
    with pytest.raises(ProjUNNError, match=r"rank must be from 1 to min\(n, p\) = 4"):
        sample_tangent(torch.eye(5, 4), torch.zeros(5, 4), 5)
