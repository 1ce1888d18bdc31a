"""Predictions, in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from projunn_lightning.errors import ProjUNNError


class PredictionWriter(BasePredictionWriter):
    """Write what ``predict_step`` returns to one file, which ``torch.load(path)`` gives back.

    The file holds what ``predict_step`` returns for a batch, a tensor or a dict, tuple or list of tensors, for all
    samples at once: entry i is that of sample i of the dataset, whatever the sampler and the number of processes; each
    sample is there once. Several dataloaders give a list. A model whose ``predict_step`` returns None leaves no file,
    nor does ``fast_dev_run``. The file appears when it is complete.

    Of a dataset without indices (an iterable one) the order is that of the loader, one process after the other.

    Args:
        path: of the file; ``predictions.pt`` in the run's log folder if None.

    Raises:
        ValueError: before anything is predicted, if there is a file at the path; at the first batch, if
            ``predict_step`` returns something else.

    >>> trainer = Trainer(callbacks=PredictionWriter("predictions.pt"), logger=False)
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__("batch_and_epoch")
        self.path = path
        self.written: Path | None = None
        """The file, on the process that wrote it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        super().setup(trainer, pl_module, stage)
        self.check(trainer)
        self.written = None
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by a connector
            self._file.parent.mkdir(parents=True, exist_ok=True)

    def check(self, trainer: Trainer) -> None:
        """Raise a ValueError if there is a file at the path."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by a connector
            self._file = Path(self.path or Path(trainer.log_dir or trainer.default_root_dir) / "predictions.pt")
            if self._file.exists():
                raise ProjUNNError(
                    f"predictions are not written over {self._file}, which exists: choose another path or remove it"
                )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if prediction is not None:
            _check(prediction, len(batch_indices) if batch_indices else None, type(pl_module).__name__)

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by a connector
            return
        loaders = [predictions] if len(batch_indices) == 1 else predictions
        parts = _gather([(list(loaders), list(batch_indices))], trainer)
        if not trainer.is_global_zero:
            return
        joined = []
        for number in range(len(batch_indices)):
            batches = [batch for outputs, _ in parts for batch in outputs[number]]
            if not batches or any(batch is None for batch in batches):
                return
            indices = [index for _, indices in parts for batch in indices[number] for index in batch]
            first = torch.from_numpy(np.unique(indices, return_index=True)[1]) if indices else None
            joined.append(_join(batches, first))
        _save(joined[0] if len(joined) == 1 else joined, self._file)
        self.written = self._file


def _gather(part: list[Any], trainer: Trainer) -> list[Any]:
    """The parts of all processes, on the first one."""
    if trainer.world_size == 1:
        return part
    parts: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(part[0], parts)
    return parts or []


def _check(prediction: Any, samples: int | None, model: str) -> None:
    if isinstance(prediction, Tensor):
        if prediction.ndim and (samples is None or len(prediction) == samples):
            return
        found = f"a tensor of shape {tuple(prediction.shape)}"
    elif isinstance(prediction, (tuple, list, Mapping)) and prediction:
        for value in prediction.values() if isinstance(prediction, Mapping) else prediction:
            _check(value, samples, model)
        return
    else:
        found = f"a {type(prediction).__name__}"
    count = "" if samples is None else f" for {samples} samples"
    raise ProjUNNError(
        f"predict_step of {model} returned {found}{count}; to be written it must return a tensor with an entry "
        "for each sample, or a dict, tuple or list of such; return None to write nothing"
    )


def _join(batches: list[Any], order: Tensor | None) -> Any:
    if isinstance(batches[0], Tensor):
        joined = torch.cat(batches)
        return joined if order is None else joined[order]
    if isinstance(batches[0], Mapping):
        return {key: _join([batch[key] for batch in batches], order) for key in batches[0]}
    return tuple(_join(list(values), order) for values in zip(*batches, strict=True))


def _save(predictions: Any, file: Path) -> None:
    part = file.with_name(f"{file.name}.part")
    try:
        torch.save(predictions, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
