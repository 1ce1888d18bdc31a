r"""The three ways back to the manifold: along the tangent, by direct projection, by the Cayley transform.

Notation (Kiani et al. 2022, arXiv 2203.05483): W is n x p with n >= p and W^H W = I; the update is a b^H with a of
shape n x k and b of shape p x k. A wide weight is handled through its conjugate transpose. Each retraction reads W in
two thin products and writes it once, W' = W + L R^H with L and R of width 2k.

The thin products are taken from W as it is. Shortcuts that hold only for an exactly unitary W (W W^H a = a) would
amplify its rounding error from step to step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from projunn_lightning.functional._small import phi1, polar

Factors = tuple[Tensor, Tensor]


def projunn_t(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""projUNN-T: the update taken along the tangent, ``W' = exp(A) W`` with ``A = (a c^H - c a^H) / 2``, ``c = W b``.

    Args:
        weight: unitary matrices W, ``(*, n, p)``; real or complex, float32 or float64.
        a: left factor of the update ``a b^H``, ``(*, n, k)``, in the weight's dtype.
        b: right factor, ``(*, p, k)``.

    Returns:
        The new weight ``(*, n, p)``, exactly as unitary as ``weight``.

    Raises:
        ValueError: if the shapes do not fit.

    Source: Kiani et al. 2022, Theorem 3.3 (projUNN-T).

    >>> weight = torch.eye(3, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [2.0], [0.0]]).double(), torch.tensor([[1.0], [0.0], [0.0]]).double()
    >>> projunn_t(weight, a, b)[:2, 0]  # a rotation by one radian: cos 1, sin 1
    tensor([0.5403, 0.8415], dtype=torch.float64)
    """
    return _retract("tangent", weight, a, b)


def projunn_d(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""projUNN-D: the nearest unitary matrix to the updated weight, ``W' = polar(W + a b^H)``.

    Where ``W + a b^H`` is singular the nearest unitary matrix is not unique and the result is not finite.

    Arguments, result and errors are those of :func:`projunn_t`. Source: Kiani et al. 2022, Theorem 3.1 (projUNN-D).

    >>> weight = torch.eye(2, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[1.0], [0.0]]).double()
    >>> projunn_d(weight, a, b)
    tensor([[ 0.8944, -0.4472],
            [ 0.4472,  0.8944]], dtype=torch.float64)
    """
    return _retract("direct", weight, a, b)


def cayley(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""The Cayley transform of the tangent, ``W' = (I - A/2)^-1 (I + A/2) W`` with the ``A`` of :func:`projunn_t`.

    Arguments, result and errors are those of :func:`projunn_t`. Source: Wen and Yin 2013, Lemma 4, with the
    Sherman-Morrison-Woodbury formula for the inverse.

    >>> weight = torch.eye(2, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [4.0]]).double(), torch.tensor([[1.0], [0.0]]).double()
    >>> cayley(weight, a, b)  # rotates by 2 arctan(1), where the exponential rotates by 2
    tensor([[ 0., -1.],
            [ 1.,  0.]], dtype=torch.float64)
    """
    return _retract("cayley", weight, a, b)


def low_rank_change(variant: str, weight: Tensor, a: Tensor, b: Tensor) -> Factors:
    """L ``(*, n, 2k)`` and R ``(*, p, 2k)`` with ``W' = W + L R^H``; ``variant`` is a key of :data:`VARIANTS`."""
    factors = VARIANTS[variant]
    if weight.shape[-2] >= weight.shape[-1]:
        return factors(weight, a, b)
    right, left = factors(weight.mH, b, a)
    return left, right


def _retract(variant: str, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    n, p = weight.shape[-2:]
    if a.shape[-2] != n or b.shape[-2] != p or a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"an update a b^H of a weight (*, {n}, {p}) needs a of shape (*, {n}, k) and b of shape (*, {p}, k), "
            f"found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    left, right = low_rank_change(variant, weight, a, b)
    return weight + left @ right.mH


def _tangent_factors(weight: Tensor, a: Tensor, b: Tensor) -> Factors:
    """L = V M phi1(G M), R = W^H V, with V = [a, c] and G = V^H V."""
    return _rotation_factors(weight, a, b, _tangent_core)


def _cayley_factors(weight: Tensor, a: Tensor, b: Tensor) -> Factors:
    """The same with M (I - G M / 2)^-1 in place of M phi1(G M)."""
    return _rotation_factors(weight, a, b, _cayley_core)


def _rotation_factors(weight: Tensor, a: Tensor, b: Tensor, core: Callable[[Tensor, Tensor], Tensor]) -> Factors:
    v = torch.cat([a, weight @ b], dim=-1)
    return v @ core(v.mH @ v, _symplectic(a)), weight.mH @ v


def _symplectic(a: Tensor) -> Tensor:
    """M = 1/2 [[0, I], [-I, 0]], 2k x 2k."""
    k = a.shape[-1]
    half = 0.5 * torch.eye(k, dtype=a.dtype, device=a.device)
    zero = torch.zeros_like(half)
    return torch.cat([torch.cat([zero, half], dim=1), torch.cat([-half, zero], dim=1)])


def _tangent_core(gram: Tensor, m: Tensor) -> Tensor:
    gm = gram @ m
    if gram.shape[-1] > 2 or gram.is_complex():
        return m @ phi1(gm)
    # k = 1, real: (G M)^2 = -theta^2 I with theta^2 = det(G) / 4, which rounding may push below zero.
    det = gram[..., 0, 0] * gram[..., 1, 1] - gram[..., 0, 1].square()
    theta = 0.5 * det.clamp_min(0).sqrt()[..., None, None]
    sinc = torch.sinc(theta / torch.pi)
    versine = 0.5 * torch.sinc(0.5 * theta / torch.pi).square()  # (1 - cos theta) / theta^2
    return m @ (sinc * torch.eye(2, dtype=m.dtype, device=m.device) + versine * gm)


def _cayley_core(gram: Tensor, m: Tensor) -> Tensor:
    identity = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
    # I - G M / 2 is always regular: the eigenvalues of G M are imaginary.
    return m @ torch.linalg.inv_ex(identity - 0.5 * gram @ m).inverse


def _direct_factors(weight: Tensor, a: Tensor, b: Tensor) -> Factors:
    r"""L = Y (H - I) + P J, R = Q, where [b, W^H a] = Q T, Y = W Q, a - W W^H a = P S and [H; J] = polar(K).

    In the bases Q and [W Q, P] the updated weight W + a b^H is the 3k x 2k matrix K = [I + T_a T_b^H; S T_b^H], with
    T = [T_b, T_a]; P, S and J are there only where W is tall. The route over Gram matrices squares the condition number
    of K: at k = 4, float32 and an update of norm 10 it loses unitarity altogether, this one nothing.
    """
    k = a.shape[-1]
    n, p = weight.shape[-2:]
    ahat = weight.mH @ a
    # A basis of k more vectors than the space has dimensions is cut to the space by the QR.
    q, t = torch.linalg.qr(torch.cat([b, ahat], dim=-1))
    y = weight @ q
    tb_h = t[..., :k].mH
    identity = torch.eye(q.shape[-1], dtype=a.dtype, device=a.device)
    inner = identity + t[..., k:] @ tb_h
    if n == p:  # a square weight spans the whole space: what is left of a is rounding
        return y @ (polar(inner) - identity), q
    basis, s = torch.linalg.qr(a - weight @ ahat)
    outer = polar(torch.cat([inner, s @ tb_h], dim=-2))
    m = q.shape[-1]
    return y @ (outer[..., :m, :] - identity) + basis @ outer[..., m:, :], q


VARIANTS: dict[str, Callable[[Tensor, Tensor, Tensor], Factors]] = {
    "direct": _direct_factors,
    "tangent": _tangent_factors,
    "cayley": _cayley_factors,
}
