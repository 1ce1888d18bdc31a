"""The private names of torch, Lightning and jsonargparse that this package uses, each behind a function that names it.

Lightning and jsonargparse are imported inside the functions: the layers below them import torch only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

# ---- Lightning: what a Trainer does ----


def fast_dev_run(trainer: Trainer) -> bool:
    """``Trainer.fast_dev_run``: whether the run only tries a few batches; public, but type checkers do not see it."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def batches_processed(trainer: Trainer) -> int:
    """``_FitLoop.epoch_loop``: the number of training batches that are finished, over all epochs and resumed runs.

    ``Trainer.global_step``, the nearest public name, counts the steps of the optimizers instead.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


def epochs_processed(trainer: Trainer) -> int:
    """``_FitLoop.epoch_progress``: the number of training epochs whose batches are finished.

    ``Trainer.current_epoch``, the nearest public name, increases only after the hooks at the end of an epoch. In a run
    that resumes from a checkpoint of such a hook it is one too low while the loaders are made.
    """
    return trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
