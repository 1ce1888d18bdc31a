"""What the synthetic sequence tasks share: samples that are a function of (seed, split, index), and their loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from projunn_lightning._checks import at_least
from projunn_lightning.functional._random import generator_for

Sample = tuple[Tensor, ...]
Generate = Callable[[int, Generator], Sample]

BLOCK = 1024
"""Samples that are generated together. Sample i is row ``i % BLOCK`` of block ``i // BLOCK``, whoever asks for it."""


class Generated(Dataset[Sample]):
    """Samples made on demand, a block at a time, by a vectorised ``generate(count, generator)``.

    It hands out whole batches only, as a DataLoader asks for them (``__getitems__``).

    Sample i depends on the key and i alone, so that it is the same in every worker, rank and run. The indices may go
    beyond ``len``: a stream of fresh samples goes on where the last epoch ended.

    Args:
        generate: returns tensors whose first dimension counts the samples.
        size: samples an epoch.
        key: names the stream; two keys give independent samples.
        block: samples generated and kept together; the whole set at once where it is asked for in random order.
    """

    def __init__(self, generate: Generate, size: int, key: str, block: int = BLOCK) -> None:
        self.generate = generate
        self.size = size
        self.key = key
        self.block = block
        self._latest: tuple[int, Sample] | None = None

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """The samples of a batch, already stacked."""
        index = torch.as_tensor(indices)
        blocks = index // self.block
        numbers, inverse = blocks.unique(return_inverse=True)
        if len(numbers) == 1:
            return tuple(column[index % self.block] for column in self._samples(int(numbers[0])))
        parts = [tuple(c[index[blocks == n] % self.block] for c in self._samples(int(n))) for n in numbers]
        order = inverse.argsort(stable=True).argsort()  # from grouped by block back to the order asked for
        return tuple(torch.cat(columns)[order] for columns in zip(*parts, strict=True))

    def _samples(self, number: int) -> Sample:
        if self._latest is None or self._latest[0] != number:
            self._latest = number, self.generate(self.block, generator_for(f"{self.key}/{number}"))
        return self._latest[1]


class EpochSampler(DistributedSampler[int]):
    """Indices of an epoch for one rank: shuffled by (seed, epoch) for a fixed set, and never repeated for a fresh one.

    Lightning calls ``set_epoch`` and leaves a ``DistributedSampler`` as it is.
    """

    def __init__(self, dataset: Generated, *, fresh: bool, seed: int, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=not fresh, seed=seed)
        self.fresh = fresh

    def __iter__(self) -> Iterator[int]:
        offset = self.epoch * self.total_size if self.fresh else 0
        return (offset + index for index in super().__iter__())


class SyntheticTask(LightningDataModule, ABC):
    """A task whose samples are generated; subclasses give :meth:`generator` and :attr:`baseline_loss`.

    Args:
        batch_size: samples a batch, on each rank.
        train_size: training samples an epoch.
        val_size: validation samples.
        test_size: test samples, which ``predict`` uses too.
        fresh: whether every epoch brings new training samples; otherwise ``train_size`` fixed ones, which are kept in
            memory, are reshuffled.
        seed: seeds all samples and their order; the splits are independent of each other.
        num_workers: processes that generate batches.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        train_size: int,
        val_size: int,
        test_size: int,
        fresh: bool,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, train_size=train_size, val_size=val_size, test_size=test_size)
        at_least(0, num_workers=num_workers)
        self.batch_size = batch_size
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.fresh = fresh
        self.seed = seed
        self.num_workers = num_workers

    @abstractmethod
    def generator(self) -> Generate:
        """The function that makes samples; it is sent to worker processes."""

    @property
    @abstractmethod
    def baseline_loss(self) -> float:
        """The loss to beat, of a predictor that has learned nothing of the task, in the units of the model's loss."""

    def dataset(self, split: str) -> Generated:
        """The samples of ``"train"``, ``"val"`` or ``"test"``."""
        size = self.sizes[split]
        streamed = split == "train" and self.fresh
        return Generated(self.generator(), size, f"{self.seed}/{split}", block=BLOCK if streamed else size)

    def train_dataloader(self) -> DataLoader[Sample]:
        dataset = self.dataset("train")
        trainer = self.trainer
        sampler = EpochSampler(
            dataset,
            fresh=self.fresh,
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

    def _loader(self, dataset: Generated, sampler: EpochSampler | None = None) -> DataLoader[Sample]:
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
