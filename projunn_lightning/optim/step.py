"""From the snapshot of a weight and what the optimizer made of it to the new weight on the manifold."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

from projunn_lightning.constraint import initialise_
from projunn_lightning.functional import RETRACTIONS, SAMPLERS
from projunn_lightning.linalg import Matrices, seed_for
from projunn_lightning.optim.settings import ProjUNNSettings
from projunn_lightning.optim.snapshots import LargeWeight, SmallWeights, Snapshots
from projunn_lightning.optim.weight import ConstrainedWeight

CHECK_EVERY = 64
"""Steps between two estimates of the drift. Rounding adds about 1e-8 a step (float32), so they come in good time."""

SMALL = 1 << 18
"""Weights with at most this many entries are updated in batches of equal shape, because call overhead dominates."""

OnUpdate = Callable[[list[str], Matrices, Tensor], None]
"""It is called with the names of weights, their updates D ``(G, *, n, p)`` and the a of their samples ``D ~ a b^H``."""

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
        self.shape, self.device = first.constraint.matrices(parameter).shape, parameter.device
        self.snapshots: Snapshots = (
            LargeWeight(parameter, first.constraint)
            if len(pairs) == 1
            else SmallWeights([parameter for _, parameter in pairs], first.constraint)
        )
        self._generators = [Generator(self.device) for _ in pairs]
        self._seeds = [seed_for(f"{settings.seed}/{weight.name}") for weight in self.weights]
        # The counts and bases of all weights lie in one tensor each, of which every weight holds a view.
        self._skipped = torch.stack([weight.skipped.to(self.device) for weight in self.weights])
        for weight, skipped in zip(self.weights, self._skipped, strict=True):
            weight.skipped = skipped
        self._basis: Tensor | None = None
        self._undo: tuple[Tensor, Tensor | None, list[Tensor | None]] | None = None

    def restore(self) -> None:
        """Go back to the snapshots, and to the state of the weights before an update that was broken off."""
        self.snapshots.restore()
        if self._undo is not None:
            skipped, self._basis, bases = self._undo
            self._skipped.copy_(skipped)
            for weight, basis in zip(self.weights, bases, strict=True):
                weight.basis = basis
            self._undo = None

    def update(self, on_update: OnUpdate | None = None) -> None:
        """Replace each parameter by its snapshot, rotated by the rank-k part of (parameter - snapshot)."""
        sampler, settings = SAMPLERS[self.settings.sampler], self.settings
        self._undo = self._skipped.clone(), self._basis, [weight.basis for weight in self.weights]
        w, d = self.snapshots.subtract()
        generators = self._seeded()
        basis = self._warm_basis(d, generators) if sampler.keeps_basis else None
        a, b = sampler.sample(d, settings.rank, generators, basis)
        if on_update is not None:
            on_update([weight.name for weight in self.weights], d, a)
        left, right = RETRACTIONS[settings.retraction].change(w, a / settings.lr_divider, b)
        # Whatever is not finite in D shows in these thin factors; they are zeroed without a host synchronisation.
        dims = tuple(range(1, left.ndim))
        finite = torch.isfinite(left).all(dims, keepdim=True) & torch.isfinite(right).all(dims, keepdim=True)
        w.add_product(torch.where(finite, left, 0), torch.where(finite, right, 0), out=d)
        self.snapshots.store()
        self._latest = d  # which holds the new weights now
        self._skipped.add_(~finite.flatten())
        if basis is not None:  # an update that is zero or skipped has no direction to remember
            moved = finite & (a != 0).any(dim=-1, keepdim=True).any(dim=-2, keepdim=True)
            self._basis = torch.where(moved, b, basis)
            for weight, own in zip(self.weights, self._basis, strict=True):
                weight.basis = own

    def finish(self) -> None:
        """Count the step, and correct the rounding drift of the weights that are due."""
        self._undo = None
        for weight in self.weights:
            weight.step += 1
        due = [weight.step % CHECK_EVERY == 0 for weight in self.weights]
        if any(due):
            self._correct_drift(due)

    def _seeded(self, salt: int = 0) -> list[Generator]:
        """The random numbers for this step of each weight: a function of (seed, step of the weight, its name)."""
        for generator, seed, weight in zip(self._generators, self._seeds, self.weights, strict=True):
            generator.manual_seed((seed + weight.step * 0x9E3779B1 + salt) % 2**63)  # torch's on the CPU keep 32 bits
        return self._generators

    def _warm_basis(self, d: Matrices, generators: list[Generator]) -> Tensor:
        """The basis of the last update; random at first, and where a checkpoint holds one of another rank."""
        if self._basis is not None:
            return self._basis
        basis = d.new_empty(*d.shape[:-2], d.shape[-1], self.settings.rank)
        for weight, own, generator in zip(self.weights, basis, generators, strict=True):
            if weight.basis is not None and weight.basis.shape == own.shape:
                own.copy_(weight.basis)
            else:
                own.normal_(generator=generator)
        return basis

    def _correct_drift(self, due: list[bool]) -> None:
        errors = self._latest.estimate_unitarity_error(self._seeded(salt=1)).reshape(len(due), -1).amax(1)
        off = (errors > self.settings.tolerance / 2).tolist()
        for (weight, parameter), is_due, is_off in zip(self.pairs, due, off, strict=True):
            if is_due and is_off:
                initialise_(weight.name, parameter, weight.constraint)
                weight.reorthonormalisations += 1


def grouped(pairs: Iterable[Pair], settings: ProjUNNSettings) -> list[Group]:
    """Small weights of one shape in a group together; large ones, and those that are sharded, one by one."""
    groups: dict[object, list[Pair]] = {}
    for weight, parameter in pairs:
        matrices = weight.constraint.matrices(parameter)
        small = parameter.numel() <= SMALL and matrices.whole() is not None
        key = (weight.constraint, parameter.shape, parameter.dtype, parameter.device) if small else weight
        groups.setdefault(key, []).append((weight, parameter))
    return [Group(alike, settings) for alike in groups.values()]
