"""Images read pixel by pixel: sequential and permuted MNIST."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor

from projunn_lightning.data.image_task import ImageTask, Prepare
from projunn_lightning.errors import ProjUNNError


class PixelSequence(ImageTask):
    """Classify an image from the sequence of its pixels (Le, Jaitly and Hinton 2015; Arjovsky et al. 2016).

    Inputs are ``(B, H * W, C)``, float32 from 0 to 1, row by row or in an order drawn once; targets are ``(B,)``.

    Args:
        source: a data set's name on the Hub (``ylecun/mnist``, ``fashion_mnist``), a local folder in the same layout,
            or ``rendered-digits``, drawn on the spot.
        permutation_seed: of the order, ``numpy.random.RandomState(seed).permutation(H * W)``; the default is the one of
            Kiani et al. 2022, as of scoRNN and expRNN before. None reads row by row.
        batch_size: samples a batch, on each rank.
        val_fraction: part of the training images that validate, chosen by the seed.
        root: folder of downloads and decoded images.
        seed: seeds that choice and the order of the samples.
        num_workers: processes that make batches.

    Raises:
        ValueError: if a number is out of range, or, as it is set up, if the source has no images.
    """

    def __init__(
        self,
        source: str = "ylecun/mnist",
        *,
        permutation_seed: int | None = 92916,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        root: str = "data",
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            source, batch_size=batch_size, val_fraction=val_fraction, root=root, seed=seed, num_workers=num_workers
        )
        if permutation_seed is not None and not 0 <= permutation_seed < 2**32:
            raise ProjUNNError(f"permutation_seed must be from 0 to 2**32 - 1, found {permutation_seed}")
        self.permutation_seed = permutation_seed
        self.save_hyperparameters()

    @property
    def permutation(self) -> Tensor | None:
        """The order in which the pixels are read, ``(H * W,)``; None for row by row."""
        if self.permutation_seed is None:
            return None
        self.setup()
        pixels = self.images["train"].pixels[0, 0].numel()
        return torch.from_numpy(np.random.RandomState(self.permutation_seed).permutation(pixels))

    def preparation(self, split: str) -> Prepare:
        return partial(pixel_sequence, self.permutation)


def pixel_sequence(permutation: Tensor | None, images: Tensor, generator: Generator) -> Tensor:
    """Images ``(B, C, H, W)`` of uint8 to sequences ``(B, H * W, C)`` from 0 to 1."""
    pixels = images.flatten(2).mT
    if permutation is not None:
        pixels = pixels[:, permutation]
    return pixels / 255
