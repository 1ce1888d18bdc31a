"""Functions of the small matrices of an update of rank k: of matrices 2k x 2k, and of thin matrices with k columns.

If a function has no value for a matrix, it returns entries that are not finite and raises no error. No function
synchronises a GPU with the host.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exp_minus_identity(s: Tensor) -> Tensor:
    """``e^S - I`` of skew-Hermitian matrices. A matrix with a Frobenius norm above 64 is first scaled down to 64."""
    if s.shape[-1] == 2:
        return _exp_2x2(s) - identity(s) if s.is_complex() else _plane_rotation(s[..., 1, 0]) - identity(s)
    # Pade's [5/5] approximant at S / 256, and eight squarings, are exact to double precision. The computation works on
    # E = e^S - I, so that rounding is relative to E. A squaring replaces E by 2 E + E^2, as (I + E)^2 = I + 2 E + E^2.
    norm = torch.linalg.matrix_norm(s, keepdim=True)
    x = s * torch.where(norm < torch.inf, (64 / norm).clamp_max(1), torch.nan) / 256
    x2 = x @ x
    x4 = x2 @ x2
    odd = x @ (15120 * identity(s) + 420 * x2 + x4)
    even = 30240 * identity(s) + 3360 * x2 + 30 * x4
    e = torch.linalg.solve_ex(even - odd, 2 * odd).result
    for _ in range(8):
        e = torch.add(e @ e, e, alpha=2)
    error = e + e.mH + e.mH @ e  # the unitarity error, which one Newton-Schulz step squares
    return e - 0.5 * (error + e @ error)


def _plane_rotation(angle: Tensor) -> Tensor:
    """The rotations ``(*, 2, 2)`` by angles ``(*)``, which are the exponentials of real skew 2 x 2 matrices."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))


def _exp_2x2(s: Tensor) -> Tensor:
    """``e^S = e^(i tau) (cos(nu) I + sin(nu)/nu Z)``, where ``S = i tau I + Z`` with Z traceless and Z^2 = -nu^2 I."""
    trace = 0.5 * (s[..., 0, 0] + s[..., 1, 1])[..., None, None]
    z = s - trace * identity(s)
    nu = (z[..., 0, 0].abs().square() + z[..., 0, 1].abs().square()).sqrt()[..., None, None]  # = sqrt(det Z)
    sinc = torch.where(nu > 0, nu.sin() / nu, 1)  # the sine of the same nu, so that sin^2 + cos^2 = 1
    return trace.exp() * (nu.cos() * identity(s) + sinc * z)


def polar(k: Tensor) -> Tensor:
    """The unitary polar factor of square or tall matrices of full column rank."""
    k = k / k.abs().amax(dim=(-2, -1), keepdim=True)  # scaling keeps the polar factor, and no square overflows
    if k.shape[-2] > k.shape[-1]:
        q, r = torch.linalg.qr(k)
        return q @ polar(r)
    return _polar_2x2(k) if k.shape[-1] == 2 else _polar_newton(k)


def _polar_2x2(k: Tensor) -> Tensor:
    """The normalised ``K + |det K| K^-H``. For a 2 x 2 matrix K, this one Newton step finds the unitary factor."""
    (k00, k01), (k10, k11) = (row.unbind(-1) for row in k.unbind(-2))
    det = k00 * k11 - k01 * k10
    phase = det / det.abs()
    adjugate = torch.stack([torch.stack([k11, -k10], -1), torch.stack([-k01, k00], -1)], -2)
    x = k + phase[..., None, None] * adjugate.conj()
    return x / (0.5 * x.abs().square().sum(dim=(-2, -1), keepdim=True)).sqrt()


def _polar_newton(x: Tensor) -> Tensor:
    """The scaled Newton iteration for square matrices. Ten steps reach double precision (Higham 2008, section 8.6)."""
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
    """The identity with the size of the last dimension of x, in the dtype and on the device of x."""
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)


def orthonormalise(y: Tensor) -> Tensor:
    """Orthonormal columns ``(*, m, k)`` that span the columns of y. Zero columns are replaced by unit vectors."""
    if y.shape[-1] > 1:
        return torch.linalg.qr(y).Q
    # A single column is scaled by its largest entry first, so that the squares of a tiny update do not underflow.
    largest = y.abs().amax(dim=-2, keepdim=True)
    y = y / torch.where(largest > 0, largest, 1)
    unit = torch.zeros_like(y)
    unit[..., 0, :] = 1
    y = torch.where(largest > 0, y, unit)
    return y / torch.linalg.vector_norm(y, dim=-2, keepdim=True)
