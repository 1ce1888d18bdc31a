"""The adding problem."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from projunn_lightning.data.synthetic import Generate, SyntheticTask
from projunn_lightning.errors import at_least


class AddingProblem(SyntheticTask):
    """Add two marked numbers of a sequence (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016, section 5.2).

    A sequence has T steps with two features: a number that is uniform in [0, 1), and a mark. The mark is 1 at one
    random step of each half of the sequence and 0 elsewhere. The target is the sum of the two marked numbers. Inputs
    are ``(B, T, 2)`` and targets ``(B, 1)``, float32.

    Args:
        length: number of steps T.
        **options: options of :class:`~projunn_lightning.data.SyntheticTask`.

    Raises:
        ProjUNNError: if the length is below 2.
    """

    def __init__(self, length: int = 750, *, batch_size: int = 50, **options: Any) -> None:
        super().__init__(batch_size=batch_size, **options)
        at_least(2, length=length)
        self.length = length

    def generator(self) -> Generate:
        return partial(adding_problem, self.length)

    @property
    def baseline_loss(self) -> float:
        """The mean squared error of the constant answer 1, which is the variance of the sum: 1/6."""
        return 1 / 6


def adding_problem(length: int, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Inputs ``(count, length, 2)`` and targets ``(count, 1)`` of :class:`AddingProblem`, float32."""
    numbers = torch.rand(count, length, generator=generator)
    half = length // 2
    first = torch.randint(half, (count, 1), generator=generator)
    second = torch.randint(half, length, (count, 1), generator=generator)
    marks = torch.zeros(count, length).scatter_(1, torch.cat([first, second], dim=1), 1.0)
    return torch.stack([numbers, marks], dim=-1), (numbers * marks).sum(1, keepdim=True)
