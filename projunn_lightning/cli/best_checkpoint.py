"""The checkpoints of a run whose config names no checkpoint callback: ``best.ckpt`` and ``last.ckpt``."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

LOSSES = ("val/loss", "val_loss")
"""The names of the loss by which the best weights are chosen. The models of this package log the first."""


def validation_loss(metrics: Container[str]) -> str | None:
    """The name of the validation loss among metrics, or None."""
    return next((name for name in LOSSES if name in metrics), None)


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint with the lowest validation loss as ``best.ckpt``.

    A model that logs no validation loss trains all the same, and has no such file.
    """

    def __init__(self) -> None:
        super().__init__(monitor=LOSSES[0], filename="best")

    @property
    def state_key(self) -> str:
        return type(self).__qualname__  # the name of the loss is known at the first validation only

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._finds_its_loss(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._finds_its_loss(trainer):
            super().on_validation_end(trainer, pl_module)

    def _finds_its_loss(self, trainer: Trainer) -> bool:
        name = validation_loss(trainer.callback_metrics)
        self.monitor = name or self.monitor
        return name is not None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A resumed run has a folder of its own, and Lightning would forget the best loss of the former run with the
        # former folder. It never removes a file outside of the folder of the run.
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})
