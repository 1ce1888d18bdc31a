"""expRNN, dtriv, scoRNN and RGD: the recurrent matrix is a function of a skew-Hermitian matrix."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from projunn_lightning.constraint import Stack, initialise_
from projunn_lightning.errors import ProjUNNError, at_least, one_of
from projunn_lightning.functional import INITS, InitName, newton_schulz
from projunn_lightning.nn._precision import layer_dtype
from projunn_lightning.nn.mapped_rnn import MappedRNN


class ExpRNN(MappedRNN):
    """expRNN: the exponential of a skew-Hermitian matrix.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        init: the initialisation of the matrix: ``"henaff"``, ``"cayley"`` or ``"identity"``.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Source: Lezcano-Casado and Martinez-Rubio 2019, "Cheap orthogonal constraints in neural networks", arXiv 1901.08428.
    """

    def __init__(self, *sizes: Any, init: InitName = "henaff", **options: Any) -> None:
        make_map = partial(SkewMap, function="matrix_exp", base="identity", init=init)
        super().__init__(make_map, *sizes, **options)


class DTriv(MappedRNN):
    """dtriv: the exponential of a skew-Hermitian matrix around a base that moves (dynamic trivialisation).

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        period: the number of training steps between two moves of the base.
        init: the initialisation of the matrix, see :mod:`projunn_lightning.functional.init`. It chooses the determinant
            of a real matrix, 1 or -1, which training cannot change.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Source: Lezcano-Casado 2019, "Trivializations for gradient-based optimization on manifolds", arXiv 1909.09501.
    """

    def __init__(self, *sizes: Any, period: int = 100, init: InitName = "henaff", **options: Any) -> None:
        make_map = partial(SkewMap, function="matrix_exp", base="moving", period=period, init=init)
        super().__init__(make_map, *sizes, **options)


class ScoRNN(MappedRNN):
    """scoRNN: the scaled Cayley transform of a skew-Hermitian matrix.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        init: the initialisation of the matrix, up to its signs: ``"henaff"``, ``"cayley"`` or ``"identity"``.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Source: Helfrich, Willmott and Ye 2018, "Orthogonal recurrent neural networks with scaled Cayley transform",
    arXiv 1707.09520.
    """

    def __init__(self, *sizes: Any, init: InitName = "henaff", **options: Any) -> None:
        make_map = partial(SkewMap, function="cayley", base="signs", init=init)
        super().__init__(make_map, *sizes, **options)


class RGD(MappedRNN):
    """RGD, the full-capacity uRNN: a training step of SGD is a Riemannian gradient step, by the Cayley transform.

    The diagonal of a complex skew-Hermitian matrix moves twice as far as in the paper, in relation to the other
    entries, because torch's parametrization doubles it.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        init: the initialisation of the matrix, see :mod:`projunn_lightning.functional.init`. It chooses the determinant
            of a real matrix, 1 or -1, which training cannot change.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Source: Wisdom et al. 2016, "Full-capacity unitary recurrent neural networks", arXiv 1611.00035.
    """

    def __init__(self, *sizes: Any, init: InitName = "henaff", **options: Any) -> None:
        make_map = partial(SkewMap, function="cayley", base="moving", period=1, init=init)
        super().__init__(make_map, *sizes, **options)


class SkewMap(nn.Module):
    r"""``B f(A)``, where A is skew-Hermitian and f is the exponential or the Cayley transform.

    The parametrization is ``torch.nn.utils.parametrizations.orthogonal``.

    Args:
        size: N.
        function: f, ``"matrix_exp"`` or ``"cayley"`` (``(I + A/2) (I - A/2)^(-1)``).
        base: the choice of B. ``"identity"``: B = I (expRNN). ``"signs"``: B is diagonal, -1 on the first half and 1 on
            the second half (scoRNN). ``"moving"``: after every ``period`` forward passes in training, B becomes
            B f(A) and A becomes 0 (dtriv; with Cayley and period 1 a gradient step of A is a Riemannian gradient step,
            RGD).
        period: the number of forward passes between two moves of a ``"moving"`` base.
        init: the initialisation of the matrix: ``"henaff"``, ``"cayley"`` or ``"identity"``; with a ``"moving"`` base
            also any other of :mod:`projunn_lightning.functional.init`.
        dtype: the dtype of the matrix, real or complex; torch's default dtype if None.
        device: the device of the parameters.

    Parameters: ``matrix.parametrizations.weight.original`` ``(N, N)``. A depends on its lower triangle only, so that
    N (N - 1) / 2 real numbers are free, or N^2 of a complex matrix.

    Raises:
        ProjUNNError: if the period is below 1, or A cannot start from the init.
    """

    passes: Tensor
    signs: Tensor

    def __init__(
        self,
        size: int,
        function: Literal["matrix_exp", "cayley"],
        base: Literal["identity", "signs", "moving"],
        *,
        period: int = 1,
        init: InitName = "henaff",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        dtype = layer_dtype(dtype)
        at_least(1, period=period)
        one_of("init", init, INITS)
        self.base = base
        self.period = operator.index(period)  # refuses a fraction such as 2.5
        self.matrix = _Matrix(torch.empty(size, size, dtype=dtype, device=device))
        initialise_("matrix.weight", self.matrix.weight, Stack(), init)
        moving = base == "moving"
        if not moving:
            self.matrix.weight.data = _generator(self.matrix.weight.data, function, init)
        parametrizations.orthogonal(self.matrix, "weight", orthogonal_map=function, use_trivialization=moving)
        if base == "signs":
            signs = torch.ones(size, dtype=dtype, device=device)
            signs[: size // 2] = -1
            self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Tensor:
        """The matrix, ``(N, N)``."""
        if self.training and torch.is_grad_enabled() and self.base == "moving":
            if self.passes > 0 and self.passes % self.period == 0:
                # The assignment makes its value the new B and sets A to 0. Without the correction by newton_schulz the
                # rounding error would grow with every product.
                self.matrix.weight = newton_schulz(self.matrix.weight.detach())
            self.passes += 1
        matrix = self.matrix.weight
        return self.signs[:, None] * matrix if self.base == "signs" else matrix


class _Matrix(nn.Module):
    """A module with one weight, because torch registers a parametrization on a module."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def _generator(rotations: Tensor, function: str, init: str) -> Tensor:
    """The lower triangle X for which ``f(X - X^H)`` is the given plane rotations (complex: diagonal phases)."""
    if init not in ("henaff", "cayley", "identity"):
        raise ProjUNNError(f"a skew-Hermitian matrix starts from henaff, cayley or identity, found init {init!r}")
    if rotations.is_complex():
        angles = rotations.diagonal().angle()
        entries = angles if function == "matrix_exp" else 2 * (angles / 2).tan()
        return torch.diag_embed(0.5j * entries)
    angles = torch.atan2(rotations.diagonal(-1), rotations.diagonal()[:-1])
    entries = angles if function == "matrix_exp" else 2 * (angles / 2).tan()
    entries[1::2] = 0  # these entries lie between the planes
    return torch.diag_embed(entries, offset=-1)
