"""A constrained weight, and what its updates leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from projunn_lightning.constraint import Constraint
from projunn_lightning.linalg import gathered


@dataclass(eq=False)  # hashed by identity
class ConstrainedWeight:
    """The state of one constrained parameter.

    Attributes:
        name: the parameter's full name.
        constraint: how the parameter is viewed as matrices.
        unitary: whether it was declared, or has been made unitary since a pattern chose it. If such a weight is found
            not to be unitary, somebody has changed it.
        step: the number of updates so far, skipped ones included.
        reorthonormalisations: how many times its drift was corrected.
        skipped: how many updates were not finite, a scalar on the weight's device.
        basis: the basis of the last update, for a sampler that keeps one; ``(*, rows, k)``.
        version: torch's count of the changes in place of the parameter, after the last step of any optimizer.
        residual: E, what rank k has left out of the last updates, a tensor like the parameter; None without feedback.
    """

    name: str
    constraint: Constraint
    unitary: bool
    step: int = 0
    reorthonormalisations: int = 0
    skipped: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    basis: Tensor | None = None
    residual: Tensor | None = None
    version: int | None = None

    def forget(self) -> None:
        """Drop what belongs to the weight's present values: they have been replaced by others."""
        self.basis = self.residual = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to repeat an unbroken one.

        The residual of a sharded weight is gathered, so that all processes have to ask.
        """
        state = {name: getattr(self, name) for name in ("step", "reorthonormalisations", "skipped", "basis")}
        return state | {"residual": gathered(self.residual)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)
