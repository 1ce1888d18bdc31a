"""How the time and the memory of a recurrent layer grow with the length, the batch and the size of the state."""

from __future__ import annotations

import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.race import milliseconds
from projunn_lightning.nn import UnitaryRNN

SWEEPS = {
    "T": (100, 200, 500, 1000, 2000, 5000),
    "B": (1, 8, 32, 128, 512),
    "N": (64, 128, 256, 512, 1024),
}
"""The values of each variable. The others keep the values of :data:`FIXED`."""

FIXED = {"T": 500, "B": 64, "N": 128}
LAYERS = {"UnitaryRNN": UnitaryRNN, "nn.RNN": nn.RNN, "nn.LSTM": nn.LSTM}


@dataclass
class Cost:
    """The cost of a forward and a backward pass.

    Attributes:
        layer: a key of :data:`LAYERS`.
        variable: a key of :data:`SWEEPS`.
        value: the value of the variable.
        ms: the median of the milliseconds.
        mb: the largest memory of the process beyond its memory before the first pass, in MB (1e6 bytes).
    """

    layer: str
    variable: str
    value: int
    ms: float
    mb: float


def scaling() -> list[Cost]:
    """All costs, each measured in a process of its own, because a process does not give back all its memory."""
    cells = [(layer, name, value) for name, values in SWEEPS.items() for value in values for layer in LAYERS]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        return list(pool.map(cost, *zip(*cells, strict=True), [torch.get_num_threads()] * len(cells)))


def cost(layer: str, variable: str, value: int, threads: int = 1) -> Cost:
    """Measure one cost in the present process. The memory is read from Linux's files, so it needs Linux."""
    torch.set_num_threads(threads)
    sizes = FIXED | {variable: value}
    input = torch.randn(sizes["B"], sizes["T"], 1)
    module = LAYERS[layer](1, sizes["N"], batch_first=True)
    grad = torch.randn(sizes["B"], sizes["T"], sizes["N"])
    LAYERS[layer](1, 2)(input[:1, :1])[0].sum().backward()  # the first call makes Python import modules

    def step() -> None:
        module(input)[0].backward(grad)

    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory is counted from here on
    first = milliseconds(step)
    times = [milliseconds(step) for _ in range(max(2, min(9, int(3000 / first))))]
    return Cost(layer, variable, value, statistics.median(times), _memory("VmHWM") - before)


def _memory(what: str) -> float:
    """A line of Linux's status of this process, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024e-6
