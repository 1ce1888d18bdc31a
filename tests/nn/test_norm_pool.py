import torch

from projunn_lightning.nn import NormPool2d


def test_is_the_norm_of_each_window():
    x = torch.randn(2, 3, 6, 4)
    torch.testing.assert_close(NormPool2d()(x), torch.nn.LPPool2d(2, 2)(x))


def test_keeps_the_norm_of_the_image():
    x = torch.randn(2, 3, 6, 4)
    torch.testing.assert_close(NormPool2d()(x).norm(), x.norm())


def test_leaves_out_an_odd_last_row_and_column():
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(NormPool2d()(x), NormPool2d()(x[..., :4, :6]))


def test_has_a_finite_gradient_at_zero():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    NormPool2d()(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
