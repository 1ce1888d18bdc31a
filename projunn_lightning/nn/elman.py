"""The Elman recurrence, which all recurrent layers with a unitary matrix share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least, one_of, probability
from projunn_lightning.functional import Nonlinearity, recurrence
from projunn_lightning.nn._precision import convert_complex

# torch.compile and torch.export cannot trace dtype.to_real().
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class ElmanRNN(nn.Module, ABC):
    r"""``h_t = f(W_ih x_t + W_hh h_(t-1) + b)``, called and shaped like :class:`torch.nn.RNN`.

    Unlike there, ``batch_first`` is true by default, f is modReLU by default, and a layer has one bias.

    This base class holds the input weights, the biases and the options, and runs over a sequence. A subclass holds the
    recurrent matrices: it returns them from :meth:`recurrent_weight` and draws them in
    :meth:`reset_recurrent_parameters`. It declares its own options and hands all others on as ``**options``.

    Args:
        input_size: the number of features of the input, I.
        hidden_size: the number of features of the state, N.
        num_layers: the number of layers, L; each layer reads the states of the layer below.
        nonlinearity: f: ``"modrelu"``, ``"relu"``, ``"tanh"`` or ``"identity"``. For a complex state, ``"relu"`` and
            ``"tanh"`` act on the real and the imaginary part separately.
        bias: whether there is a bias b. With modReLU the bias is the threshold inside f.
        batch_first: if true, input and output are ``(B, T, I)`` and ``(B, T, N)``; otherwise ``(T, B, I)`` and
            ``(T, B, N)``.
        dropout: the probability with which each output of a layer is set to zero in training, for all layers but the
            last.
        dtype: float32, float64, complex64 or complex128.
        device: the device of the parameters.

    Parameters of a layer: ``weight_ih_l*`` ``(N, I)``, above the first layer ``(N, N)``, drawn by Xavier's normal
    distribution, and ``bias_l*`` ``(N)``, zero at the start. The bias of modReLU is real; any other has the dtype of
    the layer.

    Raises:
        ProjUNNError: if a size or an option is out of range, or the nonlinearity is modReLU without a bias.
    """

    weight_ih_l0: Tensor

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
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        at_least(1, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        probability(dropout=dropout)
        one_of("nonlinearity", nonlinearity, get_args(Nonlinearity))
        if nonlinearity == "modrelu" and not bias:
            raise ProjUNNError("modReLU without its bias is the identity: pass nonlinearity='identity' or bias=True")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.nonlinearity: Nonlinearity = nonlinearity
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        bias_dtype = dtype.to_real() if nonlinearity == "modrelu" else dtype
        for layer in range(num_layers):
            inputs = hidden_size if layer else input_size
            weight_ih = torch.empty(hidden_size, inputs, dtype=dtype, device=device)
            self.register_parameter(f"weight_ih_l{layer}", nn.Parameter(weight_ih))
            if bias:
                values = torch.empty(hidden_size, dtype=bias_dtype, device=device)
                self.register_parameter(f"bias_l{layer}", nn.Parameter(values))
        self._reset_input_parameters()

    @abstractmethod
    def recurrent_weight(self, layer: int) -> Tensor:
        """The present recurrent matrix W_hh of a layer, ``(N, N)``."""

    @abstractmethod
    def reset_recurrent_parameters(self) -> None:
        """Draw the parameters of the recurrent matrices anew."""

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self._reset_input_parameters()
        self.reset_recurrent_parameters()

    def _reset_input_parameters(self) -> None:
        for layer in range(self.num_layers):
            weight_ih = getattr(self, f"weight_ih_l{layer}")
            if weight_ih.is_complex():  # the real and the imaginary part have half of the variance each
                nn.init.xavier_normal_(weight_ih.data.real, gain=0.5**0.5)
                nn.init.xavier_normal_(weight_ih.data.imag, gain=0.5**0.5)
            else:
                nn.init.xavier_normal_(weight_ih)
            if self.bias:
                nn.init.zeros_(getattr(self, f"bias_l{layer}"))

    def forward(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a batch of sequences, or over one sequence without a batch dimension.

        Args:
            input: ``(B, T, I)`` (``(T, B, I)`` without ``batch_first``) or ``(T, I)``. A complex layer accepts a real
                input.
            state: the initial state, ``(L, B, N)`` or ``(L, N)``; zeros if None.

        Returns:
            The states of the last layer, with the shape of the input but N features, and the final state of every
            layer, with the shape of ``state``.

        Raises:
            ProjUNNError: if a shape does not fit, or a real layer is given complex numbers.
            TypeError: if the input is not a tensor.
        """
        self._check_input(input, state)
        batched = input.ndim == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        dtype = self.weight_ih_l0.dtype
        real = _REAL.get(dtype, dtype)
        x = x.to(dtype if x.is_complex() else real)  # a real input stays real, because ONNX has no complex numbers
        if state is None:
            states = torch.zeros(self.num_layers, x.shape[1], self.hidden_size, dtype=real, device=x.device)
        else:
            states = (state if batched else state.unsqueeze(1)).to(dtype)
        finals = []
        for layer, initial in enumerate(states.unbind(0)):
            x = self._run_layer(layer, x, initial)
            finals.append(x[-1:])
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = x * F.dropout(torch.ones_like(x.real), self.dropout)  # the same mask for real and imaginary parts
        final = torch.cat(finals)
        if not batched:
            return x.squeeze(1), final.squeeze(1)
        return (x.transpose(0, 1) if self.batch_first else x), final

    def _run_layer(self, layer: int, x: Tensor, state: Tensor) -> Tensor:
        weight_ih, bias = getattr(self, f"weight_ih_l{layer}"), getattr(self, f"bias_l{layer}") if self.bias else None
        return recurrence(x, state, weight_ih, self.recurrent_weight(layer), bias, self.nonlinearity)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(convert_complex(fn), recurse)

    def _check_input(self, input: Tensor, state: Tensor | None) -> None:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name} takes a tensor, found {type(input).__name__}; pad packed sequences first")
        if not self.weight_ih_l0.is_complex() and (input.is_complex() or (state is not None and state.is_complex())):
            raise ProjUNNError(
                f"input and state of a real {name} must be real; give it a complex dtype for complex ones"
            )
        order = "(B, T, I)" if self.batch_first else "(T, B, I)"
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise ProjUNNError(
                f"input must be {order} or (T, I) with I = {self.input_size} features, found {tuple(input.shape)}"
            )
        if input.shape[-2 if input.ndim == 2 or self.batch_first else 0] == 0:
            raise ProjUNNError(f"input must have at least one time step, found {tuple(input.shape)}")
        batch = () if input.ndim == 2 else (input.shape[0 if self.batch_first else 1],)
        expected = (self.num_layers, *batch, self.hidden_size)
        if state is not None and state.shape != expected:
            raise ProjUNNError(f"the initial state must have shape {expected}, found {tuple(state.shape)}")

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, nonlinearity={self.nonlinearity!r}, "
            f"batch_first={self.batch_first}, dtype={self.weight_ih_l0.dtype}"
        )
