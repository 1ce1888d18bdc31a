"""The base class of the LightningModules for classification and regression."""

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
    """Steps and metrics on batches (input, target). Subclasses define ``forward`` and :meth:`loss`.

    The module logs ``loss`` and ``accuracy`` or ``mae`` under ``train/``, ``val/`` and ``test/``. It trains by RMSprop
    unless the command line chooses another optimizer.

    Args:
        learning_rate: the learning rate of the default optimizer.
        num_classes: the number of classes, for the accuracy; None for regression.
        ignore_index: a class that the accuracy leaves out.
        further_metrics: metrics that are logged beside these, by name.

    Raises:
        ProjUNNError: if the learning rate is negative, or ``ignore_index`` does not fit into 64 bits.
    """

    def __init__(
        self,
        learning_rate: float,
        num_classes: int | None,
        ignore_index: int | None = None,
        further_metrics: dict[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        non_negative(learning_rate=learning_rate)
        if ignore_index is not None and abs(ignore_index) >= 2**63:
            raise ProjUNNError(f"ignore_index must be a class, found {ignore_index}")
        self.learning_rate = learning_rate
        self.num_classes = num_classes
        # The loss refuses invalid classes. The check by torchmetrics would synchronise with the device at every step.
        metrics: dict[str, Metric | MetricCollection] = (
            {"mae": MeanAbsoluteError()}
            if num_classes is None
            else {
                "accuracy": MulticlassAccuracy(
                    num_classes, average="micro", ignore_index=ignore_index, validate_args=False
                )
            }
        )
        metrics |= further_metrics or {}
        self.train_metrics = MetricCollection(metrics, prefix="train/")
        self.val_metrics = self.train_metrics.clone(prefix="val/")
        self.test_metrics = self.train_metrics.clone(prefix="test/")

    @property
    def comparable_loss(self) -> bool:
        """Whether the loss is in the units of a task's ``baseline_loss``. The command compares it only if it is."""
        return True

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Raises:
            ProjUNNError: if the target does not fit the output.
        """

    classes_option = "num_classes"
    """The name of the option that sets the number of classes."""

    def prepare_data(self) -> None:
        """Check that the model has as many classes as the data, before the run starts."""
        expected = getattr(getattr(self.trainer, "datamodule", None), "num_classes", None)
        if isinstance(expected, int) and self.num_classes not in (None, expected):
            raise ProjUNNError(
                f"{self.classes_option} of {type(self).__name__} is {self.num_classes}, and the data has {expected} "
                f"classes: set {self.classes_option} to {expected}"
            )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def predict_step(self, batch: Tensor | tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Predict the classes or the values of a batch of inputs, which may have targets beside them."""
        output = self(batch if isinstance(batch, Tensor) else batch[0])
        return output if self.num_classes is None else output.argmax(-1)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        if len(batch) != 2:
            raise ProjUNNError(f"a batch must be (input, target), found {len(batch)} parts")
        input, target = batch
        output = self(input)
        loss = self.loss(output, target)
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        if target.ndim < output.ndim:  # classes of steps, or of whole inputs
            metrics(output.detach().flatten(0, -2), target.flatten())
        else:
            metrics(output.detach(), target)
        training = stage == "train"
        self.log(f"{stage}/loss", loss, prog_bar=True, sync_dist=not training, batch_size=len(input))
        self.log_dict(metrics, on_step=training, on_epoch=not training, batch_size=len(input))
        return loss

    def configure_model(self) -> None:
        """Shard the layers if the strategy is ModelParallelStrategy."""
        shard_(self)

    def configure_optimizers(self) -> Any:
        """RMSprop, unless the command line or a subclass chooses another optimizer."""
        return torch.optim.RMSprop(self.parameters(), lr=self.learning_rate)


def cross_entropy(output: Tensor, target: Tensor, option: str) -> Tensor:
    """The mean cross-entropy of logits ``(*, C)`` and classes ``(*)``, or of ``(B, C)`` and probabilities ``(B, C)``.

    Raises:
        ProjUNNError: if a class is not below C; the message calls C by the name of the model's ``option``.
    """
    try:
        if output.ndim > 2:
            output, target = output.flatten(0, -2), target.flatten()
        return F.cross_entropy(output, target)
    except IndexError as error:
        raise ProjUNNError(f"a target is no class below {option} = {output.shape[-1]}: {error}") from None
