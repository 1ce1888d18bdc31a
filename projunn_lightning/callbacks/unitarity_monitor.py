"""What TensorBoard shows of the constrained weights, one by one."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from projunn_lightning.callbacks.projunn import ProjUNN
from projunn_lightning.constraint import declared, unitarity_errors


class UnitarityMonitor(Callback):
    """Log the unitarity error of each constrained weight as ``unitarity_error/<name>``, whenever the trainer logs.

    Constrained are the weights of a :class:`~projunn_lightning.ProjUNN` callback beside it and those that modules
    declare; of the latter it also shows what happens without the method.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer._logger_connector.should_update_logs:  # as Lightning's LearningRateMonitor
            return
        constraints = declared(pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if isinstance(callback, ProjUNN) and callback.projector is not None:
                constraints |= callback.projector.constraints
        for name, error in unitarity_errors(pl_module, constraints).items():
            pl_module.log(f"unitarity_error/{name}", error)
