"""A LightningModule that classifies images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from projunn_lightning.errors import ProjUNNError, at_least, non_negative, not_none, one_of, pair
from projunn_lightning.models.supervised import Supervised, cross_entropy
from projunn_lightning.nn import ARCHITECTURES, ArchitectureName, CNNOptions, FourierConv2d


class ImageClassifier(Supervised):
    """A convolutional network with orthogonal or ordinary convolutions, trained on pairs (image, class).

    Images are ``(B, in_channels, H, W)``, classes are integers ``(B,)``, outputs are logits ``(B, num_classes)``, and
    the loss is the cross-entropy. The module logs ``loss`` and ``accuracy`` under ``train/``, ``val/`` and ``test/``.
    It trains by RMSprop unless the command line chooses another optimizer.

    Args:
        architecture: ``"resnet9"`` (:class:`~projunn_lightning.nn.ResNet9`) or ``"plain"``
            (:class:`~projunn_lightning.nn.PlainCNN`).
        in_channels: the number of channels of an image.
        size: the height and width of an image, ``[H, W]`` or one number for both.
        num_classes: the number of classes.
        locality: the weight of the locality penalty in the training loss, see :meth:`locality_penalty` (Kiani et al.
            2022, section 4.4). The penalty is logged as ``train/locality``. A weight of 0 leaves it out.
        support: the height and width of the window in which the penalty leaves the kernel free, ``[h, w]`` or one
            number for both.
        learning_rate: the learning rate of the default optimizer, RMSprop.
        options: the options of the network, see :class:`~projunn_lightning.nn.CNNOptions`.

    Raises:
        ProjUNNError: if a size or an option is out of range or does not fit the others; while the module runs, if a
            batch does not fit the sizes.
    """

    def __init__(
        self,
        architecture: ArchitectureName = "resnet9",
        in_channels: int = 3,
        size: int | tuple[int, int] = 32,
        num_classes: int = 10,
        *,
        locality: float = 0.0,
        support: int | tuple[int, int] = 3,
        learning_rate: float = 1e-3,
        **options: Any,
    ) -> None:
        not_none(size=size, support=support)
        one_of("architecture", architecture, ARCHITECTURES)
        at_least(1, in_channels=in_channels)
        at_least(2, num_classes=num_classes)
        non_negative(locality=locality)
        super().__init__(learning_rate, num_classes)
        self.save_hyperparameters()
        sides = pair(size)
        self.network = ARCHITECTURES[architecture](in_channels, num_classes, sides, **vars(CNNOptions(**options)))
        self.input_shape = (in_channels, *sides)
        self.locality = locality
        self.support = support
        if locality and not self._orthogonal_convolutions():
            raise ProjUNNError(
                f"locality is a penalty on orthogonal convolutions, and this network has none: set it to 0, found "
                f"{locality}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Map images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        if input.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ProjUNNError(
                f"images must be (B, {expected}), found {tuple(input.shape)}: set in_channels and size to the data's"
            )
        return self.network(input)

    def _orthogonal_convolutions(self) -> list[FourierConv2d]:
        return [module for module in self.network.modules() if isinstance(module, FourierConv2d)]

    def locality_penalty(self) -> Tensor:
        """The share of a kernel's energy outside the support, as a mean over the orthogonal convolutions; 0 to 1."""
        layers = self._orthogonal_convolutions()
        return torch.stack([layer.locality_penalty(self.support) / layer.in_channels for layer in layers]).mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.locality:
            penalty = self.locality_penalty()
            self.log("train/locality", penalty)
            loss = loss + self.locality * penalty
        return loss

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy of a batch."""
        return cross_entropy(output, target, "num_classes")
