"""Column sampling: the projection of the update on some of its own columns."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.functional.sampling.base import LowRank, Sampler, Update, project
from projunn_lightning.linalg import Generators, Matrices, draw_


def _sample(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[LowRank, None]:
    d = update.d
    return project(d, d.columns(_drawn_columns(d, rank, generator))), None


def _drawn_columns(update: Matrices, rank: int, generator: Generators) -> Tensor:
    """The indices ``(*, k)`` of columns, drawn without replacement with probabilities proportional to squared length.

    They are drawn by an exponential race: the columns with the largest ``|D_j|^2 / E_j`` win, where the E_j are
    exponentially distributed. Unlike ``torch.multinomial``, the race accepts zero matrices and needs no host
    synchronisation.
    """
    norms = update.column_norms()
    race = norms.square() / draw_(torch.empty_like(norms), Tensor.exponential_, generator)
    return race.topk(rank, dim=-1).indices


COLUMN = Sampler("the projection on columns drawn by squared length (Kiani et al. 2022)", _sample)
