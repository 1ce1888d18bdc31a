"""The recurrence of an RNN over a whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from projunn_lightning.errors import ProjUNNError, one_of
from projunn_lightning.functional import _export
from projunn_lightning.functional._scan import scan
from projunn_lightning.functional.modrelu import modrelu

Nonlinearity = Literal["modrelu", "relu", "tanh", "identity"]


def recurrence(
    input: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    nonlinearity: Nonlinearity = "modrelu",
) -> Tensor:
    """``h_t = f(W_ih x_t + W_hh h_(t-1) + b)`` for t = 1 .. T; with modReLU b is inside f.

    Args:
        input: x, ``(T, B, I)``; where the weights are complex it may be real.
        state: the initial state ``h_0``, ``(B, N)``, likewise.
        weight_ih: ``(N, I)``.
        weight_hh: ``(N, N)``.
        bias: b, ``(N)``; modReLU needs one, which is real.
        nonlinearity: f, ``"modrelu"``, ``"relu"``, ``"tanh"`` or ``"identity"``. Of complex numbers ``"relu"`` and
            ``"tanh"`` take the real and the imaginary part on their own.

    Returns:
        All states ``h_1 .. h_T``, ``(T, B, N)``.

    Raises:
        ValueError: if the nonlinearity is unknown, or modReLU has no bias.

    It is one operator with its own backward pass, which needs the states: they must not be changed in place before it.
    There is no second derivative, and ``torch.func`` cannot transform it. In a model that is being exported it consists
    of torch's operators alone, for any T; under ``strict=True`` as the loop written out, for the T of the example.
    """
    one_of("nonlinearity", nonlinearity, get_args(Nonlinearity))
    if nonlinearity == "modrelu" and bias is None:
        raise ProjUNNError("modReLU needs a bias; without one it is the identity")
    device = input.device.type
    full = weight_hh.is_complex() or weight_hh.dtype == torch.float64  # as torch's own layers, which autocast leaves so
    if not full and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, state, weight_ih, weight_hh = (x.to(dtype) for x in (input, state, weight_ih, weight_hh))
        bias = None if bias is None else bias.to(dtype)
    if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
        return _export.recurrence(input, state, weight_ih, weight_hh, bias, nonlinearity)
    if weight_hh.is_complex():
        input, state = input.to(weight_hh.dtype), state.to(weight_hh.dtype)
    run = written_out if torch.compiler.is_exporting() else scan
    return run(input, state, weight_ih, weight_hh, bias, nonlinearity)


def written_out(
    input: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, nonlinearity: str
) -> Tensor:
    """:func:`recurrence` as a loop."""
    function: Callable[[Tensor], Tensor]
    if nonlinearity == "modrelu":
        assert bias is not None
        drive, function = F.linear(input, weight_ih), partial(modrelu, bias=bias)
    else:
        drive, function = F.linear(input, weight_ih, bias), _by_parts(nonlinearity)
    states = []
    for x in drive.unbind(0):
        state = function(torch.addmm(x, state, weight_hh.mT))
        states.append(state)
    return torch.stack(states)


def _by_parts(nonlinearity: str) -> Callable[[Tensor], Tensor]:
    functions: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh, "identity": lambda z: z}
    function = functions[nonlinearity]
    return lambda z: torch.view_as_complex(function(torch.view_as_real(z))) if z.is_complex() else function(z)
