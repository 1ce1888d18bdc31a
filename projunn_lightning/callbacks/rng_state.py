"""A callback that stores the state of the random number generators in checkpoints."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class RNGState(Callback):
    """Store the state of torch's default random number generators in checkpoints, which Lightning does not do.

    A resumed run with dropout then draws the numbers that an uninterrupted run would have drawn. The state is that of
    rank 0. It is right for all ranks if they were seeded alike, as ``seed_everything`` does.

    >>> trainer = Trainer(callbacks=RNGState(), logger=False)
    """

    # Lightning's private functions `_collect_rng_states` and `_set_rng_states` are no replacement. They include numpy's
    # generator, whose state `torch.load` refuses with `weights_only=True`, and they initialise CUDA in runs on the CPU.

    def __init__(self) -> None:
        self._restored: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # The state is set here and not earlier, because the start of a resumed run may draw numbers of its own.
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
