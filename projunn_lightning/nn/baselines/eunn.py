"""EUNN: the recurrent matrix is a product of layers of Givens rotations."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least
from projunn_lightning.nn._precision import layer_dtype
from projunn_lightning.nn.mapped_rnn import MappedRNN


class EUNN(MappedRNN):
    """The tunable EUNN: each layer of rotations pairs neighbouring coordinates.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        capacity: the number of layers of rotations; N if None, which reaches every unitary matrix.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Source: Jing et al. 2017, "Tunable efficient unitary neural networks (EUNN)", arXiv 1612.05231.
    """

    def __init__(self, *sizes: Any, capacity: int | None = None, **options: Any) -> None:
        make_map = partial(GivensLayers.tunable, capacity=capacity)
        super().__init__(make_map, *sizes, **options)


class FFTEUNN(MappedRNN):
    """The FFT-style EUNN: log2 N layers of rotations pair coordinates at the distances N/2, N/4, .., 1.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Source: Jing et al. 2017, arXiv 1612.05231.
    """

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(GivensLayers.fft, *sizes, **options)


class GivensLayers(nn.Module):
    r"""``F_L ... F_1 D``: layers F of rotations in disjoint planes, and diagonal phases D (complex).

    A rotation acts on a pair of coordinates by ``[[exp(i phi) cos theta, -exp(i phi) sin theta], [sin theta, cos
    theta]]``. A real dtype leaves out the phases phi and D.

    Args:
        size: N, 2 or more.
        layers: the pairs of coordinates that each layer rotates, from F_1 to F_L.
        dtype: the dtype of the matrix, real or complex; complex in torch's default precision if None.
        device: the device of the parameters.

    Parameters: ``theta`` (and ``phi``), one entry a rotation, and ``omega`` ``(N)``, the angles of D; all of them are
    uniform in [-pi, pi) at the start.

    Raises:
        ProjUNNError: if the size is below 2.
    """

    partners: Tensor
    rotation: Tensor
    sign: Tensor

    def __init__(
        self,
        size: int,
        layers: list[list[tuple[int, int]]],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        at_least(2, hidden_size=size)
        self.size = size
        # Each layer is one gather: coordinate i becomes c_i x_i + s_i x_(partner of i).
        partners = torch.arange(size).repeat(len(layers), 1)
        rotation = torch.full((len(layers), size), -1)  # the index of a coordinate's rotation; -1 if it has none
        sign = torch.zeros(len(layers), size)
        count = 0
        for number, pairs in enumerate(layers):
            for first, second in pairs:
                partners[number, first], partners[number, second] = second, first
                rotation[number, first] = rotation[number, second] = count
                sign[number, first], sign[number, second] = -1, 1
                count += 1
        dtype = layer_dtype(dtype, complex=True)
        real = dtype.to_real()
        self.register_buffer("partners", partners.to(device), persistent=False)
        self.register_buffer("rotation", rotation.to(device), persistent=False)
        self.register_buffer("sign", sign.to(real).to(device), persistent=False)
        self.theta = nn.Parameter(torch.empty(count, dtype=real, device=device))
        self.phi = nn.Parameter(torch.empty(count, dtype=real, device=device)) if dtype.is_complex else None
        self.omega = nn.Parameter(torch.empty(size, dtype=real, device=device)) if dtype.is_complex else None
        for angles in self.parameters():
            nn.init.uniform_(angles, -torch.pi, torch.pi)

    @classmethod
    def tunable(cls, size: int, capacity: int | None = None, **options: Any) -> GivensLayers:
        """``capacity`` layers (N if None) that pair neighbours, in turn from the first and from the second coordinate.

        N layers reach every unitary matrix, with its N^2 parameters.

        Raises:
            ProjUNNError: if the capacity is below 1.
        """
        capacity = size if capacity is None else capacity
        at_least(1, capacity=capacity)
        layers = [[(i, i + 1) for i in range(layer % 2, size - 1, 2)] for layer in range(capacity)]
        return cls(size, layers, **options)

    @classmethod
    def fft(cls, size: int, **options: Any) -> GivensLayers:
        """log2 N layers that pair coordinates at the distances N/2, N/4, .., 1.

        Raises:
            ProjUNNError: if the size is not a power of 2.
        """
        if size & (size - 1):
            raise ProjUNNError(f"the FFT-style EUNN takes a hidden_size that is a power of 2, found {size}")
        distances = [size >> (layer + 1) for layer in range(size.bit_length() - 1)]
        layers = [[(i, i + distance) for i in range(size) if not i & distance] for distance in distances]
        return cls(size, layers, **options)

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
        for cosines, sines, partners in zip(c, s, self.partners, strict=True):
            matrix = cosines[:, None] * matrix + sines[:, None] * matrix[partners]
        return matrix
