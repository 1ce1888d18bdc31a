"""An RNN whose recurrent matrix is a function of free parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from projunn_lightning.functional.recurrence import Nonlinearity
from projunn_lightning.nn.elman import ElmanRNN


class MappedRNN(ElmanRNN):
    """:class:`~projunn_lightning.nn.UnitaryRNN` with its recurrent matrices given by modules: the rivals of projUNN.

    The matrix is made once a forward pass and then used as any other, so that all cells share the recurrence.

    Args:
        input_size: features of the input.
        hidden_size: features of the state, N.
        num_layers: layers.
        make_map: makes the module of a layer, which is called without arguments for its matrix ``(N, N)``.
        nonlinearity: see :class:`~projunn_lightning.nn.UnitaryRNN`, as all that follow.
        bias: whether the nonlinearity has a bias.
        batch_first: whether the batch goes before the time.
        dropout: between layers.
        dtype: of input, state and matrix.
        device: of the parameters.

    Raises:
        ValueError: if a size or option is out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        make_map: Callable[[], nn.Module],
        nonlinearity: Nonlinearity = "modrelu",
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity=nonlinearity,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            dtype=dtype,
            device=device,
        )
        self.maps = nn.ModuleList(make_map() for _ in range(num_layers))

    def recurrent_weight(self, layer: int) -> Tensor:
        return self.maps[layer]()
