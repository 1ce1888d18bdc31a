"""The base class of tasks on images: it reads the source and splits off the validation images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from projunn_lightning.data.batches import Batches, Sample
from projunn_lightning.data.images import Images, load_images
from projunn_lightning.data.task import Task
from projunn_lightning.errors import ProjUNNError, at_least, not_none, pair
from projunn_lightning.linalg import generator_for

Prepare = Callable[[Tensor, Generator], Tensor]


class ImageBatches(Batches):
    """Batches of images, which are prepared for the model when they are requested.

    Args:
        images: uint8 images and their classes.
        prepare: called with images ``(B, C, H, W)``, uint8, and a generator; returns the model's input. The generator
            depends on the key and on the first index of the batch alone.
        key: name of the random stream.
    """

    def __init__(self, images: Images, prepare: Prepare, key: str) -> None:
        self.images = images
        self.prepare = prepare
        self.key = key

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        index = torch.as_tensor(indices) % len(self)
        generator = generator_for(f"{self.key}/{indices[0]}")  # an index occurs once in a run
        return self.prepare(self.images.pixels[index], generator), self.images.labels[index]


class ImageTask(Task):
    """The base class of tasks on labelled images. Subclasses define :meth:`preparation`.

    Args:
        source: the name of a data set on the Hugging Face Hub, such as ``ylecun/mnist``, ``fashion_mnist``,
            ``uoft-cs/cifar10`` or ``uoft-cs/cifar100``; a local folder in the same layout, or with a folder of image
            files for each class; or ``rendered-digits``, images that are drawn on the spot.
        resize: height and width to which all images are resized, ``[H, W]`` or one number for both. None leaves them as
            they are; then they must have one size.
        val_fraction: fraction of the training images that are used for validation. The seed chooses them. From a source
            without test images, the seed chooses as many for the test.
        root: folder of downloads and decoded images.
        **options: options of :class:`~projunn_lightning.data.Task`.

    Raises:
        ProjUNNError: if the fraction is not between 0 and 1, or ``resize`` is below 1. ``setup`` raises it if the
            source cannot be read or a split would be empty.
    """

    def __init__(
        self,
        source: str,
        *,
        resize: int | tuple[int, int] | None = None,
        val_fraction: float = 0.1,
        root: str = "data",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        not_none(source=source, val_fraction=val_fraction, root=root)
        if not 0 < val_fraction < 1:
            raise ProjUNNError(f"val_fraction must be above 0 and below 1, found {val_fraction}")
        self.source = source
        self.resize = None if resize is None else pair(resize)
        if self.resize is not None:
            at_least(1, resize=min(self.resize))
        self.val_fraction = val_fraction
        self.root = root
        self.images: dict[str, Images] = {}

    @abstractmethod
    def preparation(self, split: str) -> Prepare:
        """The function that prepares images, called as in :class:`ImageBatches`. It must be picklable."""

    def prepare_data(self) -> None:
        self.setup()  # One process downloads and decodes the images; then the others find them in the cache.

    def setup(self, stage: str | None = None) -> None:
        if self.images:
            return
        loaded = load_images(self.source, self.root, self.resize)
        images = loaded["train"]
        order = torch.randperm(len(images.labels), generator=generator_for(f"{self.seed}/validation"))
        count = round(self.val_fraction * len(order))
        sizes = [count, len(order) - count] if "test" in loaded else [count, len(order) - 2 * count, count]
        if min(sizes) < 1:
            raise ProjUNNError(f"val_fraction = {self.val_fraction} of {len(order)} images leaves a split empty")
        val, train, *test = (Images(*(column[part] for column in images)) for part in order.split(sizes))
        self.images = {"train": train, "val": val, "test": test[0] if test else loaded["test"]}
        self._num_classes = loaded.num_classes

    def dataset(self, split: str) -> ImageBatches:
        self.setup()
        return ImageBatches(self.images[split], self.preparation(split), f"{self.seed}/{split}")

    @property
    def num_classes(self) -> int:
        """The number of classes of the source. A class may have no image."""
        self.setup()
        return self._num_classes

    @property
    def baseline_loss(self) -> float:
        """The cross-entropy of a uniform guess of the class."""
        self.setup()
        return math.log(len(self.images["train"].labels.unique()))
