import pytest
import torch

from projunn_lightning.functional import init, orthogonal_kernel

CASES = {  # (in_channels, out_channels) of one group, the size of the kernel, the stride
    "square": ((3, 3), (3, 3), (1, 1)),
    "more outputs": ((2, 5), (3, 3), (1, 1)),
    "fewer outputs": ((5, 2), (3, 3), (1, 1)),
    "even": ((3, 4), (4, 2), (1, 1)),
    "wider than high": ((4, 3), (1, 5), (1, 1)),
    "higher than wide": ((2, 3), (5, 2), (1, 1)),
    "no steps": ((2, 3), (1, 1), (1, 1)),
    "as large as its stride": ((2, 7), (2, 2), (2, 2)),
    "stride, square": ((2, 8), (4, 4), (2, 2)),
    "stride, more outputs": ((2, 9), (3, 5), (2, 2)),
    "stride, fewer outputs": ((3, 5), (5, 3), (2, 2)),
    "strides of two sizes": ((2, 4), (3, 5), (1, 3)),
    "stride of the columns only": ((3, 4), (4, 4), (1, 2)),
    "one channel": ((1, 1), (3, 3), (1, 1)),
    "one channel, stride": ((1, 4), (3, 4), (2, 2)),
}
every_case = pytest.mark.parametrize(("channels", "size", "stride"), CASES.values(), ids=CASES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def matrices(channels, size, stride, dtype=torch.float64, groups=1):
    """A weight and bases of these sizes, at random."""
    inputs, outputs = channels
    mixed = max(inputs, outputs) if stride == (1, 1) else inputs
    weight = init.haar_(torch.empty(groups, outputs, stride[0] * stride[1] * inputs, dtype=dtype))
    steps = sum(size) - sum(stride)
    return weight, init.haar_(torch.empty(steps, groups, mixed, mixed // 2, dtype=dtype))


def written_out(weight, bases, size, stride):
    """The kernel of one group as the block convolution of its factors, in loops over their taps."""
    height, width = stride
    inputs = weight.shape[1] // (height * width)
    on_outputs = len(weight) > inputs and stride == (1, 1)
    kernel = {}
    for i in range(height):
        for j in range(width):
            first = (i * width + j) * inputs
            kernel[i, j] = weight[:, first : first + inputs]
    basis = iter(bases)
    for step in range(max(size)):
        for axis in (0, 1):
            if step < size[axis] - stride[axis]:
                m = next(basis)
                p = m @ m.mH
                rest = torch.eye(len(m), dtype=m.dtype) - p
                factor = {(0, 0): p, (1 - axis, axis): rest} if step % 2 == 0 else {(0, 0): rest, (1 - axis, axis): p}
                kernel = block_convolution(factor, kernel) if on_outputs else block_convolution(kernel, factor)
    result = torch.zeros(len(weight), inputs, *size, dtype=weight.dtype)
    for (i, j), tap in kernel.items():
        result[:, :, i, j] = tap
    return result


def block_convolution(a, b):
    """``C[t] = sum_(m + q = t) A[m] B[q]``."""
    c = {}
    for m, first in a.items():
        for q, second in b.items():
            t = (m[0] + q[0], m[1] + q[1])
            c[t] = c.get(t, 0) + first @ second
    return c


@every_case
@every_dtype
def test_equals_the_block_convolution_of_its_factors(channels, size, stride, dtype):
    weight, bases = matrices(channels, size, stride, dtype)
    kernel = orthogonal_kernel(weight, bases, size, stride)
    assert kernel.shape == (channels[1], channels[0], *size)
    torch.testing.assert_close(kernel, written_out(weight[0], bases[:, 0], size, stride), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["square", "more outputs", "fewer outputs", "stride, more outputs"])
@every_dtype
def test_groups_have_the_kernels_of_each_of_them(name, dtype):
    channels, size, stride = CASES[name]
    weight, bases = matrices(channels, size, stride, dtype, groups=3)
    expected = [written_out(weight[g], bases[:, g], size, stride) for g in range(3)]
    kernel = orthogonal_kernel(weight, bases, size, stride)
    torch.testing.assert_close(kernel, torch.cat(expected), rtol=0, atol=1e-13)


@every_case
@every_dtype
def test_the_transfer_matrix_of_each_frequency_has_singular_values_of_1(channels, size, stride, dtype):
    """Of the polyphase components: a strided convolution is an ordinary one of the patches."""
    kernel = orthogonal_kernel(*matrices(channels, size, stride, dtype), size, stride)
    (height, width), (rows, columns) = size, stride
    padded = torch.nn.functional.pad(kernel, (0, -width % columns, 0, -height % rows))
    patches = padded.unflatten(3, (-1, columns)).unflatten(2, (-1, rows)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    spectrum = torch.fft.fft2(patches, s=(7, 8)).permute(2, 3, 0, 1)
    singular = torch.linalg.svdvals(spectrum)
    torch.testing.assert_close(singular, torch.ones_like(singular), rtol=0, atol=1e-13)


@pytest.mark.parametrize("channels", [(4, 4), (3, 5), (5, 3)], ids=str)
@pytest.mark.parametrize("size", [(3, 3), (5, 3), (1, 5)], ids=str)
@every_dtype
def test_equal_bases_leave_the_middle_tap(channels, size, dtype):
    weight, bases = matrices(channels, size, (1, 1), dtype)
    kernel = orthogonal_kernel(weight, bases[:1].expand_as(bases), size)
    expected = torch.zeros_like(kernel)
    expected[:, :, size[0] // 2, size[1] // 2] = weight[0]
    torch.testing.assert_close(kernel, expected, rtol=0, atol=1e-13)


def test_the_steps_of_one_channel_move_it_to_the_middle():
    weight, bases = torch.full((2, 1, 1), 3.0), torch.empty(4, 2, 1, 0)
    expected = torch.zeros(2, 1, 3, 3)
    expected[:, :, 1, 1] = 3
    assert torch.equal(orthogonal_kernel(weight, bases, (3, 3)), expected)


def test_the_columns_of_a_patch_are_pixels_row_by_row_and_then_channels():
    weight, bases = matrices((2, 12), (2, 3), (2, 3))
    kernel = orthogonal_kernel(weight, bases, (2, 3), (2, 3))
    assert torch.equal(kernel, weight[0].view(12, 2, 3, 2).permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["square", "more outputs", "fewer outputs", "strides of two sizes"])
@every_dtype
def test_gradcheck_and_second_derivatives(name, dtype):
    channels, size, stride = CASES[name]
    inputs = [tensor.requires_grad_() for tensor in matrices(channels, size, stride, dtype, groups=2)]

    def kernel(weight, bases):
        return orthogonal_kernel(weight, bases, size, stride)

    assert torch.autograd.gradcheck(kernel, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(kernel, inputs, fast_mode=True)
