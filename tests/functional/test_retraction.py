import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from projunn_lightning.functional import RETRACTIONS, projunn_d, retract, unitarity_error
from tests.support.oracles import (
    DTYPES,
    ORACLES,
    SHAPES,
    batches,
    norms,
    random_update,
    random_weight,
    seeds,
    shapes,
)
from tests.support.toys import registered

every_retraction = pytest.mark.parametrize("retraction", [*RETRACTIONS, "toy"])


@pytest.fixture(autouse=True, scope="module")
def _toy():
    with registered():
        yield


@every_retraction
@pytest.mark.parametrize("rank", [1, 2, 4, 8])
@pytest.mark.parametrize("norm", [0.0, 1e-8, 1e-3, 0.5, 3.0, 10.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_dense_formula(retraction, rank, norm, dtype, shape):
    weight = random_weight(shape, dtype)
    a, b = random_update(shape, dtype, rank, norm)
    new = retract(weight, a, b, retraction)
    torch.testing.assert_close(new, ORACLES[retraction](weight, a @ b.mH), atol=1e-10, rtol=0)
    assert unitarity_error(new).max() < 1e-13


@every_retraction
@given(shape=shapes, batch=batches, norm=norms, complex=st.booleans(), single=st.booleans(), seed=seeds, data=st.data())
def test_stays_unitary_and_keeps_shape_and_dtype(retraction, shape, batch, norm, complex, single, seed, data):
    torch.manual_seed(seed)
    dtype = (
        (torch.complex64 if complex else torch.float32) if single else (torch.complex128 if complex else torch.float64)
    )
    rank = data.draw(st.integers(1, min(shape)))
    weight = random_weight((*batch, *shape), dtype)
    a, b = random_update((*batch, *shape), dtype, rank, norm)
    if retraction == "polar":  # where W + a b^H is singular, its nearest unitary matrix is not unique
        assume(torch.linalg.svdvals(weight + a @ b.mH).min() > 1e-6)
    new = retract(weight, a, b, retraction)
    assert new.shape == weight.shape
    assert new.dtype == dtype
    assert unitarity_error(new).max() < (1e-5 if single else 1e-13)


@every_retraction
@given(shape=shapes, complex=st.booleans(), single=st.booleans(), seed=seeds, data=st.data())
def test_a_zero_update_gives_every_bit_of_the_weight_back(retraction, shape, complex, single, seed, data):
    torch.manual_seed(seed)
    dtype = (
        (torch.complex64 if complex else torch.float32) if single else (torch.complex128 if complex else torch.float64)
    )
    weight = random_weight(shape, dtype)
    rank = data.draw(st.integers(1, min(shape)))
    a, b = random_update(shape, dtype, rank, 0.0)
    assert torch.equal(retract(weight, a, b, retraction), weight)


@every_retraction
@given(
    shape=shapes,
    scale=st.floats(-0.9, 10).filter(lambda s: abs(s) > 1e-8),
    phase=st.floats(0, 3),
    complex=st.booleans(),
    seed=seeds,
    data=st.data(),
)
def test_b_parallel_to_the_pulled_back_update_is_no_special_case(retraction, shape, scale, phase, complex, seed, data):
    """Here W^H a = b z, so that the basis [b, W^H a] has rank k and not 2 k."""
    torch.manual_seed(seed)
    dtype = torch.complex128 if complex else torch.float64
    weight = random_weight(shape, dtype)
    rank = data.draw(st.integers(1, min(shape)))
    z = scale * torch.exp(torch.tensor(1j * phase)).to(dtype) if complex else scale
    if shape[0] >= shape[1]:
        b = random_update(shape, dtype, rank, 1.0)[1]
        a = weight @ b * z
    else:
        a = random_update(shape[::-1], dtype, rank, 1.0)[1]
        b = weight.mH @ a * z
    new = retract(weight, a, b, retraction)
    torch.testing.assert_close(new, ORACLES[retraction](weight, a @ b.mH), atol=1e-10, rtol=0)
    assert unitarity_error(new) < 1e-13


@every_retraction
@pytest.mark.parametrize("norm", [10.0, 1e3, 1e6])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("shape", [(24, 24), (32, 24), (24, 32), (25, 24)], ids=str)
def test_float32_stays_unitary_whatever_the_size_of_the_update(retraction, norm, rank, dtype, shape):
    weight = random_weight((100, *shape), dtype)
    new = retract(weight, *random_update((100, *shape), dtype, rank, norm), retraction)
    assert unitarity_error(new).max() < 2e-6


@pytest.mark.parametrize("distance", [1e-3, 1e-5])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("shape", [(24, 24), (32, 24), (24, 32), (25, 24)], ids=str)
def test_float32_stays_unitary_if_the_update_almost_cancels_the_weight(distance, rank, shape):
    """W + a b^H is nearly singular. If W is tall, only rounding of a lies outside of the span of W."""
    weight = random_weight((100, *shape), torch.float32)
    a, b = random_update((100, *shape), torch.float32, rank, 1.0)
    if shape[0] >= shape[1]:
        a = (distance - 1) * weight @ b
    else:
        a = torch.linalg.qr(a).Q
        b = (distance - 1) * weight.mH @ a
    assert unitarity_error(projunn_d(weight, a, b)).max() < 2e-6


def test_direct_projection_of_a_singular_matrix_is_not_finite_rather_than_wrong():
    weight = torch.eye(3, dtype=torch.float64)
    b = weight[:, :1]
    assert not torch.isfinite(projunn_d(weight, -b, b)).all()


@every_retraction
def test_refuses_factors_of_other_shapes(retraction):
    with pytest.raises(ValueError, match=r"a of shape \(\*, 4, k\) and b of shape \(\*, 3, k\).*found \(3, 1\)"):
        retract(torch.eye(4, 3), torch.zeros(3, 1), torch.zeros(3, 1), retraction)
