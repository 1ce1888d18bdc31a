"""Convolutional networks for classification. A new architecture is a class here and an entry of ARCHITECTURES."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least, one_of
from projunn_lightning.nn._declaration import declare
from projunn_lightning.nn.activations import ACTIVATIONS, ActivationName
from projunn_lightning.nn.convolutions import CONVOLUTIONS, ConvolutionName, Init
from projunn_lightning.nn.norm_pool import NormPool2d
from projunn_lightning.nn.orthogonal_conv import OrthogonalConv2d

Pooling = Literal["average", "norm", "strided"]


@dataclass(frozen=True)
class CNNOptions:
    """The options that all architectures share.

    Args:
        width: the number of channels of the first convolution; None for the architecture's own number.
        depth: the number of convolutions; None for the architecture's own number.
        convolution: ``"orthogonal"`` for 3 x 3 kernels (:class:`~projunn_lightning.nn.OrthogonalConv2d`), ``"fourier"``
            for the orthogonal convolutions of Kiani et al. 2022, which are as wide as the image
            (:class:`~projunn_lightning.nn.FourierConv2d`), or ``"plain"`` for ordinary 3 x 3 convolutions.
        init: the initialisation of orthogonal convolutions. ``"haar"`` draws random weights, and ``"haar_so"`` those
            with the determinant 1. With ``"identity"`` each convolution that keeps the number of channels starts as the
            identity, so that a signal can pass through tens of layers; the other convolutions still start from
            ``"haar"``.
        pooling: how the sides of the image are halved. ``"average"``: the mean of each 2 x 2 window. ``"norm"``: its
            Euclidean norm, which keeps the norm of the image. ``"strided"``: a 2 x 2 convolution with a stride of 2, an
            orthogonal matrix that acts on each window if the convolutions are orthogonal. None for ``"strided"`` in a
            1-Lipschitz network and ``"average"`` in any other.
        activation: ``"relu"``, ``"groupsort"`` or ``"abs"``, see :data:`~projunn_lightning.nn.ACTIVATIONS`. None for
            ``"groupsort"`` in a 1-Lipschitz network and ``"relu"`` in any other.
        lipschitz: whether the network is 1-Lipschitz: the convolutions are orthogonal, there is no batch normalisation,
            skips are averaged with the layers that they skip, and the classifier has orthonormal rows.
    """

    width: int | None = None
    depth: int | None = None
    convolution: ConvolutionName = "orthogonal"
    init: Init = "identity"
    pooling: Pooling | None = None
    activation: ActivationName | None = None
    lipschitz: bool = False

    def __post_init__(self) -> None:
        one_of("convolution", self.convolution, CONVOLUTIONS)
        if self.pooling is not None:
            one_of("pooling", self.pooling, get_args(Pooling))
        if self.activation is not None:
            one_of("activation", self.activation, ACTIVATIONS)
        if self.lipschitz and self.convolution == "plain":
            raise ProjUNNError(
                "a 1-Lipschitz network needs orthogonal convolutions: set convolution to orthogonal or fourier, found "
                "plain"
            )

    def block(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Sequential:
        """A convolution that keeps the height and width, batch normalisation unless 1-Lipschitz, and the activation."""
        # The identity between different numbers of channels would add channels of zeros, which learn slowly.
        init = self.init if inputs == outputs else "haar"
        layers = [CONVOLUTIONS[self.convolution](inputs, outputs, size, init, self.lipschitz)]
        if not self.lipschitz:
            layers.append(nn.BatchNorm2d(outputs))
        activation = self.activation or ("groupsort" if self.lipschitz else "relu")
        return nn.Sequential(*layers, ACTIVATIONS[activation]())

    def pool(self, channels: int) -> nn.Module:
        """A layer that halves the height and the width of the image."""
        pooling = self.pooling or ("strided" if self.lipschitz else "average")
        if pooling == "average":
            return nn.AvgPool2d(2)
        if pooling == "norm":
            return NormPool2d()
        if self.convolution == "plain":
            return nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        # Without padding, because the kernel is as large as the stride. An odd last row or column is left out.
        return OrthogonalConv2d(channels, channels, 2, stride=2, padding_mode="zeros", bias=False)

    def skip(self, *layers: nn.Module) -> nn.Module:
        """Layers with a skip around them."""
        return Residual(*layers, scale=0.5 if self.lipschitz else 1.0)

    def classifier(self, features: int, num_classes: int) -> nn.Linear:
        """The last layer."""
        layer = nn.Linear(features, num_classes)
        if self.lipschitz:
            declare(layer, "weight", "haar")
        return layer


class Residual(nn.Sequential):
    """``scale * (x + layers(x))``. A scale of 1/2 keeps layers that are 1-Lipschitz so."""

    def __init__(self, *layers: nn.Module, scale: float = 1.0) -> None:
        super().__init__(*layers)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        output = input + super().forward(input)
        return output if self.scale == 1 else self.scale * output


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
            chosen.pool(2 * w),
            chosen.skip(block(2 * w, 2 * w, 1), block(2 * w, 2 * w, 1)),
            block(2 * w, 4 * w, 1),
            chosen.pool(4 * w),
            block(4 * w, 4 * w, 2),
            chosen.pool(4 * w),
            chosen.skip(block(4 * w, 4 * w, 3), block(4 * w, 4 * w, 3)),
            chosen.pool(4 * w),
        )
        self.classifier = chosen.classifier(4 * w * halves[4][0] * halves[4][1], num_classes)


class PlainCNN(CNN):
    """Convolutions without skips, through which a signal has to pass all layers (Kiani et al. 2022).

    All convolutions have the size of the image. Batch normalisation and ReLU follow each. 2 x 2 pooling and a linear
    layer classify.

    Args:
        in_channels: the number of channels of the images, at most the width for the convolutions ``"fourier"``.
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
        self.body = nn.Sequential(*blocks, chosen.pool(width))
        self.classifier = chosen.classifier(width * (size[0] // 2) * (size[1] // 2), num_classes)


ARCHITECTURES: dict[str, type[CNN]] = {"resnet9": ResNet9, "plain": PlainCNN}
"""The architectures by name; each is called as ``architecture(in_channels, num_classes, size, **options)``."""

if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]  # the help of the command shows these choices
