"""The Cayley transform of the update's skew part."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.functional.retraction.base import Retraction
from projunn_lightning.linalg import identity, newton_schulz


def cayley(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""The Cayley transform, ``W' = (I - A/2)^-1 (I + A/2) W`` with the ``A`` of :func:`projunn_t`.

    The arguments, the result and the errors are the same as in :func:`~projunn_lightning.functional.projunn_t`.

    Source: Wen and Yin 2013, "A feasible method for optimization with orthogonality constraints", with the
    Sherman-Morrison-Woodbury formula for the inverse.

    >>> weight = torch.eye(2, dtype=torch.float64)
    >>> a, b = torch.tensor([[0.0], [4.0]]).double(), torch.tensor([[1.0], [0.0]]).double()
    >>> cayley(weight, a, b)  # rotates by 2 arctan(1), where the exponential rotates by 2
    tensor([[ 0., -1.],
            [ 1.,  0.]], dtype=torch.float64)
    """
    return CAYLEY(weight, a, b)


def _core(s: Tensor) -> Tensor:
    """``(I - S/2)^-1 (I + S/2) - I = (I - S/2)^-1 S``, where I - S/2 is never singular."""
    return torch.linalg.inv_ex(identity(s) - 0.5 * s).inverse @ s


def _dense(w: Tensor, omega: Tensor, d: Tensor) -> Tensor:
    # (I - A/2)^-1 (I + A/2) W = W + (I - A/2)^-1 A W
    return newton_schulz(w + torch.linalg.solve_ex(identity(omega) - 0.5 * omega, omega @ w).result)


CAYLEY = Retraction("the Cayley transform of the update's skew part", _core, _dense)
