import copy
from itertools import product

import pytest
import torch
from torch import nn

from projunn_lightning import Projector
from projunn_lightning.constraint import declared
from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import init, unitarity_error
from projunn_lightning.nn import OrthogonalConv2d, OrthogonalConvTranspose2d
from tests.support.local_convolutions import KINDS, SIZE, images, made, operator, smaller_than_the_kernel, train

INVERTIBLE = [kind for kind, ((i, o, _), _) in KINDS.items() if o == i * made(OrthogonalConv2d, kind).stride[0] ** 2]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
both_paddings = pytest.mark.parametrize("padding_mode", ["circular", "zeros"])


def adjoint_of(layer):
    """The transposed layer, made by itself, with copies of the parameters of a layer."""
    adjoint = OrthogonalConvTranspose2d(
        layer.out_channels,
        layer.in_channels,
        layer.kernel_size,
        layer.stride,
        padding_mode=layer.padding_mode,
        groups=layer.groups,
        bias=False,
        dtype=layer.weight.dtype,
    )
    adjoint.load_state_dict({name: value for name, value in layer.state_dict().items() if name != "bias"})
    return adjoint


def same_inner_products(layer, adjoint, size):
    """Check that ``<L x, y> = <x, L^H y>`` for random x and y, where L is the layer without its bias."""
    x = images(layer, 1, size)[0]
    y = torch.randn_like(layer(x))
    moved = layer(x) - layer(torch.zeros_like(x))
    assert adjoint(y).shape == x.shape
    torch.testing.assert_close(torch.vdot(moved.flatten(), y.flatten()), torch.vdot(x.flatten(), adjoint(y).flatten()))


class TestAdjoint:
    @every_kind
    @both_paddings
    @every_dtype
    def test_has_the_same_inner_products_as_the_layer(self, kind, padding_mode, dtype):
        layer = made(OrthogonalConv2d, kind, padding_mode=padding_mode, dtype=dtype)
        for adjoint in (layer.transpose(), adjoint_of(layer)):
            for size in (SIZE, (4, 4), (12, 10)):
                same_inner_products(layer, adjoint, size)

    @pytest.mark.parametrize("stride", [1, 2, 3, (1, 2), (3, 1)], ids=str)
    @both_paddings
    def test_of_each_combination_of_kernel_and_stride(self, stride, padding_mode):
        steps = (stride, stride) if isinstance(stride, int) else stride
        for kernel_size in product(range(steps[0], 7), range(steps[1], 7)):
            layer = OrthogonalConv2d(2, 3, kernel_size, stride, padding_mode=padding_mode, dtype=torch.float64)
            same_inner_products(layer, layer.transpose(), (6, 6))

    @smaller_than_the_kernel
    def test_on_images_smaller_than_the_kernel(self, kernel_size, stride, size):
        layer = OrthogonalConv2d(2, 3, kernel_size, stride, dtype=torch.float64)
        same_inner_products(layer, layer.transpose(), size)

    @every_kind
    @every_dtype
    def test_is_the_conjugate_transpose_of_the_matrix(self, kind, dtype):
        layer = made(OrthogonalConv2d, kind, dtype=dtype)
        torch.testing.assert_close(operator(layer.transpose(), (4, 4)), operator(layer, (4, 4)).mH)

    @pytest.mark.parametrize("kind", INVERTIBLE)
    @every_dtype
    def test_is_the_inverse_if_no_channels_are_lost(self, kind, dtype):
        layer = made(OrthogonalConv2d, kind, dtype=dtype)
        layer.bias = None
        adjoint, x = layer.transpose(), images(layer)
        y = layer(x)
        torch.testing.assert_close(adjoint(y), x)
        torch.testing.assert_close(layer(adjoint(y)), y)

    def test_comes_from_torchs_transposed_convolution_with_the_same_kernel(self):
        layer = OrthogonalConvTranspose2d(6, 4, 2, stride=2, groups=2)
        torchs = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
        torchs.load_state_dict({"weight": layer.kernel(), "bias": layer.bias})
        x = images(layer)
        torch.testing.assert_close(layer(x), torchs(x))


class TestTranspose:
    @every_kind
    def test_shares_the_parameters_and_the_options(self, kind):
        layer = made(OrthogonalConv2d, kind, padding_mode="zeros").eval()
        adjoint = layer.transpose()
        assert adjoint.weight is layer.weight
        assert adjoint.bases is layer.bases
        assert adjoint.bias is None
        assert not adjoint.training
        assert declared(adjoint) == declared(layer)
        for name in ("kernel_size", "stride", "groups", "padding_mode", "init"):
            assert getattr(adjoint, name) == getattr(layer, name)

    def test_follows_the_layer_and_stays_its_inverse_in_training(self):
        layer = OrthogonalConv2d(2, 8, 4, stride=2, bias=False)
        adjoint, x = layer.transpose(), images(layer)
        before = layer(x)
        train(layer)
        assert (layer(x) - before).abs().max() > 0.01
        torch.testing.assert_close(adjoint(layer(x)), x, rtol=0, atol=1e-4)

    def test_is_trained_together_with_the_layer(self):
        layer = OrthogonalConv2d(2, 8, 4, stride=2)
        model = nn.Sequential(layer, nn.ReLU(), layer.transpose())
        optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
        projector = Projector(model).attach(optimizer)
        assert set(projector.unitarity_errors()) == {"0.weight", "0.bases"}
        for _ in range(50):
            x = images(layer)
            optimizer.zero_grad()
            (model(x) - x).square().mean().backward()
            optimizer.step()
        assert max(projector.unitarity_errors().values()) < 1e-5
        assert model[2].weight is layer.weight
        other = copy.deepcopy(model)
        assert other[2].weight is other[0].weight is not layer.weight

    def test_in_evaluation_it_keeps_a_kernel_of_its_own(self):
        layer = made(OrthogonalConv2d, "more channels", dtype=torch.complex64).eval()
        adjoint = layer.transpose()
        x = images(adjoint)
        expected = adjoint(x).detach()
        with torch.no_grad():
            layer(images(layer))
            assert torch.equal(adjoint(x), expected)
            init.haar_(layer.weight)
            changed = adjoint(x)
        assert not torch.allclose(changed, expected)
        assert torch.equal(changed, adjoint.train()(x))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_a_transposed_layer_alone_declares_its_constraint_and_training_keeps_it(kind, dtype):
    layer = made(OrthogonalConvTranspose2d, kind, dtype=dtype)
    assert set(declared(layer)) == {"weight", "bases"} - ({"bases"} if layer.bases is None else set())
    start = operator(layer)
    train(layer, steps=20)
    singular = torch.linalg.svdvals(operator(layer))
    assert (singular - 1).abs().max() < 1e-4
    assert unitarity_error(layer.weight.detach().unflatten(0, (layer.groups, -1))).max() < 1e-5
    if dtype.is_complex or kind != "depthwise":  # otherwise its weights are 1 or -1 and cannot move
        assert (operator(layer) - start).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["more channels", "stride, odd", "groups"])
@every_dtype
def test_passes_gradcheck_for_the_input_and_the_parameters(kind, dtype):
    layer = made(OrthogonalConvTranspose2d, kind, dtype=dtype)
    names = [name for name, _ in layer.named_parameters()]
    inputs = [images(layer, 1, (4, 4)), *(parameter.detach() for parameter in layer.parameters())]

    def call(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    for x in inputs:
        x.requires_grad_()
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@both_paddings
@every_dtype
def test_torch_func_gives_the_gradient_of_each_sample(padding_mode, dtype):
    layer = made(OrthogonalConvTranspose2d, "stride, odd", padding_mode=padding_mode, dtype=dtype)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    samples = images(layer, 3)

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,)).abs().pow(3).sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, samples)
    plain = [torch.autograd.grad(loss(dict(layer.named_parameters()), x), list(layer.parameters())) for x in samples]
    torch.testing.assert_close(list(found.values()), [torch.stack(each) for each in zip(*plain, strict=True)])


@both_paddings
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # a warning of torch's tracing
def test_compiles_in_one_piece(padding_mode):
    layer = made(OrthogonalConvTranspose2d, "stride, odd", padding_mode=padding_mode)
    x = images(layer)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = []
    for run in (compiled, layer):
        output = run(x)
        results.append([output, *torch.autograd.grad(output.pow(3).sum(), list(layer.parameters()))])
    torch.testing.assert_close(*results)


@both_paddings
def test_autocast_gives_the_dtype_of_torchs_layers(padding_mode):
    layer = made(OrthogonalConvTranspose2d, "stride, odd", padding_mode=padding_mode)
    x = images(layer)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer(x), rtol=0.02, atol=0.05)


def test_of_one_image_is_that_of_a_batch_of_one():
    layer = made(OrthogonalConvTranspose2d, "stride, odd")
    x = images(layer)
    torch.testing.assert_close(torch.stack([layer(one) for one in x]), layer(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_is_made_on_the_meta_device_and_drawn_by_to_empty_and_reset_parameters(dtype):
    layer = OrthogonalConvTranspose2d(6, 4, 3, groups=2, dtype=dtype, device="meta").to_empty(device="cpu")
    torch.manual_seed(5)
    layer.reset_parameters()
    torch.manual_seed(5)
    twin = OrthogonalConvTranspose2d(6, 4, 3, groups=2, dtype=dtype)
    x = images(layer)
    assert torch.equal(layer(x), twin(x))
    assert declared(layer) == declared(twin) != {}


def test_refuses_half_precision():
    with pytest.raises(ProjUNNError, match="OrthogonalConvTranspose2d cannot compute in half precision"):
        OrthogonalConvTranspose2d(3, 2, 3).half()


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((4, 6, 3), {"groups": 4}, "groups must divide in_channels = 4 and out_channels = 6, found 4"),
        ((2, 3, 2), {"stride": 3}, r"at least the stride = \(3, 3\), found \(2, 2\)"),
        ((2, 3, 3), {"init": "xavier"}, "unknown init 'xavier'"),
        ((2, 3, 3), {"padding_mode": "reflect"}, "unknown padding_mode 'reflect'"),
        ((0, 3, 3), {}, "in_channels must be 1 or more, found 0"),
        ((2, 3, 3), {"dtype": torch.bfloat16}, "half precision"),
    ],
    ids=str,
)
def test_refuses_options_that_cannot_work(args, options, message):
    with pytest.raises(ProjUNNError, match=message):
        OrthogonalConvTranspose2d(*args, **options)


@pytest.mark.parametrize(
    ("input", "message"),
    [
        (torch.zeros(1, 3, 8, 8), r"input must be \(B, 9, H, W\) or \(9, H, W\), found \(1, 3, 8, 8\)"),
        (torch.zeros(8, 8), r"found \(8, 8\)"),
        (
            torch.zeros(1, 9, 1, 8),
            r"the output must be at least half of the kernel = \(8, 8\), found 2 x 16: use",
        ),
        (torch.zeros(1, 9, 4, 4).double(), "dtype of the layer, torch.float32, found torch.float64"),
    ],
    ids=["channels", "dims", "size", "dtype"],
)
def test_refuses_inputs_that_do_not_fit(input, message):
    with pytest.raises(ProjUNNError, match=message):
        OrthogonalConvTranspose2d(9, 2, 8, stride=2)(input)
