import pytest
import torch

from projunn_lightning.nn.baselines.urnn import PhasesReflectionsFourier


def test_is_the_published_product():
    matrix = PhasesReflectionsFourier(6, dtype=torch.complex128)
    fourier = torch.fft.fft(torch.eye(6, dtype=torch.complex128), dim=0) / 6**0.5
    d1, d2, d3 = (torch.polar(torch.ones(6).double(), phases).diag() for phases in matrix.phases)
    r1, r2 = (torch.eye(6) - 2 * torch.outer(v, v.conj()) / v.abs().square().sum() for v in matrix.reflections)
    permute = torch.eye(6, dtype=torch.complex128)[matrix.permutation]
    torch.testing.assert_close(matrix(), d3 @ r2 @ fourier.mH @ d2 @ permute @ r1 @ fourier @ d1)


def test_has_seven_real_parameters_for_each_feature():
    parameters = PhasesReflectionsFourier(10).parameters()
    assert sum(p.numel() * (2 if p.is_complex() else 1) for p in parameters) == 7 * 10


def test_refuses_a_real_dtype():
    with pytest.raises(ValueError, match=r"needs a complex dtype, found torch\.float32"):
        PhasesReflectionsFourier(4, dtype=torch.float32)
