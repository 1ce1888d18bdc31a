"""The declaration of a layer's own weights."""

from __future__ import annotations

from torch import nn

from projunn_lightning.constraint import Init, constraint_on, orthogonal, remember


def declare(module: nn.Module, name: str, init: Init) -> None:
    """Declare a parameter of a layer orthogonal and draw it.

    A parameter on the meta device is declared only. It has values after ``to_empty`` and ``reset_parameters``, or after
    ``load_state_dict(..., assign=True)``.
    """
    if module.get_parameter(name).is_meta:
        remember(module, name, constraint_on(module, name))
    else:
        orthogonal(module, name, init=init)
