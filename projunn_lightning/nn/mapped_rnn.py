"""An RNN whose recurrent matrix is a function of free parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from projunn_lightning.nn.elman import ElmanRNN


class MappedRNN(ElmanRNN):
    """An Elman RNN whose recurrent matrices are computed by modules; the base class of the baselines.

    A layer computes its matrix once in a forward pass, and then uses it as :class:`~projunn_lightning.nn.UnitaryRNN`
    uses its weight.

    Args:
        make_map: called once for each layer as ``make_map(N, dtype=..., device=...)``. It returns a module that is
            called without arguments and returns the matrix ``(N, N)``.
        sizes: ``input_size, hidden_size, num_layers=1``.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Raises:
        ProjUNNError: if a size or an option is out of range.
    """

    def __init__(self, make_map: Callable[..., nn.Module], *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **options)
        weight_ih = self.weight_ih_l0
        self._make_map = partial(make_map, self.hidden_size, dtype=weight_ih.dtype, device=weight_ih.device)
        self.maps = nn.ModuleList(self._make_map() for _ in range(self.num_layers))

    def recurrent_weight(self, layer: int) -> Tensor:
        return self.maps[layer]()

    def reset_recurrent_parameters(self) -> None:
        for module in self.maps:
            module.load_state_dict(self._make_map().state_dict())
