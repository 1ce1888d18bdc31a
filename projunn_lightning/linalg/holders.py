"""The classes that hold matrices. A new class is a file in this folder and an entry of :data:`HOLDERS`."""

from __future__ import annotations

from torch import Tensor

from projunn_lightning.linalg.dense import Dense
from projunn_lightning.linalg.matrices import Matrices
from projunn_lightning.linalg.sharded import Sharded

HOLDERS: tuple[type[Sharded] | type[Dense], ...] = (Sharded, Dense)
"""The classes that hold matrices, in the order in which they are asked whether they can hold a tensor."""


def matrices_of(tensor: Tensor, chunks: int = 1, flatten: bool = False) -> Matrices:
    """The matrices of a tensor, in an object of the class that can hold them.

    Args:
        tensor: a tensor or a DTensor of two or more dimensions.
        chunks: the number of matrices stacked along dim 0 of a 2-dimensional tensor.
        flatten: whether all dims but the first form one dim (a convolution's kernel becomes ``(out, rest)``).

    Raises:
        ConstraintError: if the tensor is sharded, but not by blocks of rows and columns.

    >>> import torch
    >>> matrices_of(torch.zeros(6, 3), chunks=2).shape
    torch.Size([2, 3, 3])
    """
    holder = next(holder for holder in HOLDERS if holder.holds(tensor))
    return holder.of(tensor, chunks, flatten)  # type: ignore[arg-type]  # holds() has checked the type
