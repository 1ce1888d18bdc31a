"""The recurrent layers that can be compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import nn

from projunn_lightning.constraint import Init
from projunn_lightning.errors import ProjUNNError, at_least, probability
from projunn_lightning.functional.recurrence import Nonlinearity
from projunn_lightning.nn.baselines import GivensLayers, Householder, PhasesReflectionsFourier, SkewMap
from projunn_lightning.nn.mapped_rnn import MappedRNN
from projunn_lightning.nn.unitary_rnn import UnitaryRNN

Cell = Literal["projunn", "rnn", "gru", "lstm", "eunn", "eunn_fft", "exprnn", "dtriv", "scornn", "ornn", "urnn", "rgd"]
_TORCH: dict[str, Callable[..., nn.Module]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def make_rnn(
    cell: Cell,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    nonlinearity: Nonlinearity | None = None,
    init: Init = "henaff",
    capacity: int | None = None,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """A recurrent layer, called as ``output, state = layer(input, state=None)`` on ``(B, T, input_size)``.

    - ``projunn``: :class:`~projunn_lightning.nn.UnitaryRNN`, its matrix kept unitary by projUNN;
    - ``rnn``, ``gru``, ``lstm``: torch's own modules;
    - ``eunn``, ``eunn_fft``: layers of Givens rotations, :class:`~projunn_lightning.nn.baselines.GivensLayers`;
    - ``exprnn``: exponential of a skew matrix, :class:`~projunn_lightning.nn.baselines.SkewMap`;
    - ``dtriv``: the same around a base that moves every ``capacity`` (100) steps: dynamic trivialisation;
    - ``scornn``: scaled Cayley transform of a skew matrix;
    - ``rgd``: Riemannian gradient descent: a Cayley step on the full matrix (full-capacity uRNN);
    - ``ornn``: ``capacity`` (N) Householder reflections, :class:`~projunn_lightning.nn.baselines.Householder`;
    - ``urnn``: phases, reflections and Fourier transforms, complex,
      :class:`~projunn_lightning.nn.baselines.PhasesReflectionsFourier`.

    Args:
        cell: which one.
        input_size: features of the input.
        hidden_size: features of the state, N.
        num_layers: layers.
        nonlinearity: None for the cell's own: tanh for ``rnn``, modReLU for those with a unitary matrix. ``gru`` and
            ``lstm`` take no other.
        init: of the recurrent matrix, for ``projunn``, ``exprnn``, ``dtriv``, ``scornn`` and ``rgd``.
        capacity: layers L of ``eunn``, reflections of ``ornn``, period of ``dtriv``; None for their own.
        dropout: between layers.
        dtype: float32 or float64, or complex for those with a unitary matrix.

    Raises:
        ValueError: if an option is unknown, out of range, or not for this cell.
    """
    if cell not in get_args(Cell):
        raise ProjUNNError(f"unknown cell {cell!r}, expected one of {', '.join(get_args(Cell))}")
    at_least(1, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
    probability(dropout=dropout)
    if capacity is not None and cell not in ("eunn", "ornn", "dtriv", "eunn_fft"):
        raise ProjUNNError(f"capacity is for eunn, ornn and dtriv, found {capacity} for {cell}")
    if cell in _TORCH:
        return _torchs_own(cell, input_size, hidden_size, num_layers, nonlinearity, dropout, dtype)
    nonlinearity = "modrelu" if nonlinearity is None else nonlinearity
    if cell == "projunn":
        return UnitaryRNN(
            input_size, hidden_size, num_layers, nonlinearity=nonlinearity, init=init, dropout=dropout, dtype=dtype
        )
    return MappedRNN(
        input_size,
        hidden_size,
        num_layers,
        make_map=_map(cell, hidden_size, init, capacity, dtype),
        nonlinearity=nonlinearity,
        dropout=dropout,
        dtype=dtype,
    )


def _torchs_own(
    cell: str,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    nonlinearity: str | None,
    dropout: float,
    dtype: torch.dtype,
) -> nn.Module:
    if dtype.is_complex:
        raise ProjUNNError(f"torch's {cell} is real, found {dtype}; complex is for the cells with a unitary matrix")
    options = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
    if options and (cell != "rnn" or nonlinearity not in ("tanh", "relu")):
        expected = "tanh or relu" if cell == "rnn" else "none"
        raise ProjUNNError(f"torch's {cell} takes nonlinearity {expected}, found {nonlinearity!r}")
    return _TORCH[cell](input_size, hidden_size, num_layers, batch_first=True, dropout=dropout, dtype=dtype, **options)


def _map(cell: str, size: int, init: Init, capacity: int | None, dtype: torch.dtype) -> Callable[[], nn.Module]:
    """What makes the recurrent matrix of a rival."""
    skew = partial(SkewMap, size, init=init, dtype=dtype)
    period = 100 if capacity is None else capacity
    maps: dict[str, Callable[[], nn.Module]] = {
        "eunn": partial(GivensLayers, size, "tunable", capacity, dtype=dtype),
        "eunn_fft": partial(GivensLayers, size, "fft", capacity, dtype=dtype),
        "exprnn": partial(skew, function="matrix_exp", base="identity"),
        "dtriv": partial(skew, function="matrix_exp", base="moving", period=period),
        "scornn": partial(skew, function="cayley", base="signs"),
        "rgd": partial(skew, function="cayley", base="moving", period=1),
        "ornn": partial(Householder, size, capacity, dtype=dtype),
        "urnn": partial(PhasesReflectionsFourier, size, dtype=dtype),
    }
    return maps[cell]
