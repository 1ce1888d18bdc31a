"""A LightningModule that classifies images."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from projunn_lightning._checks import at_least, pair
from projunn_lightning.nn.cnn import PlainCNN, ResNet9
from projunn_lightning.nn.orthogonal_conv import Init, OrthogonalConv2d

Architecture = Literal["resnet9", "plain"]


class ImageClassifier(LightningModule):
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
        depth: convolutions of ``plain``; ``resnet9`` has its eight.
        orthogonal: whether the convolutions are orthogonal and as wide as the image, or ordinary ones of 3 x 3.
        init: of the orthogonal convolutions, ``"haar"``, or ``"identity"`` where they keep the number of channels.
        locality: weight in the training loss of the orthogonal convolutions' locality penalty, the mean over the layers
            of the kernel's energy outside the support (Kiani et al. 2022, section 4.4); it is logged as
            ``train/locality``. 0 leaves it out.
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
        super().__init__()
        self.save_hyperparameters()
        at_least(1, in_channels=in_channels)
        at_least(2, num_classes=num_classes)
        if not (locality == 0 or (locality > 0 and orthogonal)):
            raise ValueError(f"locality must be 0, or above it where orthogonal is true, found {locality}")
        sides = pair(size)
        self.network = _network(architecture, in_channels, num_classes, sides, width, depth, orthogonal, init)
        self.expected = (in_channels, *sides)
        self.num_classes = num_classes
        self.locality = locality
        self.support = support
        self.learning_rate = learning_rate
        accuracy = MetricCollection({"accuracy": MulticlassAccuracy(num_classes, average="micro")})
        self.train_metrics = accuracy.clone(prefix="train/")
        self.val_metrics = accuracy.clone(prefix="val/")
        self.test_metrics = accuracy.clone(prefix="test/")

    def forward(self, input: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        if input.shape[1:] != self.expected:
            wanted, found = (" x ".join(map(str, shape)) for shape in (self.expected, input.shape[1:]))
            raise ValueError(f"images must be {wanted} (in_channels x size), found {found}; set the model to the data")
        return self.network(input)

    def locality_penalty(self) -> Tensor:
        """The mean over the orthogonal convolutions of their kernel's energy outside the support, a scalar."""
        layers = [module for module in self.network.modules() if isinstance(module, OrthogonalConv2d)]
        return torch.stack([layer.locality_penalty(self.support) for layer in layers]).mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self._step(batch, "train")
        if self.locality:
            penalty = self.locality_penalty()
            self.log("train/locality", penalty)
            loss = loss + self.locality * penalty
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def predict_step(self, batch: Tensor | tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Predicted classes ``(B,)`` of a batch of images, with or without classes beside them."""
        return self(batch if isinstance(batch, Tensor) else batch[0]).argmax(-1)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        input, target = batch
        output = self(input)
        try:
            loss = F.cross_entropy(output, target)
        except IndexError as error:
            raise ValueError(f"a target is no class below num_classes = {self.num_classes}: {error}") from None
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        metrics(output.detach(), target)
        training = stage == "train"
        self.log(f"{stage}/loss", loss, prog_bar=True, sync_dist=not training, batch_size=len(input))
        self.log_dict(metrics, on_step=training, on_epoch=not training, batch_size=len(input))
        return loss

    def configure_optimizers(self) -> Any:
        """RMSprop, where the command line or a subclass asks for no other optimizer."""
        return torch.optim.RMSprop(self.parameters(), lr=self.learning_rate)


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
        raise ValueError(f"unknown architecture {architecture!r}, expected resnet9 or plain")
    if depth is not None:
        raise ValueError(f"depth is for architecture 'plain'; 'resnet9' has its own, found {depth}")
    return ResNet9(in_channels, num_classes, size, width=width, orthogonal=orthogonal, init=init)
