"""One whole step of the method in a few lines, for readers. Training uses the fast functions of the other files."""

from __future__ import annotations

import torch
from torch import Tensor


def step(w: Tensor, d: Tensor, e: Tensor, g: Tensor, feedback: float = 0.0) -> tuple[Tensor, Tensor]:
    """Move a unitary weight on the manifold along the rank-k tangent part of an optimizer's update.

    :class:`~projunn_lightning.Projector` does the same with ``sampler="tangent"`` and ``retraction="exponential"``.

    Args:
        w: the weight W ``(n, p)``, n >= p, with orthonormal columns.
        d: the update D ``(n, p)`` that the optimizer would add to W.
        e: the residual E ``(n, p)``, the part of earlier updates that rank k has left out.
        g: random numbers G ``(n, k)``.
        feedback: rho, the share of E that is added to D.

    Returns:
        The new W and the new E.

    >>> w, e = torch.eye(2), torch.zeros(2, 2)
    >>> d = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> w, e = step(w, d, e, g=torch.randn(2, 1))
    >>> w  # a rotation by one radian
    tensor([[ 0.5403, -0.8415],
            [ 0.8415,  0.5403]])
    """
    # 1. The residual of earlier steps is added to the update.
    m = feedback * e + d
    # 2. The tangent part Omega = (M W^H - W M^H) / 2 moves W along Omega W. The basis C spans a random sketch of Omega,
    #    in which its strong directions dominate. Only products of Omega with thin matrices are computed.
    c, _ = torch.linalg.qr(m @ (w.mH @ g) - w @ (m.mH @ g))
    omega = (m @ (w.mH @ c) - w @ (m.mH @ c)) / 2
    # 3. The sample A = omega C^H - C omega^H - C (C^H omega) C^H is skew and agrees with Omega on C. Its rank is 2 k
    #    at most, and it is Q S Q^H in an orthonormal basis Q of C and omega.
    q, _ = torch.linalg.qr(torch.cat([c, omega], dim=1))
    qc, qw = q.mH @ c, q.mH @ omega
    s = qw @ qc.mH - qc @ qw.mH - qc @ (qc.mH @ qw) @ qc.mH
    s = (s - s.mH) / 2  # the Hermitian part is rounding
    # 4. The rotation exp(A) = I + Q (exp(S) - I) Q^H is unitary and needs only the exponential of the small S.
    r = q.mH @ w
    new_w = w + q @ ((torch.matrix_exp(s) - torch.eye(len(s), dtype=s.dtype)) @ r)
    # 5. The part that A leaves out is kept.
    new_e = m - q @ (s @ r)
    return new_w, new_e
