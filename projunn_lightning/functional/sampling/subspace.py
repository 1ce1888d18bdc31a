"""Subspace iteration: one power step from the basis of the previous update."""

from __future__ import annotations

from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional.sampling.base import LowRank, Sampler, Update, gaussian, project
from projunn_lightning.linalg import Generators


def _sample(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[LowRank, Tensor]:
    d = update.d
    p = d.shape[-1]
    if basis is None:
        basis = gaussian(d, p, rank, generator)
    elif basis.shape != (*d.shape[:-2], p, rank):
        raise ProjUNNError(f"basis must have shape {(*d.shape[:-2], p, rank)}, found {tuple(basis.shape)}")
    sample = project(d, d.matmul(basis))
    return sample, sample.b


SUBSPACE = Sampler(
    "one power step from the previous update's basis, close to svd where updates resemble each other (Vogels et al. "
    "2019, PowerSGD)",
    _sample,
    basis_rows=lambda update: update.d.shape[-1],
)
