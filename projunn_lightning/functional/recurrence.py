"""The recurrence of an RNN over a whole sequence."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from projunn_lightning._compat import in_torch_func
from projunn_lightning.errors import ProjUNNError, one_of
from projunn_lightning.functional import _export
from projunn_lightning.functional._loop import written_out
from projunn_lightning.functional._scan import scan

Nonlinearity = Literal["modrelu", "relu", "tanh", "identity"]


def recurrence(
    input: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    nonlinearity: Nonlinearity = "modrelu",
) -> Tensor:
    """The states ``h_t = f(W_ih x_t + W_hh h_(t-1) + b)`` for t = 1 .. T. With modReLU, the bias b is a part of f.

    Args:
        input: x, ``(T, B, I)``. It may be real where the weights are complex.
        state: the initial state ``h_0``, ``(B, N)``. It may be real where the weights are complex.
        weight_ih: the input matrix ``(N, I)``, real or complex.
        weight_hh: the recurrent matrix ``(N, N)``, of the same dtype.
        bias: b, ``(N)``. modReLU needs a bias, and the bias of modReLU is real.
        nonlinearity: f, ``"modrelu"``, ``"relu"``, ``"tanh"`` or ``"identity"``. For complex numbers, ``"relu"`` and
            ``"tanh"`` are applied to the real part and to the imaginary part.

    Returns:
        All states ``h_1 .. h_T``, ``(T, B, N)``.

    Raises:
        ProjUNNError: if the nonlinearity is unknown, or if modReLU has no bias.

    The recurrence is one operator with its own backward pass. The backward pass needs the states, so they must not be
    changed in place before it. With ``create_graph=True``, for second derivatives, and in the transforms of
    ``torch.func``, a slower loop of torch's operators takes the place of the operator. Forward-mode differentiation
    works in ``torch.func`` only. ``torch.export`` replaces the operator by operators of torch that work for any T. With
    ``strict=True`` it exports a loop with the T of the example.
    """
    one_of("nonlinearity", nonlinearity, get_args(Nonlinearity))
    if nonlinearity == "modrelu" and bias is None:
        raise ProjUNNError("modReLU needs a bias; without one it is the identity")
    device = input.device.type
    full = weight_hh.is_complex() or weight_hh.dtype == torch.float64  # autocast leaves these alone, as torch's
    if not full and device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, state, weight_ih, weight_hh = (x.to(dtype) for x in (input, state, weight_ih, weight_hh))
        bias = None if bias is None else bias.to(dtype)
    if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
        return _export.recurrence(input, state, weight_ih, weight_hh, bias, nonlinearity)
    if weight_hh.is_complex():
        input, state = input.to(weight_hh.dtype), state.to(weight_hh.dtype)
    run = written_out if torch.compiler.is_exporting() or in_torch_func() else scan
    return run(input, state, weight_ih, weight_hh, bias, nonlinearity)
