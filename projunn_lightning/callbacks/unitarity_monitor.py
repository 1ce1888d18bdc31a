"""A callback that logs numbers and pictures of the constrained weights, their updates and the gradients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from projunn_lightning._compat import logged_step, logs_now
from projunn_lightning.callbacks._figures import draw_once, gradient_over_time, spectrum
from projunn_lightning.callbacks._harmless import harmless
from projunn_lightning.callbacks._input_gradients import InputGradients
from projunn_lightning.callbacks._pictures import Pictures
from projunn_lightning.callbacks.projunn import ProjUNN, methods
from projunn_lightning.constraint import Constraint, declared, unitarity_errors
from projunn_lightning.functional import Direction, Update
from projunn_lightning.linalg import Matrices

SHARE = 0.01
"""The share of the run's time that the numbers may take, and that the pictures may take."""

LARGEST = 512
"""The number of rows of the largest matrix whose eigenvalues are computed, at a cost of about 25 N^3."""


class UnitarityMonitor(Callback):
    """Show whether training with constrained weights is healthy, at the steps at which the trainer logs.

    It logs these numbers to any logger:

    - ``weights/unitarity_error/<weight>``: the unitarity error. With :class:`~projunn_lightning.ProjUNN` it is below
      1e-5 in float32;
    - ``weights/energy_kept/<weight>``: the share ``|a b^H|_F^2 / |D|_F^2`` of the optimizer's update D that its
      approximation at rank k keeps (Kiani et al. 2022, Fig. 1a). The sampler ``tangent`` approximates the tangent part
      of D, and the share is of that part. If it is low, a higher rank or another sampler may learn faster;
    - ``weights/residual/<weight>``: with feedback, ``|E|_F / |D|_F``, where the residual E is the part of the last
      updates that rank k has left out;
    - ``weights/stable_rank/<weight>``: ``|D|_F^2 / |D|_2^2``, the effective rank of D;
    - ``weights/gradient_norm/<layer>/first`` and ``weights/gradient_norm/<layer>/last``: the norm of the loss's
      gradient with respect to the input of a recurrent layer, as the root mean square over the first tenth and over
      the last tenth of the time steps. If the first number is smaller by orders of magnitude, the gradients vanish on
      their way back.

    It draws these pictures at the start, on the way and at the end of a run:

    - ``weights/eigenvalues/<weight>``: the eigenvalues of square matrices up to 512 x 512, with the unit circle;
    - ``weights/gradient_over_time/<layer>``: the gradient norm against the time step. To see what the constraint does,
      run the same model without it.

    The pictures go to a :class:`~lightning.pytorch.loggers.TensorBoardLogger`, a
    :class:`~lightning.pytorch.loggers.WandbLogger` and a :class:`~lightning.pytorch.loggers.MLFlowLogger`. A run with
    none of them has files in the folder ``pictures`` of its log folder. TensorBoard also has
    ``weights/phases/<weight>``, the histogram of the phases of the eigenvalues.

    Each value is logged once, at the step at which it was taken. The monitor never stops a run and changes no number of
    it. An error of a measurement becomes a warning. Calls of a recurrent layer are not measured if the gradient cannot
    be seen from outside, for example calls with a packed sequence or in compiled code.

    The monitor shows the weights of the :class:`~projunn_lightning.ProjUNN` callbacks and the weights that modules
    declare. The declared weights and the recurrent layers are also shown in a run without ProjUNN. The monitor takes
    at most 2 % of the run's time: if one measurement takes long, the next one waits until enough time has passed.

    >>> from lightning.pytorch import Trainer
    >>> trainer = Trainer(callbacks=[ProjUNN("*.weight_hh_l*"), UnitarityMonitor()], logger=False)
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._spent = {"numbers": 0.0, "pictures": 0.0}
        self._last = {"numbers": 0.0, "pictures": 0.0}  # seconds that the last measurement took
        self._due: set[str] = set()
        self._gradients = InputGradients()
        self._gradients_at = 0  # the step at which the gradients were measured
        self._updates: dict[str, Tensor] = {}
        self._pictures: Pictures | None = None
        self._drawn: set[tuple[str, int]] = set()

    # ---- when it measures ----

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = time.perf_counter()
        self._spent = dict.fromkeys(self._spent, 0.0)
        self._pictures, self._drawn = Pictures(trainer), set()
        if self._pictures.possible:
            with harmless("pictures"):
                draw_once()
        self._draw(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._stop(trainer)  # an exception may have ended the last batch early
        if not logs_now(trainer):
            return
        allowed = SHARE * (time.perf_counter() - self._begun)
        # All ranks measure a sharded weight together, so the clock of rank 0 decides for all of them.
        due = {what for what, spent in self._spent.items() if not spent or spent + self._last[what] <= allowed}
        self._due = trainer.strategy.broadcast(due)
        if "numbers" in self._due:
            self._updates = {}
            self._gradients.watch(pl_module)
            for method in _methods(trainer):
                method.projector.on_update = self._observe  # type: ignore[union-attr]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)  # a model that skips the rest of an epoch has no end of its last batch
        self._draw(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        self._due = set()
        self._gradients.stop()
        for method in _methods(trainer):
            method.projector.on_update = None  # type: ignore[union-attr]

    @contextmanager
    def _measuring(self, what: str, device: torch.device) -> Iterator[None]:
        """Take the time of a measurement, which must not stop the training."""
        with harmless(what):
            if device.type == "cuda":  # the time of the work that is still queued is not the monitor's
                torch.cuda.synchronize(device)
            begun = time.perf_counter()
            try:
                yield
            finally:
                self._last[what] = time.perf_counter() - begun
                self._spent[what] += self._last[what]

    # ---- what it measures ----

    @torch.no_grad()
    def _observe(self, names: list[str], update: Update, direction: Direction, residual: Matrices | None) -> None:
        with self._measuring("numbers", update.d.device):
            energies, norms = update.energy(), update.d.spectral_norms()
            numbers = {"energy_kept": direction.energy_kept(update), "stable_rank": energies / norms.square()}
            if residual is not None:
                numbers["residual"] = (residual.column_norms().square().flatten(1).sum(1) / energies).sqrt()
            for label, values in numbers.items():
                self._updates |= {f"weights/{label}/{name}": value for name, value in zip(names, values, strict=True)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._due
        self._stop(trainer)
        if not due:
            return
        if "numbers" in due:
            with self._measuring("numbers", pl_module.device):
                self._gradients_at = logged_step(trainer)
                self._log(trainer, self._numbers(pl_module, _constraints(trainer, pl_module)))
        if "pictures" in due:
            self._draw(trainer, pl_module)

    def _numbers(self, pl_module: LightningModule, constraints: dict[str, Constraint]) -> dict[str, Tensor]:
        errors = unitarity_errors(pl_module, constraints, quick=True)
        numbers = {f"weights/unitarity_error/{name}": error for name, error in errors.items()}
        numbers |= {name: value for name, value in self._updates.items() if torch.isfinite(value)}
        for name, norms in self._gradients.norms.items():
            tenth = -(-len(norms) // 10)
            for place, part in (("first", norms[:tenth]), ("last", norms[-tenth:])):
                numbers[f"weights/gradient_norm/{name}/{place}"] = part.square().mean().sqrt()
        return numbers

    def _log(self, trainer: Trainer, numbers: dict[str, Tensor]) -> None:
        # LightningModule.log would repeat a value at each later step that logs, up to the end of the epoch.
        trainer.callback_metrics.update(numbers)
        values = {name: float(value) for name, value in numbers.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=logged_step(trainer))

    # ---- what it draws ----

    @property
    def folder(self) -> Path | None:
        """The folder that holds the pictures of the last run; None if it has none, or a logger sends them elsewhere."""
        return self._pictures.folder if self._pictures is not None and self._drawn else None

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._pictures is not None and self._pictures.possible:
            with self._measuring("pictures", pl_module.device), torch.no_grad():
                self._draw_weights(self._pictures, pl_module, _constraints(trainer, pl_module), logged_step(trainer))
                self._draw_gradients(self._pictures)

    def _draw_weights(
        self, pictures: Pictures, pl_module: LightningModule, constraints: dict[str, Constraint], step: int
    ) -> None:
        for name, eigenvalues in _eigenvalues(pl_module, constraints):
            if self._is_new(f"weights/eigenvalues/{name}", step):
                pictures.histogram(f"weights/phases/{name}", eigenvalues.angle(), step)
                pictures.show(f"weights/eigenvalues/{name}", spectrum(eigenvalues, f"{name}, step {step}"), step)

    def _draw_gradients(self, pictures: Pictures) -> None:
        """Draw the gradients of the last measurement, which belong to its step."""
        step = self._gradients_at
        for name, norms in self._gradients.norms.items():
            if norms.isfinite().all() and norms.any() and self._is_new(f"weights/gradient_over_time/{name}", step):
                figure = gradient_over_time(norms.cpu(), f"{name}, step {step}")
                pictures.show(f"weights/gradient_over_time/{name}", figure, step)

    def _is_new(self, name: str, step: int) -> bool:
        """Whether a picture has not been drawn at a step, and is now."""
        seen = (name, step) in self._drawn
        self._drawn.add((name, step))
        return not seen


def _eigenvalues(module: LightningModule, constraints: dict[str, Constraint]) -> Iterator[tuple[str, Tensor]]:
    """The eigenvalues of the square matrices that are not too large, by the name of the weight."""
    stacks = [(stack, name) for name, constraint in constraints.items() for stack in constraint.stacks]
    for stack, parameter in stacks:
        matrices = stack.matrices(module.get_parameter(parameter)).whole()
        if matrices is not None and matrices.shape[-1] == matrices.shape[-2] <= LARGEST:
            matrices = matrices.to("cpu", torch.promote_types(matrices.dtype, torch.float32))
            if matrices.isfinite().all():
                yield stack.label(parameter), torch.linalg.eigvals(matrices).flatten()


def _methods(trainer: Trainer) -> list[ProjUNN]:
    """The ProjUNN callbacks of a trainer that have a projector already."""
    return [each for each in methods(trainer) if each.projector is not None]


def _constraints(trainer: Trainer, pl_module: LightningModule) -> dict[str, Constraint]:
    """The constraints of the weights that modules declare and of the weights that the ProjUNN callbacks choose."""
    constraints = declared(pl_module)
    for method in _methods(trainer):
        constraints |= method.projector.constraints  # type: ignore[union-attr]
    return constraints
