"""What the generated tasks share: samples that are a function of (seed, split, index)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Generator

from projunn_lightning.data.task import Batches, Sample, Task
from projunn_lightning.errors import at_least
from projunn_lightning.linalg import generator_for

Generate = Callable[[int, Generator], Sample]

BLOCK = 1024
"""Samples that are generated together. Sample i is row ``i % BLOCK`` of block ``i // BLOCK``, whoever asks for it."""


class Generated(Batches):
    """Samples made on demand, a block at a time, by a vectorised ``generate(count, generator)``.

    Sample i depends on the key and i alone, so that it is the same in every worker, rank and run. A fresh set goes on
    beyond ``len``, where the last epoch ended; of a fixed one, sample i is that of ``i % len``.

    Args:
        generate: returns tensors whose first dimension counts the samples.
        size: samples an epoch.
        key: names the stream; two keys give independent samples.
        fresh: whether every epoch has new samples; fixed ones are asked for in random order, and made at once and kept.
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
        order = inverse.argsort(stable=True).argsort()  # from grouped by block back to the order asked for
        return tuple(torch.cat(columns)[order] for columns in zip(*parts, strict=True))

    def _samples(self, number: int) -> Sample:
        if self._latest is None or self._latest[0] != number:
            self._latest = number, self.generate(self.block, generator_for(f"{self.key}/{number}"))
        return self._latest[1]


class SyntheticTask(Task):
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
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        at_least(1, train_size=train_size, val_size=val_size, test_size=test_size)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.fresh = fresh
        self.shuffle = not fresh

    @abstractmethod
    def generator(self) -> Generate:
        """The function that makes samples; it is sent to worker processes."""

    def dataset(self, split: str) -> Generated:
        fresh = split == "train" and self.fresh
        return Generated(self.generator(), self.sizes[split], f"{self.seed}/{split}", fresh=fresh)
