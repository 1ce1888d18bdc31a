"""The memory in which the snapshots of weights lie and the updates of weights are computed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from projunn_lightning._compat import foreach_copy_
from projunn_lightning.constraint import Constraint
from projunn_lightning.linalg import Dense, Matrices


class Snapshots(Protocol):
    """The snapshots of parameters whose matrices have one shape.

    The matrices of all parameters have a new first dimension, ``(G, *, n, p)`` for G parameters.
    """

    def take(self) -> None:
        """Copy the parameters."""

    def restore(self) -> None:
        """Write the copies back to the parameters."""

    def subtract(self) -> tuple[Matrices, Matrices]:
        """The matrices W of the copies, and D = (parameter - copy) in memory from which :meth:`store` writes."""

    def store(self) -> None:
        """Write the present contents of the memory of D to the parameters."""

    def residuals(self) -> tuple[Matrices, list[Tensor]]:
        """Zero matrices ``(G, *, n, p)``, and views of their memory with the shapes of the parameters."""


class LargeWeight:
    """One parameter. D is computed in the parameter's own memory if this can be viewed as matrices."""

    def __init__(self, parameter: Tensor, constraint: Constraint) -> None:
        self.parameter = parameter
        self.constraint = constraint
        self.before = torch.empty_like(parameter)

    def take(self) -> None:
        self.before.copy_(self.parameter)

    def restore(self) -> None:
        self.parameter.copy_(self.before)

    def subtract(self) -> tuple[Matrices, Matrices]:
        self.parameter.sub_(self.before)
        # A new view is made each time, because other code may have given the parameter other memory.
        self.update = self.constraint.matrices(self.parameter).unsqueeze()
        return self.constraint.matrices(self.before).unsqueeze(), self.update

    def store(self) -> None:
        self.update.store_(self.parameter)

    def residuals(self) -> tuple[Matrices, list[Tensor]]:
        residual = torch.zeros_like(self.parameter, memory_format=torch.contiguous_format)
        return self.constraint.matrices(residual).unsqueeze(), [residual]


class SmallWeights:
    """Several small parameters of one shape, which are stacked because calls cost more than copies."""

    def __init__(self, parameters: list[Tensor], constraint: Constraint) -> None:
        self.parameters = parameters
        first = parameters[0]
        shape = (len(parameters), *constraint.matrices(first).shape)
        self.before, self.after = (first.new_empty(len(parameters), *first.shape) for _ in range(2))
        self.matrices = Dense(self.before.view(shape)), Dense(self.after.view(shape))

    def take(self) -> None:
        torch.stack(self.parameters, out=self.before)

    def restore(self) -> None:
        foreach_copy_(self.parameters, self.before.unbind())

    def subtract(self) -> tuple[Matrices, Matrices]:
        torch.stack(self.parameters, out=self.after).sub_(self.before)
        return self.matrices

    def store(self) -> None:
        foreach_copy_(self.parameters, self.after.unbind())

    def residuals(self) -> tuple[Matrices, list[Tensor]]:
        residuals = torch.zeros_like(self.before)
        return Dense(residuals.view(self.matrices[0].shape)), list(residuals.unbind())
