"""A callback that logs numbers and pictures of the constrained weights, their updates and the gradients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from projunn_lightning._compat import logged_step, logs_now
from projunn_lightning.callbacks._figures import draw_once, gradient_over_time, spectrum
from projunn_lightning.callbacks._harmless import harmless
from projunn_lightning.callbacks._input_gradients import InputGradients
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

    - ``unitarity_error/<weight>``: the unitarity error. With :class:`~projunn_lightning.ProjUNN` it is below 1e-5 in
      float32;
    - ``energy_kept/<weight>``: the share ``|a b^H|_F^2 / |D|_F^2`` of the optimizer's update D that its approximation
      at rank k keeps (Kiani et al. 2022, Fig. 1a). If it is low, a higher rank or another sampler may learn faster;
    - ``residual/<weight>``: with feedback, ``|E|_F / |D|_F``, where the residual E is the part of the last updates
      that rank k has left out;
    - ``stable_rank/<weight>``: ``|D|_F^2 / |D|_2^2``, the effective rank of D;
    - ``gradient_norm/<layer>/first`` and ``gradient_norm/<layer>/last``: the norm of the loss's gradient with respect
      to the input of a recurrent layer, as the root mean square over the first tenth and over the last tenth of the
      time steps. If the first number is smaller by orders of magnitude, the gradients vanish on their way back.

    It draws these pictures for a :class:`~lightning.pytorch.loggers.TensorBoardLogger`:

    - ``eigenvalues/<weight>``: the eigenvalues of square matrices up to 512 x 512, with the unit circle;
    - ``phases/<weight>``: the histogram of the phases of these eigenvalues;
    - ``gradient_norm/<layer>``: the gradient norm against the time step. To see what the constraint does, run the same
      model without it.

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
        self._updates: dict[str, Tensor] = {}

    # ---- when it measures ----

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
            with harmless("pictures"):
                draw_once()
        self._begun = time.perf_counter()
        self._spent = dict.fromkeys(self._spent, 0.0)

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
                self._updates |= {f"{label}/{name}": value for name, value in zip(names, values, strict=True)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._due
        self._stop(trainer)
        if not due:
            return
        if "numbers" in due:
            with self._measuring("numbers", pl_module.device):
                self._log(trainer, self._numbers(pl_module, _constraints(trainer, pl_module)))
        if "pictures" in due and trainer.is_global_zero:
            with self._measuring("pictures", pl_module.device):
                for logger in trainer.loggers:
                    if isinstance(logger, TensorBoardLogger):
                        constraints = _constraints(trainer, pl_module)
                        self._draw(logger.experiment, pl_module, constraints, logged_step(trainer))

    def _numbers(self, pl_module: LightningModule, constraints: dict[str, Constraint]) -> dict[str, Tensor]:
        errors = unitarity_errors(pl_module, constraints, quick=True)
        numbers = {f"unitarity_error/{name}": error for name, error in errors.items()}
        numbers |= {name: value for name, value in self._updates.items() if torch.isfinite(value)}
        for name, norms in self._gradients.norms.items():
            tenth = -(-len(norms) // 10)
            for place, part in (("first", norms[:tenth]), ("last", norms[-tenth:])):
                numbers[f"gradient_norm/{name}/{place}"] = part.square().mean().sqrt()
        return numbers

    def _log(self, trainer: Trainer, numbers: dict[str, Tensor]) -> None:
        # LightningModule.log would repeat a value at each later step that logs, up to the end of the epoch.
        trainer.callback_metrics.update(numbers)
        values = {name: float(value) for name, value in numbers.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=logged_step(trainer))

    @torch.no_grad()
    def _draw(self, board: Any, pl_module: LightningModule, constraints: dict[str, Constraint], step: int) -> None:
        stacks = [(stack, name) for name, constraint in constraints.items() for stack in constraint.stacks]
        for stack, parameter in stacks:
            name = stack.label(parameter)
            matrices = stack.matrices(pl_module.get_parameter(parameter)).whole()
            if matrices is None or not matrices.shape[-1] == matrices.shape[-2] <= LARGEST:
                continue
            matrices = matrices.to("cpu", torch.promote_types(matrices.dtype, torch.float32))
            if matrices.isfinite().all():
                eigenvalues = torch.linalg.eigvals(matrices).flatten()
                board.add_histogram(f"phases/{name}", eigenvalues.angle(), step)
                board.add_figure(f"eigenvalues/{name}", spectrum(eigenvalues, f"{name}, step {step}"), step)
        for name, norms in self._gradients.norms.items():
            if norms.isfinite().all() and norms.any():
                figure = gradient_over_time(norms.cpu(), f"{name}, step {step}")
                board.add_figure(f"gradient_norm/{name}", figure, step)


def _methods(trainer: Trainer) -> list[ProjUNN]:
    """The ProjUNN callbacks of a trainer that have a projector already."""
    return [each for each in methods(trainer) if each.projector is not None]


def _constraints(trainer: Trainer, pl_module: LightningModule) -> dict[str, Constraint]:
    """The constraints of the weights that modules declare and of the weights that the ProjUNN callbacks choose."""
    constraints = declared(pl_module)
    for method in _methods(trainer):
        constraints |= method.projector.constraints  # type: ignore[union-attr]
    return constraints
