r"""The three ways back to the manifold: along the tangent, by direct projection, by the Cayley transform.

Notation (Kiani et al. 2022, arXiv 2203.05483): W is n x p with n >= p and W^H W = I; the update is a b^H with a of
shape n x k and b of shape p x k. A wide weight is handled through its conjugate transpose. Each retraction reads W in
two thin products and writes it once, W' = W + L R^H with L and R of width 2k at most.

The thin products are taken from W as it is. Shortcuts that hold only for an exactly unitary W (W W^H a = a) would
amplify its rounding error from step to step. The small problem is stated in orthonormal bases and not over Gram
matrices, which square its condition number: in float32 an update of norm 10 could cost a weight its unitarity there.
Here the core is itself unitary to rounding, whatever the size of the update, and a zero update changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.linalg.dense import add_product, times
from projunn_lightning.linalg.sharded import Matrices
from projunn_lightning.linalg.small import exp_minus_identity, identity, polar

Factors = tuple[Tensor, Tensor]
Variant = Literal["polar", "exponential", "cayley"]


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

    Source: Kiani et al. 2022 (projUNN-T).

    >>> weight = torch.eye(3, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [2.0], [0.0]]).double(), torch.tensor([[1.0], [0.0], [0.0]]).double()
    >>> projunn_t(weight, a, b)[:2, 0]  # a rotation by one radian: cos 1, sin 1
    tensor([0.5403, 0.8415], dtype=torch.float64)
    """
    return _retract("exponential", weight, a, b)


def projunn_d(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""projUNN-D: the nearest unitary matrix to the updated weight, ``W' = polar(W + a b^H)``.

    Where ``W + a b^H`` is singular the nearest unitary matrix is not unique and the result is not finite.

    Arguments, result and errors are those of :func:`projunn_t`. Source: Kiani et al. 2022 (projUNN-D).

    >>> weight = torch.eye(2, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[1.0], [0.0]]).double()
    >>> projunn_d(weight, a, b)
    tensor([[ 0.8944, -0.4472],
            [ 0.4472,  0.8944]], dtype=torch.float64)
    """
    return _retract("polar", weight, a, b)


def cayley(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""The Cayley transform of the tangent, ``W' = (I - A/2)^-1 (I + A/2) W`` with the ``A`` of :func:`projunn_t`.

    Arguments, result and errors are those of :func:`projunn_t`. Source: Wen and Yin 2013, "A feasible
    method for optimization with orthogonality constraints", with the Sherman-Morrison-Woodbury formula for the inverse.

    >>> weight = torch.eye(2, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [4.0]]).double(), torch.tensor([[1.0], [0.0]]).double()
    >>> cayley(weight, a, b)  # rotates by 2 arctan(1), where the exponential rotates by 2
    tensor([[ 0., -1.],
            [ 1.,  0.]], dtype=torch.float64)
    """
    return _retract("cayley", weight, a, b)


def low_rank_change(retraction: Variant, weight: Matrices, a: Tensor, b: Tensor) -> Factors:
    """Thin L ``(*, n, m)`` and R ``(*, p, m)``, m at most 2 k, with ``W' = W + L R^H``."""
    factors = RETRACTIONS[retraction]
    if weight.shape[-2] >= weight.shape[-1]:
        return factors(weight, a, b)
    right, left = factors(weight.mH, b, a)
    return left, right


def _retract(retraction: Variant, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    n, p = weight.shape[-2:]
    if a.shape[-2] != n or b.shape[-2] != p or a.shape[-1] != b.shape[-1]:
        raise ProjUNNError(
            f"an update a b^H of a weight (*, {n}, {p}) needs a of shape (*, {n}, k) and b of shape (*, {p}, k), "
            f"found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    left, right = low_rank_change(retraction, weight, a, b)
    return add_product(weight, left, right)


def _tangent_factors(weight: Matrices, a: Tensor, b: Tensor) -> Factors:
    """exp(A) = I + Q (exp(S) - I) Q^H."""
    return _rotation_factors(weight, a, b, exp_minus_identity)


def _cayley_factors(weight: Matrices, a: Tensor, b: Tensor) -> Factors:
    """(I - A/2)^-1 (I + A/2) = I + Q (I - S/2)^-1 S Q^H, where I - S/2 is always regular."""
    return _rotation_factors(weight, a, b, lambda s: torch.linalg.inv_ex(identity(s) - 0.5 * s).inverse @ s)


def _rotation_factors(weight: Matrices, a: Tensor, b: Tensor, core: Callable[[Tensor], Tensor]) -> Factors:
    """L = Q core(S), R = W^H Q, where [a, c] = Q [T_a, T_c], so that A = Q S Q^H with the skew S of T_a T_c^H."""
    k = a.shape[-1]
    # Q has min(2 k, n) columns, which are orthonormal also where a and c are parallel or zero.
    q, t = torch.linalg.qr(torch.cat([a, times(weight, b)], dim=-1))
    x = t[..., :k] @ t[..., k:].mH
    return q @ core(0.5 * (x - x.mH)), times(weight.mH, q)


def _direct_factors(weight: Matrices, a: Tensor, b: Tensor) -> Factors:
    """L = Y (H - I) + P J, R = Q, where [b, W^H a] = Q [T_b, T_a], Y = W Q, a - W W^H a = P S, [H; J] = polar(K).

    In the bases Q and [W Q, P] the updated weight W + a b^H is the 3k x 2k matrix K = [I + T_a T_b^H; S T_b^H]; P, S
    and J are there only where W is tall.
    """
    k = a.shape[-1]
    n, p = weight.shape[-2:]
    ahat = times(weight.mH, a)
    q, t = torch.linalg.qr(torch.cat([b, ahat], dim=-1))
    y = times(weight, q)
    tb_h = t[..., :k].mH
    inner = identity(q) + t[..., k:] @ tb_h
    if n == p:  # a square weight spans the whole space: what is left of a is rounding
        return y @ (polar(inner) - identity(q)), q
    aperp = a - times(weight, ahat)
    aperp = aperp - times(
        weight, times(weight.mH, aperp)
    )  # once more: of an a in the span of W the first leaves only rounding
    basis, s = torch.linalg.qr(aperp)
    outer = polar(torch.cat([inner, s @ tb_h], dim=-2))
    m = q.shape[-1]
    return y @ (outer[..., :m, :] - identity(q)) + basis @ outer[..., m:, :], q


RETRACTIONS: dict[Variant, Callable[[Matrices, Tensor, Tensor], Factors]] = {
    "polar": _direct_factors,
    "exponential": _tangent_factors,
    "cayley": _cayley_factors,
}
