"""The copying memory task."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from projunn_lightning.data.synthetic import Generate, SyntheticTask
from projunn_lightning.errors import at_least


class CopyingMemory(SyntheticTask):
    """Recall K symbols after T blank steps (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016, section 5.1).

    A sequence has ``T + 2 K`` steps: K random symbols of an alphabet of size A, ``T - 1`` blanks, a signal, and K more
    blanks. The target is blank up to and including the signal; then it is the K symbols. Inputs are integers from 0 to
    A + 1 (A is the blank, A + 1 the signal) and targets are integers from 0 to A, both ``(B, T + 2 K)``, int64.

    Args:
        delay: number of steps T between the symbols and their recall.
        memory_length: number of symbols K.
        alphabet_size: number of different symbols A.
        train_size: number of training samples in an epoch. The default is 4,000 batches of 128 samples, after which
            Kiani et al. 2022 reduce the learning rate.
        **options: options of :class:`~projunn_lightning.data.SyntheticTask`.

    Raises:
        ProjUNNError: if the delay or the number of symbols is below 1, or the alphabet size below 2.
    """

    def __init__(
        self,
        delay: int = 1000,
        memory_length: int = 10,
        alphabet_size: int = 8,
        *,
        train_size: int = 512_000,
        val_size: int = 1024,
        test_size: int = 4096,
        **options: Any,
    ) -> None:
        super().__init__(train_size=train_size, val_size=val_size, test_size=test_size, **options)
        at_least(1, delay=delay, memory_length=memory_length)
        at_least(2, alphabet_size=alphabet_size)
        self.delay = delay
        self.memory_length = memory_length
        self.alphabet_size = alphabet_size

    def generator(self) -> Generate:
        return partial(copying_memory, self.delay, self.memory_length, self.alphabet_size)

    @property
    def baseline_loss(self) -> float:
        """The cross-entropy of a uniform guess of the K symbols, ``K ln A / (T + 2 K)``."""
        return self.memory_length * math.log(self.alphabet_size) / (self.delay + 2 * self.memory_length)


def copying_memory(
    delay: int, memory_length: int, alphabet_size: int, count: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of :class:`CopyingMemory`, each ``(count, delay + 2 * memory_length)``, int64."""
    steps = delay + 2 * memory_length
    blank, signal = alphabet_size, alphabet_size + 1
    symbols = torch.randint(alphabet_size, (count, memory_length), generator=generator)
    inputs = torch.full((count, steps), blank)
    inputs[:, :memory_length] = symbols
    inputs[:, memory_length + delay - 1] = signal
    targets = torch.full((count, steps), blank)
    targets[:, -memory_length:] = symbols
    return inputs, targets
