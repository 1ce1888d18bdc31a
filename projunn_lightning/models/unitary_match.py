"""A LightningModule whose only weight is a unitary matrix."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from projunn_lightning.constraint import orthogonal
from projunn_lightning.errors import ProjUNNError, at_least, non_negative, one_of
from projunn_lightning.functional import INITS, InitName
from projunn_lightning.models._fsdp import shard_


class UnitaryMatch(LightningModule):
    """Learn a unitary matrix U from pairs (x, U x), such as those of :class:`~projunn_lightning.RandomUnitary`.

    The loss is ``|W x - U x|^2``, averaged over the batch. If the entries of x have variance 1, its expectation is the
    distance ``|W - U|_F^2``. If the datamodule has the attribute ``target`` U, the distance itself is logged as
    ``val/distance`` and ``test/distance``.

    Args:
        size: the size N of the matrix ``(N, N)``.
        complex: whether the matrix is unitary (complex) or orthogonal (real).
        init: the initialisation of the matrix, see :mod:`projunn_lightning.functional.init`. A real matrix must start
            with the determinant of U, 1 or -1, because training cannot change it; ``"haar"`` draws it at random.
        learning_rate: the learning rate of the default optimizer, SGD. 8 / N takes a whole step in each direction of a
            batch of 16.

    Raises:
        ProjUNNError: if a number is out of range; while the module runs, if the vectors have another size.
    """

    def __init__(
        self, size: int = 2048, *, complex: bool = True, init: InitName = "identity", learning_rate: float = 0.004
    ) -> None:
        super().__init__()
        at_least(1, size=size)
        one_of("init", init, INITS)
        non_negative(learning_rate=learning_rate)
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.weight = nn.Parameter(torch.empty(size, size, dtype=torch.complex64 if complex else torch.float32))
        orthogonal(self, "weight", init=init)

    def forward(self, input: Tensor) -> Tensor:
        """Map rows x, ``(B, N)``, to ``W x``, ``(B, N)``."""
        return input @ self.weight.mT

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """``|W x - y|^2``, averaged over a batch of pairs (x, y)."""
        input, target = batch
        if input.shape[-1:] != self.weight.shape[1:]:
            raise ProjUNNError(f"input must be (B, {len(self.weight)}), found {tuple(input.shape)}")
        return (self(input) - target).abs().square().sum(-1).mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0])

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: Literal["val", "test"]) -> None:
        self.log(f"{stage}/loss", self.loss(batch), sync_dist=True, batch_size=len(batch[0]))

    def on_validation_epoch_end(self) -> None:
        self._log_distance("val")

    def on_test_epoch_end(self) -> None:
        self._log_distance("test")

    def _log_distance(self, stage: Literal["val", "test"]) -> None:
        target = getattr(getattr(self.trainer, "datamodule", None), "target", None)
        if target is not None:
            distance = torch.linalg.matrix_norm(self.weight - target.to(self.device)).square()
            self.log(f"{stage}/distance", distance, prog_bar=True, sync_dist=True)

    def configure_model(self) -> None:
        """Shard the matrix if the strategy is ModelParallelStrategy."""
        shard_(self)

    def configure_optimizers(self) -> Any:
        """SGD, unless the command line or a subclass chooses another optimizer."""
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)
