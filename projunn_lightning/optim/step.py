"""The step of a group of weights: the update of the optimizer is replaced by a step on the manifold."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

from projunn_lightning.constraint import initialise_
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, Change, Direction, Sampler, Update
from projunn_lightning.linalg import Matrices, orthonormalise, scattered_, seed_for
from projunn_lightning.optim.settings import ProjUNNSettings
from projunn_lightning.optim.snapshots import LargeWeight, SmallWeights, Snapshots
from projunn_lightning.optim.weight import ConstrainedWeight

CHECK_EVERY = 64
"""The number of steps between two estimates of the drift. In float32, rounding adds about 1e-8 to it per step."""

SMALL = 1 << 18
"""Weights with at most this many entries are updated in batches of equal shape, because call overhead dominates."""

OnUpdate = Callable[[list[str], Update, Direction, Matrices | None], None]
"""A function of the names of G weights, their updates, the sampled directions and the residuals before the step."""

Pair = tuple[ConstrainedWeight, Tensor]
"""A weight and its parameter."""


class Group:
    """Constrained weights whose matrices have one shape, dtype and device, and that are updated together.

    Args:
        pairs: the weights and their parameters.
        settings: the settings of the method.
    """

    def __init__(self, pairs: list[Pair], settings: ProjUNNSettings) -> None:
        self.pairs = pairs
        self.settings = settings
        self.weights = [weight for weight, _ in pairs]
        first, parameter = pairs[0]
        self.shape, self.device = first.stack.matrices(parameter).shape, parameter.device
        self.rank = min(self.shape[-2:]) if settings.rank == "full" else min(settings.rank, *self.shape[-2:])
        self.snapshots: Snapshots = (
            LargeWeight(parameter, first.stack)
            if len(pairs) == 1
            else SmallWeights([parameter for _, parameter in pairs], first.stack)
        )
        self._generators = [Generator(self.device) for _ in pairs]
        self._seeds = [seed_for(f"{settings.seed}/{weight.name}") for weight in self.weights]
        # One tensor holds the counters of all weights. Each weight holds a view of it.
        self._skipped = torch.stack([weight.skipped.to(self.device) for weight in self.weights])
        for weight, skipped in zip(self.weights, self._skipped, strict=True):
            weight.skipped = skipped
        self._basis: Tensor | None = None
        self._residual = self._restored_residual() if settings.feedback else None
        self._undo: tuple[Tensor, Tensor | None, list[Tensor | None]] | None = None

    def restore(self) -> None:
        """Restore the snapshots, and the state of the weights before an interrupted update."""
        self.snapshots.restore()
        if self._undo is not None:
            skipped, self._basis, bases = self._undo
            self._skipped.copy_(skipped)
            for weight, basis in zip(self.weights, bases, strict=True):
                weight.basis = basis
            self._undo = None

    def update(self, on_update: OnUpdate | None = None) -> None:
        """Replace each parameter by its snapshot, moved on the manifold by (parameter - snapshot)."""
        self._undo = self._skipped.clone(), self._basis, [weight.basis for weight in self.weights]
        w, d = self.snapshots.subtract()
        finite = self._full(w, d) if self.settings.rank == "full" else self._sampled(w, d, on_update)
        self.snapshots.store()
        self._latest = d  # the memory of D holds the new weights now
        self._skipped.add_(~finite)

    def finish(self) -> None:
        """Count the step, and correct the rounding drift of the weights that are due."""
        self._undo = None
        for weight in self.weights:
            weight.step += 1
        due = [weight.step % CHECK_EVERY == 0 for weight in self.weights]
        if any(due):
            self._correct_drift(due)

    def _sampled(self, w: Matrices, d: Matrices, on_update: OnUpdate | None) -> Tensor:
        """Move the weights by the rank-k parts of their updates D, and write the new weights into the memory of D.

        A weight whose update is not finite keeps its value. The residuals and the bases are renewed as well.

        Returns:
            Whether each update is finite, ``(G,)``.
        """
        sampler, settings = SAMPLERS[self.settings.sampler], self.settings
        if self._residual is not None:
            d.add_(self._residual, alpha=settings.feedback)
        update = Update(d, w, skew=settings.coordinates == "skew")
        generators = self._seeded()
        basis = self._last_basis(update, sampler, generators)
        direction, next_basis = sampler.sample(update, self.rank, generators, basis)
        if on_update is not None:
            on_update([weight.name for weight in self.weights], update, direction, self._residual)
        divider = self._divider(d)
        change = direction.change(RETRACTIONS[settings.retraction], update, divider)
        # If D is not finite, neither are these thin factors. They are set to zero without a host synchronisation.
        finite = torch.isfinite(change.left.flatten(1).sum(1) + change.right.flatten(1).sum(1))
        mask = finite.view(-1, *[1] * (change.left.ndim - 1))
        if self._residual is not None:
            self._leave_out(update, change, divider, finite, mask)
        w.add_product(torch.where(mask, change.left, 0), torch.where(mask, change.right, 0), out=d)
        if next_basis is not None and basis is not None:
            # A zero update and a skipped update have no direction, so the old basis is kept.
            moved = mask & ~direction.is_zero().view_as(mask)
            # The memory layout of a loaded basis is contiguous, and another layout would round products differently.
            self._basis = torch.where(moved, next_basis, basis).contiguous()
            for weight, own in zip(self.weights, self._basis, strict=True):
                weight.basis = own
        return finite

    def _leave_out(self, update: Update, change: Change, divider: float | Tensor, finite: Tensor, mask: Tensor) -> None:
        """Keep the residual E = M - (the first-order part of the change). The memory of D holds M."""
        assert self._residual is not None
        left, right = change.linear()
        left = torch.where(mask, left, 0) * -divider
        source = update.d
        if finite.device.type != "cpu" or not finite.all():  # on a GPU, the host would wait for the answer
            self._residual.copy_where_(finite, update.d)
            source = self._residual
        source.add_product(left, torch.where(mask, right, 0), out=self._residual)

    def _full(self, w: Matrices, d: Matrices) -> Tensor:
        """Do the same as :meth:`_sampled` with the whole updates, by dense algebra."""
        update = Update(d, w, skew=self.settings.coordinates == "skew")
        whole, target = w.tall().whole(), d.tall().whole()
        assert whole is not None
        assert target is not None
        finite = torch.isfinite(target).flatten(1).all(1)
        mask = finite.view(-1, *[1] * (target.ndim - 1))
        step = torch.where(mask, target, 0) / self._divider(d)
        omega, dense = update.dense_omega(step, whole), RETRACTIONS[self.settings.retraction].dense
        # In skew coordinates, W exp(A) is the conjugate transpose of exp(-A) W^H.
        new = dense(whole.mH, -omega, -omega @ whole.mH).mH if update.skew else dense(whole, omega, step)
        target.copy_(torch.where(mask, new, whole))
        return finite

    def _divider(self, d: Matrices) -> float | Tensor:
        """The divider of the updates: a number, or a tensor ``(G, 1, ...)`` if the divider depends on the step."""
        if not callable(self.settings.lr_divider):
            return self.settings.lr_divider
        dividers = [self.settings.divider(weight.step) for weight in self.weights]
        return torch.tensor(dividers, dtype=d.dtype.to_real(), device=d.device).view(-1, *[1] * (len(d.shape) - 1))

    def _seeded(self, salt: int = 0) -> list[Generator]:
        """The generators of the weights. Each gets a new seed, which depends on (seed, step and name of the weight).

        Another ``salt`` gives other random numbers for the same step.
        """
        for generator, seed, weight in zip(self._generators, self._seeds, self.weights, strict=True):
            # torch's generator on the CPU uses only the lowest 32 bits of a seed.
            generator.manual_seed((seed + weight.step * 0x9E3779B1 + salt) % 2**63)
        return self._generators

    def _last_basis(self, update: Update, sampler: Sampler, generators: list[Generator]) -> Tensor | None:
        """The basis of the last update. It is random at first, and if a checkpoint holds a basis of another rank."""
        if sampler.basis_rows is None or self._basis is not None:
            return self._basis
        basis = update.d.new_empty(*update.d.shape[:-2], sampler.basis_rows(update), self.rank)
        for weight, own, generator in zip(self.weights, basis, generators, strict=True):
            if weight.basis is not None and weight.basis.shape == own.shape:
                own.copy_(weight.basis)
            else:
                own.copy_(orthonormalise(own.normal_(generator=generator)))
        return basis

    def _restored_residual(self) -> Matrices:
        """New memory for the residuals. It holds the residuals that the weights have already, if the shapes agree."""
        matrices, residuals = self.snapshots.residuals()
        for weight, residual in zip(self.weights, residuals, strict=True):
            if weight.residual is not None and weight.residual.shape == residual.shape:
                scattered_(residual, weight.residual)
            weight.residual = residual
        return matrices

    def _correct_drift(self, due: list[bool]) -> None:
        errors = self._latest.estimate_unitarity_error(self._seeded(salt=1)).reshape(len(due), -1).amax(1)
        off = (errors > self.settings.tolerance / 2).tolist()
        for (weight, parameter), is_due, is_off in zip(self.pairs, due, off, strict=True):
            if is_due and is_off:
                initialise_(weight.name, parameter, weight.stack)
                weight.reorthonormalisations += 1


def grouped(pairs: Iterable[Pair], settings: ProjUNNSettings) -> list[Group]:
    """The groups of weights: small weights of one shape share a group, each large or sharded weight has its own."""
    groups: dict[object, list[Pair]] = {}
    for weight, parameter in pairs:
        matrices = weight.stack.matrices(parameter)
        small = parameter.numel() <= SMALL and matrices.whole() is not None
        key = (weight.stack, parameter.shape, parameter.dtype, parameter.device) if small else weight
        groups.setdefault(key, []).append((weight, parameter))
    return [Group(alike, settings) for alike in groups.values()]
