"""The tangent sampler: the part of the update that moves the weight on the manifold, projected on a warm basis."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.functional.retraction import Rotation
from projunn_lightning.functional.sampling.base import Direction, Sampler, Turn, Update, gaussian
from projunn_lightning.linalg import Generators, orthonormalise


def _sample(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, Tensor]:
    r"""The projection A of Omega for the basis C, see :func:`~projunn_lightning.functional.sample_tangent`.

    With omega = Omega C it is A = omega C^H - C omega^H - C (C^H omega) C^H. So A C = omega, and A = Omega if C spans
    the whole space. With the thin QR [C, omega] = Q [T_c, T_w] it is A = Q S Q^H, where S = Z - Z^H and
    Z = (T_w - T_c T_c^H T_w / 2) T_c^H. The next C is an orthonormal basis of omega, which is a power step of Omega.
    """
    c = orthonormalise(gaussian(update.d, update.rows, rank, generator)) if basis is None else basis
    omega = update.omega(c)
    q, t = torch.linalg.qr(torch.cat([c, omega], dim=-1))
    tc, tw = t[..., :rank], t[..., rank:]
    # The Hermitian part of C^H omega is rounding. Z - Z^H drops it; a kept residual would double it at every step.
    z = (tw - 0.5 * tc @ (tc.mH @ tw)) @ tc.mH
    return Turn(Rotation(q, z - z.mH)), orthonormalise(omega)


TANGENT = Sampler(
    "the tangent part of the update, projected on the span of a basis that is warm from step to step",
    _sample,
    basis_rows=lambda update: update.rows,
    of_tangent=True,
)
