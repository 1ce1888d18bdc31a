"""The low-rank approximation of an update: D ~ a b^H, at O(k n p) for every sampler but the exact one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.linalg.dense import times
from projunn_lightning.linalg.sharded import Matrices

Sampler = Literal["lsi", "column", "svd", "subspace"]
Generators = Generator | Sequence[Generator] | None
SAMPLERS: tuple[str, ...] = get_args(Sampler)


def rank_k(
    update: Matrices,
    rank: int,
    sampler: Sampler = "lsi",
    *,
    generator: Generators = None,
    basis: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Approximate an update at rank k, ``D ~ a b^H``, where b has orthonormal columns.

    Args:
        update: matrices D, ``(*, n, p)``, real or complex, float32 or float64.
        rank: k, from 1 to ``min(n, p)``.
        sampler: ``"lsi"``, a random sketch of the rows and the projection on its span; ``"column"``, the projection
            on columns drawn by squared length; ``"svd"``, the best approximation (Eckart-Young), at cubic cost;
            ``"subspace"``, one power step from ``basis``, deterministic and close to ``"svd"`` when successive
            updates resemble each other.
        generator: source of the random sketches, on the update's device, or one for each matrix along the first
            dimension; torch's default one if None.
        basis: for ``"subspace"``, the b of the previous update, ``(*, p, k)``; drawn at random if None.

    Returns:
        a ``(*, n, k)`` and b ``(*, p, k)``. A zero matrix gives a = 0; a matrix with a NaN or an infinity gives an a
        that is not finite.

    Raises:
        ValueError: if ``rank`` is out of range, the sampler is unknown, or the basis has another shape.

    Source: Kiani et al. 2022 (LSI and column sampling); the power step is that of PowerSGD (Vogels et
    al. 2019).

    >>> update = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0, 4.0]))
    >>> a, b = rank_k(update, rank=1)
    >>> torch.allclose(a @ b.mH, update)
    True
    """
    n, p = update.shape[-2:]
    if not 1 <= rank <= min(n, p):
        raise ProjUNNError(f"rank must be from 1 to min(n, p) = {min(n, p)} for an update {n} x {p}, found {rank}")
    if sampler == "svd":
        if not isinstance(update, Tensor):
            raise ProjUNNError("sampler 'svd' needs the whole update on one rank, and it is sharded")
        return _truncated_svd(update, rank)
    if sampler == "lsi":
        b = orthonormalise(times(update.mH, _gaussian(update, n, rank, generator)))
        return times(update, b), b
    if sampler == "column":
        drawn = _drawn_columns(update, rank, generator)
        if isinstance(update, Tensor):
            span = update.gather(-1, drawn[..., None, :].expand(*update.shape[:-1], rank))
        else:
            span = update.columns(drawn)
    elif sampler == "subspace":
        if basis is None:
            basis = _gaussian(update, p, rank, generator)
        elif basis.shape != (*update.shape[:-2], p, rank):
            raise ProjUNNError(f"basis must have shape {(*update.shape[:-2], p, rank)}, found {tuple(basis.shape)}")
        span = times(update, basis)
    else:
        raise ProjUNNError(f"unknown sampler {sampler!r}, expected one of {', '.join(SAMPLERS)}")
    q = orthonormalise(span)
    projected = times(update.mH, q)  # D ~ q q^H D = q projected^H
    b = orthonormalise(projected)
    return q @ (projected.mH @ b), b


def orthonormalise(y: Tensor) -> Tensor:
    """Orthonormal columns that span those of y, ``(*, m, k)``; zero columns are replaced by unit vectors."""
    if y.shape[-1] > 1:
        return torch.linalg.qr(y).Q
    # k = 1: scaled by the largest entry first, so that squares of tiny updates do not underflow.
    largest = y.abs().amax(dim=-2, keepdim=True)
    y = y / torch.where(largest > 0, largest, 1)
    unit = torch.zeros_like(y)
    unit[..., 0, :] = 1
    y = torch.where(largest > 0, y, unit)
    return y / torch.linalg.vector_norm(y, dim=-2, keepdim=True)


def _gaussian(update: Matrices, rows: int, rank: int, generator: Generators) -> Tensor:
    return _drawn(update.new_empty(*update.shape[:-2], rows, rank), Tensor.normal_, generator)


def _drawn_columns(update: Matrices, rank: int, generator: Generators) -> Tensor:
    """Indices ``(*, k)`` of columns drawn without replacement with probability in proportion to squared length.

    An exponential race: the column with the smallest ``E_j / |D_j|^2`` comes first. Unlike ``torch.multinomial`` it
    takes zero matrices and needs no host synchronisation.
    """
    lengths = torch.linalg.vector_norm(update, dim=-2) if isinstance(update, Tensor) else update.column_lengths()
    race = lengths.square() / _drawn(torch.empty_like(lengths), Tensor.exponential_, generator)
    return race.topk(rank, dim=-1).indices


def _drawn(empty: Tensor, draw_: Callable[..., Tensor], generator: Generators) -> Tensor:
    """Filled by ``draw_``, each part along the first dimension by its own generator where there are several."""
    if isinstance(generator, Sequence):
        for part, own in zip(empty, generator, strict=True):
            draw_(part, generator=own)
    else:
        draw_(empty, generator=generator)
    return empty


def _truncated_svd(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    # LAPACK refuses a matrix that is not finite; it gets zeros instead, and the NaN comes back in a.
    finite = torch.isfinite(update).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    u, s, vh = torch.linalg.svd(torch.where(finite, update, 0), full_matrices=False)
    a = u[..., :rank] * s[..., None, :rank]
    return torch.where(finite, a, torch.nan), vh[..., :rank, :].mH
