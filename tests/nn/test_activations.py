import pytest
import torch

from projunn_lightning.nn import ACTIVATIONS, Abs, GroupSort


@pytest.mark.parametrize("activation", ACTIVATIONS.values())
def test_every_activation_is_1_lipschitz(activation):
    x, y = torch.randn(2, 500, 6, 3, 3, dtype=torch.float64).unbind()
    distances = (activation()(x) - activation()(y)).flatten(1).norm(dim=1)
    assert (distances <= (x - y).flatten(1).norm(dim=1) + 1e-12).all()


@pytest.mark.parametrize("activation", [GroupSort, Abs])
def test_group_sort_and_abs_keep_the_norm_of_the_input_and_of_the_gradient(activation):
    x = torch.randn(2, 6, 3, 3, requires_grad=True)
    output = activation()(x)
    torch.testing.assert_close(output.norm(), x.norm())
    grad = torch.randn_like(output)
    (back,) = torch.autograd.grad(output, x, grad)
    torch.testing.assert_close(back.norm(), grad.norm())


def test_group_sort_sorts_each_channel_with_the_channel_half_of_all_channels_away():
    x = torch.randn(2, 6, 3)
    output = GroupSort()(x)
    assert torch.equal(output[:, :3], torch.maximum(x[:, :3], x[:, 3:]))
    assert torch.equal(output[:, 3:], torch.minimum(x[:, :3], x[:, 3:]))


def test_group_sort_refuses_an_odd_number_of_channels():
    with pytest.raises(ValueError, match="needs an even number, found 3"):
        GroupSort()(torch.zeros(1, 3, 2, 2))
