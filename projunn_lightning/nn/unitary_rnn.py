"""The unitary RNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projunn_lightning.constraint import Init, orthogonal
from projunn_lightning.functional.recurrence import Nonlinearity
from projunn_lightning.nn.elman import ElmanRNN


class UnitaryRNN(ElmanRNN):
    r"""An Elman RNN with orthogonal (real dtype) or unitary (complex dtype) recurrent weights.

    Called and shaped like :class:`torch.nn.RNN`, with ``h_t = f(W_ih x_t + W_hh h_(t-1))``. The constraint on
    ``weight_hh_l*`` is declared here; the :class:`~projunn_lightning.ProjUNN` callback or a
    :class:`~projunn_lightning.Projector` keeps it while training.

    Args:
        input_size: features of the input, I.
        hidden_size: features of the state, N.
        num_layers: layers, L; each reads the states of the one below.
        nonlinearity: f: ``"modrelu"``, ``"relu"``, ``"tanh"`` or ``"identity"``. Of a complex state ``"relu"`` and
            ``"tanh"`` take the real and the imaginary part on their own.
        bias: whether f has a bias: inside modReLU it is the threshold, elsewhere it is added to the input.
        batch_first: input and output are ``(B, T, I)`` and ``(B, T, N)``, otherwise ``(T, B, I)`` and ``(T, B, N)``.
        dropout: probability of dropping an output of each layer but the last.
        init: of the recurrent weights, see :func:`~projunn_lightning.orthogonal`.
        dtype: float32, float64, complex64 or complex128.
        device: of the parameters.

    Parameters, a layer: ``weight_ih_l*`` ``(N, I)``, Xavier-initialised, ``weight_hh_l*`` ``(N, N)`` and ``bias_l*``
    ``(N)``, zero-initialised (modReLU's is real).

    Raises:
        ValueError: if a size or option is out of range.

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
        *,
        nonlinearity: Nonlinearity = "modrelu",
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        init: Init = "henaff",
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
        self.init: Init = init
        for layer in range(num_layers):
            weight_hh = torch.empty(hidden_size, hidden_size, dtype=dtype, device=device)
            self.register_parameter(f"weight_hh_l{layer}", nn.Parameter(weight_hh))
            orthogonal(self, f"weight_hh_l{layer}", init=init)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for layer in range(self.num_layers):
            orthogonal(self, f"weight_hh_l{layer}", init=self.init)

    def recurrent_weight(self, layer: int) -> Tensor:
        return getattr(self, f"weight_hh_l{layer}")
