"""Classification of images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from projunn_lightning.data.augmentation import random_crop_and_flip
from projunn_lightning.data.image_task import ImageTask, Prepare
from projunn_lightning.errors import ProjUNNError, at_least


class ImageClassification(ImageTask):
    """Images and their classes, such as those of MNIST and CIFAR.

    Inputs are ``(B, C, H, W)``, float32. Over the training images, each channel has mean 0 and standard deviation 1;
    the same scale is used for all splits. Targets are ``(B,)``, int64.

    Args:
        standardize: whether each channel is divided by its standard deviation. If False, pixels are numbers from 0 to 1
            minus the mean of their channel, so that the distance between two inputs is the distance between two images.
        crop_padding: number of pixels by which training images are moved at most, with mirrored edges. The usual value
            for CIFAR is 4.
        horizontal_flip: whether a random half of the training images is mirrored from left to right.
        **options: options of :class:`~projunn_lightning.data.ImageTask`.

    Raises:
        ProjUNNError: if ``crop_padding`` is negative. ``setup`` raises it if the padding is not below the sides of the
            images.
    """

    def __init__(
        self,
        source: str = "uoft-cs/cifar10",
        *,
        standardize: bool = True,
        crop_padding: int = 0,
        horizontal_flip: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(source, **options)
        at_least(0, crop_padding=crop_padding)
        self.standardize = standardize
        self.crop_padding = crop_padding
        self.horizontal_flip = horizontal_flip
        self.statistics: tuple[Tensor, Tensor] | None = None

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        pixels = self.images["train"].pixels
        if self.crop_padding >= min(pixels.shape[2:]):
            raise ProjUNNError(
                f"crop_padding must be below the images' side of {min(pixels.shape[2:])}, found {self.crop_padding}"
            )
        if self.statistics is None:
            mean, std = channel_statistics(pixels)
            self.statistics = (mean, std if self.standardize else torch.full_like(std, 255))

    def preparation(self, split: str) -> Prepare:
        assert self.statistics is not None
        crop, flip = (self.crop_padding, self.horizontal_flip) if split == "train" else (0, False)
        return partial(augmented_and_normalised, *self.statistics, crop, flip)


def augmented_and_normalised(
    mean: Tensor, std: Tensor, crop: int, flip: bool, images: Tensor, generator: Generator
) -> Tensor:
    """Crop and flip uint8 images ``(B, C, H, W)`` at random; subtract each channel's mean and divide by its deviation.

    Args:
        mean: mean of each channel, ``(C,)``.
        std: standard deviation of each channel, ``(C,)``.
        crop: see ``crop_padding`` of :class:`ImageClassification`.
        flip: see ``horizontal_flip`` of :class:`ImageClassification`.
        images: the images.
        generator: source of the random numbers.

    Returns:
        float32, ``(B, C, H, W)``.
    """
    if crop or flip:
        images = random_crop_and_flip(images, crop, flip, generator=generator)
    return (images.float() - mean[:, None, None]) / std[:, None, None]


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel of uint8 images ``(n, C, H, W)``; each ``(C,)``, float32."""
    levels = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)  # counting grey levels avoids a copy of the images as floats
    mean = share @ levels
    variance = (share * (levels - mean[:, None]).square()).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1e-3).float()  # a channel of one colour must not divide by zero
