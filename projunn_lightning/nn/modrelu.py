"""modReLU as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projunn_lightning.functional import modrelu


class ModReLU(nn.Module):
    """:func:`~projunn_lightning.functional.modrelu` with one learnable bias for each feature; zero at the start.

    Args:
        features: the number of features, N.
        dtype: the dtype of the bias, which is real also for a complex input; torch's default dtype if None.
        device: the device of the bias.
    """

    def __init__(
        self, features: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(features, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the bias to zero."""
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Apply modReLU to ``(*, N)``, real or complex."""
        return modrelu(input, self.bias)

    def extra_repr(self) -> str:
        return str(self.bias.numel())
