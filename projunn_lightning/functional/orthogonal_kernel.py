"""The kernel of a local orthogonal convolution, assembled from matrices with orthonormal columns or rows."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from projunn_lightning._compat import in_torch_func
from projunn_lightning.functional._differentiable import gradients

_HEIGHT, _WIDTH = 2, 3  # the dims of the taps (G, C, height, width, other channels)


def orthogonal_kernel(
    weight: Tensor, bases: Tensor, kernel_size: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> Tensor:
    r"""The kernel of an orthogonal convolution from matrices with orthonormal columns or rows.

    The convolution is a product of simple orthogonal ones. The matrix ``weight`` acts on the patches of the stride, and
    changes the number of channels. Each basis M makes one more row or column of the kernel: it belongs to the kernel
    ``[P, I - P]`` with the projector :math:`P = M M^H`. The steps of height and width take turns, and every second
    step of each has the taps in the opposite order, ``[I - P, P]``: two such steps with one P leave the middle tap.

    Args:
        weight: ``(G, O, h * w * I)`` for G groups and the stride ``(h, w)``. A column belongs to a pixel of a patch,
            row by row, and to an input channel.
        bases: ``(S, G, C, C // 2)`` with orthonormal columns for the S = H - h + W - w steps, where C is I, or O if
            that is larger and the stride is 1.
        kernel_size: the height and width ``(H, W)`` of the kernel, at least the stride.
        stride: the stride of the convolution, ``(h, w)``.

    Returns:
        The kernel ``(G * O, I, H, W)`` for ``torch.nn.functional.conv2d`` with this stride and G groups. With circular
        padding, all singular values of the convolution are 1.

    Source: Li et al. 2019, arXiv 1911.00937 (BCOP); Boissin et al. 2025, arXiv 2501.07930 (strides).

    >>> kernel = orthogonal_kernel(torch.eye(2)[None], torch.eye(2)[:, :1].expand(1, 1, 2, 1), (2, 1))
    >>> kernel[:, :, 0, 0], kernel[:, :, 1, 0]  # it moves the second channel by a row
    (tensor([[1., 0.],
            [0., 0.]]), tensor([[0., 0.],
            [0., 1.]]))
    """
    _, outputs, columns = weight.shape
    height, width = stride
    inputs = columns // (height * width)
    patches = weight.unflatten(2, (height, width, inputs))
    on_outputs = outputs > inputs and stride == (1, 1)  # the steps act on the side of more channels
    taps = patches if on_outputs else patches.movedim((1, 4), (4, 1))
    projectors = bases @ bases.mH if on_outputs else bases.conj() @ bases.mT  # (W P)^T = P^T W^T
    for (dim, flipped), projector in zip(_steps(kernel_size, stride), projectors, strict=True):
        taps = _grown(taps, projector, dim, flipped)
    return (taps.movedim(4, 2) if on_outputs else taps.movedim((4, 1), (1, 2))).flatten(0, 1).contiguous()


def _steps(kernel_size: tuple[int, int], stride: tuple[int, int]) -> list[tuple[int, bool]]:
    """The dim in which each step adds a tap, and whether its taps are in the opposite order."""
    counts = {dim: size - patch for dim, size, patch in zip((_HEIGHT, _WIDTH), kernel_size, stride, strict=True)}
    return [(dim, step % 2 == 1) for step in range(max(counts.values())) for dim in counts if step < counts[dim]]


def _grown(taps: Tensor, projector: Tensor, dim: int, flipped: bool) -> Tensor:
    """The block convolution of taps with ``[P, I - P]`` along a dim, or with ``[I - P, P]``."""
    plain = torch.compiler.is_compiling() or in_torch_func()
    return (_composed if plain else _Grown.apply)(taps, projector, dim, flipped)


def _composed(taps: Tensor, projector: Tensor, dim: int, flipped: bool) -> Tensor:
    kept = _product(projector, taps.flatten(2)).view_as(taps)
    first, second = (taps - kept, kept) if flipped else (kept, taps - kept)
    last = taps.shape[dim] - 1
    inner = first.narrow(dim, 1, last) + second.narrow(dim, 0, last)
    return torch.cat([first.narrow(dim, 0, 1), inner, second.narrow(dim, last, 1)], dim)


class _Grown(torch.autograd.Function):
    """The same with a backward pass that reads the gradient once; autograd would fill and add a tensor per slice."""

    @staticmethod
    def forward(ctx, taps, projector, dim, flipped):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(taps, projector)
        ctx.options = dim, flipped
        return _composed(taps, projector, dim, flipped)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        taps, projector = ctx.saved_tensors
        dim, flipped = ctx.options
        if torch.is_grad_enabled():  # for a second derivative
            grown = partial(_composed, dim=dim, flipped=flipped)
            return *gradients(grown, (taps, projector), ctx.needs_input_grad[:2], grad), None, None
        first, second = grad.narrow(dim, 0, taps.shape[dim]), grad.narrow(dim, 1, taps.shape[dim])
        kept, rest = (second, first) if flipped else (first, second)
        of_product = (kept - rest).flatten(2)
        of_taps = _product(projector.mH, of_product).view_as(taps) + rest
        return of_taps, _product(of_product, taps.flatten(2).mH), None, None


def _product(first: Tensor, second: Tensor) -> Tensor:
    """The product of stacks of matrices. For a stack of one, the product of matrices is faster than ``bmm``."""
    return (first[0] @ second[0])[None] if len(first) == 1 else first @ second
