"""Matrices in an ordinary tensor."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from projunn_lightning.linalg.matrices import Matrices
from projunn_lightning.linalg.precision import full_precision
from projunn_lightning.linalg.small import identity

_SMALL = 1 << 14  # matrices with at most this many entries fit into a cache, so the order of access does not matter
_LARGE = 1 << 18  # matrices with more entries are multiplied in blocks
_ROWS = 256  # matrices with fewer rows are not
_BLOCK = 1 << 16  # the number of entries of a block, which is read once by each core
_CACHE = 1 << 20  # the number of entries of a block to which columns are added, which all cores share
_FEW = 12  # up to this number of columns the transposed product is faster (measured with MKL, N = 512 to 4096)
_FAR = 0.5  # below this |W^H W - I|_F, every singular value is so close to 1 that Newton-Schulz converges


class Dense(Matrices):
    """Matrices ``(*, n, p)`` in one tensor of that shape. The methods write to the memory of the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.shape = tensor.shape
        self.dtype = tensor.dtype
        self.device = tensor.device

    @classmethod
    def holds(cls, tensor: Tensor) -> bool:
        """True for every tensor. This class is the last one that is asked."""
        return True

    @classmethod
    def of(cls, tensor: Tensor, chunks: int, flatten: bool) -> Dense:
        """The matrices of a parameter: a view of it if its memory layout allows a view, otherwise a copy.

        The arguments are those of :func:`~projunn_lightning.linalg.matrices_of`.
        """
        if flatten:
            tensor = tensor.flatten(1)
        return cls(tensor if chunks == 1 else tensor.reshape(chunks, -1, tensor.shape[-1]))

    @property
    def mH(self) -> Self:
        return type(self)(self.tensor.mH)

    def unsqueeze(self) -> Self:
        return type(self)(self.tensor.unsqueeze(0))

    def matmul(self, x: Tensor) -> Tensor:
        w = _single(self.tensor)
        if w is not self.tensor:
            return Dense(w).matmul(_single(x)).view(*self.shape[:-1], x.shape[-1])
        if w.is_conj():  # the thin X is conjugated instead of W
            return Dense(w.conj()).matmul(x.conj().resolve_conj()).conj().resolve_conj()
        if w.numel() <= _SMALL:
            return w @ x
        # A product with a large matrix is fast if it reads the matrix in the order of its memory. For a transposed W,
        # or for few columns, BLAS takes up to five times as long as for the transposed product.
        ordered, few = w.stride(-1) == 1, x.shape[-1] <= _FEW
        if _in_blocks(w) and ordered and few:
            return _times(w, x)
        if _in_blocks(w.mT) and w.stride(-2) == 1 and x.shape[-1] * 16 <= w.shape[-1]:
            return _transposed_times(w.mT, x)
        return w @ x.contiguous() if ordered and not few else (x.mT.contiguous() @ w.mT).mT

    def add_product(self, left: Tensor, right: Tensor, out: Self) -> None:
        w, target, left, right = map(_single, (self.tensor, out.tensor, left, right))
        if w.ndim > 3 and w.is_contiguous() and target.is_contiguous():
            w, target, left, right = (x.flatten(0, -3) for x in (w, target, left, right))
        right_h = right.mH.resolve_conj()
        if _in_columns(w, left) and w.stride(-1) == target.stride(-1) == 1:
            _add_columns(w, left, right_h.contiguous(), target)
        elif w.ndim == 2:
            torch.addmm(w, left, right_h, out=target)
        elif w.ndim == 3:
            torch.baddbmm(w, left, right_h, out=target)
        else:
            torch.add(w, left @ right_h, out=target)

    def add_(self, other: Self, alpha: float) -> None:
        self.tensor.add_(other.tensor, alpha=alpha)

    def copy_where_(self, mask: Tensor, other: Self) -> None:
        mask = mask.view(-1, *[1] * (self.tensor.ndim - 1))
        torch.where(mask, other.tensor, self.tensor, out=self.tensor)

    def columns(self, index: Tensor) -> Tensor:
        return self.tensor.gather(-1, index[..., None, :].expand(*self.shape[:-1], index.shape[-1]))

    def column_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.tensor, dim=-2)

    def all_finite(self) -> Tensor:
        return torch.isfinite(self.tensor).all()

    def unitarity_error(self) -> Tensor:
        w = self.tall().tensor
        return torch.linalg.matrix_norm(_residual(w)) / w.shape[-1] ** 0.5

    def nearest_unitary_(self) -> bool:
        w = self.tall().tensor
        for _ in range(8):
            residual = _residual(w)
            norm = torch.linalg.matrix_norm(residual).max()
            if not norm < _FAR:
                self.tensor.copy_(nearest_unitary(self.tensor))
                return True
            w.add_(w @ residual, alpha=-0.5)
            if norm.square() < torch.finfo(w.dtype).eps:  # the step has squared the error to less than rounding
                return True
        return True

    def whole(self) -> Tensor:
        return self.tensor

    def store_(self, tensor: Tensor) -> None:
        if tensor.data_ptr() != self.tensor.data_ptr():
            tensor.copy_(self.tensor.reshape(tensor.shape))

    def new_empty(self, *size: int) -> Tensor:
        return self.tensor.new_empty(size)


@full_precision()
def nearest_unitary(weight: Tensor) -> Tensor:
    """The nearest matrices with orthonormal columns (rows for wide matrices), in every unitarily invariant norm.

    The result is the unitary factor ``U V^H`` of the polar decomposition, computed from the SVD ``U S V^H`` of
    ``weight`` ``(*, n, p)``. A rank-deficient matrix has several nearest matrices, and one of them is returned.

    >>> nearest_unitary(torch.tensor([[2.0, 0.0], [0.0, -0.5]]))
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    return newton_schulz(u @ vh)  # LAPACK's singular vectors are off by a multiple of the rounding error


@full_precision()
def newton_schulz(weight: Tensor) -> Tensor:
    """One Newton-Schulz step towards :func:`nearest_unitary`: ``W (3 I - W^H W) / 2``, by two matrix products.

    A step reduces a small unitarity error e to about ``3/4 e^2``. It needs singular values below ``sqrt(3)``.

    Args:
        weight: matrices W, ``(*, n, p)``.

    Returns:
        The new matrices ``(*, n, p)``.
    """
    wide = weight.shape[-2] < weight.shape[-1]
    w = weight.mH if wide else weight
    w = w - 0.5 * (w @ _residual(w))  # adding a small correction rounds less than multiplying by 1.5 I - 0.5 W^H W
    return w.mH if wide else w


def _single(x: Tensor) -> Tensor:
    """A view of a stack of one matrix as the matrix, because BLAS uses one thread for each matrix of a stack."""
    return x.view(x.shape[-2:]) if x.ndim > 2 and x.shape[:-2].numel() == 1 else x


def _in_blocks(w: Tensor) -> bool:
    """Whether W is large enough to be multiplied in blocks of rows; ``benchmarks/NOTES.md`` has the figures.

    BLAS uses one thread for a matrix times few columns, and all threads for a stack of matrices.
    """
    large = w.ndim == 2 and w.numel() > _LARGE and len(w) >= _ROWS
    return large and w.device.type == "cpu" and torch.get_num_threads() > 1


def _times(w: Tensor, x: Tensor) -> Tensor:
    """``W X`` in blocks of rows that fit into a core's cache, for a W with contiguous rows."""
    count = min(w.numel() // _BLOCK, len(w) // 8)
    rows, xt = len(w) // count, x.mT.contiguous()
    head = rows * count
    y = torch.bmm(xt.expand(count, *xt.shape), w[:head].unflatten(0, (count, rows)).mT).mT.flatten(0, 1)
    return y if head == len(w) else torch.cat([y, (xt @ w[head:].mT).mT])


def _transposed_times(w: Tensor, x: Tensor) -> Tensor:
    """``W^T X`` in blocks of rows, for a W with contiguous rows. The products of the blocks are added up."""
    count = 8 * max(1, 8 // max(1, x.shape[-1]))  # together the products are as wide as 64 columns, or as 8 times X
    rows, xt = len(w) // count, x.mT
    head = rows * count
    y = torch.bmm(xt[:, :head].unflatten(1, (count, rows)).movedim(1, 0), w[:head].unflatten(0, (count, rows))).sum(0)
    return (y if head == len(w) else y + xt[:, head:] @ w[head:]).mT


def _in_columns(w: Tensor, left: Tensor) -> bool:
    """Whether one column after the other is added faster than all by ``addmm``; the notes have the figures."""
    narrow = 0 < left.shape[-1] * left.element_size() <= 16
    return narrow and w.ndim == 2 and w.numel() > _LARGE and w.device.type == "cpu"


def _add_columns(w: Tensor, left: Tensor, right_h: Tensor, out: Tensor) -> None:
    """Write ``W + L R^H``, one column of L after the other, in blocks of rows that fit into a cache."""
    rows = -(-_CACHE // w.shape[-1])
    for before, columns, target in zip(*(x.split(rows) for x in (w, left, out)), strict=True):
        for column, row in zip(columns.unbind(-1), right_h, strict=True):
            torch.addcmul(before, column[:, None], row, out=target)
            before = target


def _residual(w: Tensor) -> Tensor:
    """``W^H W - I`` of tall matrices."""
    gram = w.mH @ w
    return gram - identity(gram)
