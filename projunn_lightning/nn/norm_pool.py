"""Pooling that keeps the norm of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NormPool2d(nn.Module):
    """The Euclidean norm of each 2 x 2 window. The map is 1-Lipschitz and keeps the norm of the image.

    Images ``(B, C, H, W)`` become ``(B, C, H // 2, W // 2)``. An odd last row or column is left out.
    :class:`torch.nn.LPPool2d` has the same values, but no gradient for a window of zeros.

    >>> NormPool2d()(torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]]))
    tensor([[[[5.]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pool images ``(B, C, H, W)``."""
        height, width = (side // 2 for side in input.shape[-2:])
        windows = input[..., : 2 * height, : 2 * width].unflatten(-2, (height, 2)).unflatten(-1, (width, 2))
        return torch.linalg.vector_norm(windows, dim=(-3, -1))
