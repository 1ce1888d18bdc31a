"""The Elman recurrence, which all recurrent layers with a unitary matrix share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from projunn_lightning.errors import ProjUNNError, at_least, one_of, probability
from projunn_lightning.functional import Nonlinearity, recurrence
from projunn_lightning.nn._packing import Run, pack, run_backward, run_forward, unpack
from projunn_lightning.nn._precision import conversion, layer_dtype

# torch.compile and torch.export cannot trace dtype.to_real().
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
InputInit = Literal["xavier", "kaiming"]


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
        batch_first: if true, input and output are ``(B, T, I)`` and ``(B, T, D N)``; otherwise ``(T, B, I)`` and
            ``(T, B, D N)``.
        dropout: the probability with which each output of a layer is set to zero in training, for all layers but the
            last.
        bidirectional: whether each layer also runs from the last time step to the first, by weights of its own, so
            that the number of directions D is 2 and not 1. The states of both directions are the output of a layer.
        input_init: the normal distribution of the input weights, with I inputs, or D N above the first layer:
            ``"xavier"`` with the variance 2 / (I + N), or ``"kaiming"`` with the variance 2 / I, as the scripts of
            Kiani et al. 2022 and Lezcano-Casado and Martínez-Rubio 2019 have it for images that are read pixel by
            pixel. It is ten times wider where a step has one number.
        dtype: float32, float64, complex64 or complex128; torch's default dtype if None.
        device: the device of the parameters. On the meta device they have no values: ``to_empty`` and
            :meth:`reset_parameters` make the layer as it is made on another device.

    Parameters of a layer: ``weight_ih_l*`` ``(N, I)``, above the first layer ``(N, D N)``, and ``bias_l*`` ``(N)``,
    zero at the start. The bias of modReLU is real; any other has the dtype of the layer. The names of the second
    direction end in ``_reverse``.

    Raises:
        ProjUNNError: if a size, an option or the dtype is out of range, or the nonlinearity is modReLU without a bias;
            while the module is converted, if its new dtype is one with which it cannot compute.

    Second derivatives and the transforms of ``torch.func`` work, by a slower loop over the time steps.
    """

    computes_in_half: ClassVar[bool] = True
    """Whether a real layer can compute in half precision; a subclass that cannot sets it to false."""

    weight_ih_l0: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "modrelu",
        *,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        input_init: InputInit = "xavier",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        at_least(1, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        probability(dropout=dropout)
        one_of("nonlinearity", nonlinearity, get_args(Nonlinearity))
        one_of("input_init", input_init, get_args(InputInit))
        if nonlinearity == "modrelu" and not bias:
            raise ProjUNNError("modReLU without its bias is the identity: pass nonlinearity='identity' or bias=True")
        dtype = layer_dtype(dtype)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.nonlinearity: Nonlinearity = nonlinearity
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.input_init: InputInit = input_init
        bias_dtype = dtype.to_real() if nonlinearity == "modrelu" else dtype
        for index, suffix in enumerate(self._suffixes):
            inputs = input_size if index < self._directions else self._directions * hidden_size
            weight_ih = torch.empty(hidden_size, inputs, dtype=dtype, device=device)
            self.register_parameter(f"weight_ih_{suffix}", nn.Parameter(weight_ih))
            if bias:
                values = torch.empty(hidden_size, dtype=bias_dtype, device=device)
                self.register_parameter(f"bias_{suffix}", nn.Parameter(values))
        self._reset_input_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _suffixes(self) -> list[str]:
        """The ends of the names of parameters, one for each layer and direction, in the order of the state."""
        directions = ("", "_reverse")[: self._directions]
        return [f"l{layer}{direction}" for layer in range(self.num_layers) for direction in directions]

    @abstractmethod
    def recurrent_weight(self, index: int) -> Tensor:
        """The present recurrent matrix W_hh of a layer and a direction, ``(N, N)``.

        Args:
            index: the position of their state in ``hx``: the layer, or ``2 layer + direction`` if the module is
                bidirectional.
        """

    @abstractmethod
    def reset_recurrent_parameters(self) -> None:
        """Draw the parameters of the recurrent matrices anew."""

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self._reset_input_parameters()
        self.reset_recurrent_parameters()

    def _reset_input_parameters(self) -> None:
        for suffix in self._suffixes:
            weight_ih = getattr(self, f"weight_ih_{suffix}")
            outputs, inputs = weight_ih.shape
            variance = 2 / (inputs + outputs if self.input_init == "xavier" else inputs)
            nn.init.normal_(weight_ih, std=variance**0.5)
            if self.bias:
                nn.init.zeros_(getattr(self, f"bias_{suffix}"))

    def flatten_parameters(self) -> None:
        """Do nothing. :class:`torch.nn.RNN` has this method, and programs written for it call it."""

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run over a batch of sequences, or over one sequence without a batch dimension.

        Args:
            input: ``(B, T, I)`` (``(T, B, I)`` without ``batch_first``), ``(T, I)``, or a packed sequence of B
                sequences. A complex layer accepts a real input.
            hx: the initial state, ``(D L, B, N)`` or ``(D L, N)``, in which the directions of a layer follow each
                other; zeros if None.

        Returns:
            The states of the last layer, with the shape of the input but D N features, packed if the input is; and the
            final state of every layer and direction, with the shape of ``hx``.

        Raises:
            ProjUNNError: if the input is neither a tensor nor a packed sequence, a shape does not fit, or a real layer
                is given complex numbers.
        """
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        self._check_input(input, hx)
        batched = input.ndim == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        (states,), final = self._run([x], hx if hx is None or batched else hx.unsqueeze(1))
        if not batched:
            return states.squeeze(1), final.squeeze(1)
        return (states.transpose(0, 1) if self.batch_first else states), final

    def _run_packed(self, input: PackedSequence, hx: Tensor | None) -> tuple[PackedSequence, Tensor]:
        self._check_features(input.data, 2, "(*, I) in a packed sequence")
        self._check_state(hx, (int(input.batch_sizes[0]),))
        if hx is not None and input.sorted_indices is not None:
            hx = hx.index_select(1, input.sorted_indices)
        blocks, final = self._run(unpack(input), hx)
        if input.unsorted_indices is not None:
            final = final.index_select(1, input.unsorted_indices)
        return pack(blocks, input), final

    def _run(self, blocks: list[Tensor], hx: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Run all layers over the blocks ``(t, b, I)`` of a batch, from states ``(D L, B, N)``."""
        dtype = self.weight_ih_l0.dtype
        real = _REAL.get(dtype, dtype)
        # A real input stays real, because ONNX has no complex numbers.
        blocks = [x.to(dtype if x.is_complex() else real) for x in blocks]
        if hx is None:
            shape = (len(self._suffixes), blocks[0].shape[1], self.hidden_size)
            states = torch.zeros(shape, dtype=real, device=blocks[0].device)
        else:
            states = hx.to(dtype)
        initials, finals = states.split(1), []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                blocks = [self._drop(x) for x in blocks]
            outputs = []
            for direction, run in enumerate((run_forward, run_backward)[: self._directions]):
                index = layer * self._directions + direction
                output, final = run(self._recurrence(index), blocks, initials[index])
                outputs.append(output)
                finals.append(final)
            blocks = [torch.cat(both, -1) for both in zip(*outputs, strict=True)] if self.bidirectional else outputs[0]
        return blocks, torch.cat(finals)

    def _drop(self, x: Tensor) -> Tensor:
        return x * F.dropout(torch.ones_like(x.real), self.dropout)  # the same mask for real and imaginary parts

    def _recurrence(self, index: int) -> Run:
        """The recurrence of a layer and a direction. Its recurrent matrix is computed here, once for all blocks."""
        suffix = self._suffixes[index]
        weights = {
            "weight_ih": getattr(self, f"weight_ih_{suffix}"),
            "weight_hh": self.recurrent_weight(index),
            "bias": getattr(self, f"bias_{suffix}") if self.bias else None,
        }
        return partial(recurrence, **weights, nonlinearity=self.nonlinearity)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(conversion(fn, self, half=self.computes_in_half), recurse)

    def _check_input(self, input: Tensor, hx: Tensor | None) -> None:
        if not isinstance(input, Tensor):
            raise ProjUNNError(
                f"{type(self).__name__} takes a tensor or a packed sequence, found {type(input).__name__}"
            )
        order = "(B, T, I)" if self.batch_first else "(T, B, I)"
        self._check_features(input, 3 if input.ndim == 3 else 2, f"{order} or (T, I)")
        if input.shape[-2 if input.ndim == 2 or self.batch_first else 0] == 0:
            raise ProjUNNError(f"input must have at least one time step, found {tuple(input.shape)}")
        self._check_state(hx, () if input.ndim == 2 else (input.shape[0 if self.batch_first else 1],))

    def _check_features(self, input: Tensor, ndim: int, shape: str) -> None:
        if input.ndim != ndim or input.shape[-1] != self.input_size:
            raise ProjUNNError(f"input must be {shape} with I = {self.input_size} features, found {tuple(input.shape)}")
        self._check_real(input)

    def _check_state(self, hx: Tensor | None, batch: tuple[int, ...]) -> None:
        if hx is None:
            return
        expected = (len(self._suffixes), *batch, self.hidden_size)
        if hx.shape != expected:
            raise ProjUNNError(f"the initial state must have shape {expected}, found {tuple(hx.shape)}")
        self._check_real(hx)

    def _check_real(self, tensor: Tensor) -> None:
        if tensor.is_complex() and not self.weight_ih_l0.is_complex():
            name = type(self).__name__
            raise ProjUNNError(
                f"input and state of a real {name} must be real; give it a complex dtype for complex ones"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, nonlinearity={self.nonlinearity!r}, "
            f"batch_first={self.batch_first}, bidirectional={self.bidirectional}, dtype={self.weight_ih_l0.dtype}"
        )
