import pytest
import torch
import torch.nn.functional as F

from projunn_lightning.functional import circular_pad, circular_unpad

PADS = [(1, 1, 1, 1), (0, 2, 1, 0), (4, 4, 3, 3), (0, 0, 0, 0)]
every_pad = pytest.mark.parametrize("pad", PADS, ids=str)


def images(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@every_pad
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("batch", [(2,), ()], ids=["batch", "one image"])
def test_padding_has_the_values_and_gradients_of_torch(pad, dtype, batch):
    x = images(*batch, 2, 3, 4, dtype=dtype)
    ours, torchs = circular_pad(x, pad), F.pad(x, pad, mode="circular")
    assert torch.equal(ours, torchs)
    grad = torch.randn_like(ours)
    (first,), (second,) = torch.autograd.grad(ours, x, grad), torch.autograd.grad(torchs, x, grad)
    torch.testing.assert_close(first, second)


@every_pad
def test_unpadding_is_the_adjoint(pad):
    x = images(2, 2, 3, 4)
    y = torch.randn_like(circular_pad(x, pad))
    torch.testing.assert_close((circular_pad(x, pad) * y).sum(), (x * circular_unpad(y, pad)).sum())


@every_pad
def test_have_first_and_second_derivatives(pad):
    x = images(1, 2, 3, 4)
    y = images(*circular_pad(x, pad).shape)
    for function, argument in ((circular_pad, x), (circular_unpad, y)):
        assert torch.autograd.gradcheck(lambda z, f=function: f(z, pad), argument)
        assert torch.autograd.gradgradcheck(lambda z, f=function: f(z, pad).pow(3), argument)


def test_work_with_torch_func_and_torch_compile():
    x, pad = images(3, 2, 3, 4), (1, 0, 2, 1)
    for function, argument in ((circular_pad, x), (circular_unpad, circular_pad(x, pad).detach())):
        expected = function(argument, pad)
        assert torch.equal(torch.vmap(lambda z, f=function: f(z, pad))(argument), expected)
        compiled = torch.compile(lambda z, f=function: f(z, pad), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(argument), expected)
