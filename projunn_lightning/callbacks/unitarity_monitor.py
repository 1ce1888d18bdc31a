"""What TensorBoard shows of the constrained weights, one by one."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from projunn_lightning.callbacks._interval import is_due
from projunn_lightning.constraint import declared
from projunn_lightning.functional import unitarity_error


class UnitarityMonitor(Callback):
    """Log the unitarity error of each constrained weight as ``unitarity_error/<name>``.

    It needs no :class:`~projunn_lightning.ProjUNN` beside it, so that it also shows what happens without.

    Args:
        every_n_steps: batches between two looks; the trainer's ``log_every_n_steps`` if None.

    Raises:
        ValueError: if ``every_n_steps`` is below 1.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be 1 or more, found {every_n_steps}")
        self.every_n_steps = every_n_steps

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not is_due(trainer, batch_idx, self.every_n_steps):
            return
        for name, constraint in declared(pl_module).items():
            matrices = constraint.matrices(pl_module.get_parameter(name))
            pl_module.log(f"unitarity_error/{name}", unitarity_error(matrices).max())
