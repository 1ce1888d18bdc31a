"""The declaration of a layer's own weights."""

from __future__ import annotations

from torch import nn

from projunn_lightning.constraint import Init, constraint_on, orthogonal, remember


def declare(module: nn.Module, name: str, init: Init, chunks: int | None = None) -> None:
    """Declare a parameter of a layer orthogonal and draw it; see :func:`~projunn_lightning.orthogonal`.

    A parameter on the meta device is declared only. It has values after ``to_empty`` and ``reset_parameters``, or after
    ``load_state_dict(..., assign=True)``.
    """
    if module.get_parameter(name).is_meta:
        remember(module, name, constraint_on(module, name, chunks))
    else:
        orthogonal(module, name, init=init, chunks=chunks)
