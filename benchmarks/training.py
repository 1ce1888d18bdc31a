"""The time that Lightning, the callback and logging add to a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from benchmarks.race import Race
from projunn_lightning import CopyingMemory, Projector, ProjUNN, SequenceModel

STEPS = 100
"""The number of steps in each turn. The first quarter is left out, because the trainer sets itself up in it."""


class Clock(Callback):
    """Records when each training step starts."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.starts.append(time.perf_counter())

    def times(self) -> list[float]:
        """Milliseconds from the start of each step to the start of the next step."""
        return intervals(self.starts)


def intervals(starts: list[float]) -> list[float]:
    steps = [1e3 * (end - start) for start, end in pairwise(starts)]
    return steps[len(steps) // 4 :]


def problem(device: str, delay: int, batch: int) -> tuple[SequenceModel, CopyingMemory]:
    seed_everything(0, verbose=False)
    data = CopyingMemory(delay=delay, batch_size=batch, train_size=batch * STEPS, val_size=batch)
    data.setup("fit")
    return SequenceModel(10, 9, 190, nonlinearity="relu").to(device), data


def bare(device: str, delay: int, batch: int) -> list[float]:
    """A plain loop without Lightning."""
    model, data = problem(device, delay, batch)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=7e-4)
    Projector(model, lr_divider=32).attach(optimizer)
    starts = []
    for input, target in data.train_dataloader():
        starts.append(time.perf_counter())
        optimizer.zero_grad()
        model.loss(model(input.to(device)), target.to(device)).backward()
        optimizer.step()
    return intervals(starts)


def with_lightning(device: str, delay: int, batch: int) -> list[float]:
    """``Trainer.fit`` with its default logging to TensorBoard."""
    model, data = problem(device, delay, batch)
    model.learning_rate = 7e-4
    clock = Clock()
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            limit_val_batches=0,
            logger=TensorBoardLogger(Path(folder)),
            callbacks=[ProjUNN(lr_divider=32), clock],
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(model, data)
    return clock.times()


def overhead(device: str, delay: int, batch: int, rounds: int = 5) -> Race:
    """Both loops in turn. The time of a turn is the mean over its steps, of which one in fifty logs."""
    turns: dict[str, Callable[[str, int, int], list[float]]] = {"bare loop": bare, "Lightning": with_lightning}
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            times[name].append(statistics.mean(turn(device, delay, batch)))
    return Race(f"training step, copying T = {delay}, N = 190, B = {batch}, RMSprop", times, "bare loop")
