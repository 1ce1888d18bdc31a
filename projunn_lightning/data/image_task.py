"""What the tasks on images share: the source, the split that validates, and batches as a function of their indices."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from projunn_lightning.data.images import Images, load_images
from projunn_lightning.data.task import Batches, Sample, Task
from projunn_lightning.errors import ProjUNNError, not_none
from projunn_lightning.linalg import generator_for

Prepare = Callable[[Tensor, Generator], Tensor]


class ImageBatches(Batches):
    """Batches of images, prepared for the model as they are asked for.

    Args:
        images: uint8 images with their classes.
        prepare: takes images ``(B, C, H, W)`` of uint8 and a generator, which depends on the batch's indices alone, to
            the model's input.
        key: seeds the generators.
    """

    def __init__(self, images: Images, prepare: Prepare, key: str) -> None:
        self.images = images
        self.prepare = prepare
        self.key = key

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        index = torch.as_tensor(indices) % len(self)
        generator = generator_for(f"{self.key}/{indices[0]}")  # an index comes once in a run
        return self.prepare(self.images.pixels[index], generator), self.images.labels[index]


class ImageTask(Task):
    """Labelled images of a source; subclasses say what the model gets to see (:meth:`preparation`).

    Args:
        source: see :func:`~projunn_lightning.data.images.load_images`.
        batch_size: samples a batch, on each rank.
        val_fraction: part of the training images that validate, chosen by the seed.
        root: folder of downloads and decoded images.
        seed: seeds the choice, the order of the samples and the augmentation.
        num_workers: processes that make batches.

    Raises:
        ValueError: if a number is out of range, or, as it is set up, if the source has no images.
    """

    def __init__(
        self, source: str, *, batch_size: int, val_fraction: float, root: str, seed: int, num_workers: int
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        not_none(source=source, val_fraction=val_fraction, root=root)
        if not 0 < val_fraction < 1:
            raise ProjUNNError(f"val_fraction must be above 0 and below 1, found {val_fraction}")
        self.source = source
        self.val_fraction = val_fraction
        self.root = root
        self.images: dict[str, Images] = {}

    @abstractmethod
    def preparation(self, split: str) -> Prepare:
        """What makes the model's input of a batch of images; it is sent to worker processes."""

    def prepare_data(self) -> None:
        self.setup()  # downloads and decodes; the other processes then find it done

    def setup(self, stage: str | None = None) -> None:
        if self.images:
            return
        given, test = load_images(self.source, self.root).values()
        order = torch.randperm(len(given.labels), generator=generator_for(f"{self.seed}/validation"))
        count = round(self.val_fraction * len(order))
        if not 0 < count < len(order):
            raise ProjUNNError(f"val_fraction = {self.val_fraction} of {len(order)} images leaves a split empty")
        val, train = (Images(*(column[part] for column in given)) for part in (order[:count], order[count:]))
        self.images = {"train": train, "val": val, "test": test}

    def dataset(self, split: str) -> ImageBatches:
        self.setup()
        return ImageBatches(self.images[split], self.preparation(split), f"{self.seed}/{split}")

    @property
    def baseline_loss(self) -> float:
        """Cross-entropy of taking all classes for equally likely."""
        self.setup()
        return math.log(len(self.images["train"].labels.unique()))
