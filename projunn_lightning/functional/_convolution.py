"""The circular convolution of real images by the matrices of those frequencies that a real kernel leaves free.

Of the half spectrum (``rfft2``) of an H x W image the columns 0 and, for an even W, W/2 are their own mirror images:
frequency (-i, j) is the conjugate of (i, j), and rows 0 and, for an even H, H/2 are real. A half spectrum, of images or
of matrices, therefore has three parts: the ``inner`` columns, the free ``half`` of each edge column, and its ``own``
(self-conjugate) entries. The products are taken part by part: the conjugates are never computed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Parts = tuple[Tensor, Tensor, Tensor]


def sizes(height: int, width: int) -> tuple[int, int, int]:
    """How many frequencies are inner, halves of edge columns, and self-conjugate.

    >>> sizes(3, 2)  # (1, 0) and (1, 1) are free, (2, .) their conjugates, (0, .) real
    (0, 2, 2)
    """
    edges, own = 2 - width % 2, 2 - height % 2
    return (width - 1) // 2 * height, edges * ((height - 1) // 2), edges * own


def split(spectrum: Tensor, height: int, width: int) -> Parts:
    """The three parts, ``(frequencies, *)``, of a half spectrum ``(H, W // 2 + 1, *)``; own entries as reals."""
    inner = spectrum[:, 1 : 1 + (width - 1) // 2]
    edge = spectrum[:, :: width // 2] if width % 2 == 0 else spectrum[:, :1]
    half = edge[1 : 1 + (height - 1) // 2]
    own = edge[:: height // 2] if height % 2 == 0 else edge[:1]
    return inner.flatten(0, 1), half.flatten(0, 1), own.flatten(0, 1).real


def fill(parts: Parts, height: int, width: int, mirror: Callable[[Tensor], Tensor] = torch.conj) -> Tensor:
    """The half spectrum ``(H, W // 2 + 1, *)`` of its parts; ``mirror`` takes an entry to that of its mirror image."""
    inner, half, own = parts
    edges = 2 - width % 2
    half, own = half.unflatten(0, (-1, edges)), own.unflatten(0, (-1, edges)).to(inner.dtype)
    edge = torch.cat([own[:1], half, own[1:], mirror(half.flip(0))])
    return torch.cat([edge[:, :1], inner.unflatten(0, (height, -1)), edge[:, 1:]], dim=1)


def convolve(input: Tensor, weight: Tensor, weight_real: Tensor) -> Tensor:
    """Images ``(B, I, H, W)`` to ``(B, O, H, W)`` by the matrices of inner and half, and of own frequencies."""
    with torch.autocast(input.device.type, enabled=False):
        if input.dtype in (torch.float16, torch.bfloat16):  # what an autocast layer before gives
            input = input.to(weight_real.dtype)
        return _Convolution.apply(input, weight, weight_real)


def _columns(images: Tensor) -> Parts:
    """Half spectrum in parts ``(frequencies, channels, B)``: for each frequency one matrix product takes all images."""
    return split(torch.fft.rfft2(images).permute(2, 3, 1, 0).contiguous(), *images.shape[-2:])


def _images(parts: Parts, height: int, width: int) -> Tensor:
    return torch.fft.irfft2(fill(parts, height, width).permute(3, 2, 0, 1).contiguous(), s=(height, width))


def _forward(input: Tensor, weight: Tensor, weight_real: Tensor) -> tuple[Tensor, Parts]:
    inner, half, own = columns = _columns(input)
    count = len(inner)
    products = weight[:count] @ inner, weight[count:] @ half, weight_real @ own
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
            if torch.is_grad_enabled():  # for a second derivative, autograd has to see the operations
                return _differentiable_gradients(ctx, grad)
            return _gradients(ctx, grad)


def _differentiable_gradients(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    inputs = ctx.saved_tensors[:3]
    wanted = [tensor for tensor, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
    gradients = iter(torch.autograd.grad(_forward(*inputs)[0], wanted, grad, create_graph=True))
    return tuple(next(gradients) if needed else None for needed in ctx.needs_input_grad)


def _gradients(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    _, weight, weight_real, inner, half, own = ctx.saved_tensors
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
        grad_real = grad_own @ own.mT * scale
    return grad_input, grad_weight, grad_real
