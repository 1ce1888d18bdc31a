"""Random changes of images, a batch at a time."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def random_crop_and_flip(
    images: Tensor, padding: int = 4, flip: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Move each image by up to ``padding`` pixels each way, its edges mirrored, and turn half of them left to right.

    The usual random crop of an image that reflection has padded, in one gather for the whole batch.

    Args:
        images: ``(B, C, H, W)``, any dtype.
        padding: in pixels, below H and W.
        flip: whether to mirror half of the images.
        generator: of the random numbers.

    Returns:
        Images of the same shape and dtype.
    """
    count, _, height, width = images.shape
    down, across = torch.randint(2 * padding + 1, (2, count, 1), generator=generator) - padding
    rows = _mirrored(down + torch.arange(height), height)
    columns = _mirrored(across + torch.arange(width), width)
    if flip:
        columns = torch.where(torch.rand(count, 1, generator=generator) < 0.5, columns.flip(1), columns)
    sample = torch.arange(count)[:, None, None]
    return images[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Indices beyond 0 and ``size - 1`` reflected there."""
    index = index.abs()
    return (size - 1) - ((size - 1) - index).abs()
