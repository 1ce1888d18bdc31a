"""The interface through which matrices are read and written, however they are held."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from projunn_lightning.linalg.random import Generators, draw_, generator_for


class Matrices(ABC):
    """Matrices W ``(*, n, p)`` that are read by products with thin factors and written at low rank.

    A thin factor is an ordinary tensor of few columns, ``(*, n, k)`` or ``(*, p, k)``, that every process holds whole.
    The leading dimensions of factors and matrices are equal.

    Attributes:
        shape: the shape of all the matrices, also of those parts that other processes hold.
        dtype: their dtype, real or complex.
        device: the device of this process's part.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @property
    @abstractmethod
    def mH(self) -> Self:  # the name that torch gives to it
        """The conjugate transpose ``(*, p, n)``, a view."""

    @abstractmethod
    def unsqueeze(self) -> Self:
        """The same matrices with a leading dimension of size 1, a view."""

    @abstractmethod
    def matmul(self, x: Tensor) -> Tensor:
        """``W X`` of a thin X ``(*, p, k)``, ``(*, n, k)``."""

    @abstractmethod
    def add_product(self, left: Tensor, right: Tensor, out: Self) -> None:
        """Write ``W + L R^H`` of thin L ``(*, n, k)`` and R ``(*, p, k)`` into matrices that are held alike."""

    @abstractmethod
    def add_(self, other: Self, alpha: float) -> None:
        """Add ``alpha`` times other matrices that are held alike, in place."""

    @abstractmethod
    def copy_where_(self, mask: Tensor, other: Self) -> None:
        """Copy other matrices that are held alike, at those indices of the first dimension where the mask is true.

        Args:
            mask: ``(G,)`` of bool, for matrices ``(G, *, n, p)``.
            other: the matrices to copy; where the mask is false they may be NaN.
        """

    @abstractmethod
    def columns(self, index: Tensor) -> Tensor:
        """The columns ``(*, n, k)`` with the given indices ``(*, k)``."""

    @abstractmethod
    def column_norms(self) -> Tensor:
        """The Euclidean norm of each column, ``(*, p)``, real."""

    @abstractmethod
    def all_finite(self) -> Tensor:
        """Whether no entry is NaN or infinite, a scalar of bool."""

    @abstractmethod
    def unitarity_error(self) -> Tensor:
        """``|W^H W - I|_F / sqrt(p)`` of each matrix, ``(*)``, real; a wide one is measured as ``W W^H``."""

    @abstractmethod
    def nearest_unitary_(self) -> bool:
        """Move each matrix to the nearest one with orthonormal columns (rows where it is wide), in place.

        Returns:
            Whether it was found. It always is by those that hold all entries.
        """

    @abstractmethod
    def whole(self) -> Tensor | None:
        """All entries as one tensor ``(*, n, p)``, without a copy; None where other processes hold a part."""

    @abstractmethod
    def store_(self, tensor: Tensor) -> None:
        """Write the matrices to the tensor that they were made of, unless they are a view of its memory."""

    @abstractmethod
    def new_empty(self, *size: int) -> Tensor:
        """An uninitialised ordinary tensor of the same dtype and on the same device."""

    def tall(self) -> Self:
        """The matrices themselves, or their conjugate transpose where they are wide."""
        return self.mH if self.shape[-2] < self.shape[-1] else self

    def estimate_unitarity_error(self, generator: Generators = None) -> Tensor:
        """``|W^H W x - x| / sqrt(p)`` for a normal x: its square is an unbiased estimate of the squared error.

        The relative standard deviation is about ``p^(-1/2)`` where the error is spread over all directions, as
        rounding is. It costs O(n p), where :meth:`unitarity_error` costs O(n p^2).
        """
        w = self.tall()
        x = draw_(w.new_empty(*w.shape[:-2], w.shape[-1], 1), Tensor.normal_, generator)
        return torch.linalg.vector_norm(w.mH.matmul(w.matmul(x)) - x, dim=(-2, -1)) / w.shape[-1] ** 0.5

    def spectral_norms(self) -> Tensor:
        """The largest singular value of all the matrices at each index of the first dimension, by a power iteration.

        The results ``(G,)`` of matrices ``(G, *, n, p)`` are seldom below nine tenths of the true values, and never
        above them.
        """
        generator = generator_for("spectral norm", self.device)
        x = self.new_empty(*self.shape[:-2], self.shape[-1], 1).normal_(generator=generator)
        for _ in range(30):
            x = self.mH.matmul(self.matmul(x / torch.linalg.vector_norm(x, dim=-2, keepdim=True)))
        return torch.linalg.vector_norm(x, dim=-2).flatten(1).amax(1).sqrt()
