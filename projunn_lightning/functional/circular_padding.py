"""Circular padding of images and its adjoint, each of which is the other's backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from projunn_lightning._compat import in_torch_func

Pad = tuple[int, ...]


def circular_pad(input: Tensor, pad: Sequence[int]) -> Tensor:
    """Continue images at their opposite edges, as ``torch.nn.functional.pad(input, pad, mode="circular")`` does.

    The backward pass of torch's function takes a quarter of the time of a 3 x 3 convolution of the images; this one is
    several times faster.

    Args:
        input: images ``(*, H, W)`` of three or four dims.
        pad: the numbers of columns at the left and at the right and of rows at the top and at the bottom, each at most
            the side of the image.

    >>> import torch
    >>> circular_pad(torch.tensor([[[1, 2, 3]]]), (1, 2, 0, 0))
    tensor([[[3, 1, 2, 3, 1, 2]]])
    """
    if not any(pad):
        return input
    return (_padded if _plain() else _Padded.apply)(input, tuple(pad))


def circular_unpad(input: Tensor, pad: Sequence[int]) -> Tensor:
    """The adjoint of :func:`circular_pad`: it adds the pixels beyond the edges to those that they continue.

    Args:
        input: padded images ``(*, H, W)``.
        pad: see :func:`circular_pad`.

    >>> import torch
    >>> circular_unpad(torch.tensor([[[1, 10, 20, 30, 2, 3]]]), (1, 2, 0, 0))
    tensor([[[12, 23, 31]]])
    """
    if not any(pad):
        return input
    return (_unpadded if _plain() else _Unpadded.apply)(input, tuple(pad))


def _plain() -> bool:
    return torch.compiler.is_compiling() or in_torch_func()


def _padded(input: Tensor, pad: Pad) -> Tensor:
    return F.pad(input, pad, mode="circular")


def _unpadded(input: Tensor, pad: Pad) -> Tensor:
    left, right, top, bottom = pad
    height, width = input.shape[-2] - top - bottom, input.shape[-1] - left - right
    output = input[..., top : top + height, left : left + width].clone()
    for row, (source_rows, target_rows) in enumerate(_continued(height, top, bottom)):
        for column, (source_columns, target_columns) in enumerate(_continued(width, left, right)):
            if row or column:
                output[..., target_rows, target_columns] += input[..., source_rows, source_columns]
    return output


def _continued(side: int, before: int, after: int) -> list[tuple[slice, slice]]:
    """The pixels inside of a side, before it and after it, in the padded image; and the pixels that they continue."""
    return [
        (slice(before, before + side), slice(None)),
        (slice(0, before), slice(side - before, side)),
        (slice(before + side, before + side + after), slice(0, after)),
    ]


class _Padded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, pad):  # type: ignore[no-untyped-def]
        ctx.pad = pad
        return _padded(input, pad)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return _Unpadded.apply(grad, ctx.pad), None


class _Unpadded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, pad):  # type: ignore[no-untyped-def]
        ctx.pad = pad
        return _unpadded(input, pad)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return _Padded.apply(grad, ctx.pad), None
