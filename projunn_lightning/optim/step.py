"""The update of constrained weights: at rank k, and back to the manifold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from projunn_lightning.constraint.declare import SINGULAR, Constraint
from projunn_lightning.errors import ConstraintError
from projunn_lightning.functional.retraction import RETRACTIONS, Factors, Variant, low_rank_change
from projunn_lightning.functional.sampling import SAMPLERS, Sampler, rank_k
from projunn_lightning.functional.unitarity import (
    estimate_unitarity_error,
    nearest_unitary,
    nearest_unitary_,
    newton_schulz,
)
from projunn_lightning.linalg import generator_for
from projunn_lightning.linalg.dense import add_product
from projunn_lightning.linalg.sharded import Matrices, Sharded, is_sharded

CHECK_EVERY = 64
"""Steps between two looks at the drift. Rounding adds about 1e-8 a step (float32), so a look comes in good time."""

SMALL = 1 << 18
"""Numbers of a weight up to which those of one shape are updated in a batch: there calls cost more than copies."""


Observe = Callable[[str, Matrices, Tensor], None]
"""Is shown the name of a weight, its update D and the a of D ~ a b^H, where b has orthonormal columns."""


@dataclass(eq=False)  # hashed by identity
class Weight:
    """A constrained parameter and what its updates leave behind."""

    name: str
    constraint: Constraint
    declared: bool  # and so unitary since, where one chosen by a pattern still has to be made so
    step: int = 0
    reorthonormalisations: int = 0
    skipped: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    basis: Tensor | None = None  # of the last update, for the subspace sampler
    before: Tensor | None = None  # the weight as it was before the optimizer's step

    def snapshot(self, parameter: Tensor) -> None:
        """Keep the parameter as it is, into the memory of the last snapshot."""
        of = (parameter.shape, parameter.dtype, parameter.device)
        if self.before is None or of != (self.before.shape, self.before.dtype, self.before.device):
            self.before = torch.empty_like(parameter)
        self.before.copy_(parameter)


@dataclass(frozen=True)
class Update:
    """How updates are taken; see :class:`~projunn_lightning.Projector` for the settings.

    Raises:
        ConstraintError: if a setting is out of range.
    """

    rank: int = 1
    retraction: Variant = "exponential"
    sampler: Sampler = "lsi"
    lr_divider: float = 1.0
    tolerance: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ConstraintError(f"rank must be a whole number of 1 or more, found {self.rank!r}")
        if self.retraction not in RETRACTIONS:
            raise ConstraintError(f"unknown retraction {self.retraction!r}, expected one of {', '.join(RETRACTIONS)}")
        if self.sampler not in SAMPLERS:
            raise ConstraintError(f"unknown sampler {self.sampler!r}, expected one of {', '.join(SAMPLERS)}")
        if not self.lr_divider > 0:
            raise ConstraintError(f"lr_divider must be positive, found {self.lr_divider}")
        if not self.tolerance > 0:
            raise ConstraintError(f"tolerance must be positive, found {self.tolerance}")

    def apply_(self, weights: Sequence[Weight], parameters: Sequence[Tensor], observe: Observe | None = None) -> None:
        """Take what became of the parameters since their snapshots as updates, and rotate the snapshots by them."""
        pairs = list(zip(weights, parameters, strict=True))
        memory = [(weight.skipped, weight.basis) for weight in weights]
        try:
            for weight, parameter in pairs:
                parameter.sub_(_before(weight))  # the update, where it lies
            for alike in _batches(pairs):
                self._rotate_([weight for weight, _ in alike], [parameter for _, parameter in alike], observe)
        except BaseException:  # Ctrl-C among them
            for (weight, parameter), old in zip(pairs, memory, strict=True):
                parameter.copy_(_before(weight))
                weight.skipped, weight.basis = old
            raise
        for weight in weights:
            weight.step += 1
        for weight, parameter in pairs:
            if weight.step % CHECK_EVERY == 0:
                self._correct_drift_(weight, parameter)

    def _rotate_(self, weights: Sequence[Weight], parameters: Sequence[Tensor], observe: Observe | None) -> None:
        """Turn the updates of weights alike into the weights that they lead to."""
        before = _stacked([weight.constraint.matrices(_before(weight)) for weight in weights])
        update = _stacked([weight.constraint.matrices(of) for weight, of in zip(weights, parameters, strict=True)])
        left, right = self._change(weights, before, update, observe)
        if isinstance(before, Sharded) and isinstance(update, Sharded):
            before.add_product(left, right, out=update)
            return
        assert isinstance(before, Tensor)
        assert isinstance(update, Tensor)
        single = len(weights) == 1
        changed = add_product(before, left, right, out=update)
        for parameter, matrices in zip(parameters, [changed] if single else changed.unbind(), strict=True):
            if matrices.data_ptr() != parameter.data_ptr():
                parameter.copy_(matrices.reshape(parameter.shape))

    def _change(
        self, weights: Sequence[Weight], before: Matrices, update: Matrices, observe: Observe | None
    ) -> Factors:
        """L and R with W' = W + L R^H; zeros, and a count more, for an update that is not finite."""
        generators = [self._generator(weight, update.device) for weight in weights]
        single = len(weights) == 1
        basis = None
        if self.sampler == "subspace":
            shape = (*update.shape[0 if single else 1 : -2], update.shape[-1], self.rank)
            bases = [self._warm_basis(*of, update.new_empty(*shape)) for of in zip(weights, generators, strict=True)]
            basis = bases[0] if single else torch.stack(bases)
        generator = generators[0] if single else generators
        a, b = rank_k(update, self.rank, self.sampler, generator=generator, basis=basis)
        if observe is not None:
            updates = [update] if single or not isinstance(update, Tensor) else update
            for weight, of, its_a in zip(weights, updates, [a] if single else a, strict=True):
                observe(weight.name, of, its_a)
        left, right = low_rank_change(self.retraction, before, a / self.lr_divider, b)
        # Anything not finite in the update shows in these thin factors; they are zeroed without asking the host.
        dims = tuple(range(0 if single else 1, left.ndim))  # of one weight
        finite = torch.isfinite(left).all(dims, keepdim=True) & torch.isfinite(right).all(dims, keepdim=True)
        for weight, each in zip(weights, finite.flatten(), strict=True):
            weight.skipped = weight.skipped.to(each.device) + ~each
        if basis is not None:  # a zero or skipped update has no direction to remember
            moved = finite & (a != 0).any(dim=-1, keepdim=True).any(dim=-2, keepdim=True)
            basis = torch.where(moved, b, basis)
            for weight, own in zip(weights, [basis] if single else basis, strict=True):
                weight.basis = own
        return torch.where(finite, left, 0), torch.where(finite, right, 0)

    def _generator(self, weight: Weight, device: torch.device) -> Generator:
        """Random numbers for this step of this weight, the same on every rank and after a resume."""
        return generator_for(f"{self.seed}/{weight.step}/{weight.name}", device)

    def _warm_basis(self, weight: Weight, generator: Generator, empty: Tensor) -> Tensor:
        if weight.basis is not None and weight.basis.shape == empty.shape:  # a checkpoint may come from another rank
            return weight.basis.to(empty)
        return empty.normal_(generator=generator)

    def _correct_drift_(self, weight: Weight, parameter: Tensor) -> None:
        matrices = weight.constraint.matrices(parameter)
        generator = generator_for(f"{self.seed}/{weight.step}/{weight.name}/drift", parameter.device)
        error = estimate_unitarity_error(matrices, generator=generator).max()
        if not error > self.tolerance / 2:
            return
        if isinstance(matrices, Tensor):
            # Newton-Schulz squares a small error; from afar (somebody wrote to the weight) only the SVD is safe.
            matrices = newton_schulz(matrices) if error < 0.01 else nearest_unitary(matrices)
            parameter.copy_(matrices.reshape(parameter.shape))
        else:
            scratch = weight.constraint.matrices(_before(weight))
            assert isinstance(scratch, Sharded)
            if not nearest_unitary_(matrices, scratch):
                raise ConstraintError(f"{weight.name}: {SINGULAR}")
        weight.reorthonormalisations += 1


def _before(weight: Weight) -> Tensor:
    assert weight.before is not None
    return weight.before


def _batches(pairs: Iterable[tuple[Weight, Tensor]]) -> Iterable[list[tuple[Weight, Tensor]]]:
    """Small weights of one shape together; large and sharded ones one by one."""
    batches: dict[object, list[tuple[Weight, Tensor]]] = {}
    for weight, parameter in pairs:
        shape = weight.constraint.matrices(parameter).shape
        small = parameter.numel() <= SMALL and not is_sharded(parameter)
        key = (shape, parameter.dtype, parameter.device) if small else weight
        batches.setdefault(key, []).append((weight, parameter))
    return batches.values()


def _stacked(matrices: list[Matrices]) -> Matrices:
    """Those of several weights along a new first dimension; of one alone as they are."""
    return matrices[0] if len(matrices) == 1 else torch.stack([m for m in matrices if isinstance(m, Tensor)])
