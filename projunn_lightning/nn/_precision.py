"""The conversion of complex parameters when a module changes its precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def convert_complex(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Extend a conversion of ``Module._apply``, such as that of ``double()``, to complex tensors.

    Torch's own conversions leave complex tensors in the precision that they have.
    """

    def convert(tensor: Tensor) -> Tensor:
        if not tensor.is_complex():
            return fn(tensor)
        real = fn(torch.empty(0, dtype=tensor.real.dtype, device=tensor.device))
        return fn(tensor).to(real.dtype.to_complex())

    return convert
