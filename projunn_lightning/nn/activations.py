"""Activations of convolutional networks. A new one is a module and an entry of ACTIVATIONS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError


class GroupSort(nn.Module):
    """Sort the channels in pairs: channel c and channel c + C / 2 become their maximum and their minimum.

    The map is 1-Lipschitz and, unlike ReLU, keeps the norm of its input and of the gradient.

    Input and output are ``(B, C, ...)`` with an even number C of channels.

    Source: Anil, Lucas and Grosse 2019, arXiv 1811.05381 (GroupSort with groups of two, or MaxMin).

    >>> GroupSort()(torch.tensor([[1.0, 5.0, 3.0, 2.0]]))
    tensor([[3., 5., 1., 2.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Sort the channels of ``(B, C, ...)``.

        Raises:
            ProjUNNError: if C is odd.
        """
        if input.shape[1] % 2:
            raise ProjUNNError(f"GroupSort sorts pairs of channels and needs an even number, found {input.shape[1]}")
        first, second = input.chunk(2, dim=1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)


class Abs(nn.Module):
    """The absolute value, which is 1-Lipschitz and keeps the norm of its input and of the gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """The absolute values of a tensor of any shape."""
        return input.abs()


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "groupsort": GroupSort, "abs": Abs}
"""The activations by name. All of them are 1-Lipschitz."""

if TYPE_CHECKING:
    ActivationName = str
else:
    ActivationName = Literal[tuple(ACTIVATIONS)]  # the help of the command shows these choices
