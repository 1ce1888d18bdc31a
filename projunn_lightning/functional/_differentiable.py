"""Gradients that autograd can differentiate again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of ``function(*inputs)`` for a backward pass with ``create_graph=True``.

    An operator with a backward pass of its own calls this function there if gradients are enabled.

    Args:
        function: the operator, written in operations that autograd knows.
        inputs: the inputs of the operator.
        needed: whether the gradient of each input is needed.
        grad: the gradient of the output.

    Returns:
        A gradient for each input; None where none is needed.
    """
    # One input may depend on another, as where a layer is applied twice. Without the views, autograd would follow the
    # path between them here, and a second time where the path belongs.
    views = [x if x is None else x.view_as(x) for x in inputs]
    wanted = [x for x, asked in zip(views, needed, strict=True) if asked and x is not None]
    with torch.autocast(grad.device.type, enabled=False):
        found = iter(torch.autograd.grad(function(*views), wanted, grad, create_graph=True))
    return tuple(next(found) if asked else None for asked in needed)
