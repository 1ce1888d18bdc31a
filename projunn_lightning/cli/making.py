"""The border at which an error of another library means that an object cannot be made of a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI, instantiate_class
from torch.optim import Optimizer

from projunn_lightning.errors import ConfigError, ProjUNNError

REFUSALS = (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException)
"""The errors by which torch, Lightning and Python refuse settings."""

Errors = type[Exception] | tuple[type[Exception], ...]


@contextmanager
def making(name: str, refusals: Errors = REFUSALS) -> Iterator[None]:
    """Turn an error that means "not of these settings" into a ConfigError, while an object of the config is made.

    The error may be a bug all the same, and the message says how to see the traceback.

    Args:
        name: the name of the object.
        refusals: the types of errors that mean so.
    """
    try:
        yield
    except ProjUNNError:
        raise
    except refusals as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{name}: {type(error).__name__}: {message} (PROJUNN_TRACEBACK=1 shows where)") from error


def make_optimizer(model: LightningModule, configured: Any) -> Optimizer:
    """Make the optimizer of a config for the parameters that a model has now."""
    with making(_class_name(configured)):
        made: Optimizer = instantiate_class(model.parameters(), configured)
        return made


def make_optimizers(model: LightningModule, *, optimizer: Any, lr_scheduler: Any) -> Any:
    """Make the optimizer and the scheduler of a config for the parameters that a model has now."""
    made = make_optimizer(model, optimizer)
    if not lr_scheduler:
        return LightningCLI.configure_optimizers(model, made)
    with making(_class_name(lr_scheduler)):
        return LightningCLI.configure_optimizers(model, made, instantiate_class(made, lr_scheduler))


def _class_name(configured: Any) -> str:
    return str(configured["class_path"].rpartition(".")[2])
