"""Random changes of a batch of images."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def random_crop_and_flip(
    images: Tensor, padding: int = 4, flip: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Crop each image at random after padding by reflection, and mirror a random half of the images left to right.

    One gather does this for the whole batch. A crop has the size of the image, so that its content moves by at most
    ``padding`` pixels in each direction.

    Args:
        images: ``(B, C, H, W)``, any dtype.
        padding: number of pixels of padding on each side, below H and W.
        flip: whether to mirror half of the images.
        generator: source of the random numbers; the default generator of torch if None.

    Returns:
        The changed images, in the same shape and dtype.
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
    """Reflect indices below 0 at 0, and indices above ``size - 1`` at ``size - 1``."""
    index = index.abs()
    return (size - 1) - ((size - 1) - index).abs()
