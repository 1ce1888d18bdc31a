"""A callback for the baselines: a learning rate of their own for some weights, as ``lr_divider`` is for projUNN."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class SlowerWeights(Callback):
    """Divides the updates of some weights by a number, whichever optimizer makes them.

    Args:
        pattern: a glob pattern over the names of the parameters.
        divider: the number, D.

    Raises:
        ValueError: at the start of ``fit``, if no parameter matches.
    """

    def __init__(self, pattern: str, divider: float) -> None:
        self.pattern, self.divider = pattern, divider

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the optimizers call this callback around their steps."""
        weights = [p for name, p in pl_module.named_parameters() if fnmatchcase(name, self.pattern)]
        if not weights:
            raise ValueError(f"no parameter matches {self.pattern!r}")
        before: list[Tensor] = []

        def keep(*_: Any) -> None:
            before[:] = [weight.detach().clone() for weight in weights]

        @torch.no_grad()
        def divide(*_: Any) -> None:
            for weight, old in zip(weights, before, strict=True):
                weight.sub_((weight - old) * (1 - 1 / self.divider))

        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(keep)
            optimizer.register_step_post_hook(divide)
