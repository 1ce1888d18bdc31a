"""How far a matrix is from the Stiefel manifold, and the ways back."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from projunn_lightning.functional._small import identity


def unitarity_error(weight: Tensor) -> Tensor:
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
    w = _tall(weight)
    gram = w.mH @ w
    return torch.linalg.matrix_norm(gram - identity(gram)) / gram.shape[-1] ** 0.5


def estimate_unitarity_error(weight: Tensor, *, generator: Generator | None = None) -> Tensor:
    """An unbiased (in its square) estimate of :func:`unitarity_error` at O(n p): ``|W^H W x - x| / sqrt(p)``, x normal.

    Its relative standard deviation is about ``p^(-1/2)`` where the error is spread over all directions, as rounding is.
    """
    w = _tall(weight)
    x = torch.randn(*w.shape[:-2], w.shape[-1], 1, generator=generator, dtype=w.dtype, device=w.device)
    return torch.linalg.vector_norm(w.mH @ (w @ x) - x, dim=(-2, -1)) / w.shape[-1] ** 0.5


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


def _tall(weight: Tensor) -> Tensor:
    return weight.mH if weight.shape[-2] < weight.shape[-1] else weight
