r"""What the retractions share.

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
from dataclasses import dataclass

import torch
from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.linalg import Matrices, matrices_of

Factors = tuple[Tensor, Tensor]
"""Thin L ``(*, n, m)`` and R ``(*, p, m)`` with ``W' = W + L R^H``."""


@dataclass(frozen=True)
class Retraction:
    """A way from a weight W and an update ``a b^H`` to a new weight on the manifold.

    Attributes:
        summary: what it computes, in one line for help texts and tables.
        factors: L and R of width 2k at most for a tall or square W, a ``(*, n, k)`` and b ``(*, p, k)``.
    """

    summary: str
    factors: Callable[[Matrices, Tensor, Tensor], Factors]

    def change(self, weight: Matrices, a: Tensor, b: Tensor) -> Factors:
        """Thin L and R with ``W' = W + L R^H``, for a weight of any shape."""
        if weight.shape[-2] >= weight.shape[-1]:
            return self.factors(weight, a, b)
        right, left = self.factors(weight.mH, b, a)
        return left, right

    def __call__(self, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The new weight; see :func:`~projunn_lightning.functional.retract`."""
        n, p = weight.shape[-2:]
        if a.shape[-2] != n or b.shape[-2] != p or a.shape[-1] != b.shape[-1]:
            raise ProjUNNError(
                f"an update a b^H of a weight (*, {n}, {p}) needs a of shape (*, {n}, k) and b of shape (*, {p}, k), "
                f"found {tuple(a.shape)} and {tuple(b.shape)}"
            )
        matrices, result = matrices_of(weight), torch.empty_like(weight)
        matrices.add_product(*self.change(matrices, a, b), out=matrices_of(result))
        return result


def rotation_factors(weight: Matrices, a: Tensor, b: Tensor, core: Callable[[Tensor], Tensor]) -> Factors:
    """The factors of ``W' = (I + Q core(S) Q^H) W``, where ``A = Q S Q^H`` is the skew part of the update along W.

    With c = W b, A = (a c^H - c a^H) / 2 and the thin QR [a, c] = Q [T_a, T_c], S is the skew part of T_a T_c^H.
    """
    k = a.shape[-1]
    # Q has min(2 k, n) columns, which are orthonormal also where a and c are parallel or zero.
    q, t = torch.linalg.qr(torch.cat([a, weight.matmul(b)], dim=-1))
    x = t[..., :k] @ t[..., k:].mH
    return q @ core(0.5 * (x - x.mH)), weight.mH.matmul(q)
