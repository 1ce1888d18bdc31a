"""Products of a large matrix with a thin one, in the order that reads the large one as it lies in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from projunn_lightning.linalg.sharded import Matrices


def times(w: Matrices, x: Tensor) -> Tensor:
    """``W X`` of W ``(*, n, p)``, often the conjugate transpose of a stored matrix, and X ``(*, p, k)`` of few columns.

    A row-major W times a column or many is what BLAS is made for; a transposed W, or a few columns, take up to five
    times as long as the same product transposed. A W that is to be conjugated is not, but X is.
    """
    if not isinstance(w, Tensor):
        return w.times(x)
    if w.stride(-1) == 1 and x.shape[-1] > 6 and not w.is_conj():
        return w @ x.contiguous()
    if w.is_conj():
        return (x.mH.contiguous() @ w.mH).mH
    return (x.mT.contiguous() @ w.mT).mT


def add_product(w: Tensor, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """``W + L R^H`` in one pass, of W ``(*, n, p)``, L ``(*, n, k)`` and R ``(*, p, k)``; into ``out`` if given."""
    if w.ndim == 2:
        return torch.addmm(w, left, right.mH, out=out)
    if w.ndim == 3:
        return torch.baddbmm(w, left, right.mH, out=out)
    return torch.add(w, left @ right.mH, out=out)
