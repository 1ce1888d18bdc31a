"""Random numbers that go on where a checkpoint was written."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class RNGState(Callback):
    """Keep the state of torch's random numbers in checkpoints, which Lightning does not.

    A resumed run with dropout then draws what an unbroken one would have. The state is that of rank 0; it is that of
    all ranks where they were seeded alike, as by ``seed_everything``.

    >>> trainer = Trainer(callbacks=RNGState(), logger=False)
    """

    def __init__(self) -> None:
        self._restored: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Only now: what comes before the first batch of a resumed run may draw, and did not in the unbroken one.
        if "cpu" in self._restored:
            torch.set_rng_state(self._restored["cpu"].cpu())
        if "cuda" in self._restored and pl_module.device.type == "cuda":
            torch.cuda.set_rng_state(self._restored["cuda"].cpu(), pl_module.device)
        self._restored = {}

    def state_dict(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        self._restored = state_dict
