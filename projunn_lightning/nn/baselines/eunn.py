"""EUNN: a unitary matrix as layers of Givens rotations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least


class GivensLayers(nn.Module):
    r"""``F_L ... F_1 D``: layers F of rotations in disjoint planes, and diagonal phases D (complex).

    A rotation acts on a pair of coordinates by ``[[exp(i phi) cos theta, -exp(i phi) sin theta], [sin theta, cos
    theta]]``; a real dtype leaves out the phases phi and D. ``"tunable"`` pairs neighbours, in turn from the first and
    from the second coordinate on; with L = N layers it reaches every unitary matrix, by its N^2 parameters. ``"fft"``
    pairs coordinates at distances N/2, N/4, .., 1 in log2 N layers.

    Args:
        size: N.
        style: ``"tunable"`` or ``"fft"``.
        capacity: L, for ``"tunable"``; N if None.
        dtype: of the matrix, real or complex.
        device: of the parameters.

    Parameters: ``theta`` (and ``phi``), one a rotation, uniform in [-pi, pi) at the start, and ``omega`` ``(N)``, the
    angles of D.

    Raises:
        ValueError: if the size is below 2 or the capacity below 1, or ``"fft"`` is given a capacity, or a size that is
            no power of 2.

    Source: Jing et al. 2017, "Tunable efficient unitary neural networks (EUNN)", arXiv 1612.05231.
    """

    partners: Tensor
    rotation: Tensor
    sign: Tensor

    def __init__(
        self,
        size: int,
        style: Literal["tunable", "fft"] = "tunable",
        capacity: int | None = None,
        *,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        at_least(2, hidden_size=size)
        self.size = size
        layers = _fft_pairs(size, capacity) if style == "fft" else _neighbours(size, capacity)
        # Each layer is one gather: coordinate i becomes c_i x_i + s_i x_(partner of i).
        partners = torch.arange(size).repeat(len(layers), 1)
        rotation = torch.full((len(layers), size), -1)  # which rotation a coordinate takes part in
        sign = torch.zeros(len(layers), size)
        count = 0
        for number, pairs in enumerate(layers):
            for first, second in pairs:
                partners[number, first], partners[number, second] = second, first
                rotation[number, first] = rotation[number, second] = count
                sign[number, first], sign[number, second] = -1, 1
                count += 1
        self.register_buffer("partners", partners.to(device), persistent=False)
        self.register_buffer("rotation", rotation.to(device), persistent=False)
        self.register_buffer("sign", sign.to(dtype.to_real()).to(device), persistent=False)
        real = dtype.to_real()
        self.theta = nn.Parameter(torch.empty(count, dtype=real, device=device))
        self.phi = nn.Parameter(torch.empty(count, dtype=real, device=device)) if dtype.is_complex else None
        self.omega = nn.Parameter(torch.empty(size, dtype=real, device=device)) if dtype.is_complex else None
        for angles in self.parameters():
            nn.init.uniform_(angles, -torch.pi, torch.pi)

    def forward(self) -> Tensor:
        """The matrix, ``(N, N)``."""
        paired = self.rotation >= 0
        theta = torch.where(paired, self.theta[self.rotation], 0)
        c, s = theta.cos(), self.sign * theta.sin()
        if self.phi is not None:
            first = self.sign < 0
            phase = torch.where(first, self.phi[self.rotation], 0)
            phases = torch.polar(torch.ones_like(phase), phase)
            c, s = c * phases, s * phases
        diagonal = torch.ones_like(c[0]) if self.omega is None else torch.polar(torch.ones_like(self.omega), self.omega)
        matrix = torch.diag_embed(diagonal)
        for own, other, partners in zip(c, s, self.partners, strict=True):
            matrix = own[:, None] * matrix + other[:, None] * matrix[partners]
        return matrix


def _neighbours(size: int, capacity: int | None) -> list[list[tuple[int, int]]]:
    capacity = size if capacity is None else capacity
    at_least(1, capacity=capacity)
    return [[(i, i + 1) for i in range(layer % 2, size - 1, 2)] for layer in range(capacity)]


def _fft_pairs(size: int, capacity: int | None) -> list[list[tuple[int, int]]]:
    if size & (size - 1):
        raise ProjUNNError(f"the FFT-style EUNN takes a hidden_size that is a power of 2, found {size}")
    if capacity is not None:
        raise ProjUNNError(f"the FFT-style EUNN has log2 N layers; leave out capacity, found {capacity}")
    distances = [size >> (layer + 1) for layer in range(size.bit_length() - 1)]
    return [[(i, i + distance) for i in range(size) if not i & distance] for distance in distances]
