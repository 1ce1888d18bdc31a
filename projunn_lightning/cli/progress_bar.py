"""The progress bar of the command."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class RunBar(RichProgressBar):
    """A RichProgressBar that names the run if it has a name: Lightning shows four characters of it, as a ``v_num``."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        name = trainer.logger.version if trainer.logger is not None else None
        if not isinstance(name, str) or "v_num" not in metrics:
            return metrics
        return {"run": name} | {key: value for key, value in metrics.items() if key != "v_num"}
