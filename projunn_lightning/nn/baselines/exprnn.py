"""expRNN, dtriv, scoRNN and RGD: a unitary matrix as a function of a skew-Hermitian one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from projunn_lightning.constraint import Constraint, Init, initialise_
from projunn_lightning.errors import ProjUNNError, at_least
from projunn_lightning.functional import newton_schulz


class SkewMap(nn.Module):
    r"""``B f(A)`` with A skew-Hermitian and f the exponential or the Cayley transform; torch's parametrization.

    Args:
        size: N.
        function: f, ``"matrix_exp"`` or ``"cayley"`` (``(I + A/2) (I - A/2)^(-1)``).
        base: B and what becomes of it. ``"identity"``: I (expRNN). ``"signs"``: -1 on the first half of the diagonal,
            1 on the other (scoRNN). ``"moving"``: the product so far, which takes f(A) in, while A begins again at 0,
            every ``period`` forward passes of training (dtriv; RGD with Cayley and period 1, where a step of A is a
            Riemannian gradient step).
        period: for ``"moving"``.
        init: ``"henaff"``, ``"cayley"`` or ``"identity"`` for A, and for ``"moving"`` any, for B; see
            :func:`~projunn_lightning.orthogonal`.
        dtype: of the matrix, real or complex.
        device: of the parameters.

    Parameters: ``matrix.parametrizations.weight.original`` ``(N, N)``, of which A takes the lower triangle:
    N (N - 1) / 2 real parameters, or N^2 of a complex matrix.

    Raises:
        ValueError: if the period is below 1, or the init is no function of a skew matrix that is known.

    Sources: Lezcano-Casado and Martinez-Rubio 2019, arXiv 1901.08428 (expRNN); Lezcano-Casado 2019, arXiv 1909.09501
    (dtriv); Helfrich, Willmott and Ye 2018, arXiv 1707.09520 (scoRNN); Wisdom et al. 2016, arXiv 1611.00035 (RGD).
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
        init: Init = "henaff",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        at_least(1, period=period)
        self.base = base
        self.period = period
        self.matrix = _Matrix(torch.empty(size, size, dtype=dtype, device=device))
        initialise_("matrix.weight", self.matrix.weight, Constraint(), init)
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
                # Torch's setter lets B take f(A) in; the correction keeps rounding from growing with the products.
                self.matrix.weight = newton_schulz(self.matrix.weight.detach())
            self.passes += 1
        matrix = self.matrix.weight
        return self.signs[:, None] * matrix if self.base == "signs" else matrix


class _Matrix(nn.Module):
    """A module to hang torch's parametrization on."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def _generator(rotations: Tensor, function: str, init: str) -> Tensor:
    """Lower triangle X with ``f(X - X^H)`` = the given plane rotations (complex: diagonal phases)."""
    if init not in ("henaff", "cayley", "identity"):
        raise ProjUNNError(f"a skew-Hermitian matrix starts from henaff, cayley or identity, found init {init!r}")
    if rotations.is_complex():
        angles = rotations.diagonal().angle()
        entries = angles if function == "matrix_exp" else 2 * (angles / 2).tan()
        return torch.diag_embed(0.5j * entries)
    angles = torch.atan2(rotations.diagonal(-1), rotations.diagonal()[:-1])
    entries = angles if function == "matrix_exp" else 2 * (angles / 2).tan()
    entries[1::2] = 0  # between the planes
    return torch.diag_embed(entries, offset=-1)
