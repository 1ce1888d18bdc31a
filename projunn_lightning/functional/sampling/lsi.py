"""LSI: the projection of the update on a random sketch of its rows."""

from __future__ import annotations

from torch import Tensor

from projunn_lightning.functional.sampling.base import LowRank, Sampler, Update, gaussian
from projunn_lightning.linalg import Generators, orthonormalise


def _sample(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[LowRank, None]:
    """The projection of D on the span of k random combinations of its rows."""
    d = update.d
    b = orthonormalise(d.mH.matmul(gaussian(d, d.shape[-2], rank, generator)))
    return LowRank(d.matmul(b), b), None


LSI = Sampler("a random sketch of the update's rows, and the projection on its span (Kiani et al. 2022)", _sample)
