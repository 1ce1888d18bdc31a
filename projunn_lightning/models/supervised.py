"""What the LightningModules of classification and regression share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from projunn_lightning.errors import ProjUNNError, non_negative
from projunn_lightning.models._fsdp import shard_


class Supervised(LightningModule):
    """Steps and metrics on batches (input, target); subclasses give ``forward`` and :meth:`loss`.

    It logs ``train/``, ``val/`` and ``test/`` ``loss`` and ``accuracy`` or ``mae``. Without an optimizer from the
    command line it trains by RMSprop.

    Args:
        learning_rate: of the default optimizer.
        num_classes: classes, for the accuracy; None for regression.
        ignore_index: a class left out of the accuracy.
    """

    def __init__(self, learning_rate: float, num_classes: int | None, ignore_index: int | None = None) -> None:
        super().__init__()
        non_negative(learning_rate=learning_rate)
        if ignore_index is not None and abs(ignore_index) >= 2**63:
            raise ProjUNNError(f"ignore_index must be a class, found {ignore_index}")
        self.learning_rate = learning_rate
        self.num_classes = num_classes
        # The loss refuses what is no class; torchmetrics' own check would wait for the device at every step.
        metrics: dict[str, Metric | MetricCollection] = (
            {"mae": MeanAbsoluteError()}
            if num_classes is None
            else {
                "accuracy": MulticlassAccuracy(
                    num_classes, average="micro", ignore_index=ignore_index, validate_args=False
                )
            }
        )
        self.train_metrics = MetricCollection(metrics, prefix="train/")
        self.val_metrics = self.train_metrics.clone(prefix="val/")
        self.test_metrics = self.train_metrics.clone(prefix="test/")

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Raises:
            ValueError: if the target does not fit the output.
        """

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def predict_step(self, batch: Tensor | tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Predicted classes or values of a batch of inputs, with or without targets beside them."""
        output = self(batch if isinstance(batch, Tensor) else batch[0])
        return output if self.num_classes is None else output.argmax(-1)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        if len(batch) != 2:
            raise ProjUNNError(f"a batch must be (input, target), found {len(batch)} parts")
        input, target = batch
        output = self(input)
        loss = self.loss(output, target)
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        if target.ndim < output.ndim:  # classes, of steps or of whole inputs
            metrics(output.detach().flatten(0, -2), target.flatten())
        else:
            metrics(output.detach(), target)
        training = stage == "train"
        self.log(f"{stage}/loss", loss, prog_bar=True, sync_dist=not training, batch_size=len(input))
        self.log_dict(metrics, on_step=training, on_epoch=not training, batch_size=len(input))
        return loss

    def configure_model(self) -> None:
        """Shard the layers where the strategy is ModelParallelStrategy."""
        shard_(self)

    def configure_optimizers(self) -> Any:
        """RMSprop, where the command line or a subclass asks for no other optimizer."""
        return torch.optim.RMSprop(self.parameters(), lr=self.learning_rate)


def cross_entropy(output: Tensor, target: Tensor, option: str) -> Tensor:
    """Cross-entropy of logits ``(*, C)`` and classes ``(*)``, or of ``(B, C)`` and probabilities ``(B, C)``; averaged.

    Raises:
        ValueError: if a class is not below C, which the model calls ``option``.
    """
    try:
        if output.ndim > 2:
            output, target = output.flatten(0, -2), target.flatten()
        return F.cross_entropy(output, target)
    except IndexError as error:
        raise ProjUNNError(f"a target is no class below {option} = {output.shape[-1]}: {error}") from None
