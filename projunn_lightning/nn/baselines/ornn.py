"""oRNN: an orthogonal matrix as a product of Householder reflections."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError


class Householder(nn.Module):
    r"""``H(u_1) ... H(u_m)`` with ``H(u) = I - 2 u u^H / |u|^2``, where the first k - 1 entries of ``u_k`` are zero.

    As one product, ``I - V T^(-1) V^H`` with V = [u_1, .., u_m] and T the upper triangle of V^H V, its diagonal halved.
    ``torch.nn.utils.parametrizations.orthogonal`` has this for m = N and real matrices alone.

    Args:
        size: N.
        reflections: m, 1 to N; N if None.
        dtype: of the matrix, real or complex.
        device: of the parameters.

    Parameters: ``entries`` ``(m (2 N - m + 1) / 2)``, what may differ from zero in V, normal at the start.

    Raises:
        ValueError: if m is not from 1 to N.

    Source: Mhammedi et al. 2017, "Efficient orthogonal parametrisation of recurrent neural networks using Householder
    reflections", arXiv 1612.00188.
    """

    positions: Tensor

    def __init__(
        self,
        size: int,
        reflections: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        m = size if reflections is None else reflections
        if not 1 <= m <= size:
            raise ProjUNNError(
                f"capacity, the number of reflections, must be from 1 to hidden_size = {size}, found {m}"
            )
        self.shape = (size, m)
        self.register_buffer("positions", torch.tril_indices(size, m, device=device), persistent=False)
        self.entries = nn.Parameter(torch.randn(self.positions.shape[1], dtype=dtype, device=device))

    def forward(self) -> Tensor:
        """The matrix, ``(N, N)``."""
        v = self.entries.new_zeros(self.shape).index_put(tuple(self.positions), self.entries)
        v = v / torch.linalg.vector_norm(v, dim=0)
        gram = v.mH @ v
        t = gram.triu(1) + torch.diag_embed(gram.diagonal() / 2)
        eye = torch.eye(self.shape[0], dtype=v.dtype, device=v.device)
        return eye - v @ torch.linalg.solve_triangular(t, v.mH, upper=True)
