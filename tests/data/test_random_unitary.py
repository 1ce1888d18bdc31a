"""The task of learning a random unitary matrix."""

import pytest
import torch

from projunn_lightning import ProjUNNError, RandomUnitary, UnitaryMatch
from projunn_lightning.functional import unitarity_error


@pytest.mark.parametrize("complex", [True, False])
def test_pairs_are_normal_vectors_and_their_products_with_the_target(complex):
    data = RandomUnitary(30, complex=complex)
    assert data.target.dtype == (torch.complex64 if complex else torch.float32)
    assert unitarity_error(data.target) < 1e-6
    x, y = data.dataset("train").__getitems__(range(2000))
    assert x.shape == y.shape == (2000, 30)
    torch.testing.assert_close(y, x @ data.target.mT)
    torch.testing.assert_close(x.abs().square().mean(), torch.tensor(1.0), atol=0.03, rtol=0)


def test_a_real_target_has_determinant_1():
    dets = [torch.linalg.det(RandomUnitary(5, complex=False, seed=seed).target) for seed in range(10)]
    torch.testing.assert_close(torch.stack(dets), torch.ones(10))


def test_a_large_real_target_is_orthogonal():
    target = RandomUnitary(512, complex=False).target  # torch.linalg.det is zero for it in float32
    assert unitarity_error(target) < 1e-5
    assert torch.linalg.slogdet(target).sign == 1


def test_the_target_is_not_the_first_matrix_of_a_model_with_the_same_seed():
    data = RandomUnitary(8, seed=0)
    torch.manual_seed(0)
    assert not torch.allclose(UnitaryMatch(8, init="haar").weight, data.target)


def test_the_seed_determines_the_target():
    assert torch.equal(RandomUnitary(8, seed=3).target, RandomUnitary(8, seed=3).target)
    assert not torch.equal(RandomUnitary(8, seed=3).target, RandomUnitary(8, seed=4).target)


def test_the_baseline_is_the_distance_of_unrelated_matrices():
    distances = [
        torch.linalg.matrix_norm(RandomUnitary(8, seed=s).target - RandomUnitary(8, seed=s + 100).target).square()
        for s in range(50)
    ]
    assert abs(torch.stack(distances).mean() - RandomUnitary(8).baseline_loss) < 1.0


def test_refuses_a_size_below_one():
    with pytest.raises(ProjUNNError, match="size must be 1 or more, found 0"):
        RandomUnitary(0)
