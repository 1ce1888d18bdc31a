"""modReLU, the nonlinearity that changes the modulus and keeps the phase."""

from __future__ import annotations

from torch import Tensor


def modrelu(z: Tensor, bias: Tensor) -> Tensor:
    """``z / |z| * relu(|z| + b)``, and 0 at z = 0, elementwise; for real z the phase is the sign.

    Args:
        z: real or complex, ``(*, N)``.
        bias: b, real, ``(N)``; a negative one is a threshold below which the unit is off.

    Source: Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks".

    >>> import torch
    >>> modrelu(torch.tensor([-3.0, 0.5, 2.0]), torch.tensor([-1.0, -1.0, 1.0]))
    tensor([-2.,  0.,  3.])
    """
    return z.sgn() * (z.abs() + bias).relu()
