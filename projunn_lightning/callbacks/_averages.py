"""The averages that Lightning keeps of weights: what is used of them is moved to the nearest unitary matrices.

The mean of unitary matrices is not unitary. :class:`~lightning.pytorch.callbacks.WeightAveraging` and its subclasses
keep the mean itself, validate and save the model with it, and copy it to the model at the end. The mean is not changed
here, so that it depends neither on how often the model is validated nor on how often it is saved.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from projunn_lightning._compat import averaged_model, trainer_callbacks
from projunn_lightning.optim import Projector


def average_of(trainer: Trainer) -> nn.Module | None:
    """The average of the model that a callback of the trainer keeps; None if there is no such callback or average."""
    averages = [averaged_model(each) for each in trainer_callbacks(trainer) if isinstance(each, WeightAveraging)]
    return next((each for each in averages if each is not None), None)


def copies(projector: Projector, model: nn.Module) -> dict[str, Tensor]:
    """Copies of the constrained weights of a model, by name."""
    return {name: model.get_parameter(name).data.clone() for name in projector.constraints}


def write(values: dict[str, Tensor], model: nn.Module) -> None:
    """Write values to the parameters of a model. torch does not count the changes, and so no step looks for them."""
    for name, value in values.items():
        model.get_parameter(name).data.copy_(value)


def nearest(projector: Projector, model: nn.Module) -> dict[str, Tensor]:
    """The nearest unitary matrices to the constrained weights of a model, by name."""
    values = copies(projector, model)
    projector.project_(values)
    return values


def replace_saved(projector: Projector, average: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Replace the averages in a checkpoint by the nearest unitary matrices.

    The averages themselves are kept in ``averaging_state``. What is in there takes precedence when Lightning loads the
    average, so that a resumed run continues with the average of an uninterrupted run.
    """
    values = nearest(projector, average)
    by_address = {average.get_parameter(name).data_ptr(): value for name, value in values.items()}  # tied weights too
    for key, mean in list(checkpoint["state_dict"].items()):
        if (value := by_address.get(mean.data_ptr())) is not None:
            checkpoint["state_dict"][key] = value
            checkpoint["averaging_state"][f"module.{key}"] = mean
