import copy
import pickle
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import projunn_lightning.nn._local_kernel as local_kernel
from projunn_lightning.constraint import declared
from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import RETRACTIONS, unitarity_error
from projunn_lightning.nn import OrthogonalConv2d
from tests.support.local_convolutions import KINDS, SIZE, images, made, operator, smaller_than_the_kernel, train

CHANNELS = [(2, 4), (4, 2), (3, 3), (1, 5), (8, 2)]
KERNELS = [(size, stride) for stride in (1, 2) for size in range(stride, 6)]
# The default run has each kernel with one pair of channels; the slow run has all combinations.
PAIRED = [
    pytest.param(
        *kernel,
        channels,
        marks=() if (i - j) % len(CHANNELS) == 0 else pytest.mark.slow,
        id=f"{kernel[0]}-{kernel[1]}-{channels}",
    )
    for i, kernel in enumerate(KERNELS)
    for j, channels in enumerate(CHANNELS)
]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
both_paddings = pytest.mark.parametrize("padding_mode", ["circular", "zeros"])


def written_out(layer, x):
    """The output of a layer with circular padding, as a sum of the image moved by each tap."""
    (height, width), (rows, columns) = layer.kernel_size, layer.stride
    above, left = ((k - 1) // 2 if s == 1 else (k - s + 1) // 2 for k, s in ((height, rows), (width, columns)))
    kernel = layer.kernel().unflatten(0, (layer.groups, -1))
    x = x.unflatten(1, (layer.groups, -1))
    output = 0
    for i, j in product(range(height), range(width)):
        moved = x.roll((above - i, left - j), (-2, -1))[..., ::rows, ::columns]
        output = output + torch.einsum("goc,bgchw->bgohw", kernel[..., i, j], moved)
    return output.flatten(1, 2) + (0 if layer.bias is None else layer.bias.view(-1, 1, 1))


def call(layer):
    """The layer as a function of its input and parameters, and the parameters."""
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return function, [parameter.detach().requires_grad_() for parameter in layer.parameters()]


class TestOrthogonality:
    @pytest.mark.parametrize(("kernel_size", "stride", "channels"), PAIRED)
    def test_all_singular_values_stay_1_through_200_steps(self, kernel_size, stride, channels):
        layer = OrthogonalConv2d(*channels, kernel_size, stride)
        start, before = operator(layer), {name: p.detach().clone() for name, p in layer.named_parameters()}
        train(layer)
        singular = torch.linalg.svdvals(operator(layer))
        pixels = SIZE[0] * SIZE[1]
        assert len(singular) == min(channels[0] * pixels, channels[1] * pixels // stride**2)
        assert (singular - 1).abs().max() < 1e-4
        assert (operator(layer) - start).abs().max() > 0.01
        assert all((p - before[name]).abs().max() > 0.01 for name, p in layer.named_parameters())

    @every_kind
    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
    def test_layers_of_all_kinds_stay_orthogonal(self, kind, dtype):
        layer = made(OrthogonalConv2d, kind, dtype=dtype)
        train(layer, steps=20)
        assert (torch.linalg.svdvals(operator(layer)) - 1).abs().max() < 1e-4

    @pytest.mark.parametrize("retraction", RETRACTIONS)
    @pytest.mark.parametrize(
        "kind",
        [
            "groups",
            pytest.param("more channels", marks=pytest.mark.slow),
            pytest.param("stride, fewer outputs", marks=pytest.mark.slow),
        ],
    )
    def test_with_each_retraction(self, kind, retraction):
        layer = made(OrthogonalConv2d, kind)
        train(layer, steps=100, retraction=retraction)
        assert (torch.linalg.svdvals(operator(layer)) - 1).abs().max() < 1e-4

    @every_kind
    def test_with_zeros_around_the_image_the_operator_norm_is_at_most_1(self, kind):
        layer = made(OrthogonalConv2d, kind, padding_mode="zeros")
        train(layer, steps=30)
        norms = [torch.linalg.matrix_norm(operator(layer, size), 2) for size in (SIZE, (9, 7), (5, 4))]
        assert max(norms) <= 1 + 1e-5
        assert min(norms) > 0.5

    @smaller_than_the_kernel
    def test_on_images_smaller_than_the_kernel(self, kernel_size, stride, size):
        layer = OrthogonalConv2d(2, 3, kernel_size, stride, dtype=torch.float64)
        assert (torch.linalg.svdvals(operator(layer, size)) - 1).abs().max() < 1e-12

    @pytest.mark.parametrize("kind", ["more channels", "stride, odd"])
    def test_a_layer_takes_images_of_several_sizes_and_keeps_their_norms(self, kind):
        layer = made(OrthogonalConv2d, kind)
        nn.init.zeros_(layer.bias)
        for size in ((4, 4), (2, 10), (16, 6)):
            x = images(layer, size=size)
            y = layer(x)
            assert y.shape[2:] == (size[0] // layer.stride[0], size[1] // layer.stride[1])
            torch.testing.assert_close(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


class TestOutput:
    @every_kind
    @every_dtype
    def test_is_the_circular_convolution_with_the_kernel(self, kind, dtype):
        layer = made(OrthogonalConv2d, kind, dtype=dtype)
        (inputs, outputs, _), _ = KINDS[kind]
        assert layer.kernel().shape == (outputs, inputs // layer.groups, *layer.kernel_size)
        x = images(layer)
        torch.testing.assert_close(layer(x), written_out(layer, x))

    @every_kind
    def test_zeros_stand_around_the_image(self, kind):
        layer = made(OrthogonalConv2d, kind, padding_mode="zeros", dtype=torch.float64)
        wide = copy.deepcopy(layer)
        wide.padding_mode = "circular"
        x = images(layer)
        margins = [4 * step for step in layer.stride]
        expected = wide(F.pad(x, [margins[1], margins[1], margins[0], margins[0]]))[..., 4:-4, 4:-4]
        torch.testing.assert_close(layer(x), expected)

    @pytest.mark.parametrize("kernel_size", [1, 3, 5, (3, 5), (1, 3)], ids=str)
    @pytest.mark.parametrize("stride", [1, 2, (2, 1)], ids=str)
    def test_with_zeros_it_has_the_shape_of_torchs_for_an_odd_kernel_and_any_image(self, kernel_size, stride):
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        rows, columns = (stride, stride) if isinstance(stride, int) else stride
        if height < rows or width < columns:
            return
        layer = OrthogonalConv2d(2, 3, kernel_size, stride, padding_mode="zeros")
        torchs = nn.Conv2d(2, 3, kernel_size, stride, padding=(height // 2, width // 2))
        for size in product(range(1, 8), range(1, 8)):
            x = torch.zeros(1, 2, *size)
            assert layer(x).shape == torchs(x).shape

    @both_paddings
    def test_of_one_image_is_that_of_a_batch_of_one(self, padding_mode):
        layer = made(OrthogonalConv2d, "stride, odd", padding_mode=padding_mode)
        x = images(layer)
        torch.testing.assert_close(torch.stack([layer(one) for one in x]), layer(x))

    @pytest.mark.parametrize("padding_mode", ["circular", "zeros"])
    @pytest.mark.parametrize(("kernel_size", "groups"), [(1, 1), (3, 1), (5, 1), ((3, 5), 1), (3, 2)], ids=str)
    @every_dtype
    def test_is_the_input_if_the_layer_starts_as_the_identity(self, padding_mode, kernel_size, groups, dtype):
        options = {"padding_mode": padding_mode, "groups": groups, "init": "identity", "dtype": dtype}
        layer = OrthogonalConv2d(4, 4, kernel_size, **options)
        x = images(layer)
        torch.testing.assert_close(layer(x), x)

    def test_of_the_identity_has_channels_of_zeros_or_fewer_channels(self):
        x = torch.randn(2, 3, *SIZE)
        lifted = OrthogonalConv2d(3, 4, 3, init="identity")(x)
        torch.testing.assert_close(lifted, torch.cat([x, torch.zeros(2, 1, *SIZE)], dim=1))
        torch.testing.assert_close(OrthogonalConv2d(3, 2, 3, init="identity")(x), x[:, :2])

    def test_haar_draws_both_signs_of_the_determinant_and_haar_so_the_positive_one(self):
        for init, expected in (("haar", {-1.0, 1.0}), ("haar_so", {1.0})):
            layers = [OrthogonalConv2d(6, 6, 3, groups=2, init=init) for _ in range(20)]
            weights = torch.stack([layer.weight.detach() for layer in layers]).unflatten(1, (2, 3))
            assert set(torch.linalg.det(weights).round().flatten().tolist()) == expected
            assert max(unitarity_error(layer.bases).max() for layer in layers) < 1e-6
            assert not torch.equal(layers[0].bases[0], layers[0].bases[2])


class TestFold:
    @every_kind
    @both_paddings
    @every_dtype
    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch copies such an image
    def test_gives_a_plain_convolution_with_the_same_outputs(self, kind, padding_mode, dtype):
        layer = made(OrthogonalConv2d, kind, padding_mode=padding_mode, dtype=dtype)
        plain = layer.fold()
        assert type(plain) is nn.Conv2d
        assert (plain.bias is None) == (layer.bias is None)
        for size in (SIZE, (4, 4), *([(7, 5)] if padding_mode == "zeros" else [])):
            x = images(layer, size=size)
            torch.testing.assert_close(plain(x), layer(x))

    @pytest.mark.parametrize("stride", [1, 2, (1, 2), (2, 1), (3, 1), (1, 3)], ids=str)
    @both_paddings
    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
    def test_is_exact_for_each_combination_of_kernel_and_stride(self, stride, padding_mode):
        for kernel_size in product(range(1, 6), range(1, 6)):
            if all(size >= step for size, step in zip(kernel_size, torch.nn.modules.utils._pair(stride), strict=True)):
                layer = OrthogonalConv2d(2, 3, kernel_size, stride, padding_mode=padding_mode, dtype=torch.float64)
                x = images(layer, size=(6, 12))
                torch.testing.assert_close(layer.fold()(x), layer(x))

    def test_keeps_whether_the_layer_trains(self):
        layer = made(OrthogonalConv2d, "square")
        assert layer.fold().training
        assert not layer.eval().fold().training

    def test_gives_a_copy_and_draws_no_random_numbers(self):
        layer = made(OrthogonalConv2d, "square")
        x, state = images(layer), torch.get_rng_state()
        expected, plain = layer(x), layer.fold()
        assert torch.equal(torch.get_rng_state(), state)
        nn.init.zeros_(plain.weight)
        nn.init.zeros_(plain.bias)
        assert torch.equal(layer(x), expected)
        assert declared(plain) == {}

    @pytest.mark.parametrize("keep", [OrthogonalConv2d.fold, lambda layer: layer.eval()(images(layer))])
    def test_and_the_kept_kernel_are_assembled_in_full_precision(self, keep, monkeypatch):
        found = []

        def recorded(*args):
            found.append(torch.backends.cuda.matmul.fp32_precision)
            return torch.empty(3, 3, 3, 3)

        monkeypatch.setattr(local_kernel, "orthogonal_kernel", recorded)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            with torch.no_grad():
                keep(made(OrthogonalConv2d, "square"))
        finally:
            torch.set_float32_matmul_precision(before)
        assert found == ["ieee"]


class TestDerivatives:
    @pytest.mark.parametrize("kind", ["more channels", "stride, odd", "even", "groups"])
    @every_dtype
    def test_pass_gradcheck_for_the_input_and_the_parameters(self, kind, dtype):
        function, parameters = call(made(OrthogonalConv2d, kind, dtype=dtype))
        x = torch.randn(1, KINDS[kind][0][0], 4, 4, dtype=dtype, requires_grad=True)
        assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (x, *parameters), fast_mode=True)

    @pytest.mark.parametrize("padding_mode", ["circular", "zeros"])
    def test_pass_the_whole_gradcheck(self, padding_mode):
        layer = OrthogonalConv2d(2, 2, 3, padding_mode=padding_mode, dtype=torch.float64)
        function, parameters = call(layer)
        x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(function, (x, *parameters))
        assert torch.autograd.gradgradcheck(function, (x, *parameters))

    @pytest.mark.parametrize("training", [True, False])
    @both_paddings
    def test_of_each_sample_by_torch_func_are_those_of_each_sample_alone(self, training, padding_mode):
        layer = made(OrthogonalConv2d, "stride, odd", padding_mode=padding_mode, dtype=torch.float64).train(training)
        function, parameters = call(layer)
        samples = images(layer, 3)

        def loss(parameters, x):
            return function(x, *parameters).pow(3).sum()

        plain = [torch.autograd.grad(loss(parameters, x), parameters) for x in samples]
        with torch.no_grad():
            layer(samples)  # a layer in evaluation now has a kept kernel
            detached = [parameter.detach() for parameter in parameters]
            found = torch.func.vmap(torch.func.grad(loss), (None, 0))(detached, samples)
        torch.testing.assert_close(list(found), [torch.stack(each) for each in zip(*plain, strict=True)])

    @pytest.mark.parametrize("kind", ["square", "stride, odd", "groups"])
    @pytest.mark.filterwarnings("ignore:`torch.jit.script.*:DeprecationWarning")  # torch's own use of it
    def test_forward_and_backward_agree(self, kind):
        layer = made(OrthogonalConv2d, kind, dtype=torch.float64)
        function, parameters = call(layer)
        inputs = (images(layer), *(parameter.detach() for parameter in parameters))
        directions = tuple(map(torch.randn_like, inputs))
        output, tangent = torch.func.jvp(function, inputs, directions)
        vector = torch.randn_like(output)
        cotangents = torch.func.vjp(function, *inputs)[1](vector)
        products = [(c * d).sum() for c, d in zip(cotangents, directions, strict=True)]
        torch.testing.assert_close((tangent * vector).sum(), sum(products))

    def test_an_ensemble_of_layers_runs_under_vmap(self):
        layers = [made(OrthogonalConv2d, "more channels").eval() for _ in range(3)]
        x = images(layers[0])
        parameters, buffers = torch.func.stack_module_state(layers)
        base = copy.deepcopy(layers[0]).to("meta")
        run = torch.func.vmap(lambda p, b: torch.func.functional_call(base, (p, b), (x,)))
        with torch.no_grad():
            torch.testing.assert_close(run(parameters, buffers), torch.stack([layer(x) for layer in layers]))

    @both_paddings
    def test_autocast_leaves_the_kernel_in_full_precision(self, padding_mode):
        layer = made(OrthogonalConv2d, "more channels", padding_mode=padding_mode)
        x = images(layer)
        expected = layer(x)
        gradients = torch.autograd.grad(expected.square().mean(), list(layer.parameters()))
        kernel = layer.kernel()
        for input in (x, x.bfloat16()):
            with torch.autocast("cpu", torch.bfloat16):
                output = layer(input)
                assert torch.equal(layer.kernel(), kernel)
                output.square().mean().backward()
            assert output.dtype == torch.bfloat16  # as the output of nn.Conv2d
            torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.05)
            for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
                assert parameter.grad.dtype == torch.float32
                assert (parameter.grad - gradient).norm() < 0.02 * gradient.norm()
            layer.zero_grad()

    @pytest.mark.parametrize(
        ("kind", "padding_mode"),
        [
            ("stride, odd", "circular"),
            ("groups", "zeros"),
            pytest.param("more channels", "circular", marks=pytest.mark.slow),
            pytest.param("depthwise", "circular", marks=pytest.mark.slow),
            pytest.param("even", "zeros", marks=pytest.mark.slow),
        ],
    )
    @pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # a warning of torch's tracing
    def test_compile_makes_one_piece_with_the_same_values(self, kind, padding_mode):
        layer = made(OrthogonalConv2d, kind, padding_mode=padding_mode)
        x = images(layer).requires_grad_()
        torch.compiler.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        results = []
        for run in (compiled, layer):
            output = run(x)
            results.append([output, *torch.autograd.grad(output.pow(3).sum(), [x, *layer.parameters()])])
            with torch.no_grad():
                layer.eval()
                results[-1].append(run(x))
                layer.train()
        torch.testing.assert_close(*results)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:.*should not be instantiated")
    def test_compile_under_autocast(self):
        layer = made(OrthogonalConv2d, "more channels")
        x = images(layer)
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(compiled(x), layer(x))


@pytest.fixture
def assembled(monkeypatch):
    """The number of kernels that were assembled, as a list of as many entries."""
    calls = []
    original = local_kernel.orthogonal_kernel
    monkeypatch.setattr(local_kernel, "orthogonal_kernel", lambda *args: (calls.append(1), original(*args))[1])
    return calls


class TestKeptKernel:
    @every_kind
    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_gives_the_same_bits_and_is_assembled_once(self, kind, context, assembled):
        layer = made(OrthogonalConv2d, kind)
        x = images(layer)
        expected = layer(x).detach()
        layer.eval()
        assembled.clear()
        for _ in range(2):
            with context():
                assert torch.equal(layer(x), expected)
        assert len(assembled) == 1

    def changed_by(self, how, layer):
        other = made(OrthogonalConv2d, "more channels")
        if how == "weight.data.copy_":
            layer.weight.data.copy_(other.weight.data)
        elif how == "bases.data":
            layer.bases.data[0] = other.bases.data[0]
        elif how == "another parameter":
            layer.bases = nn.Parameter(other.bases.detach().clone())
        elif how == "load_state_dict":
            layer.load_state_dict({**other.state_dict(), "bias": layer.bias})
        elif how == "load_state_dict, assign":
            layer.load_state_dict({**other.state_dict(), "bias": layer.bias}, assign=True)
        elif how == "step":
            optimizer = torch.optim.SGD([layer.weight], lr=0.1)
            layer.weight.grad = torch.ones_like(layer.weight)
            optimizer.step()
        elif how == "reset_parameters":
            layer.reset_parameters()
        elif how == "to(float64)":
            layer.to(torch.float64)

    @pytest.mark.parametrize(
        "how",
        [
            "weight.data.copy_",
            "bases.data",
            "another parameter",
            "load_state_dict",
            "load_state_dict, assign",
            "step",
            "reset_parameters",
            "to(float64)",
        ],
    )
    def test_is_assembled_anew_after_a_change(self, how, assembled):
        layer = made(OrthogonalConv2d, "more channels").eval()
        x = images(layer)
        with torch.no_grad():
            before = layer(x)
            self.changed_by(how, layer)
            x = x.to(layer.weight.dtype)
            assembled.clear()
            found = [layer(x), layer(x)]
            assert len(assembled) == 1
        expected = layer.train()(x)
        assert all(torch.equal(each, expected) for each in found)
        assert torch.allclose(before, expected.float(), atol=1e-5) == (how == "to(float64)")

    @torch.no_grad()
    def test_is_freed_by_train_and_assembled_anew_after_it(self, assembled):
        layer = made(OrthogonalConv2d, "more channels").eval()
        x = images(layer)
        layer(x)
        layer.train().eval()
        layer(x)
        assert len(assembled) == 2

    @torch.no_grad()
    def test_is_not_that_of_other_parameters_in_a_functional_call(self):
        layer, other = (made(OrthogonalConv2d, "more channels").eval() for _ in range(2))
        x = images(layer)
        layer(x)
        found = torch.func.functional_call(layer, dict(other.named_parameters()), (x,))
        assert torch.equal(found, other(x))

    def test_serves_a_gradient_of_the_input_after_a_first_call_under_inference_mode(self, assembled):
        layer = made(OrthogonalConv2d, "stride, odd").eval().requires_grad_(False)
        x = images(layer).requires_grad_()
        expected = torch.autograd.grad(layer.train()(x).square().sum(), x)[0]
        layer.eval()
        assembled.clear()
        with torch.inference_mode():
            layer(x)
        found = torch.autograd.grad(layer(x).square().sum(), x)[0]
        assert len(assembled) == 1
        assert torch.equal(found, expected)

    def test_is_not_used_where_a_parameter_needs_a_gradient(self):
        layer = made(OrthogonalConv2d, "more channels").eval()
        x = images(layer)
        with torch.no_grad():
            layer(x)
        layer(x).square().sum().backward()
        assert layer.weight.grad.abs().max() > 0
        assert layer.bases.grad.abs().max() > 0

    def test_is_in_full_precision_if_the_first_call_is_under_autocast(self):
        layer = made(OrthogonalConv2d, "more channels").eval()
        x = images(layer)
        with torch.no_grad():
            with torch.autocast("cpu", torch.bfloat16):
                layer(x)
            found = layer(x)
        assert torch.equal(found, layer.train()(x))

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
    def test_does_not_hinder_a_copy(self, copied):
        layer = made(OrthogonalConv2d, "more channels").eval()
        x, keys = images(layer), set(layer.state_dict())
        with torch.no_grad():
            expected = layer(x)
            assert set(layer.state_dict()) == keys == {"weight", "bases", "bias"}
            other = copied(layer)
            assert torch.equal(other(x), expected)
            assert declared(other) == declared(layer)
            nn.init.orthogonal_(other.weight)
            assert not torch.allclose(other(x), expected)
            assert torch.equal(layer(x), expected)


class TestParameters:
    def test_are_declared(self):
        layer = made(OrthogonalConv2d, "groups")
        assert set(declared(layer)) == {"weight", "bases"}
        assert declared(layer)["weight"].chunks == 2
        assert layer.bases.shape == (4, 2, 3, 1)
        for kind in ("1 x 1", "as large as its stride", "depthwise"):  # no steps, or steps without a basis
            layer = made(OrthogonalConv2d, kind)
            assert set(declared(layer)) == {"weight"}
            assert layer.bases is None

    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
    def test_are_made_on_the_meta_device_and_drawn_by_to_empty_and_reset_parameters(self, dtype):
        layer = OrthogonalConv2d(4, 6, 3, groups=2, dtype=dtype, device="meta")
        assert all(parameter.is_meta for parameter in layer.parameters())
        layer.to_empty(device="cpu")
        torch.manual_seed(5)
        layer.reset_parameters()
        torch.manual_seed(5)
        twin = OrthogonalConv2d(4, 6, 3, groups=2, dtype=dtype)
        x = images(layer)
        assert torch.equal(layer(x), twin(x))
        assert declared(layer) == declared(twin) != {}

    @pytest.mark.usefixtures("double_by_default")
    def test_have_the_default_dtype(self):
        layer = OrthogonalConv2d(2, 3, 3)
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
        assert layer(torch.randn(1, 2, 4, 4)).dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
    def test_cannot_be_in_half_precision_and_are_unchanged_then(self, dtype):
        layer = OrthogonalConv2d(2, 3, 3, dtype=dtype)
        x = images(layer)
        expected = layer(x)
        for convert in (layer.half, layer.bfloat16):
            with pytest.raises(ProjUNNError, match="OrthogonalConv2d cannot compute in half precision, found torch"):
                convert()
        assert torch.equal(layer(x), expected)

    def test_of_a_complex_layer_keep_their_imaginary_parts_in_another_precision(self):
        """torch drops them in ``to(torch.float64)``."""
        layer = OrthogonalConv2d(2, 3, 3, dtype=torch.complex64)
        weight = layer.weight.detach().clone()
        assert torch.equal(layer.to(torch.float64).weight.detach(), weight.to(torch.complex128))


class TestErrors:
    @pytest.mark.parametrize(
        ("args", "options", "message"),
        [
            ((4, 6, 3), {"groups": 4}, "groups must divide in_channels = 4 and out_channels = 6, found 4"),
            ((4, 6, 3), {"groups": 3}, "groups must divide in_channels = 4 and out_channels = 6, found 3"),
            ((2, 3, 2), {"stride": 3}, r"at least the stride = \(3, 3\), found \(2, 2\): a smaller kernel would leave"),
            ((2, 3, (3, 1)), {"stride": 2}, r"at least the stride = \(2, 2\), found \(3, 1\)"),
            ((2, 3, 3), {"init": "xavier"}, "unknown init 'xavier'"),
            ((2, 3, 3), {"padding_mode": "reflect"}, "unknown padding_mode 'reflect'"),
            ((0, 3, 3), {}, "in_channels must be 1 or more, found 0"),
            ((2, -1, 3), {}, "out_channels must be 1 or more, found -1"),
            ((2, 3, (3, 0)), {}, "kernel_size must be 1 or more, found 0"),
            ((2, 3, 3), {"stride": 0}, "stride must be 1 or more, found 0"),
            ((2, 3, 3), {"groups": 0}, "groups must be 1 or more, found 0"),
            ((2, 3, (3, 3, 3)), {}, r"height and width must be two numbers, or one for both, found \(3, 3, 3\)"),
            ((2, 3, 3), {"dtype": torch.float16}, "dtype must be float32, .* found torch.float16: .* half precision"),
        ],
        ids=str,
    )
    def test_options_that_cannot_work(self, args, options, message):
        with pytest.raises(ProjUNNError, match=message):
            OrthogonalConv2d(*args, **options)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 3, 8, 8), r"input must be \(B, 2, H, W\) or \(2, H, W\), found \(1, 3, 8, 8\)"),
            ((3, 8, 8), r"or \(2, H, W\), found \(3, 8, 8\)"),
            ((8, 8), r"found \(8, 8\)"),
            ((1, 1, 2, 8, 8), r"found \(1, 1, 2, 8, 8\)"),
            ((1, 2, 7, 8), r"multiples of the stride = \(2, 2\) .* found 7 x 8: pad or resize the images"),
            ((1, 2, 8, 7), "found 8 x 7: pad or resize the images, or set padding_mode to 'zeros'"),
            ((1, 2, 2, 8), r"at least half of the kernel = \(8, 8\), found 2 x 8"),
            ((1, 2, 0, 8), "found 0 x 8"),
        ],
        ids=str,
    )
    def test_shapes_that_do_not_fit(self, shape, message):
        with pytest.raises(ProjUNNError, match=message):
            OrthogonalConv2d(2, 9, 8, stride=2)(torch.zeros(shape))

    @pytest.mark.parametrize("autocast", [False, True])
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.uint8], ids=str)
    def test_an_input_of_another_dtype(self, dtype, training, autocast):
        layer = OrthogonalConv2d(2, 3, 3).train(training)
        message = f"input must have the dtype of the layer, torch.float32, found {dtype}"
        with pytest.raises(ProjUNNError, match=message), torch.autocast("cpu", enabled=autocast), torch.no_grad():
            layer(torch.zeros(1, 2, 4, 4, dtype=dtype))

    def test_an_input_in_half_precision_without_autocast(self):
        with pytest.raises(ProjUNNError, match=r"found torch\.bfloat16"):
            OrthogonalConv2d(2, 3, 3)(torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16))


def test_repr_shows_sizes_and_options():
    layer = OrthogonalConv2d(4, 6, 3, groups=2, padding_mode="zeros")
    text = "OrthogonalConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), groups=2, padding_mode=zeros)"
    assert repr(layer) == text
