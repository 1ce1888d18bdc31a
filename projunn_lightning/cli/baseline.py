"""The loss of an answer that uses nothing of the input, with which a loss is compared."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule, LightningModule


def baseline_of(model: LightningModule, datamodule: LightningDataModule | None) -> float | None:
    """The loss of the task's baseline; None if there is none, or if the model says that its loss is another one."""
    if not getattr(model, "comparable_loss", True):
        return None
    return getattr(datamodule, "baseline_loss", None)
