"""An RNN whose recurrent matrix is a function of free parameters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from projunn_lightning.nn.elman import ElmanRNN


class MappedRNN(ElmanRNN):
    """An Elman RNN whose recurrent matrices are computed by modules; the base class of the baselines.

    A layer computes its matrix once in a forward pass, and then uses it as :class:`~projunn_lightning.nn.UnitaryRNN`
    uses its weight.

    Args:
        make_map: called once for each layer and direction as ``make_map(N, dtype=..., device=...)``. It returns a
            module that is called without arguments and returns the matrix ``(N, N)``.
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Raises:
        ProjUNNError: if a size, an option or the dtype is out of range; while the module is converted, if it would be
            in half precision, in which the matrices cannot be computed.
    """

    computes_in_half = False

    def __init__(self, make_map: Callable[..., nn.Module], *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self._make_map = make_map
        self.maps = nn.ModuleList(self._new_map() for _ in self._suffixes)

    def _new_map(self) -> nn.Module:
        weight = self.weight_ih_l0
        if not weight.is_meta:
            return self._make_map(self.hidden_size, dtype=weight.dtype, device=weight.device)
        with torch.device("cpu"):  # for torch's parametrizations and for tables of indices, which need values
            return self._make_map(self.hidden_size, dtype=weight.dtype, device="cpu").to("meta")

    def recurrent_weight(self, index: int) -> Tensor:
        return self.maps[index]()

    @torch.no_grad()
    def reset_recurrent_parameters(self) -> None:
        for module in self.maps:
            new = self._new_map()
            # Unlike the state dict, these include the buffers that are not persistent, which to_empty empties too.
            for old, fresh in zip(_tensors(module), _tensors(new), strict=True):
                old.copy_(fresh)


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
