"""The task of learning a random unitary matrix from its products with random vectors."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch
from torch import Generator, Tensor

from projunn_lightning.data.synthetic import Generate, SyntheticTask
from projunn_lightning.errors import at_least
from projunn_lightning.functional import init
from projunn_lightning.linalg import generator_for


class RandomUnitary(SyntheticTask):
    """Pairs (x, U x) for a Haar-random unitary or orthogonal matrix U (Kiani et al. 2022).

    The entries of x are normal with variance 1. Inputs and targets are ``(B, N)``, complex64 or float32. The training
    samples are the same in every epoch; their order is random.

    Args:
        size: number of rows N of U.
        complex: whether U is unitary. Otherwise U is orthogonal with determinant 1.
        **options: options of :class:`~projunn_lightning.data.SyntheticTask`, without ``fresh``.

    Raises:
        ProjUNNError: if a size is below 1, or ``num_workers`` is negative.
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
        **options: Any,
    ) -> None:
        super().__init__(
            fresh=False, batch_size=batch_size, train_size=train_size, val_size=val_size, test_size=test_size, **options
        )
        at_least(1, size=size)
        self.size = size
        self.complex = complex
        self.save_hyperparameters(ignore="fresh")  # `fresh` is no option of this task

    @cached_property
    def target(self) -> Tensor:
        """The matrix U, ``(N, N)``, complex64 or float32."""
        matrix = torch.empty(self.size, self.size, dtype=torch.complex64 if self.complex else torch.float32)
        # With the bare seed, U would be the matrix that a model draws first after seed_everything with the same seed.
        init.haar_(matrix, generator=generator_for(f"{self.seed}/target"))
        if not self.complex:
            # A matrix of determinant -1 cannot be learned: no continuous path leads to it from one of determinant 1.
            # The determinant itself is a product of N numbers and may underflow on the way.
            matrix[0] *= torch.linalg.slogdet(matrix).sign
        return matrix

    def generator(self) -> Generate:
        return partial(unitary_pairs, self.target)

    @property
    def baseline_loss(self) -> float:
        """The expected squared distance of U to an independent Haar-random matrix, ``2 N``."""
        return 2.0 * self.size


def unitary_pairs(target: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Normal vectors x and the products U x, each ``(count, N)``, in the dtype of U, which is ``target``."""
    x = torch.randn(count, len(target), dtype=target.dtype, generator=generator)
    return x, x @ target.mT
