"""Classification of images."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

from projunn_lightning.data.augmentation import random_crop_and_flip
from projunn_lightning.data.image_task import ImageTask, Prepare
from projunn_lightning.errors import ProjUNNError, at_least


class ImageClassification(ImageTask):
    """Images and their classes, such as MNIST and CIFAR.

    Inputs are ``(B, C, H, W)``, float32; over the training images each channel has mean 0 and standard deviation 1.
    Targets are ``(B,)``.

    Args:
        source: a data set's name on the Hub (``ylecun/mnist``, ``fashion_mnist``, ``uoft-cs/cifar10``,
            ``uoft-cs/cifar100``), a local folder in the same layout, or ``rendered-digits``, drawn on the spot.
        crop_padding: pixels by which training images move at most, their edges mirrored; 4 is usual for CIFAR.
        horizontal_flip: whether half of the training images are turned left to right.
        batch_size: samples a batch, on each rank.
        val_fraction: part of the training images that validate, chosen by the seed.
        root: folder of downloads and decoded images.
        seed: seeds that choice, the order of the samples and their augmentation.
        num_workers: processes that make batches.

    Raises:
        ValueError: if a number is out of range, or, as it is set up, if the source has no images.
    """

    def __init__(
        self,
        source: str = "uoft-cs/cifar10",
        *,
        crop_padding: int = 0,
        horizontal_flip: bool = False,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        root: str = "data",
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            source, batch_size=batch_size, val_fraction=val_fraction, root=root, seed=seed, num_workers=num_workers
        )
        at_least(0, crop_padding=crop_padding)
        self.crop_padding = crop_padding
        self.horizontal_flip = horizontal_flip
        self.statistics: tuple[Tensor, Tensor] | None = None
        self.save_hyperparameters()

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        pixels = self.images["train"].pixels
        if self.crop_padding >= min(pixels.shape[2:]):
            raise ProjUNNError(
                f"crop_padding must be below the images' side of {min(pixels.shape[2:])}, found {self.crop_padding}"
            )
        if self.statistics is None:
            self.statistics = channel_statistics(pixels)

    def preparation(self, split: str) -> Prepare:
        assert self.statistics is not None
        train = split == "train"
        crop, flip = (self.crop_padding, self.horizontal_flip) if train else (0, False)
        return partial(normalised, *self.statistics, crop, flip)


def normalised(mean: Tensor, std: Tensor, crop: int, flip: bool, images: Tensor, generator: Generator) -> Tensor:
    """Augmented images as floats, with the given mean and standard deviation taken out of each channel."""
    if crop or flip:
        images = random_crop_and_flip(images, crop, flip, generator=generator)
    return (images.float() - mean[:, None, None]) / std[:, None, None]


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 images ``(n, C, H, W)``, ``(C,)`` each."""
    levels = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)  # of each grey level: no copy of the images as floats
    mean = share @ levels
    variance = (share * (levels - mean[:, None]).square()).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1e-3).float()  # a channel of one colour stays finite
