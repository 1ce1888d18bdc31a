"""A LightningModule that classifies images."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least, not_none, pair
from projunn_lightning.models.supervised import Supervised, cross_entropy
from projunn_lightning.nn.cnn import PlainCNN, ResNet9
from projunn_lightning.nn.orthogonal_conv import Init, OrthogonalConv2d

Architecture = Literal["resnet9", "plain"]


class ImageClassifier(Supervised):
    """A convolutional network trained on pairs (image, class), with orthogonal or ordinary convolutions.

    Images are ``(B, in_channels, H, W)``, classes integers ``(B,)``, outputs logits ``(B, num_classes)``, the loss is
    cross-entropy. It logs ``train/``, ``val/`` and ``test/`` ``loss`` and ``accuracy``. Without an optimizer from the
    command line it trains by RMSprop.

    Args:
        architecture: ``"resnet9"`` (:class:`~projunn_lightning.nn.ResNet9`) or ``"plain"``
            (:class:`~projunn_lightning.nn.PlainCNN`).
        in_channels: channels of an image.
        size: height and width of an image, ``[H, W]`` or one number for both.
        num_classes: classes.
        width: channels, of the first convolution for ``resnet9`` and of all for ``plain``.
        depth: convolutions of ``plain``, 10 if None; ``resnet9`` has its eight.
        orthogonal: whether the convolutions are orthogonal and as wide as the image, or ordinary ones of 3 x 3.
        init: of the orthogonal convolutions, ``"haar"``, or ``"identity"`` where they keep the number of channels.
        locality: weight in the training loss of the orthogonal convolutions' locality penalty, the share of the
            kernel's energy outside the support, from 0 to 1, as a mean over the layers (Kiani et al. 2022, section
            4.4); it is logged as ``train/locality``. A weight of 0 leaves it out.
        support: height and width of the window in which the penalty leaves the kernel free, ``[h, w]`` or one number.
        learning_rate: of the default optimizer, RMSprop.

    Raises:
        ValueError: if a size or option is out of range or does not fit the others, or, as it runs, if a batch does not
            fit the sizes.
    """

    def __init__(
        self,
        architecture: Architecture = "resnet9",
        in_channels: int = 3,
        size: int | tuple[int, int] = 32,
        num_classes: int = 10,
        *,
        width: int = 64,
        depth: int | None = None,
        orthogonal: bool = True,
        init: Init = "identity",
        locality: float = 0.0,
        support: int | tuple[int, int] = 3,
        learning_rate: float = 1e-3,
    ) -> None:
        not_none(size=size, support=support, locality=locality)
        at_least(1, in_channels=in_channels)
        at_least(2, num_classes=num_classes)
        super().__init__(learning_rate, num_classes)
        self.save_hyperparameters()
        if not (locality == 0 or (0 < locality < math.inf and orthogonal)):
            raise ProjUNNError(f"locality must be 0, or above it where orthogonal is true, found {locality}")
        sides = pair(size)
        self.network = _network(architecture, in_channels, num_classes, sides, width, depth, orthogonal, init)
        self.input_shape = (in_channels, *sides)
        self.locality = locality
        self.support = support

    def forward(self, input: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        if input.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ProjUNNError(
                f"images must be (B, {expected}), found {tuple(input.shape)}: set in_channels and size to the data's"
            )
        return self.network(input)

    def locality_penalty(self) -> Tensor:
        """The share of its kernel's energy outside the support, as a mean over the orthogonal convolutions; 0 to 1."""
        layers = [module for module in self.network.modules() if isinstance(module, OrthogonalConv2d)]
        return torch.stack([layer.locality_penalty(self.support) / layer.in_channels for layer in layers]).mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.locality:
            penalty = self.locality_penalty()
            self.log("train/locality", penalty)
            loss = loss + self.locality * penalty
        return loss

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return cross_entropy(output, target, "num_classes")


def _network(
    architecture: str,
    in_channels: int,
    num_classes: int,
    size: tuple[int, int],
    width: int,
    depth: int | None,
    orthogonal: bool,
    init: Init,
) -> nn.Module:
    if architecture == "plain":
        depth = 10 if depth is None else depth
        return PlainCNN(in_channels, num_classes, size, depth=depth, width=width, orthogonal=orthogonal, init=init)
    if architecture != "resnet9":
        raise ProjUNNError(f"unknown architecture {architecture!r}, expected resnet9 or plain")
    if depth is not None:
        raise ProjUNNError(f"depth is for architecture 'plain'; 'resnet9' has its own, found {depth}")
    return ResNet9(in_channels, num_classes, size, width=width, orthogonal=orthogonal, init=init)
