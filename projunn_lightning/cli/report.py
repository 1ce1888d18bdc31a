"""What a run remembers for its last lines: why it stopped, its validations, and its best checkpoint."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from projunn_lightning._compat import fast_dev_run, trainer_callbacks
from projunn_lightning.cli.baseline import baseline_of
from projunn_lightning.cli.best_checkpoint import LOSSES, BestCheckpoint
from projunn_lightning.cli.options import log_options


class Scored(NamedTuple):
    """A value of the metric by which the best weights are chosen, and where it was found.

    Args:
        value: the value.
        at: the number of training steps before a validation, or the path of a checkpoint.
    """

    value: float
    at: int | str


class Report(Callback):
    """Remember why a run stopped, its last and its best validation, and its best checkpoint.

    The best validation and the best checkpoint are those of the whole run, also of the part before it was resumed.

    Attributes:
        stopped: a sentence that says why the training stopped; None before it has.
        metric: the metric by which the best is chosen: the monitor of the run's checkpoint callback, or else the
            validation loss; None if the model logs none.
        last: the last validation.
        best: the best validation.
    """

    def __init__(self) -> None:
        self.stopped: str | None = None
        self.metric: str | None = None
        self.last: Scored | None = None
        self.best: Scored | None = None
        self._stage = ""
        self._checkpoint: ModelCheckpoint | None = None
        self._former: Scored | None = None  # the best checkpoint of the run that this one resumes
        self._begun = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stage = stage
        if stage == "fit":
            self._checkpoint = monitored_checkpoint(trainer)

    # ---- the validations ----

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = time.perf_counter()
        log_options(trainer, baseline_of(pl_module, trainer.datamodule))  # type: ignore[attr-defined]  # a connector's

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stage != "fit" or trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        self.metric = next((name for name in self._metrics if name in metrics), None)
        if self.metric is not None:
            self.last = Scored(float(metrics[self.metric]), trainer.global_step)
            self.best = self._better(self.best, self.last)

    @property
    def _metrics(self) -> tuple[str, ...]:
        """The names that the metric may have."""
        if isinstance(self._checkpoint, ModelCheckpoint) and not isinstance(self._checkpoint, BestCheckpoint):
            return (str(self._checkpoint.monitor),)
        return LOSSES

    def _better(self, first: Scored | None, second: Scored | None) -> Scored | None:
        """The better of two, the first one if they are equal. NaN is worse than all numbers."""
        if first is None or second is None:
            return first or second
        sign = -1 if self._checkpoint is not None and self._checkpoint.mode == "max" else 1
        return min(first, second, key=lambda each: (math.isnan(each.value), sign * each.value))

    # ---- the best checkpoint ----

    def best_checkpoint(self) -> Scored | None:
        """The best checkpoint of the run; None if no checkpoint callback has chosen one by a metric."""
        callback, former = self._checkpoint, self._former
        if callback is None or not callback.best_model_path:
            return None if callback is None else former
        if callback.best_model_score is None:  # nothing was saved since the run was resumed
            return former or Scored(math.nan, callback.best_model_path)
        return self._better(Scored(float(callback.best_model_score), callback.best_model_path), former)

    def has_written(self, path: str) -> bool:
        """Whether the run itself has written a checkpoint, and not the run that it resumes."""
        folder = None if self._checkpoint is None else self._checkpoint.dirpath
        return folder is not None and Path(folder).absolute() in Path(path).absolute().parents

    def why_last(self, trainer: Trainer) -> str:
        """Why the last weights are tested, and not those of the best checkpoint."""
        if best := self.best_checkpoint():
            return f"the best checkpoint, {near(str(best.at))}, is no longer there"
        if fast_dev_run(trainer):
            return "a fast_dev_run saves no checkpoint"
        if not trainer.checkpoint_callbacks:
            return "the run saved no checkpoint"
        if self._checkpoint is None:
            return "the checkpoint callback monitors no metric"
        return f"the run logged no {self._checkpoint.monitor}, by which the best would be chosen"

    # ---- the end ----

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        took = timedelta(seconds=round(time.perf_counter() - self._begun))
        self.stopped = (
            f"Training stopped at step {trainer.global_step:,} in epoch {_epoch(trainer)}, after {took}: "
            f"{_reason(trainer)}."
        )

    def state_dict(self) -> dict[str, Any]:
        checkpoint = self.best_checkpoint()
        plain = {"best": self.best and tuple(self.best), "checkpoint": checkpoint and tuple(checkpoint)}
        return {"metric": self.metric, **plain}  # torch.load refuses other classes with weights_only=True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._stage == "fit" and state_dict["metric"] in self._metrics:  # not when a checkpoint is tested
            best, checkpoint = state_dict["best"], state_dict["checkpoint"]
            self.best, self._former = best and Scored(*best), checkpoint and Scored(*checkpoint)


def monitored_checkpoint(trainer: Trainer) -> ModelCheckpoint | None:
    """The checkpoint callback that chooses by a metric: one of the user's, or else the command's own."""
    found = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint) and each.monitor]
    return min(found, key=lambda each: isinstance(each, BestCheckpoint), default=None)


def near(path: str | Path) -> str:
    """A path as one would type it: relative to the working folder, if it is below it."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)


def _reason(trainer: Trainer) -> str:
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"max_steps={trainer.max_steps} is reached"
    for callback in trainer_callbacks(trainer):
        if isinstance(callback, EarlyStopping) and _has_stopped(callback, trainer):
            return _of_early_stopping(callback)
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return f"max_epochs={trainer.max_epochs} is reached"
    for callback in trainer_callbacks(trainer):
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "max_time is reached"
    return "the model or a callback has set trainer.should_stop"


def _epoch(trainer: Trainer) -> int:
    """The number of the epoch in which a run has ended, from 0 on."""
    return max(trainer.current_epoch - 1, 0)


def _has_stopped(callback: EarlyStopping, trainer: Trainer) -> bool:
    # Its number of the epoch is also 0 if it has not stopped, and its reason may be that of a run before this one. Only
    # the number is set if it has stopped on another process.
    reason = callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED
    return trainer.should_stop and callback.stopped_epoch == _epoch(trainer) and bool(reason or callback.stopped_epoch)


def _of_early_stopping(callback: EarlyStopping) -> str:
    reasons = {
        EarlyStoppingReason.STOPPING_THRESHOLD: f"has reached the stopping_threshold {callback.stopping_threshold}",
        EarlyStoppingReason.DIVERGENCE_THRESHOLD: f"is beyond the divergence_threshold {callback.divergence_threshold}",
        EarlyStoppingReason.PATIENCE_EXHAUSTED: f"has not improved in the last {callback.wait_count} checks, which is "
        "the patience",
        EarlyStoppingReason.NON_FINITE_METRIC: "is not finite",
    }
    return f"{callback.monitor} {reasons.get(callback.stopping_reason, 'has ended it')} (EarlyStopping)"
