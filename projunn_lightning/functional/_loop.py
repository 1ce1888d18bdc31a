"""The recurrence written as a loop of torch's operators, for everything that its own operator cannot do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from projunn_lightning.functional.modrelu import modrelu


def written_out(
    input: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, nonlinearity: str
) -> Tensor:
    """The same as :func:`~projunn_lightning.functional.recurrence`."""
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
