"""The record of a constraint: how a parameter is viewed as matrices."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from torch import Tensor, nn

from projunn_lightning._compat import uncompiled
from projunn_lightning.linalg import Matrices, matrices_of

_RECORD = "_orthogonal_parameters"

Chunks = int | tuple[int, ...]
"""The matrices that are stacked along dim 0 of a parameter: their number, or the number of rows of each."""


@dataclass(frozen=True)
class Stack:
    """Matrices of one shape that are stacked along dim 0 of a parameter, or of some of its rows.

    Attributes:
        chunks: the number of matrices.
        flatten: whether all dims but the first form one dim (a convolution's kernel becomes ``(out, rest)``).
        rows: the first row of the matrices in the parameter and the row behind the last; None for all rows.
    """

    chunks: int = 1
    flatten: bool = False
    rows: tuple[int, int] | None = None

    def part(self, tensor: Tensor) -> Tensor:
        """The rows of a tensor that hold the matrices, as a view."""
        return tensor if self.rows is None else tensor[slice(*self.rows)]

    def matrices(self, tensor: Tensor) -> Matrices:
        """The tensor's matrices ``(*, n, p)``: a view of it where its memory layout allows one, otherwise a copy."""
        return self.matrices_of_part(self.part(tensor))

    def matrices_of_part(self, part: Tensor) -> Matrices:
        """The same for the rows that :meth:`part` has returned, or for a copy of them."""
        return matrices_of(part, self.chunks, self.flatten)

    def label(self, name: str) -> str:
        """The name of a parameter, with the rows in brackets if the matrices are in some of its rows only."""
        return name if self.rows is None else f"{name}[{self.rows[0]}:{self.rows[1]}]"


@dataclass(frozen=True)
class Constraint:
    """How a parameter is viewed as matrices.

    Attributes:
        chunks: the matrices stacked along dim 0: their number, or the number of rows of each.
        flatten: whether all dims but the first form one dim (a convolution's kernel becomes ``(out, rest)``).
    """

    chunks: Chunks = 1
    flatten: bool = False

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The stacks of the parameter. Neighbouring matrices of one shape are in one stack.

        >>> for stack in Constraint((512, 128, 128)).stacks:
        ...     print(stack)
        Stack(chunks=1, flatten=False, rows=(0, 512))
        Stack(chunks=2, flatten=False, rows=(512, 768))
        """
        if isinstance(self.chunks, int):
            return (Stack(self.chunks, self.flatten),)
        stacks, first = [], 0
        for rows, alike in groupby(self.chunks):
            count = len(list(alike))
            stacks.append(Stack(count, self.flatten, (first, first + count * rows)))
            first += count * rows
        return tuple(stacks) if len(stacks) > 1 else (Stack(len(self.chunks), self.flatten),)


def remember(module: nn.Module, name: str, constraint: Constraint) -> None:
    """Keep the record of a constraint on the module that owns the parameter.

    It is kept there by name, and the parameter stays a plain ``nn.Parameter``: so the record survives ``deepcopy``,
    pickling and a strategy that replaces the parameter object.
    """
    module.__dict__.setdefault(_RECORD, {})[name] = constraint


def declared(module: nn.Module) -> dict[str, Constraint]:
    """The constraints declared on a module and its children, by the parameter's name in ``named_parameters()``."""
    return {
        f"{prefix}.{name}" if prefix else name: constraint
        for prefix, child in module.named_modules()
        for name, constraint in vars(child).get(_RECORD, {}).items()  # a wrapper of torch.compile has its own vars
    }


def owner_of(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that owns a parameter, and the parameter's name there. Wrappers of ``torch.compile`` own none.

    Raises:
        AttributeError: if there is no such module.
    """
    prefix, _, leaf = name.rpartition(".")
    return uncompiled(module.get_submodule(prefix)), leaf
