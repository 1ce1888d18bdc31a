"""What all tasks share: a dataset for each split, and loaders that take whole batches from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from projunn_lightning._checks import at_least

Sample = tuple[Tensor, ...]


class Batches(Dataset[Sample], ABC):
    """A dataset that hands out whole batches only, as a DataLoader asks for them (``__getitems__``).

    Training indices count on from epoch to epoch (:class:`EpochSampler`); a set of fixed samples takes them modulo its
    size.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Samples an epoch."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """The samples of a batch, already stacked."""


class EpochSampler(DistributedSampler[int]):
    """Indices of an epoch for one rank: those of epoch e are ``e * len(dataset)`` and up, in order or shuffled.

    So an index tells the sample and the epoch, and what is random in a sample (its values or its augmentation) can be a
    function of its index. Lightning calls ``set_epoch`` and leaves a ``DistributedSampler`` as it is.
    """

    def __init__(self, dataset: Batches, *, shuffle: bool, seed: int, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        self.size = len(dataset)

    def __iter__(self) -> Iterator[int]:
        offset = self.epoch * self.size
        return (offset + index for index in super().__iter__())


class Task(LightningDataModule, ABC):
    """A task; subclasses give :meth:`dataset` and :attr:`baseline_loss`.

    Args:
        batch_size: samples a batch, on each rank.
        seed: seeds whatever is random.
        num_workers: processes that make batches.

    Raises:
        ValueError: if the batch size is below 1 or the number of workers below 0.
    """

    shuffle = True
    """Whether training samples come in a new order every epoch; needless where they are random themselves."""

    def __init__(self, *, batch_size: int, seed: int, num_workers: int) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size)
        at_least(0, num_workers=num_workers)
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers

    @abstractmethod
    def dataset(self, split: str) -> Batches:
        """The samples of ``"train"``, ``"val"`` or ``"test"``."""

    @property
    @abstractmethod
    def baseline_loss(self) -> float:
        """The loss to beat, of a predictor that has learned nothing of the task, in the units of the model's loss."""

    def train_dataloader(self) -> DataLoader[Sample]:
        dataset = self.dataset("train")
        trainer = self.trainer
        sampler = EpochSampler(
            dataset,
            shuffle=self.shuffle,
            seed=self.seed,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
        )
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self._loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._loader(self.dataset("test"))

    def predict_dataloader(self) -> DataLoader[Sample]:
        return self.test_dataloader()

    def _loader(self, dataset: Batches, sampler: EpochSampler | None = None) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=as_they_are,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def as_they_are(batch: Any) -> Any:
    """Collate nothing: the dataset hands out whole batches."""
    return batch
