"""How a change of precision reaches complex parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def taking_complex_along(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The conversion of ``Module._apply`` where ``double()`` and the like would change real parameters alone."""

    def convert(tensor: Tensor) -> Tensor:
        if not tensor.is_complex():
            return fn(tensor)
        real = fn(torch.empty(0, dtype=tensor.real.dtype, device=tensor.device))
        return fn(tensor).to(real.dtype.to_complex())

    return convert
