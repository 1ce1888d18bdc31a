"""The order of the training samples, and a loader that continues where a checkpoint was saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Generator
from torch.utils.data import DataLoader, DistributedSampler

from projunn_lightning._compat import batches_processed, epochs_processed
from projunn_lightning.data.batches import Sample


class EpochSampler(DistributedSampler[int]):
    """The indices that one rank reads in an epoch, in order or shuffled.

    The indices of epoch e are ``e * size`` to ``(e + 1) * size - 1``. An index thus tells both the sample and the
    epoch, so that everything random in a sample (its values or its augmentation) can be a function of its index. The
    ranks take the indices in turn. If their number does not divide the size, the first indices are repeated at the end.

    Args:
        size: number of samples in an epoch.
        shuffle: whether the order is random, and different in every epoch.
        seed: seed of the order.
        num_replicas: number of ranks that share an epoch. None stands for the size of the process group that exists
            when the sampler is used, and for 1 if there is none.
        rank: the number of this rank, if ``num_replicas`` is given.
    """

    # Lightning keeps this sampler in distributed runs because of its base class. Nothing else of that class is used,
    # because its constructor reads the process group, which may not exist yet.
    def __init__(self, size: int, *, shuffle: bool, seed: int, num_replicas: int | None = None, rank: int = 0) -> None:
        self.size = size
        self.shuffle = shuffle
        self.seed = seed
        self.share = None if num_replicas is None else (num_replicas, rank)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the next iteration, and how many indices it leaves out at the start."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        """The number of indices of this rank in a whole epoch."""
        replicas, _ = self._replicas_and_rank()
        return -(-self.size // replicas)

    def __iter__(self) -> Iterator[int]:
        replicas, rank = self._replicas_and_rank()
        places = range(rank, len(self) * replicas, replicas)[self.start :]
        order, offset = self._order(), self.epoch * self.size
        return (offset + order[place % self.size] for place in places)

    def _order(self) -> Sequence[int]:
        if not self.shuffle:
            return range(self.size)
        return torch.randperm(self.size, generator=Generator().manual_seed(self.seed + self.epoch)).tolist()

    def _replicas_and_rank(self) -> tuple[int, int]:
        if self.share is not None:
            return self.share
        if dist.is_available() and dist.is_initialized():
            return dist.get_world_size(), dist.get_rank()
        return 1, 0


# StatefulDataLoader of torchdata 0.11 was tried in place of this class, with EpochSampler as it is and with a sampler
# that keeps a state. Resumed runs were not exact:
# - Its position is the number of batches that were fetched. A batch that an exception interrupts has been fetched but
#   not trained on, and the resumed run left it out.
# - The state after the last batch of an epoch is an iterator at its end. The resumed run began with an empty epoch and
#   ended too early.
# - It does not know that `limit_train_batches` ends an epoch, and its state does not hold the epoch.
# - Lightning restores no loader that it made before it restored its counts, as `estimated_stepping_batches` in
#   `configure_optimizers` makes it do.
# Moreover, torchdata is maintained but no longer developed, and under torch 2.13 each of its loaders warns.
class TrainLoader(DataLoader[Sample]):
    """A loader that starts each iteration at the position of the trainer, also in the middle of an epoch.

    The position is an epoch and a number of batches in it. It advances with every batch that the trainer has processed.
    Lightning saves it in checkpoints and restores it. Lightning's own count of epochs is not the position, because it
    counts an epoch that ``max_steps`` ended early as a whole one.

    Args:
        *args: arguments of torch's DataLoader.
        trainer: the trainer that reads the batches.
        **options: arguments of torch's DataLoader.
    """

    def __init__(self, *args: Any, trainer: Trainer, **options: Any) -> None:
        super().__init__(*args, **options)
        self.trainer = trainer
        self.load_state_dict({"epoch": epochs_processed(trainer), "batch": 0})

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches that the trainer has processed."""
        batch = self._start["batch"] + batches_processed(self.trainer) - self._processed_at_start
        epochs, batch = divmod(batch, self._batches_per_epoch)
        return {"epoch": self._start["epoch"] + epochs, "batch": batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._start = state_dict
        self._processed_at_start = batches_processed(self.trainer)

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        # This is a generator, so that the position is read when the first batch is requested. Lightning creates the
        # iterator earlier, when it does not know the number of batches yet.
        position = self.state_dict()
        skipped = position["batch"]
        remaining = self._batches_per_epoch - skipped
        if isinstance(self.sampler, EpochSampler):  # `overfit_batches` replaces the sampler
            self.sampler.set_epoch(position["epoch"], skipped * (self.batch_size or 1))
            skipped = 0
        yield from islice(super().__iter__(), skipped, skipped + remaining)

    @property
    def _batches_per_epoch(self) -> int:
        return int(min(len(self), self.trainer.num_training_batches))
