"""The tangent sampler: the part of the update that moves the weight on the manifold, projected on a thin basis."""

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
    Z = (T_w - T_c T_c^H T_w / 2) T_c^H.

    The next C is an orthonormal basis of Omega G for a new random G. It favours strong directions, as a power step from
    C would, and no direction is left out for good. Omega G costs little, because one product makes Omega [C, G].
    """
    c = orthonormalise(gaussian(update.d, update.rows, rank, generator)) if basis is None else basis
    g = gaussian(update.d, update.rows, rank, generator)
    both = torch.cat([c, g], dim=-1)
    pulled = None if update.skew else update.w.tall().mH.matmul(both)
    omega, sketch = update.omega(both, pulled).split(rank, dim=-1)
    q, t = torch.linalg.qr(torch.cat([c, omega], dim=-1))
    tc, tw = t[..., :rank], t[..., rank:]
    if pulled is not None:  # C = Q_1 T_c, where Q_1 has the first k columns of Q and T_c is diagonal to rounding
        pulled = torch.linalg.solve_triangular(tc[..., :rank, :], pulled[..., :rank], upper=True, left=False)
    # The Hermitian part of C^H omega is rounding. Z - Z^H drops it; a kept residual would double it at every step.
    z = (tw - 0.5 * tc @ (tc.mH @ tw)) @ tc.mH
    return Turn(Rotation(q, z - z.mH), pulled), orthonormalise(sketch)


TANGENT = Sampler(
    "the tangent part of the update, projected on the span of a random sketch of the last tangent part",
    _sample,
    basis_rows=lambda update: update.rows,
    of_tangent=True,
)
