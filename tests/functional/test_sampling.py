import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from projunn_lightning.functional import SAMPLERS, rank_k
from tests.support.oracles import batches, seeds, shapes
from tests.support.toys import registered

LOW_RANK = [name for name, sampler in SAMPLERS.items() if not sampler.of_tangent]
every_sampler = pytest.mark.parametrize("sampler", [*LOW_RANK, "toy"])


@pytest.fixture(autouse=True, scope="module")
def _toy():
    with registered():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every_sampler
@given(shape=shapes, batch=batches, complex=st.booleans(), exponent=st.integers(-12, 3), seed=seeds, data=st.data())
def test_b_is_orthonormal_and_a_is_the_best_factor_for_b(sampler, shape, batch, complex, exponent, seed, data):
    torch.manual_seed(seed)
    dtype = torch.complex128 if complex else torch.float64
    update = torch.randn(*batch, *shape, dtype=dtype) * 10.0**exponent
    rank = data.draw(st.integers(1, min(shape)))
    a, b = rank_k(update, rank, sampler, generator=generator(seed))
    assert a.shape == (*batch, shape[0], rank)
    assert b.shape == (*batch, shape[1], rank)
    torch.testing.assert_close(b.mH @ b, torch.eye(rank, dtype=dtype).expand(*batch, rank, rank))
    residual = torch.linalg.matrix_norm(update - a @ b.mH)
    assert (residual <= torch.linalg.matrix_norm(update) * (1 + 1e-12)).all()


@every_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 4, 8])
def test_a_matrix_of_rank_k_is_recovered_exactly(sampler, dtype, rank):
    update = torch.randn(3, 30, rank, dtype=dtype) @ torch.randn(3, rank, 20, dtype=dtype)
    a, b = rank_k(update, rank, sampler, generator=generator())
    torch.testing.assert_close(a @ b.mH, update, rtol=1e-4, atol=1e-4)


@every_sampler
@pytest.mark.parametrize("rank", [1, 3])
def test_zero_gives_zero_and_an_orthonormal_b(sampler, rank):
    a, b = rank_k(torch.zeros(2, 6, 5), rank, sampler)
    assert (a == 0).all()
    torch.testing.assert_close(b.mH @ b, torch.eye(rank).expand(2, rank, rank))


@every_sampler
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rank", [1, 3])
def test_an_update_that_is_not_finite_gives_an_a_that_is_not_finite(sampler, bad, rank):
    update = torch.randn(6, 5)
    update[2, 3] = bad
    a, _ = rank_k(update, rank, sampler, generator=generator())
    assert not torch.isfinite(a).all()


def test_svd_is_the_best_approximation():
    update = torch.randn(9, 7, dtype=torch.float64)
    a, b = rank_k(update, 3, "svd")
    rest = torch.linalg.svdvals(update)[3:].square().sum().sqrt()
    torch.testing.assert_close(torch.linalg.matrix_norm(update - a @ b.mH), rest)


def test_lsi_and_column_are_a_function_of_the_generator():
    update = torch.randn(9, 7)
    for sampler in ("lsi", "column"):
        first, again, other = (rank_k(update, 2, sampler, generator=generator(s))[0] for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_columns_are_drawn_by_squared_length():
    update = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    draws = torch.stack(
        [rank_k(update, 1, "column", generator=generator(s))[1].abs().round()[:, 0] for s in range(4000)]
    )
    torch.testing.assert_close(draws.mean(0), torch.tensor([1.0, 4.0, 9.0]) / 14, atol=0.025, rtol=0)


def test_warm_started_subspace_steps_approach_the_best_rank_k():
    update = torch.randn(40, 30, dtype=torch.float64) @ torch.diag(0.8 ** torch.arange(30.0, dtype=torch.float64))
    best = torch.linalg.matrix_norm(torch.matmul(*_factors(update, "svd")))
    basis = None
    for _ in range(20):
        a, basis = rank_k(update, 4, "subspace", basis=basis, generator=generator())
    assert torch.linalg.matrix_norm(a) > 0.999 * best
    assert torch.equal(rank_k(update, 4, "subspace", basis=basis)[0], rank_k(update, 4, "subspace", basis=basis)[0])


def _factors(update, sampler):
    a, b = rank_k(update, 4, sampler)
    return a, b.mH


@pytest.mark.parametrize("rank", [0, -1, 6])
def test_refuses_a_rank_out_of_range(rank):
    with pytest.raises(ValueError, match=rf"rank must be from 1 to min\(n, p\) = 5 .* found {rank}"):
        rank_k(torch.zeros(7, 5), rank)


def test_refuses_an_unknown_sampler_and_a_basis_of_another_shape():
    with pytest.raises(ValueError, match="unknown sampler 'qr', expected one of lsi, column, subspace, svd"):
        rank_k(torch.zeros(7, 5), 1, "qr")
    with pytest.raises(ValueError, match=r"basis must have shape \(5, 2\), found \(7, 2\)"):
        rank_k(torch.zeros(7, 5), 2, "subspace", basis=torch.zeros(7, 2))
