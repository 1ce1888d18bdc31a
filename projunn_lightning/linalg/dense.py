"""Matrices in an ordinary tensor."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from projunn_lightning.linalg.matrices import Matrices
from projunn_lightning.linalg.precision import full_precision
from projunn_lightning.linalg.small import identity

_SMALL = 1 << 14  # matrices with at most this many entries fit into a cache, so the order of access does not matter
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
        # A product with a large matrix is fast if it reads the matrix in the order of its memory. For a transposed W,
        # or for few columns, BLAS takes up to five times as long as for the transposed product. If W is a lazy
        # conjugate, the thin X is conjugated instead of W.
        w = _single(self.tensor)
        if w is not self.tensor:
            return Dense(w).matmul(_single(x)).view(*self.shape[:-1], x.shape[-1])
        if w.numel() <= _SMALL:
            return w @ x
        if w.stride(-1) == 1 and x.shape[-1] > _FEW and not w.is_conj():
            return w @ x.contiguous()
        if w.is_conj():
            return (x.mH.contiguous() @ w.mH).mH
        return (x.mT.contiguous() @ w.mT).mT

    def add_product(self, left: Tensor, right: Tensor, out: Self) -> None:
        w, target, left, right = map(_single, (self.tensor, out.tensor, left, right))
        if w.ndim > 3 and w.is_contiguous() and target.is_contiguous():
            w, target, left, right = (x.flatten(0, -3) for x in (w, target, left, right))
        if w.ndim == 2:
            torch.addmm(w, left, right.mH, out=target)
        elif w.ndim == 3:
            torch.baddbmm(w, left, right.mH, out=target)
        else:
            torch.add(w, left @ right.mH, out=target)

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


def _residual(w: Tensor) -> Tensor:
    """``W^H W - I`` of tall matrices."""
    gram = w.mH @ w
    return gram - identity(gram)
