"""uRNN: a unitary matrix as a product of phases, reflections and Fourier transforms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError


class PhasesReflectionsFourier(nn.Module):
    r"""``D_3 R_2 F^(-1) D_2 P R_1 F D_1``.

    D are diagonal phases, R reflections ``I - 2 v v^H / |v|^2``, F the unitary Fourier transform and P a fixed random
    permutation; 7 N real parameters.

    Args:
        size: N.
        dtype: of the matrix, complex.
        device: of the parameters.

    Parameters: ``phases`` ``(3, N)``, uniform in [-pi, pi) at the start, and ``reflections`` ``(2, N)`` complex, with
    parts uniform in [-1, 1).

    Raises:
        ValueError: if the dtype is real.

    Source: Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks", arXiv 1511.06464, equation 6.
    """

    permutation: Tensor

    def __init__(
        self, size: int, *, dtype: torch.dtype = torch.complex64, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if not dtype.is_complex:
            raise ProjUNNError(
                f"the uRNN is unitary: give it a complex dtype (SequenceModel: complex=true), found {dtype}"
            )
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
