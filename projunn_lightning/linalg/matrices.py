"""The interface through which matrices are read and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from projunn_lightning.linalg.random import Generators, draw_, generator_for


class Matrices(ABC):
    """Matrices W ``(*, n, p)`` that are read by products with thin factors and written by low-rank changes.

    A thin factor is an ordinary tensor of few columns, ``(*, n, k)`` or ``(*, p, k)``. Every process holds the whole
    factor. The leading dimensions of the factors and the matrices are equal.

    Attributes:
        shape: the shape of the matrices, including the parts that other processes hold.
        dtype: the dtype of the matrices, real or complex.
        device: the device of this process's part.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @property
    @abstractmethod
    def mH(self) -> Self:  # torch uses this name
        """The conjugate transpose ``(*, p, n)``, as a view."""

    @abstractmethod
    def unsqueeze(self) -> Self:
        """The same matrices with a new leading dimension of size 1, as a view."""

    @abstractmethod
    def matmul(self, x: Tensor) -> Tensor:
        """The product ``W X`` ``(*, n, k)`` with a thin X ``(*, p, k)``."""

    @abstractmethod
    def add_product(self, left: Tensor, right: Tensor, out: Self) -> None:
        """Write ``W + L R^H``, L ``(*, n, k)`` and R ``(*, p, k)``, to matrices that are held in the same way."""

    @abstractmethod
    def add_(self, other: Self, alpha: float) -> None:
        """Add ``alpha`` times other matrices, which are held in the same way, in place."""

    @abstractmethod
    def copy_where_(self, mask: Tensor, other: Self) -> None:
        """Copy other matrices, held in the same way, at the indices of the first dimension where the mask is true.

        Args:
            mask: ``(G,)`` of bool, for matrices ``(G, *, n, p)``.
            other: the matrices to copy. They may be NaN where the mask is false.
        """

    @abstractmethod
    def columns(self, index: Tensor) -> Tensor:
        """The columns ``(*, n, k)`` with the given indices ``(*, k)``."""

    @abstractmethod
    def column_norms(self) -> Tensor:
        """The Euclidean norms of the columns, ``(*, p)``, real."""

    @abstractmethod
    def all_finite(self) -> Tensor:
        """Whether no entry is NaN or infinite, as a scalar of dtype bool."""

    @abstractmethod
    def unitarity_error(self) -> Tensor:
        """``|W^H W - I|_F / sqrt(p)`` of each matrix, ``(*)``, real. For a wide matrix it is the error of ``W^H``."""

    @abstractmethod
    def nearest_unitary_(self) -> bool:
        """Replace each matrix by the nearest one with orthonormal columns (rows for a wide matrix), in place.

        Returns:
            Whether the nearest matrix was found. A class that holds all entries always finds it.
        """

    @abstractmethod
    def whole(self) -> Tensor | None:
        """All entries as one tensor ``(*, n, p)`` without a copy, or None if other processes hold a part of them."""

    @abstractmethod
    def store_(self, tensor: Tensor) -> None:
        """Write the matrices to the tensor from which they were made, unless they are a view of its memory."""

    @abstractmethod
    def new_empty(self, *size: int) -> Tensor:
        """An uninitialised ordinary tensor of the same dtype and on the same device."""

    def tall(self) -> Self:
        """The matrices themselves, or their conjugate transpose if they are wide."""
        return self.mH if self.shape[-2] < self.shape[-1] else self

    def estimate_unitarity_error(self, generator: Generators = None) -> Tensor:
        """The estimate ``|W^H W x - x| / sqrt(p)`` for a normally distributed x, ``(*)``, real.

        Its square is an unbiased estimate of the squared error. The relative standard deviation is about ``p^(-1/2)``
        if the error is spread over all directions, as a rounding error is. The estimate costs O(n p), and
        :meth:`unitarity_error` costs O(n p^2).
        """
        w = self.tall()
        x = draw_(w.new_empty(*w.shape[:-2], w.shape[-1], 1), Tensor.normal_, generator)
        return torch.linalg.vector_norm(w.mH.matmul(w.matmul(x)) - x, dim=(-2, -1)) / w.shape[-1] ** 0.5

    def spectral_norms(self) -> Tensor:
        """An estimate of the largest singular value over all matrices at each index of the first dimension, ``(G,)``.

        The matrices are ``(G, *, n, p)``. Thirty steps of a power iteration from a fixed random start give a value that
        is seldom below nine tenths of the true value, and above it by rounding at most. If the square of the value
        underflows, the estimate is zero.
        """
        tiny = torch.finfo(self.dtype).tiny  # keeps a zero matrix from giving 0 / 0
        generator = generator_for("spectral norm", self.device)
        x = self.new_empty(*self.shape[:-2], self.shape[-1], 1).normal_(generator=generator)
        for _ in range(30):
            x = self.mH.matmul(self.matmul(x / torch.linalg.vector_norm(x, dim=-2, keepdim=True).clamp_min(tiny)))
        return torch.linalg.vector_norm(x, dim=-2).flatten(1).amax(1).sqrt()
