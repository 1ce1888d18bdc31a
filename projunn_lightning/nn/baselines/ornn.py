"""oRNN: the recurrent matrix is a product of Householder reflections."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.nn._precision import layer_dtype
from projunn_lightning.nn.mapped_rnn import MappedRNN


class ORNN(MappedRNN):
    """oRNN: a product of Householder reflections.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        reflections: the number of reflections, from 1 to N; N if None. The determinant of a real matrix is 1 if it is
            even, and -1 if it is odd.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.

    Source: Mhammedi et al. 2017, "Efficient orthogonal parametrisation of recurrent neural networks using Householder
    reflections", arXiv 1612.00188.
    """

    def __init__(self, *sizes: Any, reflections: int | None = None, **options: Any) -> None:
        make_map = partial(Householder, reflections=reflections)
        super().__init__(make_map, *sizes, **options)


class Householder(nn.Module):
    r"""``H(u_1) ... H(u_m)`` with ``H(u) = I - 2 u u^H / |u|^2``, where the first k - 1 entries of ``u_k`` are zero.

    The product is computed as ``I - V T^(-1) V^H``, where V = [u_1, .., u_m] and T is the upper triangle of V^H V with
    its diagonal halved. ``torch.nn.utils.parametrizations.orthogonal`` can do this for real matrices and m = N only.

    Args:
        size: N.
        reflections: m, from 1 to N; N if None.
        dtype: the dtype of the matrix, real or complex; torch's default dtype if None.
        device: the device of the parameters.

    Parameters: ``entries`` ``(m (2 N - m + 1) / 2)``, the entries of V that are not fixed at zero; normal at the start.

    Raises:
        ProjUNNError: if m is not from 1 to N.
    """

    positions: Tensor

    def __init__(
        self,
        size: int,
        reflections: int | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        dtype = layer_dtype(dtype)
        m = size if reflections is None else reflections
        if not 1 <= m <= size:
            raise ProjUNNError(f"reflections must be from 1 to hidden_size = {size}, found {m}")
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
