from functools import partial

import pytest
import torch

from projunn_lightning.functional import circular_convolution
from projunn_lightning.functional._convolution import assemble, convolve, frequency_counts, split

SIZES = [(4, 4), (5, 5), (4, 5), (5, 4), (6, 3), (1, 1), (2, 2), (1, 4), (3, 1), (2, 5)]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def arguments(size, channels=(2, 3), batch=2):
    inner, half, own = frequency_counts(*size)
    shape = channels[::-1]
    weight = torch.randn(inner + half, *shape, dtype=torch.complex128)
    weight_real = torch.randn(own, *shape, dtype=torch.float64)
    input = torch.randn(batch, channels[0], *size, dtype=torch.float64)
    return [tensor.requires_grad_() for tensor in (input, weight, weight_real)]


def frequency_by_frequency(input, weight, weight_real):
    """The convolution by one matrix for each frequency of the half spectrum, including conjugates."""
    height, width = input.shape[-2:]
    inner = frequency_counts(height, width)[0]
    spectrum = assemble((weight[:inner], weight[inner:], weight_real), height, width)
    product = torch.einsum("hjoi,bihj->bohj", spectrum, torch.fft.rfft2(input))
    return torch.fft.irfft2(product, s=(height, width))


@every_size
def test_the_parts_of_a_real_spectrum_determine_the_whole_spectrum(size):
    spectrum = torch.fft.rfft2(torch.randn(3, *size, dtype=torch.float64)).permute(1, 2, 0)
    parts = split(spectrum, *size)
    assert tuple(map(len, parts)) == frequency_counts(*size)
    torch.testing.assert_close(assemble(parts, *size), spectrum)


@every_size
def test_equals_the_product_at_each_frequency_with_its_gradients(size):
    tensors = arguments(size)
    fast, plain = convolve(*tensors), frequency_by_frequency(*tensors)
    torch.testing.assert_close(fast, plain)
    grad = torch.randn_like(fast)
    torch.testing.assert_close(torch.autograd.grad(fast, tensors, grad), torch.autograd.grad(plain, tensors, grad))


@every_size
def test_gradcheck_and_second_derivatives(size):
    tensors = arguments(size, channels=(1, 2), batch=1)
    assert torch.autograd.gradcheck(convolve, tensors)
    assert torch.autograd.gradgradcheck(convolve, tensors)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (1, 2), (0, 2)], ids=str)
@pytest.mark.parametrize("size", [(2, 2), (4, 5)], ids=str)
def test_second_derivatives_where_only_some_tensors_need_a_gradient(size, needed):
    tensors = arguments(size, channels=(1, 2), batch=1)
    for number, tensor in enumerate(tensors):
        tensor.requires_grad_(number in needed)

    def penalty(run):
        output = run(*tensors)
        wanted = [tensors[number] for number in needed if tensors[number].numel()]
        grads = torch.autograd.grad(output.square().sum(), wanted, create_graph=True)
        return torch.autograd.grad(sum(grad.abs().square().sum() for grad in grads), wanted)

    if all(tensors[number].numel() for number in needed):
        torch.testing.assert_close(penalty(convolve), penalty(frequency_by_frequency))


def test_second_derivatives_where_the_input_depends_on_the_weights():
    """The gradient with respect to the weights must not follow the path through the input, which follows itself."""
    input, weight, weight_real = arguments((4, 3), channels=(2, 2))
    results = []
    for run in (convolve, frequency_by_frequency):
        output = run(run(input, weight, weight_real), weight, weight_real)
        first = torch.autograd.grad(output.pow(3).sum(), (input, weight, weight_real), create_graph=True)
        second = torch.autograd.grad(sum(grad.abs().square().sum() for grad in first), (input, weight, weight_real))
        results.append((first, second))
    torch.testing.assert_close(*results)


@every_size
def test_torch_func_transforms_it(size):
    input, weight, weight_real = (tensor.detach() for tensor in arguments(size))

    def loss(run, input, weight_real):
        return run(input, weight, weight_real).pow(3).sum()

    results = []
    for run in (convolve, frequency_by_frequency):
        gradients = torch.func.grad(partial(loss, run), argnums=(0, 1))(input, weight_real)
        sample_gradients = torch.func.vmap(torch.func.grad(partial(loss, run)), (0, None))(input[:, None], weight_real)
        results.append([*gradients, sample_gradients])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8], ids=str)
def test_images_are_converted_to_the_precision_of_the_matrices(dtype):
    images = torch.randint(5, (2, 2, 4, 5)).to(dtype)
    _, weight, weight_real = arguments((4, 5))
    for matrices in ((weight.cfloat(), weight_real.float()), (torch.randn(20, 3, 2, dtype=torch.complex64), None)):
        assert torch.equal(circular_convolution(images, *matrices), circular_convolution(images.float(), *matrices))


def test_autocast_leaves_the_convolution_and_its_gradients_in_full_precision():
    tensors = [t.detach().to(torch.complex64 if t.is_complex() else torch.float32) for t in arguments((4, 5))]
    tensors[0] = tensors[0].bfloat16().float()
    grad = torch.randn(2, 3, 4, 5)
    results = []
    for enabled in (True, False):
        run = [tensor.clone().requires_grad_() for tensor in tensors]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = circular_convolution(run[0].bfloat16() if enabled else run[0], *run[1:])
            output.backward(grad)
        results.append([output, run[1].grad, run[2].grad])
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # a warning of torch's tracing
def test_compiles_in_one_piece():
    tensors = arguments((4, 5))
    compiled = torch.compile(convolve, backend="aot_eager", fullgraph=True)
    grad = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(compiled(*tensors), convolve(*tensors))
    gradients = [torch.autograd.grad(run(*tensors), tensors, grad) for run in (compiled, convolve)]
    torch.testing.assert_close(*gradients)
