"""The last lines of ``projunn fit`` and ``projunn test``: the result, where the files are, and what to type next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

from projunn_lightning._compat import trainer_callbacks
from projunn_lightning.callbacks import UnitarityMonitor
from projunn_lightning.cli.report import Report, near


def say(line: str, style: str = "") -> None:
    """Print a line that may be copied: long paths are not broken."""
    Console().print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def result_line(metrics: Mapping[str, Any], baseline: float | None) -> str | None:
    """The test loss beside the loss of the task's baseline, and the accuracies.

    Args:
        metrics: the metrics of the test.
        baseline: the loss of the baseline; None if there is none with which the loss can be compared.

    Returns:
        The line; None if the model logs no ``test/loss``.
    """
    loss = metrics.get("test/loss")
    if loss is None:
        return None
    line = f"test loss {loss:.3g}"
    if baseline is not None:
        line += f"  (baseline {baseline:.3g}{_share(float(loss) / baseline)})"
    for name in ("accuracy", "certified_accuracy"):
        share = metrics.get(f"test/{name}")
        if share is not None:
            line += f"  {name.replace('_', ' ')} {100 * share:.4g} %"
    return line


def _share(share: float) -> str:
    """The share of the baseline's loss, where a percentage says something."""
    if not math.isfinite(share):
        return ""
    if share >= 10:
        return "; more than 10 times it"
    return f"; {100 * share:.3g} % of it" if share >= 1e-4 else "; below 0.01 % of it"


def how_it_went(report: Report) -> list[str]:
    """Why the training stopped, and its last and its best validation."""
    lines = [report.stopped] if report.stopped is not None else []
    if (last := report.last) is not None and (best := report.best) is not None:
        lines.append(
            f"The last {report.metric} is {last.value:.3g} (step {last.at:,}), the best {best.value:.3g} "
            f"(step {best.at:,})."
        )
    return lines


def where_it_is(trainer: Trainer, datamodule: LightningDataModule | None, best: str | None) -> list[str]:
    """The folders of a run, and the lines to type next. All processes must ask, since rank 0 knows the folder.

    Args:
        trainer: the trainer of the run.
        datamodule: the data of the run.
        best: the path of the best checkpoint, or None.
    """
    log = near(trainer.log_dir) if trainer.loggers and trainer.log_dir else None
    saved = _checkpoints(trainer)
    monitors = [each for each in trainer_callbacks(trainer) if isinstance(each, UnitarityMonitor)]
    pictures = {near(each.folder) for each in monitors if each.folder is not None}
    lines = [f"log{' and pictures' if log in pictures else ''}: {log}"] if log else []
    lines += [f"pictures: {folder}" for folder in sorted(pictures - {log})]
    for folder in sorted({Path(path).parent for path in saved}):
        lines.append(
            f"checkpoints: {near(folder)} ({', '.join(Path(p).name for p in saved if Path(p).parent == folder)})"
        )
    lines += [
        f"to see the curves: tensorboard --logdir {shlex.quote(near(logger.root_dir))}"
        for logger in trainer.loggers
        if isinstance(logger, TensorBoardLogger)
    ]
    has_predict_data = datamodule is not None and is_overridden("predict_dataloader", datamodule, LightningDataModule)
    trained = best or next(iter(saved), None)
    if log and trained and has_predict_data and (config := Path(log, "config.yaml")).is_file():
        own = Path(near(trained)).parent == Path(log, "checkpoints")  # after a resumed run it may be in another folder
        words = ["--run", log] if own else ["--config", str(config), "--ckpt_path", near(trained)]
        lines.append(f"to predict: {shlex.join(['projunn', 'predict', *words])}")
    return lines


def _checkpoints(trainer: Trainer) -> list[str]:
    """The paths of the checkpoints that the checkpoint callbacks of a run have saved and kept."""
    callbacks = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    paths = [path for each in callbacks for path in (each.best_model_path, each.last_model_path, *each.best_k_models)]
    return [path for path in dict.fromkeys(paths) if path and Path(path).exists()]
