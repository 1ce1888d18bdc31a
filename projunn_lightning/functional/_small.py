"""Functions of the 2k x 2k matrices to which the retractions reduce (k is the rank of an update)."""

from __future__ import annotations

import torch
from torch import Tensor


def phi1(z: Tensor) -> Tensor:
    r"""``phi1(Z) = (e^Z - I) Z^-1``, without the inverse, so that a singular Z is no special case.

    It is the upper right block of the exponential of ``[[Z, I], [0, 0]]`` (Higham, Functions of Matrices, 10.7).
    """
    m = z.shape[-1]
    augmented = z.new_zeros(*z.shape[:-2], 2 * m, 2 * m)
    augmented[..., :m, :m] = z
    augmented[..., :m, m:] = torch.eye(m, dtype=z.dtype, device=z.device)
    return torch.matrix_exp(augmented)[..., :m, m:]


def polar(k: Tensor) -> Tensor:
    """The unitary polar factor of square or tall matrices of full column rank.

    Singular matrices give entries that are not finite, rather than an error: nothing here synchronises with the host.
    """
    if k.shape[-2] > k.shape[-1]:
        q, r = torch.linalg.qr(k)
        return q @ polar(r)
    return _polar_2x2(k) if k.shape[-1] == 2 else _polar_newton(k)


def _polar_2x2(k: Tensor) -> Tensor:
    """``(K + |det K| K^-H) / sqrt(tr K^H K + 2 |det K|)``, the Newton step that the 2 x 2 case needs but once."""
    (k00, k01), (k10, k11) = (row.unbind(-1) for row in k.unbind(-2))
    det = k00 * k11 - k01 * k10
    phase = det / det.abs()
    adjugate = torch.stack([torch.stack([k11, -k10], -1), torch.stack([-k01, k00], -1)], -2)
    x = k + phase[..., None, None] * adjugate.conj()
    return x * (2**0.5 / torch.linalg.matrix_norm(x)[..., None, None])


def _polar_newton(x: Tensor, iterations: int = 10) -> Tensor:
    """Scaled Newton iteration; ten steps reach double precision from anywhere (Higham 2008, section 8.6)."""
    for _ in range(iterations):
        inverse = torch.linalg.inv_ex(x).inverse.mH
        mu = (_norms(inverse) / _norms(x)).pow(0.25)
        x = 0.5 * (mu * x + inverse / mu)
    return x


def _norms(x: Tensor) -> Tensor:
    """The product of the 1-norm and the infinity-norm, ``(*, 1, 1)``."""
    magnitude = x.abs()
    return (magnitude.sum(-2).amax(-1) * magnitude.sum(-1).amax(-1))[..., None, None]
