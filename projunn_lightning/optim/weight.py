"""The state of a constrained weight between its updates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from projunn_lightning.constraint import Constraint, Stack
from projunn_lightning.linalg import gathered


@dataclass(eq=False)  # hashed by identity
class ConstrainedWeight:
    """The state of a constrained parameter, or of one of its stacks if it has matrices of several shapes.

    Attributes:
        parameter: the parameter's full name.
        constraint: how the parameter is viewed as matrices.
        stack: the matrices that this object stands for, one of ``constraint.stacks``.
        unitary: whether the weight was declared orthogonal, or was made unitary after a pattern chose it. If such a
            weight is not unitary, other code has changed it.
        step: the number of updates so far, including skipped updates.
        reorthonormalisations: the number of times that the drift was corrected.
        skipped: the number of updates that were not finite, as a scalar tensor on the weight's device.
        basis: the basis of the last update, ``(*, rows, k)``; None if the sampler keeps no basis.
        residual: E, the part of the last updates that rank k left out, with the shape and dtype of the parameter's
            rows in the stack; None without feedback.
        version: the number of changes in place that torch has counted after the last step of any optimizer.
    """

    parameter: str
    constraint: Constraint
    stack: Stack
    unitary: bool
    step: int = 0
    reorthonormalisations: int = 0
    skipped: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    basis: Tensor | None = None
    residual: Tensor | None = None
    version: int | None = None

    @property
    def name(self) -> str:
        """The parameter's full name, with the rows of the stack if the parameter has several stacks."""
        return self.stack.label(self.parameter)

    def forget(self) -> None:
        """Drop the basis and the residual, because the values to which they belong have been replaced."""
        self.basis = self.residual = None

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs to repeat an uninterrupted run.

        The residual of a sharded weight is gathered, so all processes must call this method.
        """
        state = {name: getattr(self, name) for name in ("step", "reorthonormalisations", "skipped", "basis")}
        return state | {"residual": gathered(self.residual)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state that :meth:`state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)
