"""How far a matrix is from the Stiefel manifold."""

from __future__ import annotations

from torch import Generator, Tensor

from projunn_lightning.linalg import full_precision, matrices_of


@full_precision()
def unitarity_error(weight: Tensor) -> Tensor:
    """The unitarity error ``|W^H W - I|_F / sqrt(p)``.

    It is zero on the Stiefel manifold. For the same rounding of each entry it does not depend on the size.

    Args:
        weight: matrices W, ``(*, n, p)``. For a wide matrix (n < p) the error of ``W^H`` is returned.

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
    """An estimate of :func:`unitarity_error` in O(n p): ``|W^H W x - x| / sqrt(p)`` for a normally distributed x.

    The square of the estimate is an unbiased estimate of the squared error. Its relative standard deviation is about
    ``p^(-1/2)`` if the error is spread over all directions, as a rounding error is.

    Args:
        weight: matrices W, ``(*, n, p)``.
        generator: the source of x, on the weight's device. If it is None, torch's default generator is used.

    Returns:
        The estimates ``(*)``, real.
    """
    return matrices_of(weight).estimate_unitarity_error(generator)
