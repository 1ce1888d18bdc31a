"""Where pictures go: to the loggers that show them, or else to files in the log folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures:
    """Gives pictures to TensorBoard, Weights & Biases and MLflow; to files of the log folder if a run has none of them.

    A run without a logger has no log folder, and keeps no pictures. Only the process of rank 0 shows pictures.

    Args:
        trainer: the trainer of the run. All processes must make the object together.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._loggers = [each for each in trainer.loggers if isinstance(each, Shows)]
        log_dir = trainer.log_dir if trainer.loggers else None  # rank 0 tells it the others
        files = log_dir is not None and not self._loggers
        self._files = Path(log_dir, "pictures") if files and log_dir else None
        self.possible = trainer.is_global_zero and bool(self._loggers or files)
        boards = [each.log_dir for each in self._loggers if isinstance(each, TensorBoardLogger)]
        self.folder = Path(boards[0]) if boards else self._files
        """The folder of the pictures; None if they are sent elsewhere."""

    def show(self, name: str, figure: Figure, step: int) -> None:
        for logger in self._loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(name, figure, step)
            elif isinstance(logger, WandbLogger):
                logger.log_image(key=name, images=[_pixels(figure)], step=step)
            else:
                # MLFlowLogger has no log_image, and its client has one.
                key = re.sub(r"[^\w./ -]", "_", name)
                logger.experiment.log_image(logger.run_id, _pixels(figure), key=key, step=step)
        if self._files is not None:
            file = self._files / name / f"step={step:07d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(file)

    def histogram(self, name: str, values: Tensor, step: int) -> None:
        """Show a histogram in TensorBoard, which is the only logger that is given numbers for it."""
        for logger in self._loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_histogram(name, values, step)


Shows = TensorBoardLogger | WandbLogger | MLFlowLogger
"""The loggers that show pictures."""


def _pixels(figure: Figure) -> np.ndarray[Any, Any]:
    """The picture of a figure, ``(height, width, 3)`` of uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
