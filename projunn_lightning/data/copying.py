"""The copying memory task."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Generator, Tensor

from projunn_lightning.data.synthetic import Generate, SyntheticTask
from projunn_lightning.errors import at_least


class CopyingMemory(SyntheticTask):
    """Recall K symbols after T blank steps (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016, section 5.1).

    A sequence of ``T + 2 K`` steps: K symbols drawn from the alphabet of size A, ``T - 1`` blanks, the signal to
    recall, K blanks. The target is blank until the signal has come and then the K symbols. Inputs are integers from 0
    to A + 1 (A: blank, A + 1: signal), targets from 0 to A, both ``(B, T + 2 K)`` of int64.

    Args:
        delay: T, steps between the symbols and their recall.
        memory_length: K, symbols to recall.
        alphabet_size: A, different symbols.
        batch_size: samples a batch, on each rank.
        train_size: training samples an epoch; the paper decays its learning rate every 4,000 batches of 128.
        val_size: validation samples.
        test_size: test samples, which ``predict`` uses too.
        fresh: whether every epoch brings new training samples; otherwise ``train_size`` fixed ones, which are kept in
            memory, are reshuffled.
        seed: seeds all samples and their order; the splits are independent of each other.
        num_workers: processes that generate batches.

    Raises:
        ValueError: if a size or length is below 1, or the alphabet below 2.
    """

    def __init__(
        self,
        delay: int = 1000,
        memory_length: int = 10,
        alphabet_size: int = 8,
        *,
        batch_size: int = 128,
        train_size: int = 512_000,
        val_size: int = 1024,
        test_size: int = 4096,
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
        at_least(1, delay=delay, memory_length=memory_length)
        at_least(2, alphabet_size=alphabet_size)
        self.delay = delay
        self.memory_length = memory_length
        self.alphabet_size = alphabet_size
        self.save_hyperparameters()

    def generator(self) -> Generate:
        return partial(copying_memory, self.delay, self.memory_length, self.alphabet_size)

    @property
    def baseline_loss(self) -> float:
        """Cross-entropy of guessing the recalled symbols, ``K ln A / (T + 2 K)``."""
        return self.memory_length * math.log(self.alphabet_size) / (self.delay + 2 * self.memory_length)


def copying_memory(
    delay: int, memory_length: int, alphabet_size: int, count: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of ``count`` samples, ``(count, delay + 2 * memory_length)`` each; see CopyingMemory."""
    steps = delay + 2 * memory_length
    blank, signal = alphabet_size, alphabet_size + 1
    symbols = torch.randint(alphabet_size, (count, memory_length), generator=generator)
    inputs = torch.full((count, steps), blank)
    inputs[:, :memory_length] = symbols
    inputs[:, memory_length + delay - 1] = signal
    targets = torch.full((count, steps), blank)
    targets[:, -memory_length:] = symbols
    return inputs, targets
