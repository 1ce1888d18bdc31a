"""What the tests of strategies run on each rank of a world, and alone to compare with."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from projunn_lightning import AddingProblem, ProjUNN, SequenceModel
from projunn_lightning.callbacks import RandomState

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def fitted(
    batch_size: int, strategy: Any = "auto", devices: int = 1, steps: int = 200, **options: Any
) -> dict[str, Tensor]:
    """The weights of a small network after some steps."""
    torch.manual_seed(0)
    model = SequenceModel(2, 1, 12, task="regression", output="last")
    data = AddingProblem(length=6, batch_size=batch_size, train_size=40 * 16, val_size=16)
    method = ProjUNN(rank=2, **options)
    trainer = Trainer(accelerator="cpu", devices=devices, strategy=strategy, max_steps=steps, callbacks=method, **QUIET)
    trainer.fit(model, data)
    assert trainer.global_step == steps
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class KilledAt(Callback):
    """A process that is killed in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def resumable(
    folder: Path,
    sampler: str,
    ckpt: Path | None = None,
    *,
    kill_at: int = -1,
    fresh: bool = False,
    workers: int = 0,
    **options: Any,
) -> dict[str, Tensor]:
    """The weights after three epochs of four batches, which leave a checkpoint of every step, or from one on."""
    torch.manual_seed(0)
    model = SequenceModel(2, 1, 8, 2, task="regression", output="last", dropout=0.5)
    samples = 16 * options.get("devices", 1)
    data = AddingProblem(length=5, batch_size=4, train_size=samples, val_size=8, fresh=fresh, num_workers=workers)
    callbacks = [
        ProjUNN(rank=2, sampler=sampler),
        RandomState(),
        ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1),
        KilledAt(kill_at),
    ]
    settings = {
        "max_epochs": 3,
        "val_check_interval": 2,
        "devices": 1,
        **QUIET,
        "enable_checkpointing": True,
        **options,
    }
    trainer = Trainer(accelerator="cpu", callbacks=callbacks, **settings)
    trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
    assert trainer.global_step == 12
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
