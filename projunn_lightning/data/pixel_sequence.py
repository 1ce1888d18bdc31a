"""Images that are read pixel by pixel, such as sequential and permuted MNIST."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from projunn_lightning.data.image_task import ImageTask, Prepare
from projunn_lightning.errors import ProjUNNError


class PixelSequence(ImageTask):
    """Classify an image from the sequence of its pixels (Le, Jaitly and Hinton 2015; Arjovsky et al. 2016).

    Inputs are ``(B, H * W, C)``, float32 from 0 to 1, either row by row or in one random order for all images. Targets
    are ``(B,)``, int64.

    Args:
        permutation_seed: seed of the random order, ``numpy.random.RandomState(seed).permutation(H * W)``. The default
            is the seed of Kiani et al. 2022, which scoRNN and expRNN used before. None reads row by row.
        **options: options of :class:`~projunn_lightning.data.ImageTask`.

    Raises:
        ProjUNNError: if ``permutation_seed`` is not a seed that numpy accepts.
    """

    def __init__(self, source: str = "ylecun/mnist", *, permutation_seed: int | None = 92916, **options: Any) -> None:
        super().__init__(source, **options)
        if permutation_seed is not None and not 0 <= permutation_seed < 2**32:
            raise ProjUNNError(f"permutation_seed must be from 0 to 2**32 - 1, found {permutation_seed}")
        self.permutation_seed = permutation_seed

    @property
    def permutation(self) -> Tensor | None:
        """The order in which the pixels are read, ``(H * W,)``, int64; None stands for row by row."""
        if self.permutation_seed is None:
            return None
        self.setup()
        pixels = self.images["train"].pixels[0, 0].numel()
        return torch.from_numpy(np.random.RandomState(self.permutation_seed).permutation(pixels))

    def preparation(self, split: str) -> Prepare:
        return partial(pixel_sequence, self.permutation)


def pixel_sequence(permutation: Tensor | None, images: Tensor, generator: Generator) -> Tensor:
    """Turn uint8 images ``(B, C, H, W)`` into sequences ``(B, H * W, C)`` of float32 from 0 to 1.

    The generator is not used; it is an argument because :class:`~projunn_lightning.data.image_task.ImageBatches`
    passes one.
    """
    pixels = images.flatten(2).mT
    if permutation is not None:
        pixels = pixels[:, permutation]
    return pixels / 255
