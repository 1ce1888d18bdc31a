"""A callback that writes predictions to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from projunn_lightning._compat import fast_dev_run
from projunn_lightning.errors import ProjUNNError


class PredictionWriter(BasePredictionWriter):
    """Write the results of ``predict_step`` to one file, which ``torch.load(path)`` reads.

    ``predict_step`` must return a tensor whose first dimension counts the samples of the batch, or a dict, tuple or
    list of such tensors. The file holds the same structure for the whole dataset. Entry i belongs to sample i of the
    dataset, whatever the sampler and the number of processes, and each sample occurs once. The samples of an iterable
    dataset have no indices: they are in the order of the loader, one process after the other. Several dataloaders give
    a list. There is no file after a ``fast_dev_run``, or if ``predict_step`` returned None. The file appears when it is
    complete.

    Args:
        path: path of the file. None stands for ``predictions.pt`` in the run's log folder.

    Raises:
        ProjUNNError: before the first prediction, if the file exists; after the first batch, if ``predict_step``
            returned something else.

    >>> trainer = Trainer(callbacks=PredictionWriter("predictions.pt"), logger=False)
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__("batch_and_epoch")
        self.path = path
        self.written: Path | None = None
        """The path of the file, on the process that wrote it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            super().setup(trainer, pl_module, stage)
            self.written = None
            self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Find the path of the file.

        Raises:
            ProjUNNError: if the file exists.
        """
        self._file = Path(self.path or Path(trainer.log_dir or trainer.default_root_dir) / "predictions.pt")
        if self._file.exists() and not fast_dev_run(trainer):
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
        if fast_dev_run(trainer):
            return
        loaders = [predictions] if len(batch_indices) == 1 else predictions
        ranks = _gather(list(zip(loaders, batch_indices, strict=True)), trainer)
        batches = [batch for rank in ranks for predicted, _ in rank for batch in predicted]
        if batches and all(batch is not None for batch in batches):
            joined = [_join(parts) for parts in zip(*ranks, strict=True)]
            _save(joined[0] if len(joined) == 1 else joined, self._file)
            self.written = self._file


def _check(prediction: Any, samples: int | None, model: str) -> None:
    def check(value: Any) -> None:
        if not (isinstance(value, Tensor) and value.ndim and samples in (None, len(value))):
            kind = type(value).__name__
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {kind}"
            count = "" if samples is None else f" for {samples} samples"
            raise ProjUNNError(
                f"predict_step of {model} returned {found}{count}; to be written it must return a tensor with an entry "
                "for each sample, or a dict, tuple or list of such tensors; return None to write nothing"
            )

    _map(check, prediction)


def _gather(part: Any, trainer: Trainer) -> list[Any]:
    """The parts of all ranks on rank 0, and an empty list on the other ranks."""
    if trainer.world_size == 1:
        return [part]
    parts = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(part, parts)
    return parts or []


def _join(parts: Sequence[tuple[list[Any], list[list[int]]]]) -> Any:
    """The predictions of one dataloader in the order of its dataset, from each rank's batches and their indices."""
    batches = [batch for predicted, _ in parts for batch in predicted]
    indices = [index for _, seen in parts for batch in seen for index in batch]
    places = {index: place for place, index in enumerate(indices)}  # one place, if two ranks have predicted a sample
    order = torch.tensor([places[index] for index in sorted(places)]) if places else slice(None)
    return _map(lambda *tensors: torch.cat(tensors)[order], *batches)


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """Call a function with the values at each place of nested dicts, tuples and lists of one structure."""
    first = trees[0]
    if isinstance(first, Mapping) and first:
        return {key: _map(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, (tuple, list)) and first:
        values = [_map(function, *branches) for branches in zip(*trees, strict=True)]
        return values if isinstance(first, list) else tuple(values)
    return function(*trees)


def _save(predictions: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        torch.save(predictions, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
