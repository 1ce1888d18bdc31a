"""The samplers, which approximate an update. A new one is a file in this folder and an entry of :data:`SAMPLERS`."""

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from projunn_lightning.errors import ProjUNNError, one_of
from projunn_lightning.functional.retraction import RETRACTIONS, RetractionName, Rotation
from projunn_lightning.functional.sampling.base import Direction, LowRank, Sampler, Turn, Update
from projunn_lightning.functional.sampling.column import COLUMN
from projunn_lightning.functional.sampling.lsi import LSI
from projunn_lightning.functional.sampling.subspace import SUBSPACE
from projunn_lightning.functional.sampling.svd import SVD
from projunn_lightning.functional.sampling.tangent import TANGENT
from projunn_lightning.linalg import Generators, full_precision, matrices_of

__all__ = [
    "SAMPLERS",
    "Direction",
    "Sampler",
    "SamplerName",
    "Update",
    "rank_k",
    "rotate",
    "sample_tangent",
]

SAMPLERS: dict[str, Sampler] = {
    "tangent": TANGENT,
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


@full_precision()
def rank_k(
    update: Tensor,
    rank: int,
    sampler: SamplerName = "lsi",
    *,
    generator: Generators = None,
    basis: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Approximate an update D at rank k by ``a b^H``, where b has orthonormal columns.

    Every sampler but ``"svd"`` costs O(k n p).

    Args:
        update: matrices D, ``(*, n, p)``, of dtype float32, float64, complex64 or complex128.
        rank: k, from 1 to ``min(n, p)``.
        sampler: ``"lsi"``, a random sketch of the rows and the projection on its span; ``"column"``, the projection on
            columns that are drawn by squared length; ``"svd"``, the best approximation (Eckart-Young), at cubic cost;
            or ``"subspace"``, one power step from ``basis``, which is deterministic and close to ``"svd"`` if
            successive updates are similar. For ``"tangent"``, call :func:`sample_tangent`.
        generator: the source of the random sketches, on the update's device, or one generator for each index of the
            first dimension. If it is None, torch's default generator is used.
        basis: for ``"subspace"``, the b of the previous update, ``(*, p, k)``. If it is None, a random basis is drawn.

    Returns:
        a ``(*, n, k)`` and b ``(*, p, k)``. A zero matrix gives a = 0. A matrix with a NaN or an infinity gives an a
        that is not finite.

    Raises:
        ProjUNNError: if ``rank`` is out of range, the sampler is unknown, or the basis has another shape.

    Source: Kiani et al. 2022 (LSI and column sampling); Vogels et al. 2019 (the power step of PowerSGD).

    >>> import torch
    >>> update = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0, 4.0]))
    >>> a, b = rank_k(update, rank=1)
    >>> torch.allclose(a @ b.mH, update)
    True
    """
    check_rank(rank, update)
    one_of("sampler", sampler, [name for name, each in SAMPLERS.items() if not each.of_tangent])
    matrices = matrices_of(update)
    direction, _ = SAMPLERS[sampler].sample(Update(matrices, matrices), rank, generator, basis)
    assert isinstance(direction, LowRank)
    return direction.a, direction.b


@full_precision()
def sample_tangent(
    weight: Tensor, update: Tensor, rank: int, *, generator: Generators = None, basis: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Approximate the tangent part Omega of an update at rank k by ``A = Q S Q^H``, where S is skew-Hermitian.

    An update D moves a unitary weight W on the manifold by Omega W, where ``Omega = (D W^H - W D^H) / 2``. The rest of
    D is normal to the manifold and does not move the weight. A is the projection of Omega on the skew-Hermitian
    matrices X for which ``u^H X v = 0`` for all u and v orthogonal to the columns of a basis C. A call costs O(k n p).

    Args:
        weight: unitary matrices W, ``(*, n, p)``, of dtype float32, float64, complex64 or complex128.
        update: the update D, of the same shape and dtype.
        rank: k, from 1 to ``min(n, p)``.
        generator: the source of random numbers, as for :func:`rank_k`.
        basis: C, ``(*, max(n, p), k)``, with orthonormal columns. If it is None, C spans a random sketch of Omega, and
            so its strong directions.

    Returns:
        Q ``(*, max(n, p), m)`` and S ``(*, m, m)`` with m at most 2 k. For a wide weight they belong to its conjugate
        transpose. :func:`rotate` applies Q and S to a weight.

    Raises:
        ProjUNNError: if ``rank`` is out of range, or if the shapes do not fit together.

    >>> import torch
    >>> weight, update = torch.eye(4), torch.ones(4, 4)  # symmetric, and so normal to the manifold at the identity
    >>> q, s = sample_tangent(weight, update, rank=2)
    >>> bool(s.abs().max() < 1e-6)
    True
    """
    check_rank(rank, update)
    both = Update(matrices_of(update), matrices_of(weight))
    expected = (*update.shape[:-2], both.rows, rank)
    if weight.shape != update.shape or (basis is not None and basis.shape != expected):
        found = f"{tuple(weight.shape)}, {tuple(update.shape)} and {None if basis is None else tuple(basis.shape)}"
        raise ProjUNNError(f"weight and update must have the same shape and the basis {expected}, found {found}")
    turn, _ = SAMPLERS["tangent"].sample(both, rank, generator, basis)
    assert isinstance(turn, Turn)
    return turn.rotation.q, turn.rotation.s


@full_precision()
def rotate(weight: Tensor, q: Tensor, s: Tensor, retraction: RetractionName = "exponential") -> Tensor:
    """Move unitary matrices along ``A W`` with ``A = Q S Q^H``, and back to the manifold.

    Args:
        weight: unitary matrices W, ``(*, n, p)``.
        q: Q ``(*, max(n, p), m)``, with orthonormal columns.
        s: S ``(*, m, m)``, skew-Hermitian.
        retraction: a name in ``RETRACTIONS``. ``"exponential"`` computes exp(A) W; ``"cayley"`` computes the Cayley
            transform of A, times W; ``"polar"`` computes the nearest unitary matrix to I + A, times W.

    Returns:
        The new weight ``(*, n, p)``.

    Raises:
        ProjUNNError: if the retraction is unknown.

    >>> import torch
    >>> angle = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> rotate(torch.eye(2), torch.eye(2), angle)[0]  # cos 1, -sin 1
    tensor([ 0.5403, -0.8415])
    """
    one_of("retraction", retraction, RETRACTIONS)
    matrices = matrices_of(weight)
    return Turn(Rotation(q, s)).change(RETRACTIONS[retraction], Update(matrices, matrices), 1.0).applied_to(weight)


def check_rank(rank: int, update: Tensor) -> None:
    """Check that a rank is between 1 and the smaller side of an update.

    Raises:
        ProjUNNError: if it is not.
    """
    n, p = update.shape[-2:]
    if not 1 <= rank <= min(n, p):
        raise ProjUNNError(f"rank must be from 1 to min(n, p) = {min(n, p)} for an update {n} x {p}, found {rank}")
