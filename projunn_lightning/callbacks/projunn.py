"""The method as a Lightning callback."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from projunn_lightning._compat import builds_its_layers_later, logs_now, trainer_callbacks
from projunn_lightning.callbacks._averages import average_of, copies, nearest, replace_saved, write
from projunn_lightning.callbacks._progress_bar import show_small_numbers
from projunn_lightning.constraint import FLAT_REMEDY, declared, matching
from projunn_lightning.errors import ConstraintError
from projunn_lightning.optim import Projector, ProjUNNSettings, as_patterns, check_names, chunks_for


class ProjUNN(Callback):
    """Keep weights exactly orthogonal (real) or unitary (complex) while any LightningModule trains.

    After each optimizer step the callback approximates the update of every constrained weight at rank k and applies
    the approximation as a rotation of the weight, in O(k N^2) (Kiani et al. 2022, arXiv 2203.05483). The constrained
    weights are the parameters that modules declare (:func:`~projunn_lightning.orthogonal`, the layers of
    ``projunn_lightning.nn``) and the parameters that ``parameters`` chooses. The chosen parameters start from the
    nearest unitary matrix. The model, the optimizer and the keys of checkpoints stay as they are.

    The callback uses the hooks of the optimizers. It therefore works with gradient accumulation, manual optimization,
    several optimizers, gradient clipping, closures and a GradScaler that skips steps. A parameter that joins an
    optimizer later, because it is unfrozen or belongs to a new module, is constrained from that step on. After an
    exception or a signal the weights are unitary, also in the checkpoint that a
    ``ModelCheckpoint(save_on_exception=True)`` saves.

    At the start of ``fit`` the callback prints the name, the shape and the matrices of each constrained parameter, and
    the settings.

    The callback refuses parameters in half precision (mixed precision is supported), strategies that flatten
    parameters, ``ModelPruning`` of constrained weights, and weights that a parametrization computes. ``torch.compile``
    is supported. Patterns match the names of parameters without the ``_orig_mod.`` that it adds.

    The mean of unitary matrices is not unitary. ``WeightAveraging`` and ``EMAWeightAveraging`` are supported all the
    same: where an average is validated, saved or copied to the model, its constrained weights are moved to the nearest
    unitary matrices. ``StochasticWeightAveraging`` is refused.

    Whenever the trainer logs, the callback logs ``weights/largest_unitarity_error`` (for matrices above 512 x 512 it is
    an estimate). The progress bar shows it as ``unitarity_error``. The callback also logs ``weights/skipped_updates``
    and ``weights/reorthonormalisations`` (corrections of rounding drift), both counted since the start of training. An
    update that holds a NaN or an infinity is skipped: it leaves its weight untouched. The optimizer's own state
    (momentum, averages) may keep the NaN. If the count rises at every step, go back to a checkpoint.

    The learning rate of the constrained weights, divided by ``lr_divider``, is logged as ``weights/lr``. If the weights
    have several, each one is logged as ``weights/lr/<weight>``. The names begin with ``weights``, because TensorBoard
    sorts by name and opens the first two groups, which are ``train`` and ``val`` then.

    Args:
        parameters: glob patterns over ``named_parameters()``, such as ``"encoder.*.weight_hh_l*"``. A ``*`` before a
            dot may also stand for no module. A warning names the parameters that match and are not matrices. The
            stacked weights of ``nn.LSTM``, ``nn.GRU`` and ``nn.MultiheadAttention`` are constrained as one matrix for
            each gate or projection, and the kernels of grouped convolutions as one matrix for each group.
        chunks: how the parameters that ``parameters`` chooses are taken apart otherwise: the number of matrices that
            are stacked along dim 0, such as 3 for a fused projection to queries, keys and values, or the number of
            heads; or a list of the number of rows of each, such as ``[512, 128, 128]``.
        settings: the settings of the method, see :class:`~projunn_lightning.optim.ProjUNNSettings`.

    Raises:
        ConfigError: if a setting is unknown, of the wrong type or out of range.
        ConstraintError: at the start of ``fit``, if a pattern matches nothing, or if a parameter cannot be constrained
            or is held by no optimizer. No weight has been changed then.

    >>> from lightning.pytorch import Trainer
    >>> trainer = Trainer(callbacks=ProjUNN("encoder.*.weight_hh_l*", rank=1), logger=False)
    """

    def __init__(
        self, parameters: str | list[str] | None = None, *, chunks: int | list[int] | None = None, **settings: Any
    ) -> None:
        check_names(settings)
        self.settings = ProjUNNSettings(**settings)
        self.parameters = as_patterns(parameters)
        self.chunks = chunks_for(self.parameters, chunks)
        self.projector: Projector | None = None
        self._restored: dict[str, Any] = {}
        self._averages: dict[str, Tensor] = {}  # the averages of the constrained weights while a model is validated
        self.optional = False  # whether a model with nothing to constrain may train; the command sets it to True

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints. The patterns tell several callbacks apart."""
        return f"{type(self).__qualname__}{self.parameters}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.check(trainer, pl_module)
            show_small_numbers(trainer)
            self._detach()
            self.projector, self._restored = None, {}
            self._averages = {}
            # This callback runs first. It is attached before a LearningRateFinder trains, and after an exception it
            # restores a weight that was stopped in mid-step before another callback saves the weight. Only callbacks
            # that average weights come before it, because it moves what they use to the nearest unitary matrices.
            others = [each for each in trainer_callbacks(trainer) if each is not self]
            averages = [each for each in others if isinstance(each, WeightAveraging)]
            trainer.callbacks = [*averages, self, *(each for each in others if each not in averages)]  # type: ignore[attr-defined]

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a setup that is known to be wrong before training starts. Nothing is changed.

        Raises:
            ConstraintError: see the class.
        """
        if self._finds_nothing(pl_module):
            return
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
            raise ConstraintError(
                f"strategy {type(trainer.strategy).__name__} leaves no matrix to keep orthogonal. {FLAT_REMEDY}"
            )
        if trainer.precision in ("16-true", "bf16-true"):
            raise ConstraintError(
                f"precision={trainer.precision!r} keeps weights in half precision, in which they cannot stay "
                f"orthogonal; use {str(trainer.precision).replace('true', 'mixed')!r}"
            )
        for callback in trainer_callbacks(trainer):
            if isinstance(callback, StochasticWeightAveraging):
                raise ConstraintError(
                    f"{type(callback).__name__} averages weights, and the mean of unitary matrices is not unitary: use "
                    "WeightAveraging or EMAWeightAveraging, whose averages are moved to the nearest unitary matrices"
                )
        if not builds_its_layers_later(pl_module):
            self._projector_of(trainer, pl_module)

    def _projector_of(self, trainer: Trainer, pl_module: LightningModule) -> Projector:
        """The projector of the weights that belong to this callback and to no other ProjUNN callback of the trainer.

        A weight belongs to the callback whose patterns match it. The other weights that modules declare belong to the
        callback without patterns, if there is one.
        """
        projector = Projector(pl_module, self.parameters, chunks=self.chunks, **vars(self.settings))
        others = [each for each in methods(trainer) if each is not self]
        mine = matching(pl_module, self.parameters, self.chunks)
        for other in others:
            theirs = matching(pl_module, other.parameters, other.chunks)
            for name in mine.keys() & theirs.keys():
                raise ConstraintError(f"two ProjUNN callbacks constrain {name}; give each of them patterns of its own")
            projector.leave(theirs)
            if not other.parameters:
                projector.leave(projector.constraints.keys() - mine.keys())
        return projector

    def _finds_nothing(self, pl_module: LightningModule) -> bool:
        return self.optional and not self.parameters and not declared(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._finds_nothing(pl_module):
            rank_zero_warn(
                "no parameter is declared orthogonal, and projunn.parameters is not set: "
                "the model trains without projUNN"
            )
            return
        self.projector = self._projector_of(trainer, pl_module)
        self.projector.load_state_dict(self._restored)
        self._restored = {}
        self._refuse_pruning(trainer, pl_module, self.projector)
        self.projector.attach(*trainer.optimizers)
        rank_zero_info(repr(self.projector))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Such a strategy restores the checkpoint after on_fit_start.
        if self.projector is not None and trainer.strategy.restore_checkpoint_after_setup:
            self.projector.recheck()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Other optimizers may have been set up since the last batch, for example at the start of an epoch.
        if self.projector is not None and not self.projector.is_attached_to(*trainer.optimizers):
            self.projector.detach()
            self.projector.attach(*trainer.optimizers)

    def _refuse_pruning(self, trainer: Trainer, pl_module: LightningModule, projector: Projector) -> None:
        names = {id(pl_module.get_parameter(name)): name for name in projector.constraints}
        for callback in trainer_callbacks(trainer):
            if isinstance(callback, ModelPruning):
                for module, leaf in callback._parameters_to_prune or ():
                    if name := names.get(id(getattr(module, leaf))):
                        raise ConstraintError(
                            f"{type(callback).__name__} prunes {name}, and a matrix with entries set to zero is not "
                            "unitary: leave it out of parameters_to_prune"
                        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning's LearningRateMonitor asks the same. The first batch is logged too, for the progress bar.
        callbacks = methods(trainer)
        if self is not callbacks[0] or trainer.barebones:  # a barebones trainer refuses to log
            return
        if not (batch_idx == 0 or logs_now(trainer)):
            return
        projectors = [callback.projector for callback in callbacks if callback.projector is not None]
        errors = [error for projector in projectors for error in projector.unitarity_errors(quick=True).values()]
        if not errors:
            return
        largest = torch.stack(errors).max()
        skipped = torch.stack([each.skipped_updates for each in projectors]).sum().float()
        pl_module.log("unitarity_error", largest, prog_bar=True, logger=False)
        pl_module.log("weights/largest_unitarity_error", largest)
        pl_module.log("weights/skipped_updates", skipped)
        pl_module.log("weights/reorthonormalisations", float(sum(each.reorthonormalisations for each in projectors)))
        rates = {name: rate for projector in projectors for name, rate in projector.effective_rates().items()}
        if len(set(rates.values())) == 1:
            pl_module.log("weights/lr", next(iter(rates.values())))
        else:
            pl_module.log_dict({f"weights/lr/{name}": rate for name, rate in rates.items()})

    # ---- averages of weights, which WeightAveraging swaps in before these hooks run ----

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.projector is not None and average_of(trainer) is not None:
            self._averages = copies(self.projector, pl_module)
            write(nearest(self.projector, pl_module), pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Other callbacks may have swapped averages of their own in.
        if self.projector is not None and batch_idx == dataloader_idx == 0:
            self.projector.warn_if_not_unitary()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (average := average_of(trainer)) is not None:
            write(self._averages, average)
            self._averages = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.projector is not None and average_of(trainer) is not None:
            write(nearest(self.projector, pl_module), pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.projector is not None and (average := average_of(trainer)) is not None:
            replace_saved(self.projector, average, checkpoint)

    # ---- the end, and the state ----

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach()  # not in on_fit_end, because a Tuner does not call it

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach()

    def _detach(self) -> None:
        if self.projector is not None:
            self.projector.detach()

    def state_dict(self) -> dict[str, Any]:
        return self.projector.state_dict() if self.projector is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.projector is not None:  # strategies that shard load after on_fit_start, all others before it
            self.projector.load_state_dict(state_dict)
        else:
            self._restored = state_dict


def methods(trainer: Trainer) -> list[ProjUNN]:
    """The ProjUNN callbacks of a trainer."""
    return [each for each in trainer_callbacks(trainer) if isinstance(each, ProjUNN)]
