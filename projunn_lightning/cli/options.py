"""The options that a run has used, for the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import TensorBoardLogger

from projunn_lightning._compat import trainer_callbacks
from projunn_lightning.callbacks import ProjUNN


def options_of(trainer: Trainer, model: LightningModule, datamodule: LightningDataModule | None) -> dict[str, Any]:
    """The hyperparameters of the model and the data, and what has trained the model, by name.

    The model's own ``learning_rate`` is left out, because the optimizer of a config does not use it.
    """
    saved = {**(datamodule.hparams if datamodule is not None else {}), **model.hparams}
    named = {name: value for name, value in saved.items() if not name.startswith("_") and name != "learning_rate"}
    return named | training_options(trainer)


def training_options(trainer: Trainer) -> dict[str, Any]:
    """The optimizers with their learning rates at the start, and the settings of the method."""
    options: dict[str, Any] = {}
    for index, optimizer in enumerate(trainer.optimizers):
        name = f"optimizer_{index}" if index else "optimizer"
        rates = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        options[name] = type(optimizer).__name__
        options[f"{name}.lr"] = rates[0] if len(set(rates)) == 1 else str(rates)
    active = [each for each in trainer_callbacks(trainer) if isinstance(each, ProjUNN) and each.projector is not None]
    for index, method in enumerate(active):
        name = f"projunn_{index}" if index else "projunn"
        settings = {"parameters": ", ".join(method.parameters), **vars(method.settings)}
        options |= {f"{name}.{key}": value for key, value in settings.items()}
    return {name: value if isinstance(value, (int, float, str)) else str(value) for name, value in options.items()}


def log_options(trainer: Trainer, baseline: float | None) -> None:
    """Give the loggers what has trained the model, beside the hyperparameters that Lightning gives them.

    The page HParams of TensorBoard gets it at the end, with the metrics.

    Args:
        trainer: the trainer of the run.
        baseline: the loss of the task's baseline, which ``projunn plot`` draws; None for no baseline.
    """
    if not trainer.is_global_zero:
        return
    further = {} if baseline is None else {"baseline_loss": baseline}
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(training_options(trainer) | further)
        elif further:  # the logger has written the file already, and would not write it again
            hparams = cast("dict[str, Any]", logger.hparams)
            hparams.update(further)
            save_hparams_to_yaml(Path(logger.log_dir, TensorBoardLogger.NAME_HPARAMS_FILE), hparams)
