"""The method told simply: one whole step in a few lines, to be read. Training uses the fast functions beside it."""

from __future__ import annotations

import torch
from torch import Tensor


def step(w: Tensor, d: Tensor, c: Tensor, e: Tensor, feedback: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Move a unitary weight on the manifold along the rank-k tangent part of an optimizer's update.

    It is what :class:`~projunn_lightning.Projector` does with ``sampler="tangent"`` and ``retraction="exponential"``.

    Args:
        w: the weight W ``(n, p)``, n >= p, with orthonormal columns.
        d: the update D ``(n, p)`` that the optimizer would add to W.
        c: the basis C ``(n, k)``, with orthonormal columns.
        e: the residual E ``(n, p)``: what rank k has left out so far.
        feedback: rho, the share of E that is added to D.

    Returns:
        The new W, C and E.

    >>> w, c, e = torch.eye(2), torch.eye(2, 1), torch.zeros(2, 2)
    >>> d = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> w, c, e = step(w, d, c, e)
    >>> w  # a rotation by one radian
    tensor([[ 0.5403, -0.8415],
            [ 0.8415,  0.5403]])
    """
    # 1. The update, with what earlier steps have left out.
    m = feedback * e + d
    # 2. Its tangent part Omega = (M W^H - W M^H) / 2 moves W along Omega W; here Omega is only multiplied with C.
    omega = (m @ (w.mH @ c) - w @ (m.mH @ c)) / 2
    # 3. The sample: A = omega C^H - C omega^H - C (C^H omega) C^H is skew and agrees with Omega on C. It has rank 2 k
    #    and is Q S Q^H in an orthonormal basis Q of C and omega.
    q, _ = torch.linalg.qr(torch.cat([c, omega], dim=1))
    qc, qw = q.mH @ c, q.mH @ omega
    s = qw @ qc.mH - qc @ qw.mH - qc @ (qc.mH @ qw) @ qc.mH
    s = (s - s.mH) / 2  # what is not skew is rounding
    # 4. The rotation: exp(A) = I + Q (exp(S) - I) Q^H is unitary, and its exponential is one of a small matrix.
    r = q.mH @ w
    new_w = w + q @ ((torch.matrix_exp(s) - torch.eye(len(s), dtype=s.dtype)) @ r)
    # 5. What A leaves out is kept, and the next basis looks where this update was large (a power iteration).
    new_e = m - q @ (s @ r)
    new_c, _ = torch.linalg.qr(omega)
    return new_w, new_c, new_e
