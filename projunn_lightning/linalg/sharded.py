"""Matrices of which each rank holds a block: products with thin factors, and the way back to the manifold.

A thin factor is whole on every rank. A product of the matrices with one is taken block by block and summed over the
ranks, O(k N) numbers; a change of low rank is written by each rank to its own block. No rank ever holds the whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import one_hot

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.linalg.dense import times

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is spread over ranks, as by ``fully_shard`` or ``parallelize_module``."""
    module = sys.modules.get("torch.distributed.tensor")  # slow to import, and without it there are none
    return module is not None and isinstance(tensor, module.DTensor)


Index = tuple[int | slice, ...]


def reshard(module: nn.Module) -> None:
    """Take back what FSDP2 has gathered for a forward pass, as it does by itself after a backward pass only."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # slow to import too
    if fsdp is not None:
        for each in module.modules():
            if isinstance(each, fsdp.FSDPModule):
                each.reshard()


class Block(NamedTuple):
    """A part of one of the matrices, a view of the memory of this rank.

    A thin factor ``(*, n, k)`` of all the matrices is indexed by ``rows`` and one ``(*, p, k)`` by ``columns``.
    """

    rows: Index
    columns: Index
    values: Tensor


class Sharded:
    """Stands for matrices ``(*, n, p)`` where they are read by thin products and written at low rank.

    Args:
        shape: of all the matrices.
        blocks: the parts that this rank holds.
        groups: the ranks over which products are summed, one process group after the other.
        local: this rank's memory, of which the blocks are views.
    """

    def __init__(self, shape: torch.Size, blocks: list[Block], groups: list[Any], local: Tensor) -> None:
        self.shape = shape
        self.blocks = blocks
        self.groups = groups
        self.local = local

    @classmethod
    def of(cls, parameter: DTensor, chunks: int, flatten: bool) -> Sharded:
        """The matrices of a parameter; the arguments are those of :class:`~projunn_lightning.constraint.Constraint`.

        Raises:
            ValueError: if the rank's part of a matrix is not a block of rows and columns.
        """
        from torch.distributed.tensor import Partial
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset as part_of

        mesh, placements, shape = parameter.device_mesh, parameter.placements, parameter.shape
        split = [getattr(placement, "dim", 0) for placement in placements]
        if any(isinstance(placement, Partial) for placement in placements) or (flatten and max(split) > 1):
            raise ProjUNNError(
                f"its placements {placements} leave a rank no block of rows and columns; shard dim 0 or 1"
            )
        local = parameter.to_local()
        if not local.is_contiguous():
            raise ProjUNNError(f"a rank's part of it is not contiguous, its strides are {local.stride()}")
        _, start = part_of(shape, mesh, placements)
        view = local
        if flatten:
            rest = shape[2:].numel()
            view = local.flatten(1)
            shape, start = torch.Size([shape[0], shape[1] * rest]), (start[0], start[1] * rest)
        groups = [mesh.get_group(dim) for dim, placement in enumerate(placements) if not placement.is_replicate()]
        if chunks == 1:
            return cls(shape, list(_blocks(view, start)), groups, local)
        n = shape[0] // chunks
        return cls(torch.Size([chunks, n, shape[1]]), list(_blocks_of_chunks(view, start, chunks, n)), groups, local)

    dtype = property(lambda self: self.local.dtype)
    device = property(lambda self: self.local.device)

    @property
    def mH(self) -> Sharded:  # as torch's
        """The conjugate transpose, of the same memory."""
        blocks = [Block(columns, rows, values.mH) for rows, columns, values in self.blocks]
        return Sharded(torch.Size([*self.shape[:-2], self.shape[-1], self.shape[-2]]), blocks, self.groups, self.local)

    def new_empty(self, *size: int) -> Tensor:
        """An ordinary tensor of the same dtype and device."""
        return self.local.new_empty(size)

    def times(self, x: Tensor) -> Tensor:
        """``W X``, whole on every rank; see :func:`~projunn_lightning.linalg.dense.times`."""
        y = x.new_zeros(*self.shape[:-1], x.shape[-1])
        for rows, columns, values in self.blocks:
            y[rows] += times(values, x[columns])
        return self.summed(y)

    def add_product(self, left: Tensor, right: Tensor, out: Sharded) -> None:
        """``W + L R^H`` into ``out``, each rank its own part."""
        for (rows, columns, values), target in zip(self.blocks, out.blocks, strict=True):
            torch.addmm(values, left[rows], right[columns].mH, out=target.values)

    def column_lengths(self) -> Tensor:
        """The Euclidean length of each column, ``(*, p)``."""
        squares = torch.zeros((*self.shape[:-2], self.shape[-1]), dtype=self.dtype.to_real(), device=self.device)
        for _, columns, values in self.blocks:
            squares[columns] += torch.linalg.vector_norm(values, dim=-2).square()
        return self.summed(squares).sqrt()

    def columns(self, indices: Tensor) -> Tensor:
        """The columns with the given indices ``(*, k)``, ``(*, n, k)``."""
        return self.times(one_hot(indices, self.shape[-1]).to(self.dtype).mT)

    def summed(self, thin: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in place; every rank gets the same bits."""
        for group in self.groups:
            dist.all_reduce(torch.view_as_real(thin) if thin.is_complex() else thin, group=group)
        return thin


def _blocks(view: Tensor, start: tuple[int, ...]) -> Iterator[Block]:
    """One block of each matrix of a batch ``(*, n, p)``."""
    rows, columns = (slice(start[d], start[d] + view.shape[d]) for d in (-2, -1))
    for index in product(*map(range, view.shape[:-2])):
        matrix = tuple(i + first for i, first in zip(index, start, strict=False))
        yield Block((*matrix, rows), (*matrix, columns), view[index])


def _blocks_of_chunks(view: Tensor, start: tuple[int, ...], chunks: int, n: int) -> Iterator[Block]:
    """Blocks of matrices stacked along dim 0; the rows of a rank may begin and end within a matrix."""
    columns = slice(start[1], start[1] + view.shape[1])
    for chunk in range(chunks):
        first, last = max(start[0], chunk * n), min(start[0] + len(view), (chunk + 1) * n)
        if first < last:
            rows = slice(first - chunk * n, last - chunk * n)
            yield Block((chunk, rows), (chunk, columns), view[first - start[0] : last - start[0]])


Matrices = Tensor | Sharded
"""What the update reads and writes: whole matrices ``(*, n, p)``, or the blocks of sharded ones."""
