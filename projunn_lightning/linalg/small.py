"""Functions of the small matrices to which an update of rank k reduces: 2k x 2k ones, and thin ones of k columns.

Where a function has no value, it returns entries that are not finite and raises no error. Nothing here synchronises a
GPU with the host.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exp_minus_identity(s: Tensor) -> Tensor:
    """``e^S - I`` of skew-Hermitian matrices; one of a Frobenius norm above 64 is first shortened to that."""
    if s.shape[-1] == 2:
        return _exp_2x2(s) - identity(s) if s.is_complex() else _plane_rotation(s[..., 1, 0]) - identity(s)
    # Pade's [5/5] approximant at S / 256 and eight squarings, exact to double precision. All of it is written for
    # E = e^S - I, so that rounding is relative to E: 2 E + E^2 is the square of I + E.
    norm = torch.linalg.matrix_norm(s, keepdim=True)
    x = s * torch.where(norm < torch.inf, (64 / norm).clamp_max(1), torch.nan) / 256
    x2 = x @ x
    x4 = x2 @ x2
    odd = x @ (15120 * identity(s) + 420 * x2 + x4)
    even = 30240 * identity(s) + 3360 * x2 + 30 * x4
    e = torch.linalg.solve_ex(even - odd, 2 * odd).result
    for _ in range(8):
        e = torch.add(e @ e, e, alpha=2)
    error = e + e.mH + e.mH @ e  # of unitarity, which one Newton-Schulz step squares
    return e - 0.5 * (error + e @ error)


def _plane_rotation(angle: Tensor) -> Tensor:
    """The rotations ``(*, 2, 2)`` by angles ``(*)``: the exponentials of real skew 2 x 2 matrices."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))


def _exp_2x2(s: Tensor) -> Tensor:
    """``e^S = e^(i tau) (cos(nu) I + sin(nu)/nu Z)``, where ``S = i tau I + Z`` with Z traceless and Z^2 = -nu^2 I."""
    trace = 0.5 * (s[..., 0, 0] + s[..., 1, 1])[..., None, None]
    z = s - trace * identity(s)
    nu = (z[..., 0, 0].abs().square() + z[..., 0, 1].abs().square()).sqrt()[..., None, None]  # = sqrt(det Z)
    sinc = torch.where(nu > 0, nu.sin() / nu, 1)  # of the same nu as the cosine, so that their squares add up to 1
    return trace.exp() * (nu.cos() * identity(s) + sinc * z)


def polar(k: Tensor) -> Tensor:
    """The unitary polar factor of square or tall matrices of full column rank."""
    k = k / k.abs().amax(dim=(-2, -1), keepdim=True)  # the factor stays the same, and no square overflows
    if k.shape[-2] > k.shape[-1]:
        q, r = torch.linalg.qr(k)
        return q @ polar(r)
    return _polar_2x2(k) if k.shape[-1] == 2 else _polar_newton(k)


def _polar_2x2(k: Tensor) -> Tensor:
    """The normalised ``K + |det K| K^-H``: for a 2 x 2 matrix K, one Newton step finds the unitary factor."""
    (k00, k01), (k10, k11) = (row.unbind(-1) for row in k.unbind(-2))
    det = k00 * k11 - k01 * k10
    phase = det / det.abs()
    adjugate = torch.stack([torch.stack([k11, -k10], -1), torch.stack([-k01, k00], -1)], -2)
    x = k + phase[..., None, None] * adjugate.conj()
    return x / (0.5 * x.abs().square().sum(dim=(-2, -1), keepdim=True)).sqrt()


def _polar_newton(x: Tensor) -> Tensor:
    """Scaled Newton iteration for square matrices; ten steps reach double precision (Higham 2008, section 8.6)."""
    for _ in range(10):
        inverse = torch.linalg.inv_ex(x).inverse.mH
        mu = (_norms(inverse) / _norms(x)).pow(0.25)
        x = 0.5 * (mu * x + inverse / mu)
    return x


def _norms(x: Tensor) -> Tensor:
    """The product of the 1-norm and the infinity-norm, ``(*, 1, 1)``."""
    magnitude = x.abs()
    return (magnitude.sum(-2).amax(-1) * magnitude.sum(-1).amax(-1))[..., None, None]


def identity(x: Tensor) -> Tensor:
    """The identity of the size of the last dimension of x, in its dtype and on its device."""
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)


def orthonormalise(y: Tensor) -> Tensor:
    """Orthonormal columns that span the columns of y, ``(*, m, k)``; a zero column is replaced by a unit vector."""
    if y.shape[-1] > 1:
        return torch.linalg.qr(y).Q
    # A single column is scaled by its largest entry first, so that the squares of a tiny update do not underflow.
    largest = y.abs().amax(dim=-2, keepdim=True)
    y = y / torch.where(largest > 0, largest, 1)
    unit = torch.zeros_like(y)
    unit[..., 0, :] = 1
    y = torch.where(largest > 0, y, unit)
    return y / torch.linalg.vector_norm(y, dim=-2, keepdim=True)
