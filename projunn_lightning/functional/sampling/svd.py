"""The best approximation of the update, by its singular value decomposition."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional.sampling.base import LowRank, Sampler, Update
from projunn_lightning.linalg import Generators


def _sample(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[LowRank, None]:
    whole = update.d.whole()
    if whole is None:
        raise ProjUNNError("sampler 'svd' needs the whole update on one process, and the update is sharded")
    # LAPACK refuses a matrix that is not finite. It gets zeros instead, and a is set to NaN afterwards.
    finite = torch.isfinite(whole).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    u, s, vh = torch.linalg.svd(torch.where(finite, whole, 0), full_matrices=False)
    a = u[..., :rank] * s[..., None, :rank]
    return LowRank(torch.where(finite, a, torch.nan), vh[..., :rank, :].mH), None


SVD = Sampler("the best approximation (Eckart-Young), at cubic cost", _sample, needs_whole=True)
