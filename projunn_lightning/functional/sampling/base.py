"""The classes and functions that all samplers use: the update, the directions that they return, and sketches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from projunn_lightning.functional.retraction import Change, Retraction, Rotation, skew_part
from projunn_lightning.linalg import Generators, Matrices, draw_, generator_for, orthonormalise


@dataclass(frozen=True)
class Update:
    r"""An optimizer's update D of a unitary weight W.

    D moves W on the manifold by Omega W, where ``Omega = (D W^H - W D^H) / 2`` is skew-Hermitian. The rest of D is
    normal to the manifold. A wide weight is handled through its conjugate transpose.

    Attributes:
        d: D ``(*, n, p)``.
        w: W ``(*, n, p)``.
        skew: whether D is given in skew coordinates. D is square then, and moves W by W Omega with
            ``Omega = (D - D^H) / 2``.
    """

    d: Matrices
    w: Matrices
    skew: bool = False

    @property
    def rows(self) -> int:
        """The number of rows of Omega, which is the larger side of the weight."""
        return max(self.d.shape[-2:])

    def omega(self, x: Tensor, pulled: Tensor | None = None) -> Tensor:
        """``Omega X`` for a thin X ``(*, rows, k)``, by two products with D and, unless D is skew, two with W.

        One of these is ``W^H X``. A caller that has it passes it as ``pulled``, which a skew D does not need.
        """
        d, w = self.d.tall(), self.w.tall()
        if self.skew:
            return 0.5 * (d.matmul(x) - d.mH.matmul(x))
        pulled = w.mH.matmul(x) if pulled is None else pulled
        return 0.5 * (d.matmul(pulled) - w.matmul(d.mH.matmul(x)))

    def dense_omega(self, d: Tensor, w: Tensor) -> Tensor:
        """The whole Omega ``(*, rows, rows)``, from the whole tall D and W."""
        x = d if self.skew else d @ w.mH
        return 0.5 * (x - x.mH)

    def energy(self) -> Tensor:
        """``|D|_F^2`` over all matrices at each index of the first dimension, ``(G,)``."""
        return self.d.column_norms().square().flatten(1).sum(1)

    def tangent_energy(self) -> Tensor:
        """An unbiased estimate of ``|Omega|_F^2`` over all matrices at each index of the first dimension, ``(G,)``.

        Omega is multiplied by 16 random vectors, so that it need not be formed.
        """
        generator = generator_for("tangent energy", self.d.device)  # all processes of a sharded weight draw the same
        probes = self.d.new_empty(*self.d.shape[:-2], self.rows, 16).normal_(generator=generator)
        return self.omega(probes).abs().square().flatten(1).sum(1) / 16


class LowRank(NamedTuple):
    """The approximation of an update D by ``a b^H``.

    Attributes:
        a: ``(*, n, k)``.
        b: ``(*, p, k)``, with orthonormal columns.
    """

    a: Tensor
    b: Tensor

    def change(self, retraction: Retraction, update: Update, divider: float | Tensor) -> Change:
        """The change of the weight by the approximation, divided by the divider."""
        if update.skew:
            return _rotated(retraction, update, skew_part(self.a / divider, self.b))
        return retraction.along(update.w, self.a / divider, self.b)

    def is_zero(self) -> Tensor:
        """Whether the approximation is zero, at each index of the first dimension; ``(G,)`` of dtype bool."""
        return (self.a == 0).flatten(1).all(1)

    def energy_kept(self, update: Update) -> Tensor:
        """The share ``|a b^H|_F^2 / |D|_F^2``, ``(G,)``."""
        return self.a.abs().square().flatten(1).sum(1) / update.energy()


class Turn(NamedTuple):
    """The approximation of an update's tangent part Omega by ``A = Q S Q^H``.

    Attributes:
        rotation: Q and S.
        pulled: ``W^H`` times the first columns of Q, if it is known.
    """

    rotation: Rotation
    pulled: Tensor | None = None

    def change(self, retraction: Retraction, update: Update, divider: float | Tensor) -> Change:
        """The change of the weight by the approximation, divided by the divider."""
        change = _rotated(retraction, update, Rotation(self.rotation.q, self.rotation.s / divider), self.pulled)
        return change.mH() if update.w.shape[-2] < update.w.shape[-1] else change

    def is_zero(self) -> Tensor:
        """Whether the approximation is zero, at each index of the first dimension; ``(G,)`` of dtype bool."""
        return (self.rotation.s == 0).flatten(1).all(1)

    def energy_kept(self, update: Update) -> Tensor:
        """An estimate of the share ``|A|_F^2 / |Omega|_F^2``, ``(G,)``."""
        return self.rotation.s.abs().square().flatten(1).sum(1) / update.tangent_energy()


Direction = LowRank | Turn


def _rotated(retraction: Retraction, update: Update, rotation: Rotation, pulled: Tensor | None = None) -> Change:
    """The change of the tall weight by a rotation A. Its first-order part is A W, or A in skew coordinates.

    In skew coordinates A acts from the right: W exp(A) is the conjugate transpose of exp(-A) W^H.
    """
    if not update.skew:
        return retraction.rotate(update.w.tall(), rotation, pulled)
    change = retraction.rotate(update.w.mH, Rotation(rotation.q, -rotation.s)).mH()
    return change._replace(linear=lambda: (rotation.q @ rotation.s, rotation.q))


@dataclass(frozen=True)
class Sampler:
    """A method that approximates an update D at rank k, or its tangent part Omega at rank 2k (see :class:`Update`).

    Attributes:
        summary: a description in one line, for help texts and tables.
        sample: a function of the update, k, the random numbers and a basis, which is None if the sampler keeps none
            or chooses it. It returns the approximation and the next basis, which is None if the sampler keeps none.
        basis_rows: a function that returns the number of rows of the basis ``(*, rows, k)`` for an update. It is None
            if the sampler keeps no basis.
        needs_whole: whether one process must hold the whole of D. Such a sampler is refused for sharded weights.
        of_tangent: whether the sampler approximates Omega instead of D.
    """

    summary: str
    sample: Callable[[Update, int, Generators, Tensor | None], tuple[Direction, Tensor | None]]
    basis_rows: Callable[[Update], int] | None = None
    needs_whole: bool = False
    of_tangent: bool = False


def project(update: Matrices, span: Tensor) -> LowRank:
    """The approximation ``q q^H D``: the projection of D on the span of the columns of ``span`` ``(*, n, k)``."""
    q = orthonormalise(span)
    projected = update.mH.matmul(q)
    b = orthonormalise(projected)
    return LowRank(q @ (projected.mH @ b), b)


def gaussian(update: Matrices, rows: int, rank: int, generator: Generators) -> Tensor:
    """Normally distributed random numbers ``(*, rows, rank)``."""
    return draw_(update.new_empty(*update.shape[:-2], rows, rank), Tensor.normal_, generator)
