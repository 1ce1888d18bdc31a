"""The circular convolution of real images by the matrices of those frequencies that a real kernel leaves free.

In the half spectrum (``rfft2``) of an H x W image, column 0 and, for an even W, column W/2 are their own mirror images:
there frequency (-i, j) is the conjugate of (i, j), and rows 0 and, for an even H, H/2 are real. A half spectrum, of
images or of matrices, therefore has three parts: the ``inner`` columns, the free ``half`` of each edge column, and the
``self_conjugate`` frequencies. The products are computed part by part, and the conjugates never are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from projunn_lightning._compat import in_torch_func
from projunn_lightning.functional._differentiable import gradients

Parts = tuple[Tensor, Tensor, Tensor]


def frequency_counts(height: int, width: int) -> tuple[int, int, int]:
    """The numbers of frequencies of a real H x W image that are inner, in the half of an edge column, self-conjugate.

    >>> frequency_counts(3, 2)  # (1, 0) and (1, 1) are free, (2, .) their conjugates, (0, .) real
    (0, 2, 2)
    """
    edges, self_conjugate = 2 - width % 2, 2 - height % 2
    return (width - 1) // 2 * height, edges * ((height - 1) // 2), edges * self_conjugate


def split(spectrum: Tensor, height: int, width: int) -> Parts:
    """The three parts ``(frequencies, *)`` of a half spectrum ``(H, W // 2 + 1, *)``; the last part is real."""
    inner = spectrum[:, 1 : 1 + (width - 1) // 2]
    edge = spectrum[:, :: width // 2] if width % 2 == 0 else spectrum[:, :1]
    half = edge[1 : 1 + (height - 1) // 2]
    self_conjugate = edge[:: height // 2] if height % 2 == 0 else edge[:1]
    return inner.flatten(0, 1), half.flatten(0, 1), self_conjugate.flatten(0, 1).real


def assemble(parts: Parts, height: int, width: int, mirror: Callable[[Tensor], Tensor] = torch.conj) -> Tensor:
    """The half spectrum ``(H, W // 2 + 1, *)`` of its parts; ``mirror`` takes an entry to that of its mirror image."""
    inner, half, self_conjugate = parts
    edges = 2 - width % 2
    half, self_conjugate = half.unflatten(0, (-1, edges)), self_conjugate.unflatten(0, (-1, edges)).to(inner.dtype)
    edge = torch.cat([self_conjugate[:1], half, self_conjugate[1:], mirror(half.flip(0))])
    return torch.cat([edge[:, :1], inner.unflatten(0, (height, -1)), edge[:, 1:]], dim=1)


def convolve(input: Tensor, weight: Tensor, weight_real: Tensor) -> Tensor:
    """Convolve real images ``(B, I, H, W)`` to ``(B, O, H, W)`` by the matrices of the half spectrum.

    ``weight`` holds the complex matrices of the inner and the half frequencies, ``weight_real`` the real matrices of
    the self-conjugate ones.
    """
    with torch.autocast(input.device.type, enabled=False):
        run = _composed if in_torch_func() else _Convolution.apply
        return run(input, weight, weight_real)


def _columns(images: Tensor) -> Parts:
    """Half spectrum in parts ``(frequencies, channels, B)``: for each frequency one matrix product takes all images."""
    return split(torch.fft.rfft2(images).permute(2, 3, 1, 0).contiguous(), *images.shape[-2:])


def _images(parts: Parts, height: int, width: int) -> Tensor:
    return torch.fft.irfft2(assemble(parts, height, width).permute(3, 2, 0, 1).contiguous(), s=(height, width))


def _forward(input: Tensor, weight: Tensor, weight_real: Tensor) -> tuple[Tensor, Parts]:
    inner, half, self_conjugate = columns = _columns(input)
    count = len(inner)
    products = weight[:count] @ inner, weight[count:] @ half, weight_real @ self_conjugate
    return _images(products, *input.shape[-2:]), columns


class _Convolution(torch.autograd.Function):
    """Its adjoint is the convolution by the adjoint matrices; autograd would conjugate those, this the columns."""

    @staticmethod
    def forward(ctx, input, weight, weight_real):  # type: ignore[no-untyped-def]
        output, columns = _forward(input, weight, weight_real)
        ctx.save_for_backward(input, weight, weight_real, *columns)
        return output

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        with torch.autocast(grad.device.type, enabled=False):
            if torch.is_grad_enabled():  # for a second derivative
                return gradients(_composed, ctx.saved_tensors[:3], ctx.needs_input_grad, grad)
            return _gradients(ctx, grad)


def _composed(input: Tensor, weight: Tensor, weight_real: Tensor) -> Tensor:
    """The convolution as autograd sees it, without the backward pass of its own."""
    return _forward(input, weight, weight_real)[0]


def _gradients(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    _, weight, weight_real, inner, half, self_conjugate = ctx.saved_tensors
    height, width = grad.shape[-2:]
    count = len(inner)
    grad_inner, grad_half, grad_own = _columns(grad)
    grad_input = grad_weight = grad_real = None
    if ctx.needs_input_grad[0]:
        inner_of_input = (weight[:count].mT @ grad_inner.conj()).conj()
        half_of_input = (weight[count:].mT @ grad_half.conj()).conj()
        grad_input = _images((inner_of_input, half_of_input, weight_real.mT @ grad_own), height, width)
    scale = 1 / (height * width)  # a pixel's share of a frequency,
    if ctx.needs_input_grad[1]:
        twice = 2 * scale  # which counts twice where its conjugate follows it
        grad_weight = torch.empty_like(weight)
        torch.bmm(grad_inner, inner.mH * twice, out=grad_weight[:count])
        torch.bmm(grad_half, half.mH * twice, out=grad_weight[count:])
    if ctx.needs_input_grad[2]:
        grad_real = grad_own @ self_conjugate.mT * scale
    return grad_input, grad_weight, grad_real
