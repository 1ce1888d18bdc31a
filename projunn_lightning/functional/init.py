"""Initialisations on the Stiefel manifold, in place like the functions of ``torch.nn.init``.

Each function takes matrices ``(*, n, p)`` of any floating or complex dtype, square, tall or wide. It fills each matrix
of a batch separately and returns the tensor.

**Two components.** The orthogonal matrices of one size form two components: rotations with determinant 1, and
reflections with determinant -1. No continuous path leads from one to the other, so training keeps the determinant with
which a real square matrix starts. ``identity_``, ``henaff_``, ``cayley_`` and ``haar_so_`` give the determinant 1,
``haar_`` gives 1 or -1 at random, and :func:`flip_` changes to the other component. Unitary matrices and matrices that
are not square have one component only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Generator, Tensor


@torch.no_grad()
def haar_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill a tensor with matrices that are drawn from the Haar (uniform) measure.

    The determinant of a real square matrix is 1 or -1, with equal probability.

    Each matrix is the Q of the QR decomposition of a Gaussian matrix, with the phases of R's diagonal moved into Q.
    Source: Mezzadri 2007, "How to generate random matrices from the classical compact groups".

    >>> torch.allclose((w := haar_(torch.empty(5, 3))).mT @ w, torch.eye(3), atol=1e-5)
    True
    """
    n, p = tensor.shape[-2:]
    shape = (*tensor.shape[:-2], max(n, p), min(n, p))
    gaussian = torch.randn(shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
    q, r = torch.linalg.qr(gaussian)
    q = q * r.diagonal(dim1=-2, dim2=-1).sgn()[..., None, :]
    return tensor.copy_(q if n >= p else q.mH)


@torch.no_grad()
def haar_so_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill a tensor with matrices from the Haar measure of the rotations SO(n), which have determinant 1.

    Complex matrices, and matrices that are not square, are drawn as :func:`haar_` draws them.

    >>> torch.linalg.det(haar_so_(torch.empty(4, 3, 3))).round()
    tensor([1., 1., 1., 1.])
    """
    haar_(tensor, generator=generator)
    if tensor.shape[-2] == tensor.shape[-1] and not tensor.is_complex():
        # The determinant itself is a product of n numbers and may underflow on the way.
        tensor[..., 0, :] *= torch.linalg.slogdet(tensor).sign[..., None]
    return tensor


@torch.no_grad()
def flip_(tensor: Tensor) -> Tensor:
    """Change the sign of the first row of each matrix, which leads an orthogonal matrix to the other component.

    It keeps the present values otherwise. Together with :func:`haar_so_` it draws uniformly from the matrices with
    determinant -1.

    >>> flip_(identity_(torch.empty(2, 2)))
    tensor([[-1., -0.],
            [ 0.,  1.]])
    """
    tensor[..., 0, :].neg_()
    return tensor


@torch.no_grad()
def identity_(tensor: Tensor) -> Tensor:
    """Fill a tensor with the identity, or with its first columns or rows (Le, Jaitly and Hinton 2015).

    >>> identity_(torch.empty(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    return tensor.copy_(torch.eye(*tensor.shape[-2:], dtype=tensor.dtype, device=tensor.device))


@torch.no_grad()
def henaff_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill a tensor with rotations by angles that are drawn uniformly from [-pi, pi).

    A real matrix gets a plane rotation in each 2 x 2 block. A complex matrix gets the phases on its diagonal.

    Source: Henaff, Szlam and LeCun 2016, "Recurrent orthogonal networks and long-memory tasks".
    """
    return _rotations_(tensor, -torch.pi, torch.pi, generator)


@torch.no_grad()
def cayley_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill a tensor with rotations whose eigenvalues lie on the right half of the unit circle.

    A real matrix gets a plane rotation by an angle t, drawn uniformly from [0, pi/2), in each 2 x 2 block. It is the
    Cayley transform of the skew block with the entries ``tan(t / 2)``. A complex matrix gets phases drawn uniformly
    from [-pi/2, pi/2) on its diagonal.

    Source: Helfrich, Willmott and Ye 2018, "Orthogonal recurrent neural networks with scaled Cayley transform".
    """
    if tensor.is_complex():  # the eigenvalues of a real rotation come in conjugate pairs
        return _rotations_(tensor, -torch.pi / 2, torch.pi / 2, generator)
    return _rotations_(tensor, 0.0, torch.pi / 2, generator)


def _rotations_(tensor: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    n, p = tensor.shape[-2:]
    size = max(n, p)
    angles = torch.empty(
        *tensor.shape[:-2], size if tensor.is_complex() else size // 2, dtype=tensor.real.dtype, device=tensor.device
    ).uniform_(low, high, generator=generator)
    if tensor.is_complex():
        square = torch.diag_embed(torch.polar(torch.ones_like(angles), angles))
    else:
        square = torch.eye(size, dtype=tensor.dtype, device=tensor.device).repeat(*tensor.shape[:-2], 1, 1)
        even = torch.arange(0, size - 1, 2, device=tensor.device)  # for an odd size the last entry stays 1
        square[..., even, even] = square[..., even + 1, even + 1] = angles.cos()
        square[..., even + 1, even] = angles.sin()
        square[..., even, even + 1] = -angles.sin()
    return tensor.copy_(square[..., :n, :p])


INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "haar": haar_,
    "haar_so": haar_so_,
    "identity": identity_,
    "henaff": henaff_,
    "cayley": cayley_,
}
"""The initialisations by name. A new initialisation is a function in this file and an entry here."""

if TYPE_CHECKING:
    InitName = str
else:
    InitName = Literal[tuple(INITS)]  # the help of the command shows these choices
