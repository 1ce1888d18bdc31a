r"""The classes and functions that all retractions use.

Notation (Kiani et al. 2022, arXiv 2203.05483): W is n x p with n >= p and W^H W = I; the update is a b^H with a of
shape n x k and b of shape p x k. A wide weight is handled through its conjugate transpose. Each retraction reads W for
two thin products and writes it once, W' = W + L R^H, where L and R have at most 2k columns.

The thin products use W as it is. A shortcut that holds only for an exactly unitary W (W W^H a = a) would amplify the
rounding error of W from step to step. The small problem is stated in orthonormal bases and not with Gram matrices. Gram
matrices square the condition number: in float32, an update of norm 10 could destroy the unitarity of a weight. In
orthonormal bases the small matrix is unitary to rounding for an update of any size, and a zero update changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.linalg import Matrices, full_precision, matrices_of


class Change(NamedTuple):
    """The change of a weight as a product of thin factors, and its first-order part.

    Attributes:
        left: L ``(*, n, m)``, where ``W' = W + L R^H``.
        right: R ``(*, p, m)``.
        linear: a function that returns the factors L and R of the part of the change that is linear in the update. In
            skew coordinates their product is the rotation A, and not A W.
    """

    left: Tensor
    right: Tensor
    linear: Callable[[], tuple[Tensor, Tensor]]

    def mH(self) -> Change:
        """The change of the conjugate transpose."""

        def linear() -> tuple[Tensor, Tensor]:
            left, right = self.linear()
            return right, left

        return Change(self.right, self.left, linear)

    def applied_to(self, weight: Tensor) -> Tensor:
        """The changed weight ``W + L R^H`` as a new tensor."""
        result = torch.empty_like(weight)
        matrices_of(weight).add_product(self.left, self.right, out=matrices_of(result))
        return result


class Rotation(NamedTuple):
    """A skew-Hermitian matrix of low rank, ``A = Q S Q^H``.

    Attributes:
        q: Q ``(*, n, m)``, with orthonormal columns.
        s: S ``(*, m, m)``, skew-Hermitian.
    """

    q: Tensor
    s: Tensor


@dataclass(frozen=True)
class Retraction:
    """A map from a weight and a direction to a new weight on the manifold.

    Attributes:
        summary: a description in one line, for help texts and tables.
        core: a function that takes S and returns K, where ``W' = (I + Q K Q^H) W`` for a rotation ``A = Q S Q^H``.
        dense: a function that takes the whole W, Omega and D and returns the new weight by dense algebra.
        of_update: a function that takes W, a ``(*, n, k)`` and b ``(*, p, k)`` and returns the change by the update
            ``a b^H``. If it is None, the change is the rotation by the skew part of the update along W.

    The functions get tall or square weights. This class handles a wide weight through its conjugate transpose.
    """

    summary: str
    core: Callable[[Tensor], Tensor]
    dense: Callable[[Tensor, Tensor, Tensor], Tensor]
    of_update: Callable[[Matrices, Tensor, Tensor], Change] | None = None

    def rotate(self, weight: Matrices, rotation: Rotation, pulled: Tensor | None = None) -> Change:
        """The change of a tall or square weight by a rotation.

        ``W^H Q`` is a factor of the change. A caller that has its first columns passes them as ``pulled``.
        """
        q, s = rotation
        if pulled is None:
            right = weight.mH.matmul(q)
        else:
            right = torch.cat([pulled, weight.mH.matmul(q[..., pulled.shape[-1] :])], dim=-1)
        return Change(q @ self.core(s), right, lambda: (q @ s, right))

    def along(self, weight: Matrices, a: Tensor, b: Tensor) -> Change:
        """The change of a weight of any shape by an update ``a b^H``."""
        if weight.shape[-2] < weight.shape[-1]:
            return self.along(weight.mH, b, a).mH()
        if self.of_update is not None:
            return self.of_update(weight, a, b)
        return self.rotate(weight, skew_part(a, weight.matmul(b)))

    @full_precision()
    def __call__(self, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The new weight, see :func:`~projunn_lightning.functional.retract`."""
        n, p = weight.shape[-2:]
        if a.shape[-2] != n or b.shape[-2] != p or a.shape[-1] != b.shape[-1]:
            raise ProjUNNError(
                f"an update a b^H of a weight (*, {n}, {p}) needs a of shape (*, {n}, k) and b of shape (*, {p}, k), "
                f"found {tuple(a.shape)} and {tuple(b.shape)}"
            )
        return self.along(matrices_of(weight), a, b).applied_to(weight)


def skew_part(a: Tensor, c: Tensor) -> Rotation:
    """The rotation ``A = (a c^H - c a^H) / 2`` of thin a and c ``(*, n, k)``.

    With the thin QR [a, c] = Q [T_a, T_c] it is A = Q S Q^H, where S is the skew part of T_a T_c^H.
    """
    k = a.shape[-1]
    # Q has min(2 k, n) columns. They are orthonormal even if a and c are parallel or zero.
    q, t = torch.linalg.qr(torch.cat([a, c], dim=-1))
    x = t[..., :k] @ t[..., k:].mH
    return Rotation(q, 0.5 * (x - x.mH))
