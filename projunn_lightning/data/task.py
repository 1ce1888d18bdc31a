"""The base class of all tasks: a dataset for each split, and loaders that take whole batches from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from projunn_lightning.data.batches import Batches, Sample
from projunn_lightning.data.train_loader import EpochSampler, TrainLoader
from projunn_lightning.errors import at_least


class Task(LightningDataModule, ABC):
    """The base class of tasks. Subclasses define :meth:`dataset` and :attr:`baseline_loss`.

    A subclass takes its own arguments and ``**options``, and calls ``super().__init__(**options)``. To change the
    default of an option it takes that option as an argument of its own. The arguments of all classes are saved as
    hyperparameters.

    Args:
        batch_size: number of samples in a batch, on each rank.
        seed: seed of everything that is random in the data: samples, validation split, order and augmentation. Two
            splits of one seed are independent of each other.
        num_workers: number of processes that make the batches; 0 makes them in the main process.

    Raises:
        ProjUNNError: if the batch size is below 1 or the number of workers below 0.
    """

    shuffle = True
    """Whether the training samples come in a new random order in every epoch."""

    def __init__(self, *, batch_size: int = 128, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size)
        at_least(0, num_workers=num_workers)
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.save_hyperparameters()  # Lightning finds the arguments of the subclasses' constructors, too

    @abstractmethod
    def dataset(self, split: str) -> Batches:
        """The samples of the split ``"train"``, ``"val"`` or ``"test"``."""

    @property
    @abstractmethod
    def baseline_loss(self) -> float:
        """The loss of a predictor that has learned nothing about the task, in the units of the model's loss."""

    def train_dataloader(self) -> DataLoader[Sample]:
        """The training batches. In a loop of your own, call ``loader.sampler.set_epoch(epoch)`` before each epoch."""
        dataset, trainer = self.dataset("train"), self.trainer
        # The strategy knows the share of a rank: ranks that hold parts of one model (tensor parallel) read the same
        # samples.
        share = (trainer.distributed_sampler_kwargs if trainer else None) or {}
        sampler = EpochSampler(len(dataset), shuffle=self.shuffle, seed=self.seed, **share)
        if trainer is None:
            return DataLoader(dataset, sampler=sampler, **self._loader_options)
        return TrainLoader(dataset, sampler=sampler, trainer=trainer, **self._loader_options)

    def val_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.dataset("val"), **self._loader_options)

    def test_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.dataset("test"), **self._loader_options)

    def predict_dataloader(self) -> DataLoader[Sample]:
        return self.test_dataloader()

    @property
    def _loader_options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "generator": torch.Generator(),  # otherwise a loader draws from the default generator, which is the model's
            "num_workers": self.num_workers,
            "collate_fn": identity_collate,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }


def identity_collate(batch: Any) -> Any:
    """Return the batch unchanged, because the dataset has stacked it already."""
    return batch
