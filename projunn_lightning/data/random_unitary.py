"""Learning a random unitary matrix from what it does to random vectors."""

from __future__ import annotations

from functools import cached_property, partial

import torch
from torch import Generator, Tensor

from projunn_lightning.data.synthetic import Generate, SyntheticTask
from projunn_lightning.errors import at_least
from projunn_lightning.functional import init


class RandomUnitary(SyntheticTask):
    """Pairs (x, U x) of a Haar-random unitary (real: orthogonal) matrix U (Kiani et al. 2022).

    The entries of x are normal with variance 1. Inputs and targets are ``(B, N)``, complex64 or float32.

    Args:
        size: N.
        complex: whether U is unitary, otherwise orthogonal, in the component of the identity.
        batch_size: samples a batch, on each rank.
        train_size: training samples, fixed and reshuffled every epoch.
        val_size: validation samples.
        test_size: test samples, which ``predict`` uses too.
        seed: seeds U, all samples and their order.
        num_workers: processes that generate batches.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self,
        size: int = 2048,
        *,
        complex: bool = True,
        batch_size: int = 16,
        train_size: int = 4096,
        val_size: int = 64,
        test_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            train_size=train_size,
            val_size=val_size,
            test_size=test_size,
            fresh=False,
            seed=seed,
            num_workers=num_workers,
        )
        at_least(1, size=size)
        self.size = size
        self.complex = complex
        self.save_hyperparameters()

    @cached_property
    def target(self) -> Tensor:
        """U, ``(N, N)``."""
        matrix = torch.empty(self.size, self.size, dtype=torch.complex64 if self.complex else torch.float32)
        init.haar_(matrix, generator=Generator().manual_seed(self.seed))
        if not self.complex:  # rotations do not reach the other component, so that half of the targets had no way to U
            matrix[0] *= torch.linalg.det(matrix).sign()
        return matrix

    def generator(self) -> Generate:
        return partial(unitary_pairs, self.target)

    @property
    def baseline_loss(self) -> float:
        """The loss of an unrelated unitary matrix, ``2 N``."""
        return 2.0 * self.size


def unitary_pairs(target: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Normal x and U x, ``(count, N)`` each."""
    x = torch.randn(count, len(target), dtype=target.dtype, generator=generator)
    return x, x @ target.mT
