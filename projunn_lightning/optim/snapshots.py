"""The memory in which the snapshots of weights lie and the updates of weights are computed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from projunn_lightning._compat import foreach_copy_
from projunn_lightning.constraint import Stack
from projunn_lightning.linalg import Dense, Matrices


class Snapshots(Protocol):
    """The snapshots of the same stack of parameters that have one shape.

    The matrices of all parameters have a new first dimension, ``(G, *, n, p)`` for G parameters.
    """

    def take(self) -> None:
        """Copy the parameters' rows in the stack."""

    def restore(self) -> None:
        """Write the copies back to the parameters."""

    def subtract(self) -> tuple[Matrices, Matrices]:
        """The matrices W of the copies, and D = (parameter - copy) in memory from which :meth:`store` writes."""

    def store(self) -> None:
        """Write the present contents of the memory of D to the parameters."""

    def residuals(self) -> tuple[Matrices, list[Tensor]]:
        """Zero matrices ``(G, *, n, p)``, and views of their memory with the shapes of the parameters' rows."""


class LargeWeight:
    """One parameter. D is computed in the parameter's own memory if this can be viewed as matrices."""

    def __init__(self, parameter: Tensor, stack: Stack) -> None:
        self.parameter = parameter
        self.stack = stack
        self.before = torch.empty_like(self._part())

    def _part(self) -> Tensor:
        # A new view is made each time, because other code may have given the parameter other memory.
        return self.stack.part(self.parameter)

    def take(self) -> None:
        self.before.copy_(self._part())

    def restore(self) -> None:
        self._part().copy_(self.before)

    def subtract(self) -> tuple[Matrices, Matrices]:
        self.update = self.stack.matrices_of_part(self._part().sub_(self.before)).unsqueeze()
        return self.stack.matrices_of_part(self.before).unsqueeze(), self.update

    def store(self) -> None:
        self.update.store_(self._part())

    def residuals(self) -> tuple[Matrices, list[Tensor]]:
        residual = torch.zeros_like(self.before, memory_format=torch.contiguous_format)
        return self.stack.matrices_of_part(residual).unsqueeze(), [residual]


class SmallWeights:
    """Several small parameters of one shape, which are stacked because calls cost more than copies."""

    def __init__(self, parameters: list[Tensor], stack: Stack) -> None:
        self.parameters = parameters
        self.stack = stack
        first = stack.part(parameters[0])
        shape = (len(parameters), *stack.matrices_of_part(first).shape)
        self.before, self.after = (first.new_empty(len(parameters), *first.shape) for _ in range(2))
        self.matrices = Dense(self.before.view(shape)), Dense(self.after.view(shape))

    def _parts(self) -> list[Tensor]:
        return [self.stack.part(parameter) for parameter in self.parameters]

    def take(self) -> None:
        torch.stack(self._parts(), out=self.before)

    def restore(self) -> None:
        foreach_copy_(self._parts(), self.before.unbind())

    def subtract(self) -> tuple[Matrices, Matrices]:
        torch.stack(self._parts(), out=self.after).sub_(self.before)
        return self.matrices

    def store(self) -> None:
        foreach_copy_(self._parts(), self.after.unbind())

    def residuals(self) -> tuple[Matrices, list[Tensor]]:
        residuals = torch.zeros_like(self.before)
        return Dense(residuals.view(self.matrices[0].shape)), list(residuals.unbind())
