"""Timing several ways of doing the same thing, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Contestants = dict[str, Callable[[], object]]

PATIENCE = 20.0
"""The number of seconds after which a race starts no further round."""


@dataclass
class Race:
    """The times of several contestants.

    Attributes:
        title: what is timed.
        times: milliseconds of each contestant, one number per round.
        reference: the contestant whose times are the denominators of the ratios.
    """

    title: str
    times: dict[str, list[float]]
    reference: str

    def ratio(self, name: str, to: str | None = None) -> float:
        """The ratio of a contestant's time to the reference's time in the same round, as the median over all rounds."""
        reference = self.times[to or self.reference]
        return statistics.median(t / r for t, r in zip(self.times[name], reference, strict=True))


def race(title: str, contestants: Contestants, *, reference: str, rounds: int = 15) -> Race:
    """Run all contestants in turn, round after round.

    A machine that changes its speed during the race then changes the times of all contestants alike. The race ends
    after the given number of rounds, or after the round in which ``PATIENCE`` runs out.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant()  # the first call makes allocations
    end = time.perf_counter() + PATIENCE
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(milliseconds(contestant))
        if time.perf_counter() > end:
            break
    return Race(title, times, reference)


def milliseconds(function: Callable[[], object]) -> float:
    """The time of a call, including the work of the device."""
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return 1e3 * (time.perf_counter() - start)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
