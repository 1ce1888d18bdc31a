"""modReLU, the nonlinearity that changes the modulus and keeps the phase."""

from __future__ import annotations

from torch import Tensor


def modrelu(z: Tensor, bias: Tensor) -> Tensor:
    """``z / |z| * relu(|z| + b)`` for each entry, and 0 where z = 0. For a real z the phase ``z / |z|`` is the sign.

    Args:
        z: a real or complex tensor ``(*, N)``.
        bias: b, a real tensor ``(N)``. A negative entry is a threshold: the unit is off where ``|z|`` is below ``-b``.

    Returns:
        A tensor of the shape and dtype of ``z``.

    Source: Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks".

    >>> import torch
    >>> modrelu(torch.tensor([-3.0, 0.5, 2.0]), torch.tensor([-1.0, -1.0, 1.0]))
    tensor([-2.,  0.,  3.])
    """
    return z.sgn() * (z.abs() + bias).relu()
