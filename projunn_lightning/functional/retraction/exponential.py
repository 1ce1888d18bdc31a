"""projUNN-T: the exponential of the update's skew part."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.functional.retraction.base import Retraction
from projunn_lightning.linalg import exp_minus_identity, newton_schulz


def projunn_t(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""projUNN-T: the step along the tangent, ``W' = exp(A) W`` with ``A = (a c^H - c a^H) / 2`` and ``c = W b``.

    Args:
        weight: unitary matrices W, ``(*, n, p)``, of dtype float32, float64, complex64 or complex128.
        a: the left factor of the update ``a b^H``, ``(*, n, k)``, in the weight's dtype.
        b: the right factor of the update, ``(*, p, k)``, in the weight's dtype.

    Returns:
        The new weight ``(*, n, p)``. It is as unitary as ``weight``, to rounding.

    Raises:
        ProjUNNError: if the shapes do not fit together.

    Source: Kiani et al. 2022 (projUNN-T).

    >>> import torch
    >>> weight = torch.eye(3, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [2.0], [0.0]]).double(), torch.tensor([[1.0], [0.0], [0.0]]).double()
    >>> projunn_t(weight, a, b)[:2, 0]  # a rotation by one radian: cos 1, sin 1
    tensor([0.5403, 0.8415], dtype=torch.float64)
    """
    return EXPONENTIAL(weight, a, b)


def _dense(w: Tensor, omega: Tensor, d: Tensor) -> Tensor:
    return newton_schulz(torch.matrix_exp(omega) @ w)  # the exponential of a large matrix is not unitary to rounding


EXPONENTIAL = Retraction("projUNN-T, the exponential of the update's skew part", exp_minus_identity, _dense)
