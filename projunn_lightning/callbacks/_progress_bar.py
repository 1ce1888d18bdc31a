"""How the progress bar shows small numbers."""

from __future__ import annotations

from dataclasses import replace

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme


def show_small_numbers(trainer: Trainer) -> None:
    """Let a RichProgressBar show three digits that count: a unitarity error of 1e-7 would otherwise read 0.000.

    A format that the user has chosen stays. The other progress bar of Lightning, TQDMProgressBar, shows such digits.
    """
    bar = trainer.progress_bar_callback
    if isinstance(bar, RichProgressBar) and bar.theme.metrics_format == RichProgressBarTheme().metrics_format:
        bar.theme = replace(bar.theme, metrics_format=".3g")
