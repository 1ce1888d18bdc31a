"""projUNN-D: the nearest unitary matrix to the updated weight."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.functional.retraction.base import Change, Retraction
from projunn_lightning.linalg import Dense, Matrices, identity, polar


def projunn_d(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""projUNN-D: the nearest unitary matrix to the updated weight, ``W' = polar(W + a b^H)``.

    If ``W + a b^H`` is singular, the nearest unitary matrix is not unique, and the result is not finite.

    The arguments, the result and the errors are the same as in :func:`~projunn_lightning.functional.projunn_t`.

    Source: Kiani et al. 2022 (projUNN-D).

    >>> weight = torch.eye(2, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[1.0], [0.0]]).double()
    >>> projunn_d(weight, a, b)
    tensor([[ 0.8944, -0.4472],
            [ 0.4472,  0.8944]], dtype=torch.float64)
    """
    return POLAR(weight, a, b)


def _of_update(weight: Matrices, a: Tensor, b: Tensor) -> Change:
    """The change with L = Y (H - I) + P J and R = Q.

    Here [b, W^H a] = Q [T_b, T_a] and a - W W^H a = P S are thin QR decompositions, Y = W Q, and [H; J] = polar(K). In
    the bases Q and [W Q, P] the updated weight W + a b^H is the 3k x 2k matrix K = [I + T_a T_b^H; S T_b^H]. P, S and J
    exist only if W is tall. To first order the change is a b^H minus its normal part, W (W^H a b^H + b a^H W) / 2.
    """
    k = a.shape[-1]
    n, p = weight.shape[-2:]
    ahat = weight.mH.matmul(a)
    q, t = torch.linalg.qr(torch.cat([b, ahat], dim=-1))
    y = weight.matmul(q)
    tb_h, ta = t[..., :k].mH, t[..., k:]
    product = ta @ tb_h
    inner = identity(q) + product

    def linear() -> tuple[Tensor, Tensor]:
        return a @ tb_h - 0.5 * (y @ (product + product.mH)), q

    if n == p:  # a square weight spans the whole space, so that a - W W^H a is rounding
        return Change(y @ (polar(inner) - identity(q)), q, linear)
    aperp = a - weight.matmul(ahat)
    # The span of W is projected out twice: if a lies in it, the first projection leaves only rounding.
    aperp = aperp - weight.matmul(weight.mH.matmul(aperp))
    basis, s = torch.linalg.qr(aperp)
    outer = polar(torch.cat([inner, s @ tb_h], dim=-2))
    m = q.shape[-1]
    return Change(y @ (outer[..., :m, :] - identity(q)) + basis @ outer[..., m:, :], q, linear)


def _core(s: Tensor) -> Tensor:
    """``polar(I + S) - I``, where I + S is never singular."""
    return polar(identity(s) + s) - identity(s)


def _dense(w: Tensor, omega: Tensor, d: Tensor) -> Tensor:
    nearest = Dense(w + d)
    nearest.nearest_unitary_()
    return nearest.tensor


POLAR = Retraction("projUNN-D, the nearest unitary matrix to the updated weight", _core, _dense, _of_update)
