import copy

import pytest
import torch

from projunn_lightning import Projector
from projunn_lightning.constraint import declared
from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import FourierConv2d

SIZES = [(4, 4), (5, 5), (4, 5), (5, 4), (6, 3), (1, 1), (2, 2), (1, 4), (3, 1), (2, 5)]
CHANNELS = [(1, 1), (3, 3), (4, 4), (1, 3), (3, 4)]
# The default run has each size with one pair of channels; the slow run has all combinations.
PAIRED = [
    pytest.param(
        size, channels, marks=() if (i - j) % len(CHANNELS) == 0 else pytest.mark.slow, id=f"{size}-{channels}"
    )
    for i, size in enumerate(SIZES)
    for j, channels in enumerate(CHANNELS)
]


def operator(layer):
    """The layer as a matrix, computed from the image of every unit vector."""
    dtype = layer.weight.dtype if layer.is_complex else layer.weight_real.dtype
    inputs = layer.in_channels * layer.size[0] * layer.size[1]
    units = torch.eye(inputs, dtype=dtype).view(inputs, layer.in_channels, *layer.size)
    zero = layer(torch.zeros_like(units[:1]))
    return (layer(units) - zero).flatten(1).mT


def train(layer, steps=200, **options):
    optimizer = torch.optim.RMSprop(layer.parameters(), lr=1e-2)
    Projector(layer, **options).attach(optimizer)
    dtype = layer.weight.dtype if layer.is_complex else layer.weight_real.dtype
    for _ in range(steps):
        x = torch.randn(4, layer.in_channels, *layer.size, dtype=dtype)
        optimizer.zero_grad()
        (layer(x) - x.roll(1, -1).mean(1, keepdim=True)).abs().square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(("size", "channels"), PAIRED)
def test_the_real_operator_stays_orthogonal_through_200_steps(size, channels):
    layer = FourierConv2d(*channels, size)
    start = operator(layer).detach()
    train(layer)
    singular = torch.linalg.svdvals(operator(layer))
    assert len(singular) == channels[0] * size[0] * size[1]
    assert (singular - 1).abs().max() < 1e-4
    if layer.weight is not None or channels[1] > 1:  # otherwise every matrix is 1 or -1 and cannot move
        assert (operator(layer) - start).abs().max() > 0.01


@pytest.mark.parametrize("retraction", ["polar", "cayley"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_the_operator_stays_orthogonal_with_other_retractions_and_complex_images(retraction, dtype):
    layer = FourierConv2d(2, 3, (5, 4), dtype=dtype)
    train(layer, steps=50, retraction=retraction)
    assert (torch.linalg.svdvals(operator(layer)) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("init", ["haar", "identity"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_the_output_is_the_circular_convolution_with_the_kernel(size, init, dtype):
    layer = FourierConv2d(2, 3, size, init=init, dtype=dtype)
    torch.nn.init.normal_(layer.bias)
    kernel = layer.kernel()
    assert kernel.shape == (3, 2, *size)
    assert kernel.dtype == dtype
    x = torch.randn(2, 2, *size, dtype=dtype)
    expected = layer.bias[:, None, None].expand(2, 3, *size)
    for i in range(size[0]):
        for j in range(size[1]):
            expected = expected + torch.einsum("oc,bchw->bohw", kernel[:, :, i, j], x.roll((i, j), (2, 3)))
    torch.testing.assert_close(layer(x), expected)


def test_the_identity_returns_its_input_and_adds_channels_of_zeros():
    x = torch.randn(2, 3, 6, 5)
    lifted = FourierConv2d(3, 4, (6, 5), init="identity")(x)
    torch.testing.assert_close(lifted, torch.cat([x, torch.zeros(2, 1, 6, 5)], dim=1))


def test_haar_draws_both_signs_of_the_determinant_at_the_self_conjugate_frequencies():
    stacks = torch.cat([FourierConv2d(3, 3, 4).weight_real for _ in range(50)])
    signs = torch.linalg.det(stacks).sign()
    assert set(signs.round().tolist()) == {-1.0, 1.0}
    assert unitarity_error(stacks).max() < 1e-6


def test_the_stride_takes_every_second_row_and_column():
    layer = FourierConv2d(2, 2, (5, 6), stride=2)
    whole = copy.deepcopy(layer)
    whole.stride = 1
    x = torch.randn(3, 2, 5, 6)
    assert layer(x).shape == (3, 2, 3, 3)
    torch.testing.assert_close(layer(x), whole(x)[..., ::2, ::2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("support", [1, 3, (3, 2), (1, 5)], ids=str)
def test_the_locality_penalty_is_the_energy_outside_the_window(dtype, support):
    layer = FourierConv2d(2, 3, (6, 5), dtype=dtype)
    rows, columns = (support, support) if isinstance(support, int) else support
    centred = layer.kernel().abs().square().roll((2, 2), (2, 3))  # moves entry (0, 0) to (2, 2)
    top, left = 2 - (rows - 1) // 2, 2 - (columns - 1) // 2
    inside = centred[:, :, top : top + rows, left : left + columns].sum()
    torch.testing.assert_close(layer.locality_penalty(support), centred.sum() - inside)
    layer.locality_penalty(support).backward()
    assert layer.weight.grad.abs().max() > 0


def test_training_on_the_penalty_makes_the_kernel_local():
    layer = FourierConv2d(2, 2, (6, 6), bias=False)
    optimizer = torch.optim.RMSprop(layer.parameters(), lr=1e-2)
    Projector(layer).attach(optimizer)
    before = layer.locality_penalty().item()
    for _ in range(300):
        optimizer.zero_grad()
        layer.locality_penalty().backward()
        optimizer.step()
    assert layer.locality_penalty().item() < 0.5 * before
    assert (torch.linalg.svdvals(operator(layer)) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_passes_gradcheck(dtype):
    layer = FourierConv2d(2, 2, (3, 4), dtype=dtype)
    assert torch.autograd.gradcheck(layer, torch.randn(2, 2, 3, 4, dtype=dtype, requires_grad=True))


def test_double_converts_complex_parameters():
    layer = FourierConv2d(2, 3, (5, 4)).double()
    assert layer.weight.dtype == torch.complex128
    assert layer(torch.randn(1, 2, 5, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((4, 3, 8), {}, "out_channels must be at least in_channels = 4, found 3"),
        ((0, 3, 8), {}, "in_channels must be 1 or more, found 0"),
        ((1, 3, (8, 0)), {}, "size must be 1 or more, found 0"),
        ((1, 3, 8), {"stride": 0}, "stride must be 1 or more, found 0"),
        ((1, 3, 8), {"init": "xavier"}, "unknown init 'xavier'"),
        ((1, 3, 8), {"dtype": torch.float16}, "half precision"),
    ],
    ids=str,
)
def test_refuses_options_that_cannot_work(args, options, message):
    with pytest.raises(ValueError, match=message):
        FourierConv2d(*args, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_is_made_on_the_meta_device_and_drawn_by_to_empty_and_reset_parameters(dtype):
    layer = FourierConv2d(2, 3, (5, 4), dtype=dtype, device="meta")
    assert all(parameter.is_meta for parameter in layer.parameters())
    layer.to_empty(device="cpu")
    torch.manual_seed(5)
    layer.reset_parameters()
    torch.manual_seed(5)
    twin = FourierConv2d(2, 3, (5, 4), dtype=dtype)
    x = torch.randn(1, 2, 5, 4)
    assert torch.equal(layer(x), twin(x))
    assert declared(layer) == declared(twin) != {}


@pytest.mark.usefixtures("double_by_default")
def test_has_the_default_dtype():
    layer = FourierConv2d(2, 3, (5, 4))
    assert (layer.weight.dtype, layer.weight_real.dtype, layer.bias.dtype) == (torch.complex128, *2 * [torch.float64])
    assert layer(torch.randn(1, 2, 5, 4)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_refuses_half_precision_and_is_unchanged_then(dtype):
    layer = FourierConv2d(2, 3, (5, 4), dtype=dtype)
    x = torch.randn(1, 2, 5, 4)
    expected = layer(x)
    for convert in (layer.half, layer.bfloat16):
        with pytest.raises(ProjUNNError, match="FourierConv2d cannot compute in half precision, found torch"):
            convert()
    assert torch.equal(layer(x), expected)


def test_to_another_precision_keeps_the_imaginary_parts():
    """torch drops them in ``to(torch.float64)``."""
    layer = FourierConv2d(2, 3, (5, 4))
    weight = layer.weight.detach().clone()
    assert torch.equal(layer.to(torch.float64).weight.detach(), weight.to(torch.complex128))


def test_haar_so_draws_the_determinant_1_at_the_self_conjugate_frequencies():
    stacks = torch.cat([FourierConv2d(3, 3, 4, init="haar_so").weight_real for _ in range(10)])
    torch.testing.assert_close(torch.linalg.det(stacks), torch.ones(40))


def test_refuses_an_input_of_another_size_and_names_both():
    with pytest.raises(ValueError, match=r"\(B, 1, 8, 6\), the size .* found \(2, 1, 8, 8\)"):
        FourierConv2d(1, 3, (8, 6))(torch.zeros(2, 1, 8, 8))
