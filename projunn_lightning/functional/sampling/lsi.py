"""LSI: a random sketch of the update's rows."""

from __future__ import annotations

from torch import Tensor

from projunn_lightning.functional.sampling.base import Sample, Sampler, gaussian
from projunn_lightning.linalg import Generators, Matrices, orthonormalise


def _sample(update: Matrices, rank: int, generator: Generators, basis: Tensor | None) -> Sample:
    """The projection of D on the span of k random combinations of its rows."""
    b = orthonormalise(update.mH.matmul(gaussian(update, update.shape[-2], rank, generator)))
    return update.matmul(b), b


LSI = Sampler("a random sketch of the update's rows, and the projection on its span (Kiani et al. 2022)", _sample)
