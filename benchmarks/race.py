"""Timing several ways to do one thing against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Contestants = dict[str, Callable[[], object]]

PATIENCE = 20.0
"""Seconds after which a race begins no other round."""


@dataclass
class Race:
    """Milliseconds of each contestant, one a round.

    Attributes:
        title: what is timed.
        times: of each contestant, as long as there were rounds.
        reference: the contestant that ratios are taken to.
    """

    title: str
    times: dict[str, list[float]]
    reference: str

    def ratio(self, name: str, to: str | None = None) -> float:
        """The median over the rounds of a contestant's time over the reference's in the same round."""
        reference = self.times[to or self.reference]
        return statistics.median(t / r for t, r in zip(self.times[name], reference, strict=True))


def race(title: str, contestants: Contestants, *, reference: str, rounds: int = 15) -> Race:
    """Run all contestants in turn, round after round, so that a machine that changes its pace changes that of all.

    The last round is the one in which ``PATIENCE`` is at an end.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant()  # allocations, first calls
    end = time.perf_counter() + PATIENCE
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(milliseconds(contestant))
        if time.perf_counter() > end:
            break
    return Race(title, times, reference)


def milliseconds(function: Callable[[], object]) -> float:
    """How long a call takes, the device's work included."""
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return 1e3 * (time.perf_counter() - start)


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
