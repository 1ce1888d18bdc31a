"""The tangent sampler: the part of the update that moves the weight on the manifold, projected on a thin basis."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.functional.retraction import Rotation
from projunn_lightning.functional.sampling.base import Direction, Sampler, Turn, Update, gaussian
from projunn_lightning.linalg import Generators, orthonormalise


def _sample(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, None]:
    r"""The projection A of Omega for the basis C, see :func:`~projunn_lightning.functional.sample_tangent`.

    With omega = Omega C it is A = omega C^H - C omega^H - C (C^H omega) C^H. So A C = omega, and A = Omega if C spans
    the whole space. With the thin QR [C, omega] = Q [T_c, T_w] it is A = Q S Q^H, where S = Z - Z^H and
    Z = (T_w - T_c T_c^H T_w / 2) T_c^H.

    C is an orthonormal basis of Omega G for a random G, in which the strong directions of Omega dominate.
    """
    c = basis
    if c is None:
        c = orthonormalise(update.omega(gaussian(update.d, update.rows, rank, generator)))
    pulled = None if update.skew else update.w.tall().mH.matmul(c)
    q, t = torch.linalg.qr(torch.cat([c, update.omega(c, pulled)], dim=-1))
    tc, tw = t[..., :rank], t[..., rank:]
    if pulled is not None:  # C = Q_1 T_c, where Q_1 has the first k columns of Q and T_c is diagonal to rounding
        pulled = torch.linalg.solve_triangular(tc[..., :rank, :], pulled, upper=True, left=False)
    # The Hermitian part of C^H omega is rounding. Z - Z^H drops it; a kept residual would double it at every step.
    z = (tw - 0.5 * tc @ (tc.mH @ tw)) @ tc.mH
    return Turn(Rotation(q, z - z.mH), pulled), None


TANGENT = Sampler(
    "the tangent part of the update, projected on the span of a random sketch of it",
    _sample,
    of_tangent=True,
)
