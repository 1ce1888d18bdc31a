"""The low-rank approximation of an update: a new sampler is a file here and an entry of :data:`SAMPLERS`."""

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from projunn_lightning.errors import ProjUNNError, one_of
from projunn_lightning.functional.sampling.base import Sampler
from projunn_lightning.functional.sampling.column import COLUMN
from projunn_lightning.functional.sampling.lsi import LSI
from projunn_lightning.functional.sampling.subspace import SUBSPACE
from projunn_lightning.functional.sampling.svd import SVD
from projunn_lightning.linalg import Generators, matrices_of

__all__ = ["SAMPLERS", "Sampler", "SamplerName", "rank_k"]

SAMPLERS: dict[str, Sampler] = {
    "lsi": LSI,
    "column": COLUMN,
    "subspace": SUBSPACE,
    "svd": SVD,
}
"""The samplers by name."""

if TYPE_CHECKING:
    SamplerName = str
else:
    SamplerName = Literal[tuple(SAMPLERS)]  # the help of the command shows these choices


def rank_k(
    update: Tensor,
    rank: int,
    sampler: SamplerName = "lsi",
    *,
    generator: Generators = None,
    basis: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Approximate an update at rank k, ``D ~ a b^H``, where b has orthonormal columns.

    Every sampler but ``"svd"`` costs O(k n p).

    Args:
        update: matrices D, ``(*, n, p)``, real or complex, float32 or float64.
        rank: k, from 1 to ``min(n, p)``.
        sampler: a name in :data:`SAMPLERS`: ``"lsi"``, a random sketch of the rows and the projection on its span;
            ``"column"``, the projection on columns drawn by squared length; ``"svd"``, the best approximation
            (Eckart-Young), at cubic cost; ``"subspace"``, one power step from ``basis``, deterministic and close to
            ``"svd"`` when successive updates resemble each other.
        generator: source of the random sketches, on the update's device, or one for each matrix along the first
            dimension; torch's default one if None.
        basis: for ``"subspace"``, the b of the previous update, ``(*, p, k)``; drawn at random if None.

    Returns:
        a ``(*, n, k)`` and b ``(*, p, k)``. A zero matrix gives a = 0; a matrix with a NaN or an infinity gives an a
        that is not finite.

    Raises:
        ProjUNNError: if ``rank`` is out of range, the sampler is unknown, or the basis has another shape.

    Source: Kiani et al. 2022 (LSI and column sampling); the power step is that of PowerSGD (Vogels et
    al. 2019).

    >>> import torch
    >>> update = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0, 4.0]))
    >>> a, b = rank_k(update, rank=1)
    >>> torch.allclose(a @ b.mH, update)
    True
    """
    n, p = update.shape[-2:]
    if not 1 <= rank <= min(n, p):
        raise ProjUNNError(f"rank must be from 1 to min(n, p) = {min(n, p)} for an update {n} x {p}, found {rank}")
    one_of("sampler", sampler, SAMPLERS)
    return SAMPLERS[sampler].sample(matrices_of(update), rank, generator, basis)
