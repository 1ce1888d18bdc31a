"""What every kind of matrices computes in the same way."""

import pytest
import torch

from projunn_lightning.linalg import matrices_of


class TestSpectralNorms:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
    def test_of_random_matrices(self, dtype):
        x = torch.randn(5, 2, 8, 6, dtype=dtype)
        exact = torch.linalg.svdvals(x).amax((1, 2))
        estimates = matrices_of(x).spectral_norms()
        assert (estimates <= exact * (1 + 1e-5)).all()
        assert (estimates > 0.9 * exact).all()

    def test_of_matrices_one_of_which_is_zero(self):
        x = torch.stack([2 * torch.eye(3), torch.zeros(3, 3)])
        torch.testing.assert_close(matrices_of(x[None]).spectral_norms(), torch.tensor([2.0]))
        torch.testing.assert_close(matrices_of(x).spectral_norms(), torch.tensor([2.0, 0.0]))
