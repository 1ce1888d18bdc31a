"""Convolutional networks for classification, with ordinary or orthogonal convolutions."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from projunn_lightning.errors import at_least
from projunn_lightning.nn.orthogonal_conv import Init, OrthogonalConv2d


class ResNet9(nn.Module):
    """The ResNet of nine weighted layers with which Kiani et al. 2022 classify CIFAR.

    Convolutions of w, 2 w, two of 2 w around a skip, 4 w, 4 w and two of 4 w around a skip; batch normalisation and
    ReLU follow each, and 2 x 2 average pooling the second, the fifth, the sixth and the last; then a linear layer.

    Args:
        in_channels: channels of the images.
        num_classes: outputs.
        size: height and width of the images, 16 or more each.
        width: w.
        orthogonal: whether the convolutions are :class:`OrthogonalConv2d`, as wide as the image, or ordinary ones of
            3 x 3.
        init: of orthogonal convolutions: ``"haar"``, or ``"identity"`` for those that keep the number of channels,
            which lets a signal through tens of layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        size: tuple[int, int],
        *,
        width: int = 64,
        orthogonal: bool = True,
        init: Init = "identity",
    ) -> None:
        super().__init__()
        at_least(1, width=width)
        at_least(16, size=min(size))
        halves = [(size[0] // n, size[1] // n) for n in (1, 2, 4, 8, 16)]
        w = width

        def block(inputs: int, outputs: int, level: int) -> nn.Sequential:
            return conv_block(inputs, outputs, halves[level], orthogonal, init)

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

    def forward(self, input: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        return self.classifier(self.body(input).flatten(1))


class PlainCNN(nn.Module):
    """Convolutions one after another without skips, in which a signal has to go deep (Kiani et al. 2022).

    ``depth`` convolutions of ``width`` channels at the images' own size, batch normalisation and ReLU behind each,
    2 x 2 average pooling and a linear layer.

    Args:
        in_channels: channels of the images, at most ``width`` where the convolutions are orthogonal.
        num_classes: outputs.
        size: height and width of the images.
        depth: convolutions.
        width: their channels.
        orthogonal: whether they are :class:`OrthogonalConv2d`, as wide as the image, or ordinary ones of 3 x 3.
        init: of orthogonal convolutions: ``"haar"``, or ``"identity"`` for those that keep the number of channels,
            which lets a signal through tens of layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        size: tuple[int, int],
        *,
        depth: int = 10,
        width: int = 32,
        orthogonal: bool = True,
        init: Init = "identity",
    ) -> None:
        super().__init__()
        at_least(1, depth=depth, width=width)
        at_least(2, size=min(size))
        channels = [in_channels] + depth * [width]
        blocks = (conv_block(*inner, size, orthogonal, init) for inner in pairwise(channels))
        self.body = nn.Sequential(*blocks, nn.AvgPool2d(2))
        self.classifier = nn.Linear(width * (size[0] // 2) * (size[1] // 2), num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        return self.classifier(self.body(input).flatten(1))


class Residual(nn.Sequential):
    """``x + layers(x)``."""

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


def conv_block(
    in_channels: int, out_channels: int, size: tuple[int, int], orthogonal: bool, init: Init
) -> nn.Sequential:
    """Convolution at the same size, batch normalisation, ReLU."""
    if in_channels != out_channels:
        init = "haar"  # the identity would lift by channels of zeros, where learning starts slowly
    convolution: nn.Module = (
        OrthogonalConv2d(in_channels, out_channels, size, bias=False, init=init)
        if orthogonal
        else nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())
