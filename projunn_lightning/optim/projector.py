"""projUNN for any torch optimizer: the update it makes is taken at rank k and projected back to the manifold."""

from __future__ import annotations

import itertools
import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from projunn_lightning.constraint import (
    Constraint,
    check,
    check_finite,
    initialise_,
    refuse_flat,
    unitarity_errors,
)
from projunn_lightning.constraint.select import chosen
from projunn_lightning.errors import ConstraintError
from projunn_lightning.functional.retraction import Variant
from projunn_lightning.functional.sampling import Sampler
from projunn_lightning.linalg.sharded import is_sharded, reshard
from projunn_lightning.optim.attachment import hooked_steps, hooks_of, parameters_of, unwrapped
from projunn_lightning.optim.step import Observe, Update, Weight

Held = list[tuple[Weight, Tensor]]


class Projector:
    """Keeps the constrained parameters of a module unitary under any optimizer, without Lightning.

    ``attach`` hooks the optimizers: before a step each constrained weight is copied; after it the difference is the
    update, which is approximated at rank k and applied as a rotation of the weight. Gradient accumulation, several
    optimizers, closures and a GradScaler that skips steps need no care: the hooks run when a step really happens. A
    parameter that joins an optimizer later, of a new module too, is constrained from that step on.

    An update with a NaN or an infinity leaves the weight as it was and is counted in :attr:`skipped_updates`; what the
    optimizer's own state (momentum, averages) has taken in of it stays there, and may keep its next updates so.

    Args:
        module: the module whose parameters are constrained: those declared by
            :func:`~projunn_lightning.orthogonal`, and those that ``parameters`` chooses.
        parameters: glob patterns over ``module.named_parameters()``, such as ``"encoder.*.weight_hh_l*"``. What they
            choose is moved to the nearest unitary matrix when the projector is attached.
        rank: k, the rank at which an update is taken; 1 is the paper's choice.
        retraction: the way back to the manifold: ``"exponential"`` (projUNN-T), ``"polar"`` (projUNN-D) or ``"cayley"``.
        sampler: how the rank-k part is found, see :func:`~projunn_lightning.functional.rank_k`.
        lr_divider: divides the update of constrained weights (the paper's separate unitary learning rate).
        tolerance: the unitarity error to stay below; half of it triggers a re-orthonormalisation.
        seed: seeds the random sketches, which are a function of (seed, step, parameter name) alone.

    Raises:
        ConstraintError: if a setting is out of range, a pattern matches nothing, or a parameter cannot be
            constrained.

    >>> from projunn_lightning import orthogonal
    >>> from projunn_lightning.functional import unitarity_error
    >>> model = orthogonal(nn.Linear(8, 8, bias=False))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> projector = Projector(model, rank=2).attach(optimizer)
    >>> model(torch.ones(4, 8)).square().sum().backward()
    >>> optimizer.step()
    >>> bool(unitarity_error(model.weight) < 1e-5)
    True
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: str | Iterable[str] | None = None,
        *,
        rank: int = 1,
        retraction: Variant = "exponential",
        sampler: Sampler = "lsi",
        lr_divider: float = 1.0,
        tolerance: float = 1e-5,
        seed: int = 0,
    ) -> None:
        self.update = Update(rank, retraction, sampler, lr_divider, tolerance, seed)
        self.module = module
        self._patterns = [parameters] if isinstance(parameters, str) else list(parameters or ())
        self._weights: dict[str, Weight] = {}
        self._weights = self._choose()
        self.observe: Observe | None = None  # is shown every update, see UnitarityMonitor
        self._seen: dict[Optimizer, tuple[list[object], Held]] = {}  # how all was at its last step, and what it held
        self._stepping: dict[Optimizer, Held] = {}
        self._depth: dict[Optimizer, int] = {}  # of steps within steps
        self._handles: list[RemovableHandle] = []

    # ---- which parameters ----

    def _choose(self) -> dict[str, Weight]:
        """The weights to constrain in the module as it is now, among them those known already."""
        refuse_flat(self.module)
        constraints, declared = chosen(self.module, self._patterns)
        if not constraints:
            raise ConstraintError(
                f"{type(self.module).__name__} has nothing to constrain: choose parameters by glob pattern, or declare "
                "them with projunn_lightning.orthogonal(module, name)"
            )
        # A tied weight is constrained once.
        distinct = {id(self._parameter(weight)): weight for weight in self._weights.values()}
        for name, constraint in constraints.items():
            parameter = self.module.get_parameter(name)
            check(name, parameter, constraint)
            self._check_rank(name, parameter, constraint)
            distinct.setdefault(id(parameter), Weight(name, constraint, declared=name in declared))
        return {weight.name: weight for weight in distinct.values()}

    def _check_rank(self, name: str, parameter: Tensor, constraint: Constraint) -> None:
        n, p = constraint.matrices(parameter).shape[-2:]
        if self.update.rank > min(n, p):
            raise ConstraintError(f"rank {self.update.rank} is above min(n, p) = {min(n, p)} of {name} ({n} x {p})")

    @property
    def constraints(self) -> dict[str, Constraint]:
        """The constraint of each constrained parameter, by name."""
        return {weight.name: weight.constraint for weight in self._weights.values()}

    def _parameter(self, weight: Weight) -> Tensor:
        # Looked up anew each time: a strategy may have replaced the parameter object.
        try:
            return self.module.get_parameter(weight.name)
        except AttributeError:
            raise ConstraintError(
                f"the constrained parameter {weight.name} is gone from {type(self.module).__name__}: while it is "
                "trained it may be replaced by another parameter, but not removed, pruned or parametrized"
            ) from None

    # ---- optimizers ----

    def attach(self, *optimizers: Optimizer) -> Projector:
        """Hook the optimizers that hold the constrained parameters.

        Weights that are not unitary are moved to the nearest unitary matrix: those newly chosen by a pattern, and, with
        a warning, those that lost their unitarity since they were declared (an unconstrained checkpoint was loaded).

        Raises:
            ConstraintError: if a constrained parameter that requires a gradient is held by none of them, is not in
                full precision any more, or is not finite. No weight has been touched then.
            RuntimeError: if this projector is attached already, or another one to one of the optimizers.
        """
        if self._handles:
            raise RuntimeError("the projector is attached already; call detach() first")
        optimizers = tuple(map(unwrapped, optimizers))
        if any(
            isinstance(getattr(hook, "__self__", None), Projector) for each in optimizers for hook in hooks_of(each)
        ):
            raise RuntimeError("another projector is attached to an optimizer, and would take its updates twice")
        weights = list(self._weights.values())
        self._start(weights, optimizers)
        for optimizer in optimizers:
            self._see(optimizer)
            self._warn_of_weight_decay(optimizer, weights)
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))
        return self

    def detach(self) -> None:
        """Remove the hooks.

        Weights stay as they are, but for those of an optimizer that was stopped in mid-step, which go back to what they
        were before it.
        """
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for optimizer in list(self._stepping):
            self._take_back(optimizer)
        self._seen.clear()
        self._depth.clear()
        for weight in self._weights.values():
            weight.before = None

    @torch.no_grad()
    def _take_back(self, optimizer: Optimizer) -> None:
        """Undo a step that was broken off."""
        for weight, parameter in self._stepping.pop(optimizer, []):
            assert weight.before is not None
            parameter.copy_(weight.before)

    def _check(self, weights: Iterable[Weight], held: Iterable[Tensor]) -> None:
        ids = set(map(id, held))
        for weight in weights:
            parameter = self._parameter(weight)
            check(weight.name, parameter, weight.constraint)  # a strategy may have changed precision or placements
            if self.update.sampler == "svd" and is_sharded(parameter):
                raise ConstraintError(
                    f"sampler 'svd' needs the whole update of {weight.name} on one rank, which is sharded; choose "
                    "'lsi', 'column' or 'subspace'"
                )
            check_finite(weight.name, parameter)
            if parameter.requires_grad and id(parameter) not in ids:
                raise ConstraintError(
                    f"the constrained parameter {weight.name} is held by no optimizer: pass it to one, or freeze it "
                    "with requires_grad_(False)"
                )

    def is_attached_to(self, *optimizers: Optimizer) -> bool:
        """Whether these are the optimizers that it hooks."""
        return len(self._seen) == len(optimizers) and all(optimizer in self._seen for optimizer in optimizers)

    def start_again(self) -> None:
        """Look at the weights as :meth:`attach` did: others have been loaded since.

        Raises:
            ConstraintError: as :meth:`attach`.
        """
        self._start(list(self._weights.values()), list(self._seen))

    def _start(self, weights: Sequence[Weight], optimizers: Iterable[Optimizer]) -> None:
        reshard(self.module)
        self._check(weights, itertools.chain(*map(parameters_of, optimizers)))
        self._make_unitary(weights)

    def _make_unitary(self, weights: Sequence[Weight]) -> None:
        errors = unitarity_errors(self.module, {weight.name: weight.constraint for weight in weights})
        for weight, error in zip(weights, errors.values(), strict=True):
            parameter = self._parameter(weight)
            off = bool(error > self.update.tolerance)
            if off and weight.declared:
                warnings.warn(
                    f"{weight.name} has unitarity error {error:.1e}, above the tolerance {self.update.tolerance:.0e}; "
                    "it is moved to the nearest unitary matrix",
                    stacklevel=3,
                )
            # A double that is off by more than 1e-10 was a float32 once, and unitary to the rounding of that only.
            if off or (torch.finfo(parameter.dtype).eps < 1e-10 and error > 1e-10):
                initialise_(parameter, weight.constraint, "polar")
            weight.declared = True

    def _warn_of_weight_decay(self, optimizer: Optimizer, weights: Sequence[Weight]) -> None:
        for group in optimizer.param_groups:
            names = ", ".join(weight.name for weight, _ in self._among(weights, group["params"]))
            if names and (decay := group.get("weight_decay", 0)):
                warnings.warn(
                    f"weight_decay={decay} on {names}: decay pulls along the weight, which is normal to the manifold; "
                    "it does no work there and blurs the rank-k update. Put constrained weights in a parameter group "
                    "with weight_decay=0",
                    stacklevel=3,
                )

    def _among(self, weights: Iterable[Weight], parameters: Iterable[Tensor]) -> Held:
        ids = set(map(id, parameters))
        found = {id(parameter): (weight, parameter) for weight in weights for parameter in [self._parameter(weight)]}
        return [pair for key, pair in found.items() if key in ids]  # tied ones once

    def _held_by(self, optimizer: Optimizer) -> Held:
        """The weights that an optimizer holds.

        Where its parameters or those constrained have changed since its last step, all are chosen and checked anew.
        """
        seen, held = self._seen[optimizer]
        if self._unchanged(optimizer, seen):
            return held
        reshard(self.module)  # an evaluation may have left other objects in place of the optimizer's
        if self._unchanged(optimizer, seen):
            return held
        before = [weight for weight, _ in held]
        joined = [weight for weight, _ in self._among(self._choose().values(), parameters_of(optimizer))]
        self._check({*before, *joined}, itertools.chain(*map(parameters_of, self._seen)))
        self._weights |= {weight.name: weight for weight in joined}
        # The others are as they were, and to look at them takes as long as many steps.
        same = {(id(parameter), weight.before.dtype) for weight, parameter in held if weight.before is not None}
        new = [weight for weight in joined if (id(self._parameter(weight)), self._parameter(weight).dtype) not in same]
        self._make_unitary(new)
        self._warn_of_weight_decay(optimizer, [weight for weight in joined if weight not in before])
        return self._see(optimizer)

    def _unchanged(self, optimizer: Optimizer, seen: list[object]) -> bool:
        now = self._objects(optimizer)
        return len(now) == len(seen) and all(map(operator.is_, now, seen))

    def _see(self, optimizer: Optimizer) -> Held:
        held = self._among(self._weights.values(), parameters_of(optimizer))
        self._seen[optimizer] = self._objects(optimizer), held
        return held

    def _objects(self, optimizer: Optimizer) -> list[object]:
        """All that would be another object where something has changed."""
        own = [self._parameter(weight) for weight in self._weights.values()]
        return [*parameters_of(optimizer), *own, *(parameter.dtype for parameter in own)]

    # ---- the update ----

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        depth = self._depth.get(optimizer, 0)
        if 0 < depth < hooked_steps(optimizer):  # the step of its base class, which runs within its own
            self._depth[optimizer] = depth + 1
            return
        self._depth[optimizer] = 1
        self._take_back(optimizer)  # where an earlier step raised, and somebody caught it
        held = self._held_by(optimizer)
        for weight, parameter in held:
            weight.snapshot(parameter)
        self._stepping[optimizer] = held  # only now is there something to go back to

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._depth[optimizer] = self._depth.get(optimizer, 1) - 1
        if self._depth[optimizer]:
            return
        held = self._stepping.get(optimizer, [])  # nothing, where it was attached inside of the step
        with torch.autocast(next(iter(held))[1].device.type if held else "cpu", enabled=False):
            self.update.apply_([weight for weight, _ in held], [parameter for _, parameter in held], self.observe)
        self._stepping.pop(optimizer, None)  # not before: where it is interrupted, all go back
        self._held_by(optimizer)  # a parameter may have joined it inside of its closure

    # ---- what can be asked and saved ----

    def unitarity_errors(self) -> dict[str, Tensor]:
        """The unitarity error of each constrained parameter (the largest of its matrices), by name.

        Of sharded parameters it sums over the ranks: all of them have to ask.
        """
        return unitarity_errors(self.module, self.constraints)

    @property
    def skipped_updates(self) -> Tensor:
        """How many updates were not finite and left their weight untouched, over all weights; a scalar tensor."""
        counts = [w.skipped for w in self._weights.values()]
        return torch.stack([count.to(counts[0].device) for count in counts]).sum()

    @property
    def reorthonormalisations(self) -> int:
        """How many times a weight's drift was corrected, over all weights."""
        return sum(w.reorthonormalisations for w in self._weights.values())

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Counters and, for the subspace sampler, bases: what a resumed run needs to repeat an unbroken one."""
        return {
            w.name: {
                "step": w.step,
                "reorthonormalisations": w.reorthonormalisations,
                "skipped": w.skipped,
                "basis": w.basis,
            }
            for w in self._weights.values()
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Load what :meth:`state_dict` returned; parameters that it does not know start afresh."""
        for name, values in state.items():
            if (weight := self._weights.get(name)) is not None:
                weight.step = values["step"]
                weight.reorthonormalisations = values["reorthonormalisations"]
                weight.skipped = values["skipped"]
                weight.basis = values["basis"]
