"""Which optimizers a projector can be attached to."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from projunn_lightning._compat import hooked_steps
from projunn_lightning.errors import ConstraintError, ProjUNNError

_WRAPPERS = {"lightning.fabric.wrappers._FabricOptimizer", "accelerate.optimizer.AcceleratedOptimizer"}


def unwrapped(optimizer: object) -> Optimizer:
    """The torch optimizer behind the wrapper of Lightning Fabric or Accelerate, or the optimizer itself.

    Raises:
        ProjUNNError: if it is no optimizer.
    """
    while not _WRAPPERS.isdisjoint(f"{kind.__module__}.{kind.__qualname__}" for kind in type(optimizer).__mro__):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    if not isinstance(optimizer, Optimizer):
        raise ProjUNNError(
            f"attach takes torch optimizers, as in attach(optimizer) or attach(*optimizers), found a "
            f"{type(optimizer).__name__}"
        )
    return optimizer


def check_optimizer(optimizer: Optimizer) -> None:
    """Check that the hooks of an optimizer see its steps, and that it shows the weights that it trains.

    Raises:
        ConstraintError: if they do not, or it does not.
    """
    name = type(optimizer).__name__
    if not hooked_steps(optimizer):
        raise ConstraintError(
            f"{name} does not run the hooks of torch's optimizers, because it does not call Optimizer.__init__: the "
            "projector would not see its steps. Attach the projector to the optimizer inside of it, if that one makes "
            "every change of the weights, or add super().__init__(params, defaults) to the class"
        )
    if callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None)):
        raise ConstraintError(
            f"{name} is schedule-free: its eval() replaces the weights by averages, which are not unitary. Use the "
            "optimizer with a schedule of the learning rate"
        )


def check_skew(optimizer: Optimizer) -> None:
    """Check that an optimizer can work in skew coordinates.

    Raises:
        ConstraintError: if it evaluates its closure at several weights in a step.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConstraintError(
            "LBFGS evaluates its closure at several weights in a step, and the coordinates of coordinates='skew' "
            "belong to one weight; use coordinates='weight'"
        )
