"""Datasets that return whole batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

Sample = tuple[Tensor, ...]
"""Inputs and targets. In a batch, the first dimension of each tensor counts the samples."""


class Batches(Dataset[Sample], ABC):
    """A dataset that returns whole batches: a DataLoader calls ``__getitems__`` with the indices of a batch.

    Training indices continue from epoch to epoch: those of epoch e start at ``e * len(dataset)``. A dataset of fixed
    samples takes them modulo its length.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples in an epoch."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """The samples of a batch, already stacked."""
