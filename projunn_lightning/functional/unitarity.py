"""How far a matrix is from the Stiefel manifold."""

from __future__ import annotations

from torch import Generator, Tensor

from projunn_lightning.linalg import full_precision, matrices_of


@full_precision()
def unitarity_error(weight: Tensor) -> Tensor:
    """``|W^H W - I|_F / sqrt(p)``: zero on the Stiefel manifold, and independent of the size for a given rounding.

    Args:
        weight: matrices W, ``(*, n, p)``; a wide one (n < p) is measured as ``W W^H``.

    Returns:
        The errors ``(*)``, real.

    >>> import torch
    >>> unitarity_error(torch.eye(4, 3))
    tensor(0.)
    >>> unitarity_error(2 * torch.eye(3))
    tensor(3.)
    """
    return matrices_of(weight).unitarity_error()


@full_precision()
def estimate_unitarity_error(weight: Tensor, *, generator: Generator | None = None) -> Tensor:
    """An estimate of :func:`unitarity_error` at O(n p), ``|W^H W x - x| / sqrt(p)`` with x normal; unbiased squared.

    Its relative standard deviation is about ``p^(-1/2)`` where the error is spread over all directions, as rounding is.

    Args:
        weight: matrices W, ``(*, n, p)``.
        generator: source of x, on the weight's device; torch's default one if None.

    Returns:
        The estimates ``(*)``, real.
    """
    return matrices_of(weight).estimate_unitarity_error(generator)
