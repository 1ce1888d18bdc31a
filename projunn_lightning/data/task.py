"""What all tasks share: a dataset for each split, and loaders that take whole batches from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from projunn_lightning.errors import at_least

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

    Args:
        dataset: the samples.
        shuffle: whether in a new order every epoch.
        seed: of the order.
        num_replicas: ranks that share an epoch; None for those of the process group there is when it is used.
        rank: this one.
    """

    def __init__(
        self, dataset: Batches, *, shuffle: bool, seed: int, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas or 1, rank=rank or 0, shuffle=shuffle, seed=seed)
        self.size = len(dataset)
        self.skip = 0  # samples of the next iteration, which a resumed run has had before
        self.found = num_replicas is None

    def __iter__(self) -> Iterator[int]:
        len(self)  # takes its share
        offset, skip = self.epoch * self.size, self.skip
        self.skip = 0
        return (offset + index for index in islice(super().__iter__(), skip, None))

    def __len__(self) -> int:
        if self.found and dist.is_available() and dist.is_initialized():
            self.num_replicas, self.rank = dist.get_world_size(), dist.get_rank()
            self.num_samples = -(-self.size // self.num_replicas)
            self.total_size = self.num_samples * self.num_replicas
        return super().__len__()


class TrainLoader(DataLoader[Sample]):
    """A loader that goes on where the trainer is, also in the middle of an epoch.

    What counts are the batches with which the trainer is through, which Lightning keeps in checkpoints: of one that an
    exception broke off nothing has reached the weights. In a run that goes on they tell the epoch too, for one that
    ``max_steps`` cut short counts as a whole one with Lightning.
    """

    def __init__(self, *args: Any, trainer: Trainer, begun: tuple[int, int], **options: Any) -> None:
        super().__init__(*args, **options)
        self.trainer = trainer
        self.begun = begun  # epochs and batches that the trainer had had when this loader began

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        # A generator starts when the first batch is asked for: Lightning makes the iterator before it has counted, and
        # workers would run ahead.
        epoch, batch = divmod(_batches_done(self.trainer) - self.begun[1], self._batches)
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(self.begun[0] + epoch)
            self.sampler.skip = batch * (self.batch_size or 1)
            batch = 0
        yield from islice(super().__iter__(), batch, None)  # Lightning may have given it another sampler

    @property
    def _batches(self) -> int:
        return int(min(len(self), self.trainer.num_training_batches))

    def state_dict(self) -> dict[str, int]:
        """Nothing; that there is one tells Lightning that the loader resumes."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def _batches_done(trainer: Trainer) -> int:
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


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
        """In a loop of your own, call ``loader.sampler.set_epoch(epoch)`` before each epoch, as of any such sampler."""
        dataset, trainer = self.dataset("train"), self.trainer
        # Ranks that share the parts of one model (tensor parallel) share their samples too; the strategy knows.
        share = (trainer.distributed_sampler_kwargs if trainer else None) or {}
        sampler = EpochSampler(dataset, shuffle=self.shuffle, seed=self.seed, **share)
        if trainer is None:
            return DataLoader(dataset, sampler=sampler, **self._options)
        epochs: int = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        begun = (0, 0) if trainer.fit_loop.restarting else (epochs, _batches_done(trainer))
        return TrainLoader(dataset, sampler=sampler, trainer=trainer, begun=begun, **self._options)

    def val_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.dataset("val"), **self._options)

    def test_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.dataset("test"), **self._options)

    def predict_dataloader(self) -> DataLoader[Sample]:
        return self.test_dataloader()

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "generator": torch.Generator(),  # so that loaders leave the numbers of torch's own one to the model
            "num_workers": self.num_workers,
            "collate_fn": as_they_are,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }


def as_they_are(batch: Any) -> Any:
    """Collate nothing: the dataset hands out whole batches."""
    return batch
