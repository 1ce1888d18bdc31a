"""One whole step of the method in a few lines, for readers. Training uses the fast functions of the other files."""

from __future__ import annotations

import torch
from torch import Tensor


def step(w: Tensor, d: Tensor, c: Tensor, e: Tensor, g: Tensor, feedback: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Move a unitary weight on the manifold along the rank-k tangent part of an optimizer's update.

    :class:`~projunn_lightning.Projector` does the same with ``sampler="tangent"`` and ``retraction="exponential"``.

    Args:
        w: the weight W ``(n, p)``, n >= p, with orthonormal columns.
        d: the update D ``(n, p)`` that the optimizer would add to W.
        c: the basis C ``(n, k)``, with orthonormal columns.
        e: the residual E ``(n, p)``, the part of earlier updates that rank k has left out.
        g: random numbers G ``(n, k)``, from which the next C is made.
        feedback: rho, the share of E that is added to D.

    Returns:
        The new W, the new C and the new E.

    >>> w, c, e = torch.eye(2), torch.eye(2, 1), torch.zeros(2, 2)
    >>> d = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> w, c, e = step(w, d, c, e, g=torch.randn(2, 1))
    >>> w  # a rotation by one radian
    tensor([[ 0.5403, -0.8415],
            [ 0.8415,  0.5403]])
    """
    # 1. The residual of earlier steps is added to the update.
    m = feedback * e + d
    # 2. The tangent part Omega = (M W^H - W M^H) / 2 moves W along Omega W. Only its product with [C, G] is computed.
    cg = torch.cat([c, g], dim=1)
    omega, sketch = ((m @ (w.mH @ cg) - w @ (m.mH @ cg)) / 2).tensor_split(2, dim=1)
    # 3. The sample A = omega C^H - C omega^H - C (C^H omega) C^H is skew and agrees with Omega on C. Its rank is 2 k
    #    at most, and it is Q S Q^H in an orthonormal basis Q of C and omega.
    q, _ = torch.linalg.qr(torch.cat([c, omega], dim=1))
    qc, qw = q.mH @ c, q.mH @ omega
    s = qw @ qc.mH - qc @ qw.mH - qc @ (qc.mH @ qw) @ qc.mH
    s = (s - s.mH) / 2  # the Hermitian part is rounding
    # 4. The rotation exp(A) = I + Q (exp(S) - I) Q^H is unitary and needs only the exponential of the small S.
    r = q.mH @ w
    new_w = w + q @ ((torch.matrix_exp(s) - torch.eye(len(s), dtype=s.dtype)) @ r)
    # 5. The part that A leaves out is kept. The next basis spans Omega G, which favours strong directions.
    new_e = m - q @ (s @ r)
    new_c, _ = torch.linalg.qr(sketch)
    return new_w, new_c, new_e
