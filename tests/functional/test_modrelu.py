import torch

from projunn_lightning.functional import modrelu


def test_changes_the_modulus_and_keeps_the_phase():
    z = torch.randn(100, dtype=torch.complex128)
    bias = torch.randn(100, dtype=torch.float64)
    out = modrelu(z, bias)
    torch.testing.assert_close(out.abs(), (z.abs() + bias).clamp_min(0))
    alive = out.abs() > 0
    torch.testing.assert_close(out[alive].angle(), z[alive].angle())


def test_is_soft_thresholding_for_real_numbers():
    x = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(modrelu(x, torch.tensor(-0.5)), torch.nn.functional.softshrink(x, 0.5))


def test_zero_stays_zero_with_finite_gradients():
    for dtype in (torch.float64, torch.complex128):
        z = torch.zeros(3, dtype=dtype, requires_grad=True)
        bias = torch.ones(3, dtype=torch.float64, requires_grad=True)
        modrelu(z, bias).abs().sum().backward()
        assert (modrelu(z, bias) == 0).all()
        assert torch.isfinite(z.grad).all()
        assert torch.isfinite(bias.grad).all()


def test_gradcheck():
    for dtype in (torch.float64, torch.complex128):
        z = torch.randn(4, 5, dtype=dtype, requires_grad=True)
        bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(modrelu, (z, bias))
