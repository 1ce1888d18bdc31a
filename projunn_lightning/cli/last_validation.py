"""A callback that validates the model at the end of a run, also if the run ends before the epoch does."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class LastValidation(Callback):
    """Validate when ``max_steps`` ends a run in mid-epoch.

    Lightning ends such a run without a validation. EarlyStopping, ModelCheckpoint and ReduceLROnPlateau then miss the
    metric that they monitor, and may raise an error after the training.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # Lightning validates before it stops
