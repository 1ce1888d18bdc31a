import pytest
import torch

from projunn_lightning.functional import (
    estimate_unitarity_error,
    nearest_unitary,
    newton_schulz,
    unitarity_error,
)
from tests.support.oracles import DTYPES, SHAPES, random_weight

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@every_dtype
@every_shape
def test_the_error_is_zero_on_the_manifold_and_p_normalised_off_it(dtype, shape):
    weight = random_weight(shape, dtype)
    assert unitarity_error(weight).shape == shape[:-2]
    assert unitarity_error(weight).max() < 1e-14
    torch.testing.assert_close(unitarity_error(2 * weight), torch.full(shape[:-2], 3.0, dtype=torch.float64))


@every_dtype
@every_shape
def test_nearest_unitary_is_unitary_and_leaves_a_positive_factor(dtype, shape):
    matrix = torch.randn(shape, dtype=dtype)
    nearest = nearest_unitary(matrix)
    assert unitarity_error(nearest).max() < 1e-13
    factor = nearest.mH @ matrix if shape[-2] >= shape[-1] else matrix @ nearest.mH
    torch.testing.assert_close(factor, factor.mH)
    assert torch.linalg.eigvalsh(factor).min() > 0


def test_nearest_unitary_is_exact_to_float32_in_large_matrices():
    assert unitarity_error(nearest_unitary(torch.randn(512, 512))) < 1e-6


@every_dtype
@every_shape
def test_newton_schulz_squares_the_error_towards_the_nearest_unitary(dtype, shape):
    weight = random_weight(shape, dtype)
    drifted = weight + 1e-4 * torch.randn(shape, dtype=dtype)
    corrected = newton_schulz(drifted)
    assert (unitarity_error(corrected) < 2 * unitarity_error(drifted) ** 2).all()
    torch.testing.assert_close(corrected, nearest_unitary(drifted), atol=1e-6, rtol=0)


@every_dtype
@pytest.mark.parametrize("shape", [(200, 200), (300, 200), (200, 300)], ids=str)
def test_the_estimate_is_close_to_the_error(dtype, shape):
    weight = random_weight(shape, dtype) + 1e-4 * torch.randn(shape, dtype=dtype)
    estimates = torch.stack([estimate_unitarity_error(weight) for _ in range(50)])
    torch.testing.assert_close(estimates.square().mean().sqrt(), unitarity_error(weight), rtol=0.05, atol=0)
    assert estimates.std() < 0.2 * unitarity_error(weight)
