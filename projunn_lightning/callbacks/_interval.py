"""When a callback looks at the weights."""

from __future__ import annotations

from lightning.pytorch import Trainer


def is_due(trainer: Trainer, batch_idx: int, every_n_steps: int | None = None) -> bool:
    """Whether a batch is the first of its epoch or ends an interval, the trainer's ``log_every_n_steps`` if None."""
    interval: int = every_n_steps or trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
    return interval > 0 and (batch_idx == 0 or (batch_idx + 1) % interval == 0)
