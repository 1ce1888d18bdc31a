"""The unitary RNN."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from projunn_lightning.errors import one_of
from projunn_lightning.functional import INITS, InitName, Nonlinearity
from projunn_lightning.nn._declaration import declare
from projunn_lightning.nn.elman import ElmanRNN


class UnitaryRNN(ElmanRNN):
    r"""An Elman RNN with orthogonal (real dtype) or unitary (complex dtype) recurrent matrices.

    It is called and shaped like :class:`torch.nn.RNN` and computes ``h_t = f(W_ih x_t + W_hh h_(t-1) + b)``. The layer
    declares the constraint on its weights ``weight_hh_l*``. The :class:`~projunn_lightning.ProjUNN` callback or a
    :class:`~projunn_lightning.Projector` keeps it during training.

    Args:
        input_size: the number of features of the input, I.
        hidden_size: the number of features of the state, N.
        num_layers: the number of layers, L; each layer reads the states of the layer below.
        nonlinearity: f: ``"modrelu"``, ``"relu"``, ``"tanh"`` or ``"identity"``.
        init: the initialisation of the recurrent matrices, see :mod:`projunn_lightning.functional.init`. It chooses the
            determinant of a real matrix, 1 or -1, which training cannot change.
        options: ``bias``, ``batch_first``, ``dropout``, ``bidirectional``, ``dtype`` and ``device``, see
            :class:`~projunn_lightning.nn.ElmanRNN`.

    Parameters of a layer: those of :class:`~projunn_lightning.nn.ElmanRNN`, and ``weight_hh_l*`` ``(N, N)``.

    Raises:
        ProjUNNError: if a size, an option or the dtype is out of range; while the module is converted, if it is complex
            and would be in half precision. A real layer computes in half precision, but it cannot be trained so.

    Second derivatives and the transforms of ``torch.func`` work, by a slower loop over the time steps.

    >>> import torch
    >>> output, state = UnitaryRNN(3, 8)(torch.randn(4, 10, 3))
    >>> output.shape, state.shape
    (torch.Size([4, 10, 8]), torch.Size([1, 4, 8]))
    """

    weight_hh_l0: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "modrelu",
        *,
        init: InitName = "henaff",
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, nonlinearity, **options)
        one_of("init", init, INITS)
        self.init: InitName = init
        for suffix in self._suffixes:
            weight_hh = self.weight_ih_l0.new_empty(hidden_size, hidden_size)
            self.register_parameter(f"weight_hh_{suffix}", nn.Parameter(weight_hh))
        self.reset_recurrent_parameters()

    def recurrent_weight(self, index: int) -> Tensor:
        return getattr(self, f"weight_hh_{self._suffixes[index]}")

    def reset_recurrent_parameters(self) -> None:
        for suffix in self._suffixes:
            declare(self, f"weight_hh_{suffix}", self.init)
