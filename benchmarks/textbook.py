"""projUNN as the paper writes it (Kiani et al. 2022): a straightforward implementation, for comparison.

It takes an SVD of a sketch, a QR decomposition of the n x 2k basis and an eigendecomposition of a 2k x 2k matrix, and
it allocates a new weight.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rank_k(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """LSI sampling: project the update on a random sketch of its columns, and truncate the SVD of the projection."""
    sketch = update @ torch.randn(*update.shape[:-2], update.shape[-1], rank, dtype=update.dtype, device=update.device)
    q = torch.linalg.qr(sketch).Q
    u, s, vh = torch.linalg.svd(q.mH @ update, full_matrices=False)
    return q @ (u * s[..., None, :]), vh.mH


def projunn_d(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``X (X^H X)^(-1/2)`` for ``X = W + a b^H``, where ``X^H X - I`` acts on the span of b and W^H a only."""
    pulled = weight.mH @ a
    q = torch.linalg.qr(torch.cat([b, pulled], dim=-1)).Q
    x = weight + a @ b.mH
    small = q.mH @ (pulled @ (b.mH @ q) + b @ (pulled.mH @ q) + b @ ((a.mH @ a) @ (b.mH @ q)))
    values, vectors = torch.linalg.eigh(small)
    basis = q @ vectors
    return x + (x @ basis) * ((1 + values).rsqrt() - 1)[..., None, :] @ basis.mH


def projunn_t(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``W exp(S)`` for ``S = (W^H a b^H - b a^H W) / 2``, which acts on the span of b and W^H a only."""
    pulled = weight.mH @ a
    q = torch.linalg.qr(torch.cat([b, pulled], dim=-1)).Q
    half = (q.mH @ pulled) @ (b.mH @ q)
    values, vectors = torch.linalg.eig(0.5 * (half - half.mH))
    core = vectors @ torch.diag_embed(values.exp() - 1) @ torch.linalg.inv(vectors)
    core = core if weight.is_complex() else core.real
    return weight + (weight @ q) @ core @ q.mH
