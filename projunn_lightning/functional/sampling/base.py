"""What the samplers share: their record, and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from projunn_lightning.linalg import Generators, Matrices, draw_, orthonormalise

Sample = tuple[Tensor, Tensor]
"""a ``(*, n, k)`` and b ``(*, p, k)`` with ``D ~ a b^H``, where b has orthonormal columns."""


@dataclass(frozen=True)
class Sampler:
    """A way to approximate an update D at rank k.

    Attributes:
        summary: what it computes, in one line for help texts and tables.
        sample: takes D, k, the random numbers and the basis (None at first) to a sample.
        keeps_basis: whether the b of a sample is the basis of the next one.
        needs_whole: whether one process has to hold all of D.
    """

    summary: str
    sample: Callable[[Matrices, int, Generators, Tensor | None], Sample]
    keeps_basis: bool = False
    needs_whole: bool = False


def project(update: Matrices, span: Tensor) -> Sample:
    """The sample ``D ~ q q^H D``, the projection of D on the span of some of its columns ``(*, n, k)``."""
    q = orthonormalise(span)
    projected = update.mH.matmul(q)
    b = orthonormalise(projected)
    return q @ (projected.mH @ b), b


def gaussian(update: Matrices, rows: int, rank: int, generator: Generators) -> Tensor:
    """Normal random numbers ``(*, rows, rank)``."""
    return draw_(update.new_empty(*update.shape[:-2], rows, rank), Tensor.normal_, generator)
