"""The recurrence of an RNN over a whole sequence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def recurrence(drive: Tensor, state: Tensor, weight: Tensor, nonlinearity: Callable[[Tensor], Tensor]) -> Tensor:
    """``h_t = f(x_t + W h_(t-1))`` for t = 1 .. T, with ``x_t`` the projected inputs.

    Args:
        drive: projected inputs x, ``(T, B, N)``.
        state: the initial state ``h_0``, ``(B, N)``.
        weight: W, ``(N, N)``.
        nonlinearity: f, elementwise.

    Returns:
        All states ``h_1 .. h_T``, ``(T, B, N)``.
    """
    states = []
    transposed = weight.mT
    for x in drive.unbind(0):
        state = nonlinearity(torch.addmm(x, state, transposed))
        states.append(state)
    return torch.stack(states)
