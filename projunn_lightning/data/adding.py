"""The adding problem."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

from projunn_lightning.data.synthetic import Generate, SyntheticTask
from projunn_lightning.errors import at_least


class AddingProblem(SyntheticTask):
    """Add two marked numbers (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016, section 5.2).

    A sequence of T steps with two features: a number uniform in [0, 1) and a mark, which is 1 at two steps, one drawn
    from each half, and 0 elsewhere. The target is the sum of the two marked numbers. Inputs are ``(B, T, 2)`` and
    targets ``(B, 1)``, float32.

    Args:
        length: T.
        batch_size: samples a batch, on each rank.
        train_size: training samples an epoch.
        val_size: validation samples.
        test_size: test samples, which ``predict`` uses too.
        fresh: whether every epoch brings new training samples; otherwise ``train_size`` fixed ones, which are kept in
            memory, are reshuffled.
        seed: seeds all samples and their order; the splits are independent of each other.
        num_workers: processes that generate batches.

    Raises:
        ValueError: if a size is below 1, or the length below 2.
    """

    def __init__(
        self,
        length: int = 750,
        *,
        batch_size: int = 50,
        train_size: int = 100_000,
        val_size: int = 1000,
        test_size: int = 10_000,
        fresh: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            train_size=train_size,
            val_size=val_size,
            test_size=test_size,
            fresh=fresh,
            seed=seed,
            num_workers=num_workers,
        )
        at_least(2, length=length)
        self.length = length
        self.save_hyperparameters()

    def generator(self) -> Generate:
        return partial(adding_problem, self.length)

    @property
    def baseline_loss(self) -> float:
        """Mean squared error of always answering 1: the variance of the sum, 1/6."""
        return 1 / 6


def adding_problem(length: int, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Inputs ``(count, length, 2)`` and targets ``(count, 1)``; see AddingProblem."""
    numbers = torch.rand(count, length, generator=generator)
    half = length // 2
    first = torch.randint(half, (count, 1), generator=generator)
    second = torch.randint(half, length, (count, 1), generator=generator)
    marks = torch.zeros(count, length).scatter_(1, torch.cat([first, second], dim=1), 1.0)
    return torch.stack([numbers, marks], dim=-1), (numbers * marks).sum(1, keepdim=True)
