"""The convolutions of the networks of this package. A new one is a function and an entry of CONVOLUTIONS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from torch import nn

from projunn_lightning.nn._local_kernel import Init
from projunn_lightning.nn.fourier_conv import FourierConv2d
from projunn_lightning.nn.orthogonal_conv import OrthogonalConv2d

__all__ = ["CONVOLUTIONS", "ConvolutionName", "Init"]


def _orthogonal(inputs: int, outputs: int, size: tuple[int, int], init: Init, bias: bool) -> nn.Module:
    return OrthogonalConv2d(inputs, outputs, 3, bias=bias, init=init)


def _fourier(inputs: int, outputs: int, size: tuple[int, int], init: Init, bias: bool) -> nn.Module:
    return FourierConv2d(inputs, outputs, size, bias=bias, init=init)


def _plain(inputs: int, outputs: int, size: tuple[int, int], init: Init, bias: bool) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


CONVOLUTIONS: dict[str, Callable[[int, int, tuple[int, int], Init, bool], nn.Module]] = {
    "orthogonal": _orthogonal,
    "fourier": _fourier,
    "plain": _plain,
}
"""The convolutions by name: 3 x 3 and orthogonal, as wide as the image and orthogonal, and 3 x 3 without a constraint.

Each is called with the numbers of channels, the size of the image, the initialisation of an orthogonal one, and whether
it has a bias.
"""

if TYPE_CHECKING:
    ConvolutionName = str
else:
    ConvolutionName = Literal[tuple(CONVOLUTIONS)]  # the help of the command shows these choices
