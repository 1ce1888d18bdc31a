"""A LightningModule that classifies images."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from projunn_lightning.constraint import declared, unitarity_errors
from projunn_lightning.errors import ProjUNNError, at_least, non_negative, not_none, one_of, pair
from projunn_lightning.models.certified_accuracy import EPSILON_36, CertifiedAccuracy
from projunn_lightning.models.supervised import Supervised, cross_entropy
from projunn_lightning.nn import ARCHITECTURES, ArchitectureName, CNNOptions, FourierConv2d

CERTIFIABLE = 1e-4
"""The unitarity error of a weight up to which a network counts as 1-Lipschitz."""


class ImageClassifier(Supervised):
    """A convolutional network with orthogonal or ordinary convolutions, trained on pairs (image, class).

    Images are ``(B, in_channels, H, W)``, classes are integers ``(B,)``, outputs are logits ``(B, num_classes)``, and
    the loss is the cross-entropy. The module logs ``loss`` and ``accuracy`` under ``train/``, ``val/`` and ``test/``.
    It trains by RMSprop unless the command line chooses another optimizer.

    With ``lipschitz=True`` the network is 1-Lipschitz, and the module also logs ``certified_accuracy``, see
    :class:`~projunn_lightning.models.CertifiedAccuracy`. Before each validation and test it checks that the weights are
    orthogonal, because the certificate would be wrong otherwise. The outputs of such a network are small, so that the
    cross-entropy learns little without a ``temperature`` below 1.

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
        margin: a number that the loss subtracts from the output of the right class, so that this class must lead by
            more (Prach and Lampert 2022, arXiv 2208.03160).
        temperature: a number by which the loss divides the outputs; the cross-entropy is multiplied by it.
        radius: the radius of the certified accuracy, in the units of the images: pixels from 0 to 1 for 36/255. Only
            for 1-Lipschitz networks.
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
        margin: float = 0.0,
        temperature: float = 1.0,
        radius: float = EPSILON_36,
        learning_rate: float = 1e-3,
        **options: Any,
    ) -> None:
        not_none(size=size, support=support)
        one_of("architecture", architecture, ARCHITECTURES)
        at_least(1, in_channels=in_channels)
        at_least(2, num_classes=num_classes)
        non_negative(locality=locality, margin=margin)
        if not 0 < temperature < math.inf:
            raise ProjUNNError(f"temperature must be a finite number above 0, found {temperature}")
        chosen = CNNOptions(**options)
        certified: dict[str, Metric] = {"certified_accuracy": CertifiedAccuracy(radius)} if chosen.lipschitz else {}
        super().__init__(learning_rate, num_classes, further_metrics=certified)
        self.save_hyperparameters()
        sides = pair(size)
        self.network = ARCHITECTURES[architecture](in_channels, num_classes, sides, **vars(chosen))
        self.input_shape = (in_channels, *sides)
        self.locality = locality
        self.support = support
        self.margin = margin
        self.temperature = temperature
        self.lipschitz = chosen.lipschitz
        if locality and not self._fourier_convolutions():
            raise ProjUNNError(
                f"locality is a penalty on the convolutions 'fourier', and this network has none: set it to 0, found "
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

    def _fourier_convolutions(self) -> list[FourierConv2d]:
        return [module for module in self.network.modules() if isinstance(module, FourierConv2d)]

    def locality_penalty(self) -> Tensor:
        """The share of a kernel's energy outside the support, as a mean over the convolutions; 0 to 1."""
        layers = self._fourier_convolutions()
        return torch.stack([layer.locality_penalty(self.support) / layer.in_channels for layer in layers]).mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.locality:
            penalty = self.locality_penalty()
            self.log("train/locality", penalty)
            loss = loss + self.locality * penalty
        return loss

    @property
    def comparable_loss(self) -> bool:
        """Whether the loss is the plain cross-entropy: with a margin or a temperature it is another loss."""
        return self.margin == 0 and self.temperature == 1

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy of a batch, with the margin and the temperature."""
        if self.margin:
            output = output.scatter_add(1, target[:, None], output.new_full((len(output), 1), -self.margin))
        return self.temperature * cross_entropy(output / self.temperature, target, self.classes_option)

    def setup(self, stage: str) -> None:
        """Warn if the certified radius would not be a distance between images."""
        if self.lipschitz and getattr(getattr(self.trainer, "datamodule", None), "standardize", False):
            rank_zero_warn(
                "The data module divides the images by their standard deviation, so that the radius of the certified "
                "accuracy is no distance between images: set its option standardize to false."
            )

    def on_validation_epoch_start(self) -> None:
        self._check_certificate()

    def on_test_epoch_start(self) -> None:
        self._check_certificate()

    def _check_certificate(self) -> None:
        """Refuse to certify if a weight is not orthogonal."""
        if not self.lipschitz:
            return
        errors = unitarity_errors(self, declared(self))
        if lost := {name: float(error) for name, error in errors.items() if not error < CERTIFIABLE}:
            found = ", ".join(f"{name} has the unitarity error {error:.3g}" for name, error in lost.items())
            raise ProjUNNError(
                f"the certified accuracy would be wrong, because the network is not 1-Lipschitz: {found}, expected "
                f"below {CERTIFIABLE}. Train it with the callback ProjUNN"
            )
