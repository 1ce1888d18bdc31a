"""How far a matrix is from the Stiefel manifold, and the ways back."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from projunn_lightning.linalg import generator_for
from projunn_lightning.linalg.dense import times
from projunn_lightning.linalg.sharded import Matrices, Sharded
from projunn_lightning.linalg.small import identity

WIDTH = 64
"""Columns of sharded matrices that are looked at together; so many are whole on every rank."""


def unitarity_error(weight: Matrices) -> Tensor:
    """``|W^H W - I|_F / sqrt(p)``: zero on the Stiefel manifold, and independent of the size for a given rounding.

    Args:
        weight: matrices W, ``(*, n, p)``; a wide one (n < p) is measured as ``W W^H``.

    Returns:
        The errors ``(*)``, real.

    >>> unitarity_error(torch.eye(4, 3))
    tensor(0.)
    >>> unitarity_error(2 * torch.eye(3))
    tensor(3.)
    """
    if isinstance(weight, Sharded):
        columns = [torch.linalg.vector_norm(residual, dim=-2) for _, residual in _residuals(weight)]
        return torch.linalg.vector_norm(torch.cat(columns, dim=-1), dim=-1) / min(weight.shape[-2:]) ** 0.5
    w = _tall(weight)
    gram = w.mH @ w
    return torch.linalg.matrix_norm(gram - identity(gram)) / gram.shape[-1] ** 0.5


def estimate_unitarity_error(weight: Matrices, *, generator: Generator | None = None) -> Tensor:
    """An unbiased (in its square) estimate of :func:`unitarity_error` at O(n p): ``|W^H W x - x| / sqrt(p)``, x normal.

    Its relative standard deviation is about ``p^(-1/2)`` where the error is spread over all directions, as rounding is.
    """
    w = weight.mH if weight.shape[-2] < weight.shape[-1] else weight
    x = torch.randn(*w.shape[:-2], w.shape[-1], 1, generator=generator, dtype=w.dtype, device=w.device)
    return torch.linalg.vector_norm(times(w.mH, times(w, x)) - x, dim=(-2, -1)) / w.shape[-1] ** 0.5


def nearest_unitary(weight: Tensor) -> Tensor:
    """The nearest matrices with orthonormal columns (rows where wide), in every unitarily invariant norm.

    That is the unitary factor ``U V^H`` of the polar decomposition, from the SVD ``U S V^H`` of ``weight``
    ``(*, n, p)``. Of a rank-deficient matrix it is one of several nearest ones.

    >>> nearest_unitary(torch.tensor([[2.0, 0.0], [0.0, -0.5]]))
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    return newton_schulz(u @ vh)  # LAPACK's singular vectors are orthonormal to a multiple of the rounding only


def newton_schulz(weight: Tensor) -> Tensor:
    """One Newton-Schulz step towards :func:`nearest_unitary`: ``W (3 I - W^H W) / 2``, two matrix products.

    It squares a small unitarity error e to about ``3/4 e^2``; it needs singular values below ``sqrt(3)``.
    """
    w = _tall(weight)
    gram = w.mH @ w
    # As a small correction of W, which rounds less than the product with a matrix near I.
    w = w + 0.5 * (w @ (identity(gram) - gram))
    return w.mH if weight.shape[-2] < weight.shape[-1] else w


def nearest_unitary_(weight: Sharded, scratch: Sharded) -> bool:
    """Move sharded matrices to :func:`nearest_unitary`, in place, by Newton-Schulz steps over blocks of columns.

    A step takes three products of the whole with blocks of :data:`WIDTH` columns; near the manifold one is enough, from
    afar some twenty or thirty.

    Args:
        weight: the matrices, of full rank.
        scratch: memory of the same layout, which is overwritten.

    Returns:
        Whether they have got there; not so from a matrix that is singular, or nearly.
    """
    norm = spectral_norm(weight)
    if norm > 1.5 or 0 < norm < 0.7:
        weight.local.mul_(1 / norm)
    for _ in range(100):
        scratch.local.copy_(weight.local)
        squares = torch.zeros((), device=weight.device, dtype=weight.dtype.to_real())
        for unit, residual in _residuals(scratch):
            squares += torch.linalg.vector_norm(residual).square()
            if weight.shape[-2] < weight.shape[-1]:
                weight.add_product(unit, -0.5 * times(scratch.mH, residual), out=weight)
            else:
                weight.add_product(-0.5 * times(scratch, residual), unit, out=weight)
        if squares < torch.finfo(weight.dtype).eps:  # before the step, which squares what is left
            return True
    return False


def _residuals(weight: Sharded) -> Iterator[tuple[Tensor, Tensor]]:
    """Unit vectors E, some columns of I, and ``(W^H W - I) E`` of a tall W, until all of I has been had."""
    w = weight.mH if weight.shape[-2] < weight.shape[-1] else weight
    p = w.shape[-1]
    for start in range(0, p, WIDTH):
        unit = w.new_empty(*w.shape[:-2], p, min(WIDTH, p - start)).zero_()
        unit.diagonal(-start, -2, -1).fill_(1)
        yield unit, times(w.mH, times(w, unit)) - unit


def spectral_norm(w: Matrices) -> Tensor:
    """The largest singular value of all the matrices, by a power iteration: seldom below nine tenths of it."""
    generator = generator_for("spectral norm", w.device)
    x = w.new_empty(*w.shape[:-2], w.shape[-1], 1).normal_(generator=generator)
    for _ in range(30):
        x = times(w.mH, times(w, x / torch.linalg.vector_norm(x, dim=-2, keepdim=True)))
    return torch.linalg.vector_norm(x, dim=-2).max().sqrt()


def _tall(weight: Tensor) -> Tensor:
    return weight.mH if weight.shape[-2] < weight.shape[-1] else weight
