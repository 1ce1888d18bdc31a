"""The ``projunn`` command: LightningCLI with the ProjUNN callback always on and the task's baseline at the end."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

from projunn_lightning import ConstraintError, ProjUNN


class ProjUNNCLI(LightningCLI):
    """fit, validate, test and predict for any LightningModule and LightningDataModule, named by class path."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ProjUNN, "projunn")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.loggers:
            trainer.callbacks.insert(0, LearningRateMonitor())  # type: ignore[attr-defined]  # set by a connector
        if isinstance(bar := trainer.progress_bar_callback, RichProgressBar):
            bar.theme = replace(bar.theme, metrics_format=".3g")  # a unitarity error of 1e-7 is not 0.000
        return trainer

    def after_fit(self) -> None:
        """Test the trained weights, where model and data can."""
        if is_overridden("test_step", self.model, LightningModule) and (
            self.datamodule is None or is_overridden("test_dataloader", self.datamodule, LightningDataModule)
        ):
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
            self.after_test()

    def after_test(self) -> None:
        """Print the test loss beside the loss of the task's baseline."""
        loss = self.trainer.callback_metrics.get("test/loss")
        if loss is None or not self.trainer.is_global_zero:
            return
        line = f"test loss {loss:.3g}"
        baseline = getattr(self.datamodule, "baseline_loss", None)
        if baseline is not None:
            line += f"  (baseline without memory {baseline:.3g}; {100 * loss / baseline:.2g} % of it)"
        Console().print(line, style="bold", highlight=False)


def main(args: list[str] | None = None) -> None:
    """Run the command line, ``sys.argv`` unless ``args`` are given."""
    sys.path.insert(0, os.getcwd())  # a config may name a class of the user's own, as under `python -m`
    # The models' own optimizer is a default; that the configured one replaces it is the point.
    warnings.filterwarnings("ignore", ".*configure_optimizers` will be overridden by.*")
    try:
        ProjUNNCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            args=args,
        )
    except ConstraintError as error:
        sys.exit(f"projunn: error: {error}")
