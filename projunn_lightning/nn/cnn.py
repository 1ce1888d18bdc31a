"""Convolutional networks for classification. A new architecture is a class here and an entry of ARCHITECTURES."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least
from projunn_lightning.nn.fourier_conv import FourierConv2d, Init


@dataclass(frozen=True)
class CNNOptions:
    """The options that all architectures share.

    Args:
        width: the number of channels of the first convolution; None for the architecture's own number.
        depth: the number of convolutions; None for the architecture's own number.
        orthogonal: whether the convolutions are orthogonal and as wide as the image
            (:class:`~projunn_lightning.nn.FourierConv2d`), or ordinary ones of 3 x 3.
        init: the initialisation of orthogonal convolutions. ``"haar"`` draws random weights, and ``"haar_so"`` those
            with the determinant 1. With ``"identity"`` each convolution that keeps the number of channels starts as the
            identity, so that a signal can pass through tens of layers; the other convolutions still start from
            ``"haar"``.
    """

    width: int | None = None
    depth: int | None = None
    orthogonal: bool = True
    init: Init = "identity"

    def convolution(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> nn.Module:
        """A convolution without a bias that keeps the height and the width of the image."""
        if not self.orthogonal:
            return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        # The identity between different numbers of channels would add channels of zeros, which learn slowly.
        init = self.init if in_channels == out_channels else "haar"
        return FourierConv2d(in_channels, out_channels, size, bias=False, init=init)

    def block(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> nn.Sequential:
        """A convolution, batch normalisation and ReLU."""
        convolution = self.convolution(in_channels, out_channels, size)
        return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class CNN(nn.Module):
    """A body of convolutions and a linear classifier; the base class of the architectures.

    A subclass makes ``body`` and ``classifier``.
    """

    body: nn.Sequential
    classifier: nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """Map images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        return self.classifier(self.body(input).flatten(1))


class ResNet9(CNN):
    """The ResNet of nine weighted layers with which Kiani et al. 2022 classify CIFAR-10.

    Its eight convolutions have w, 2 w, 2 w, 2 w, 4 w, 4 w, 4 w and 4 w channels. The third and fourth and the last two
    have a skip around them. Batch normalisation and ReLU follow each convolution, and 2 x 2 average pooling follows the
    second, the fifth, the sixth and the last. A linear layer classifies.

    Args:
        in_channels: the number of channels of the images.
        num_classes: the number of outputs.
        size: the height and width of the images, 16 or more each.
        options: see :class:`~projunn_lightning.nn.CNNOptions`; ``width`` is w, 64 by default. The depth is fixed.

    Raises:
        ProjUNNError: if a size or an option is out of range.
    """

    def __init__(self, in_channels: int, num_classes: int, size: tuple[int, int], **options: Any) -> None:
        super().__init__()
        chosen = CNNOptions(**options)
        if chosen.depth is not None:
            raise ProjUNNError(f"ResNet9 has eight convolutions; leave out depth, found {chosen.depth}")
        w = 64 if chosen.width is None else chosen.width
        at_least(1, width=w)
        at_least(16, size=min(size))
        halves = [(size[0] // n, size[1] // n) for n in (1, 2, 4, 8, 16)]

        def block(inputs: int, outputs: int, level: int) -> nn.Sequential:
            return chosen.block(inputs, outputs, halves[level])

        self.body = nn.Sequential(
            block(in_channels, w, 0),
            block(w, 2 * w, 0),
            nn.AvgPool2d(2),
            Residual(block(2 * w, 2 * w, 1), block(2 * w, 2 * w, 1)),
            block(2 * w, 4 * w, 1),
            nn.AvgPool2d(2),
            block(4 * w, 4 * w, 2),
            nn.AvgPool2d(2),
            Residual(block(4 * w, 4 * w, 3), block(4 * w, 4 * w, 3)),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Linear(4 * w * halves[4][0] * halves[4][1], num_classes)


class PlainCNN(CNN):
    """Convolutions without skips, through which a signal has to pass all layers (Kiani et al. 2022).

    All convolutions have the size of the image. Batch normalisation and ReLU follow each. 2 x 2 average pooling and a
    linear layer classify.

    Args:
        in_channels: the number of channels of the images, at most the width if the convolutions are orthogonal.
        num_classes: the number of outputs.
        size: the height and width of the images, 2 or more each.
        options: see :class:`~projunn_lightning.nn.CNNOptions`; all convolutions have the same ``width``, 32 by default,
            and the ``depth`` is 10 by default.

    Raises:
        ProjUNNError: if a size or an option is out of range.
    """

    def __init__(self, in_channels: int, num_classes: int, size: tuple[int, int], **options: Any) -> None:
        super().__init__()
        chosen = CNNOptions(**options)
        width = 32 if chosen.width is None else chosen.width
        depth = 10 if chosen.depth is None else chosen.depth
        at_least(1, depth=depth, width=width)
        at_least(2, size=min(size))
        blocks = (chosen.block(*channels, size) for channels in pairwise([in_channels] + depth * [width]))
        self.body = nn.Sequential(*blocks, nn.AvgPool2d(2))
        self.classifier = nn.Linear(width * (size[0] // 2) * (size[1] // 2), num_classes)


class Residual(nn.Sequential):
    """``x + layers(x)``."""

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


ARCHITECTURES: dict[str, type[CNN]] = {"resnet9": ResNet9, "plain": PlainCNN}
"""The architectures by name; each is called as ``architecture(in_channels, num_classes, size, **options)``."""

if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]  # the help of the command shows these choices
