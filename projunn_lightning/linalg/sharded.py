"""Matrices of which each process holds a block.

Every process holds the whole of each thin factor. The product of the matrices and a thin factor is computed block by
block and summed over the processes, which sends O(k N) numbers. Each process writes a low-rank change to its own block.
No process ever holds a whole matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeGuard, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import one_hot

from projunn_lightning.errors import ConstraintError
from projunn_lightning.linalg.dense import Dense
from projunn_lightning.linalg.matrices import Matrices

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

WIDTH = 64
"""The number of columns of a matrix that every process holds at the same time."""

Index = tuple[int | slice, ...]
MaybeTensor = TypeVar("MaybeTensor", bound=Tensor | None)


class Block(NamedTuple):
    """A part of one of the matrices, as a view of this process's memory.

    ``rows`` indexes a thin factor ``(*, n, k)``, and ``columns`` indexes a thin factor ``(*, p, k)``.
    """

    rows: Index
    columns: Index
    values: Tensor


class Sharded(Matrices):
    """Matrices ``(*, n, p)`` of which each process of a DTensor's mesh holds blocks.

    Args:
        shape: the shape of the matrices, including the parts that other processes hold.
        blocks: the parts that this process holds.
        groups: the process groups over which a product is summed, one group after the other.
        local: this process's part of the tensor. The blocks are views of it.
    """

    def __init__(self, shape: torch.Size, blocks: list[Block], groups: list[Any], local: Tensor) -> None:
        self.shape = shape
        self.blocks = blocks
        self.groups = groups
        self.local = local
        self.dtype = local.dtype
        self.device = local.device

    @classmethod
    def holds(cls, tensor: Tensor) -> TypeGuard[DTensor]:
        """Whether a tensor is a DTensor, such as ``fully_shard`` and ``parallelize_module`` create."""
        # The import of this module takes long. If nobody has imported it, there are no DTensors.
        module = sys.modules.get("torch.distributed.tensor")
        return module is not None and isinstance(tensor, module.DTensor)

    @classmethod
    def of(cls, tensor: DTensor, chunks: int, flatten: bool) -> Sharded:
        """The matrices of a DTensor. They are always a view of its memory.

        The arguments are those of :func:`~projunn_lightning.linalg.matrices_of`.

        Raises:
            ConstraintError: if this process's part of a matrix is not a block of rows and columns.
        """
        from torch.distributed.tensor import Partial
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        mesh, placements, shape = tensor.device_mesh, tensor.placements, tensor.shape
        split = [getattr(placement, "dim", 0) for placement in placements]
        if any(isinstance(placement, Partial) for placement in placements) or (flatten and max(split) > 1):
            raise ConstraintError(
                f"its placements {placements} do not leave each process a block of rows and columns; shard dim 0 or 1"
            )
        local = tensor.to_local()
        if not local.is_contiguous():
            raise ConstraintError(f"this process's part of it is not contiguous; its strides are {local.stride()}")
        _, start = compute_local_shape_and_global_offset(shape, mesh, placements)
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

    @property
    def mH(self) -> Self:
        blocks = [Block(columns, rows, values.mH) for rows, columns, values in self.blocks]
        shape = torch.Size([*self.shape[:-2], self.shape[-1], self.shape[-2]])
        return type(self)(shape, blocks, self.groups, self.local)

    def unsqueeze(self) -> Self:
        blocks = [Block((0, *rows), (0, *columns), values) for rows, columns, values in self.blocks]
        return type(self)(torch.Size([1, *self.shape]), blocks, self.groups, self.local)

    def matmul(self, x: Tensor) -> Tensor:
        y = x.new_zeros(*self.shape[:-1], x.shape[-1])
        for rows, columns, values in self.blocks:
            y[rows] += Dense(values).matmul(x[columns])
        return self._summed(y)

    def add_product(self, left: Tensor, right: Tensor, out: Self) -> None:
        for (rows, columns, values), target in zip(self.blocks, out.blocks, strict=True):
            Dense(values).add_product(left[rows], right[columns], out=Dense(target.values))

    def add_(self, other: Self, alpha: float) -> None:
        self.local.add_(other.local, alpha=alpha)

    def copy_where_(self, mask: Tensor, other: Self) -> None:
        torch.where(mask, other.local, self.local, out=self.local)  # a group of sharded weights has one weight: G = 1

    def columns(self, index: Tensor) -> Tensor:
        return self.matmul(one_hot(index, self.shape[-1]).to(self.dtype).mT)

    def column_norms(self) -> Tensor:
        squares = torch.zeros((*self.shape[:-2], self.shape[-1]), dtype=self.dtype.to_real(), device=self.device)
        for _, columns, values in self.blocks:
            squares[columns] += torch.linalg.vector_norm(values, dim=-2).square()
        return self._summed(squares).sqrt()

    def all_finite(self) -> Tensor:
        bad = (~torch.isfinite(self.local)).any().float()
        return self._summed(bad) == 0

    def unitarity_error(self) -> Tensor:
        columns = [torch.linalg.vector_norm(residual, dim=-2) for _, residual in self._residuals()]
        return torch.linalg.vector_norm(torch.cat(columns, dim=-1), dim=-1) / min(self.shape[-2:]) ** 0.5

    def nearest_unitary_(self) -> bool:
        """See :meth:`Matrices.nearest_unitary_`. It takes Newton-Schulz steps over blocks of :data:`WIDTH` columns.

        One step is enough near the manifold, and about twenty or thirty steps are needed far from it. For a singular or
        nearly singular matrix these steps do not find a nearest unitary matrix.
        """
        norm = self.unsqueeze().spectral_norms()[0]
        if norm > 1.5 or 0 < norm < 0.7:
            self.local.mul_(1 / norm)
        scratch = self._with_memory(torch.empty_like(self.local))
        for _ in range(100):
            scratch.local.copy_(self.local)
            squares = torch.zeros((), device=self.device, dtype=self.dtype.to_real())
            for unit, residual in scratch._residuals():
                squares += torch.linalg.vector_norm(residual).square()
                if self.shape[-2] < self.shape[-1]:
                    self.add_product(unit, -0.5 * scratch.mH.matmul(residual), out=self)
                else:
                    self.add_product(-0.5 * scratch.matmul(residual), unit, out=self)
            if squares < torch.finfo(self.dtype).eps:  # measured before the step, which has squared the error
                return True
        return False

    def whole(self) -> None:
        return None

    def store_(self, tensor: Tensor) -> None:
        pass  # the blocks are views of the tensor's memory

    def new_empty(self, *size: int) -> Tensor:
        return self.local.new_empty(size)

    def _with_memory(self, local: Tensor) -> Self:
        """Matrices that are held in the same way, in other memory of the same layout."""
        start = self.local.storage_offset()
        blocks = [
            Block(rows, columns, local.as_strided(values.shape, values.stride(), values.storage_offset() - start))
            for rows, columns, values in self.blocks
        ]
        return type(self)(self.shape, blocks, self.groups, local)

    def _residuals(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield E and ``(W^H W - I) E`` of a tall W, where E is in turn each block of :data:`WIDTH` columns of I."""
        w = self.tall()
        p = w.shape[-1]
        for start in range(0, p, WIDTH):
            unit = w.new_empty(*w.shape[:-2], p, min(WIDTH, p - start)).zero_()
            unit.diagonal(-start, -2, -1).fill_(1)
            yield unit, w.mH.matmul(w.matmul(unit)) - unit

    def _summed(self, thin: Tensor) -> Tensor:
        """Sum a tensor over the processes in place and return it. Every process gets the same bits."""
        for group in self.groups:
            dist.all_reduce(torch.view_as_real(thin) if thin.is_complex() else thin, group=group)
        return thin


def gathered(tensor: MaybeTensor) -> MaybeTensor:
    """The whole of a sharded tensor on every process. Any other tensor, or None, is returned as it is."""
    return cast("MaybeTensor", tensor.full_tensor()) if tensor is not None and Sharded.holds(tensor) else tensor


def scattered_(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor to a target that may be sharded. Each process copies its own part."""
    if Sharded.holds(target):
        from torch.distributed.tensor import distribute_tensor

        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)
    target.copy_(whole)


def reshard(module: nn.Module) -> None:
    """Free the parameters that FSDP2 gathered for a forward pass, which it frees only after a backward pass."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # the import of this module takes long, too
    if fsdp is not None:
        for each in module.modules():
            if isinstance(each, fsdp.FSDPModule):
                each.reshard()


def _blocks(view: Tensor, start: tuple[int, ...]) -> Iterator[Block]:
    """Yield one block of each matrix of a batch ``(*, n, p)``."""
    rows, columns = (slice(start[d], start[d] + view.shape[d]) for d in (-2, -1))
    for index in product(*map(range, view.shape[:-2])):
        matrix = tuple(i + first for i, first in zip(index, start, strict=False))
        yield Block((*matrix, rows), (*matrix, columns), view[index])


def _blocks_of_chunks(view: Tensor, start: tuple[int, ...], chunks: int, n: int) -> Iterator[Block]:
    """Yield blocks of matrices stacked along dim 0. A process's rows may begin and end within a matrix."""
    columns = slice(start[1], start[1] + view.shape[1])
    for chunk in range(chunks):
        first, last = max(start[0], chunk * n), min(start[0] + len(view), (chunk + 1) * n)
        if first < last:
            rows = slice(first - chunk * n, last - chunk * n)
            yield Block((chunk, rows), (chunk, columns), view[first - start[0] : last - start[0]])
