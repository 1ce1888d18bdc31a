"""The dense formulas with which every fast path is compared, and Hypothesis strategies for their inputs."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from projunn_lightning.functional import init, nearest_unitary


def tangent(weight: Tensor, update: Tensor) -> Tensor:
    """exp(A) W with A = (D W^H - W D^H) / 2, by the dense matrix exponential."""
    if weight.shape[-2] < weight.shape[-1]:
        return tangent(weight.mH, update.mH).mH
    return torch.matrix_exp(_skew(weight, update)) @ weight


def direct(weight: Tensor, update: Tensor) -> Tensor:
    """The polar factor of W + D, by the SVD."""
    return nearest_unitary(weight + update)


def cayley(weight: Tensor, update: Tensor) -> Tensor:
    """(I - A/2)^-1 (I + A/2) W, by a dense solve."""
    if weight.shape[-2] < weight.shape[-1]:
        return cayley(weight.mH, update.mH).mH
    a = _skew(weight, update)
    identity = torch.eye(a.shape[-1], dtype=a.dtype)
    return torch.linalg.solve(identity - a / 2, (identity + a / 2) @ weight)


def _skew(weight: Tensor, update: Tensor) -> Tensor:
    x = update @ weight.mH
    return (x - x.mH) / 2


def tangent_sample(weight: Tensor, update: Tensor, basis: Tensor) -> Tensor:
    """The tangent sample of Omega for an orthonormal basis C: Omega - R Omega R with R = I - C C^H.

    The sample leaves out the part of Omega that acts between vectors orthogonal to C.
    """
    w, d = (weight.mH, update.mH) if weight.shape[-2] < weight.shape[-1] else (weight, update)
    omega = _skew(w, d)
    rest = torch.eye(omega.shape[-1], dtype=omega.dtype) - basis @ basis.mH
    return omega - rest @ omega @ rest


def along(retraction: str, weight: Tensor, a: Tensor) -> Tensor:
    """The weight W, moved along A W by a dense skew-Hermitian A."""
    if weight.shape[-2] < weight.shape[-1]:
        return along(retraction, weight.mH, a).mH
    identity = torch.eye(a.shape[-1], dtype=a.dtype)
    if retraction == "polar":
        return nearest_unitary(identity + a) @ weight
    if retraction == "exponential":
        return torch.matrix_exp(a) @ weight
    return torch.linalg.solve(identity - a / 2, (identity + a / 2) @ weight)


ORACLES = {"exponential": tangent, "polar": direct, "cayley": cayley}

SHAPES = [(12, 12), (20, 12), (12, 20), (13, 12), (2, 3, 9, 9)]
DTYPES = [torch.float64, torch.complex128]


def random_weight(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return init.haar_(torch.empty(shape, dtype=dtype))


def random_update(shape: tuple[int, ...], dtype: torch.dtype, rank: int, norm: float) -> tuple[Tensor, Tensor]:
    """Factors a and b. The product a b^H has the given Frobenius norm, and b has orthonormal columns."""
    a = torch.randn(*shape[:-1], rank, dtype=dtype)
    a = a * (norm / torch.linalg.matrix_norm(a)[..., None, None])
    return a, torch.linalg.qr(torch.randn(*shape[:-2], shape[-1], rank, dtype=dtype)).Q


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)
norms = st.one_of(st.just(0.0), st.floats(-8, 1).map(lambda e: 10.0**e))
seeds = st.integers(0, 2**31)
