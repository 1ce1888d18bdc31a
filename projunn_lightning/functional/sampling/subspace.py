"""Subspace iteration: one power step from the basis of the previous update."""

from __future__ import annotations

from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional.sampling.base import Sample, Sampler, gaussian, project
from projunn_lightning.linalg import Generators, Matrices


def _sample(update: Matrices, rank: int, generator: Generators, basis: Tensor | None) -> Sample:
    p = update.shape[-1]
    if basis is None:
        basis = gaussian(update, p, rank, generator)
    elif basis.shape != (*update.shape[:-2], p, rank):
        raise ProjUNNError(f"basis must have shape {(*update.shape[:-2], p, rank)}, found {tuple(basis.shape)}")
    return project(update, update.matmul(basis))


SUBSPACE = Sampler(
    "one power step from the previous update's basis, close to svd where updates resemble each other (Vogels et al. "
    "2019, PowerSGD)",
    _sample,
    keeps_basis=True,
)
