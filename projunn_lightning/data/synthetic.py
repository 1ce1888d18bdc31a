"""The base class of tasks whose samples are generated as a function of seed, split and index."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator

from projunn_lightning.data.batches import Batches, Sample
from projunn_lightning.data.task import Task
from projunn_lightning.errors import at_least
from projunn_lightning.linalg import generator_for

Generate = Callable[[int, Generator], Sample]

BLOCK = 1024
"""The number of samples that are generated together. Sample i is row ``i % BLOCK`` of block ``i // BLOCK``."""


class Generated(Batches):
    """Samples that a vectorised function generates on demand, one block at a time.

    Sample i depends on the key and on i alone. It is therefore the same in every worker, on every rank and in every
    run. In a fresh dataset the indices beyond its length are new samples; in a fixed one, index i stands for sample
    ``i % len(dataset)``.

    Args:
        generate: called as ``generate(count, generator)``; returns tensors whose first dimension has that length.
        size: number of samples in an epoch.
        key: name of the random stream. Two keys give independent samples.
        fresh: whether every epoch has new samples. Fixed samples are generated all at once and kept, because they are
            read in random order.
    """

    def __init__(self, generate: Generate, size: int, key: str, *, fresh: bool = False) -> None:
        self.generate = generate
        self.size = size
        self.key = key
        self.fresh = fresh
        self.block = BLOCK if fresh else size
        self._latest: tuple[int, Sample] | None = None

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        index = torch.as_tensor(indices)
        if not self.fresh:
            index = index % self.size
        blocks = index // self.block
        numbers, inverse = blocks.unique(return_inverse=True)
        if len(numbers) == 1:
            return tuple(column[index % self.block] for column in self._samples(int(numbers[0])))
        parts = [tuple(c[index[blocks == n] % self.block] for c in self._samples(int(n))) for n in numbers]
        order = inverse.argsort(stable=True).argsort()  # from the order by block back to the requested order
        return tuple(torch.cat(columns)[order] for columns in zip(*parts, strict=True))

    def _samples(self, number: int) -> Sample:
        if self._latest is None or self._latest[0] != number:
            self._latest = number, self.generate(self.block, generator_for(f"{self.key}/{number}"))
        return self._latest[1]


class SyntheticTask(Task):
    """The base class of generated tasks. Subclasses define :meth:`generator` and :attr:`baseline_loss`.

    Args:
        train_size: number of training samples in an epoch.
        val_size: number of validation samples.
        test_size: number of test samples, which ``predict`` uses too.
        fresh: whether every epoch has new training samples. Otherwise an epoch shuffles the same ``train_size``
            samples, which are kept in memory.
        **options: options of :class:`~projunn_lightning.data.Task`.

    Raises:
        ProjUNNError: if a size is below 1.
    """

    def __init__(
        self,
        *,
        train_size: int = 100_000,
        val_size: int = 1000,
        test_size: int = 10_000,
        fresh: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        at_least(1, train_size=train_size, val_size=val_size, test_size=test_size)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.fresh = fresh
        self.shuffle = not fresh  # fresh samples are random already

    @abstractmethod
    def generator(self) -> Generate:
        """The function that makes samples, called as in :class:`Generated`. It must be picklable, for the workers."""

    def dataset(self, split: str) -> Generated:
        fresh = split == "train" and self.fresh
        return Generated(self.generator(), self.sizes[split], f"{self.seed}/{split}", fresh=fresh)
