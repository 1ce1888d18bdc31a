"""uRNN: the recurrent matrix is a product of phases, reflections and Fourier transforms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.nn._precision import layer_dtype
from projunn_lightning.nn.mapped_rnn import MappedRNN


class URNN(MappedRNN):
    """uRNN: phases, reflections and Fourier transforms; complex.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`; ``dtype`` must be complex.

    Source: Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks", arXiv 1511.06464.
    """

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(PhasesReflectionsFourier, *sizes, **options)


class PhasesReflectionsFourier(nn.Module):
    r"""``D_3 R_2 F^(-1) D_2 P R_1 F D_1``.

    D are diagonal phases, R are reflections ``I - 2 v v^H / |v|^2``, F is the unitary Fourier transform and P is a
    fixed random permutation. There are 7 N real parameters.

    Args:
        size: N.
        dtype: the dtype of the matrix, which must be complex; complex in torch's default precision if None.
        device: the device of the parameters.

    Parameters: ``phases`` ``(3, N)``, uniform in [-pi, pi) at the start, and ``reflections`` ``(2, N)``, complex, with
    real and imaginary parts uniform in [-1, 1) at the start.

    Raises:
        ProjUNNError: if the dtype is real.

    Source: Arjovsky, Shah and Bengio 2016, arXiv 1511.06464, equation 6.
    """

    permutation: Tensor

    def __init__(
        self, size: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        dtype = layer_dtype(dtype, complex=True)
        if not dtype.is_complex:
            raise ProjUNNError(f"the matrix of the uRNN is unitary and needs a complex dtype, found {dtype}")
        angles = torch.empty(3, size, dtype=dtype.to_real(), device=device).uniform_(-torch.pi, torch.pi)
        parts = torch.empty(2, size, 2, dtype=dtype.to_real(), device=device).uniform_(-1, 1)
        self.phases = nn.Parameter(angles)
        self.reflections = nn.Parameter(torch.view_as_complex(parts))
        self.register_buffer("permutation", torch.randperm(size).to(device))

    def forward(self) -> Tensor:
        """The matrix, ``(N, N)``."""
        d1, d2, d3 = torch.polar(torch.ones_like(self.phases), self.phases)[..., None]
        v1, v2 = self.reflections / torch.linalg.vector_norm(self.reflections, dim=1, keepdim=True)
        matrix = torch.fft.fft(torch.diag_embed(d1[:, 0]), dim=0, norm="ortho")
        matrix = _reflected(matrix, v1)[self.permutation]
        matrix = torch.fft.ifft(d2 * matrix, dim=0, norm="ortho")
        return d3 * _reflected(matrix, v2)


def _reflected(matrix: Tensor, v: Tensor) -> Tensor:
    return matrix - 2 * torch.outer(v, v.conj() @ matrix)
