"""projUNN for any torch optimizer: the update it makes is taken at rank k and projected back to the manifold."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from projunn_lightning.constraint import (
    Constraint,
    ConstraintError,
    check,
    check_finite,
    declared,
    initialise_,
    matching,
    refuse_flat,
    unitarity_errors,
)
from projunn_lightning.functional._sharded import is_sharded
from projunn_lightning.functional.retraction import Variant
from projunn_lightning.functional.sampling import Sampler
from projunn_lightning.update import Update, Weight


class Projector:
    """Keeps the constrained parameters of a module unitary under any optimizer, without Lightning.

    ``attach`` hooks the optimizers: before a step each constrained weight is copied; after it the difference is the
    update, which is approximated at rank k and applied as a rotation of the weight. Gradient accumulation, several
    optimizers, closures and a GradScaler that skips steps need no care: the hooks run when a step really happens. An
    update with a NaN or an infinity leaves the weight as it was and is counted in :attr:`skipped_updates`; what the
    optimizer's own state (momentum, averages) has taken in of it stays there, and may keep its next updates so.

    Args:
        module: the module whose parameters are constrained: those declared by
            :func:`~projunn_lightning.orthogonal`, and those that ``parameters`` chooses.
        parameters: glob patterns over ``module.named_parameters()``, such as ``"encoder.*.weight_hh_l*"``. What they
            choose is moved to the nearest unitary matrix when the projector is attached.
        rank: k, the rank at which an update is taken; 1 is the paper's choice.
        variant: the way back to the manifold: ``"tangent"`` (projUNN-T), ``"direct"`` (projUNN-D) or ``"cayley"``.
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
        variant: Variant = "tangent",
        sampler: Sampler = "lsi",
        lr_divider: float = 1.0,
        tolerance: float = 1e-5,
        seed: int = 0,
    ) -> None:
        self.update = Update(rank, variant, sampler, lr_divider, tolerance, seed)
        self.module = module
        self._weights = self._choose(parameters)
        self._stepping: dict[Optimizer, list[Weight]] = {}
        self._handles: list[RemovableHandle] = []

    # ---- which parameters ----

    def _choose(self, parameters: str | Iterable[str] | None) -> dict[str, Weight]:
        refuse_flat(self.module)
        patterns = [parameters] if isinstance(parameters, str) else list(parameters or ())
        old = declared(self.module)
        chosen = {**old, **matching(self.module, patterns)}
        if not chosen:
            raise ConstraintError(
                f"{type(self.module).__name__} has nothing to constrain: choose parameters by glob pattern, or declare "
                "them with projunn_lightning.orthogonal(module, name)"
            )
        distinct: dict[int, Weight] = {}  # a tied weight is constrained once
        for name, constraint in chosen.items():
            parameter = self.module.get_parameter(name)
            check(name, parameter, constraint)
            self._check_rank(name, parameter, constraint)
            distinct.setdefault(id(parameter), Weight(name, constraint, declared=name in old))
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
        return self.module.get_parameter(weight.name)

    # ---- optimizers ----

    def attach(self, *optimizers: Optimizer) -> Projector:
        """Hook the optimizers that hold the constrained parameters.

        Weights that are not unitary are moved to the nearest unitary matrix: those newly chosen by a pattern, and, with
        a warning, those that lost their unitarity since they were declared (an unconstrained checkpoint was loaded).

        Raises:
            ConstraintError: if a constrained parameter that requires a gradient is held by none of them, is not in
                full precision any more, or is not finite. No weight has been touched then.
            RuntimeError: if the projector is attached already.
        """
        if self._handles:
            raise RuntimeError("the projector is attached already; call detach() first")
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        held = {id(parameter) for group in groups for parameter in group["params"]}
        for weight in self._weights.values():
            parameter = self._parameter(weight)
            check(weight.name, parameter, weight.constraint)  # a strategy may have changed precision or placements
            if self.update.sampler == "svd" and is_sharded(parameter):
                raise ConstraintError(
                    f"sampler 'svd' needs the whole update of {weight.name} on one rank, which is sharded; choose "
                    "'lsi', 'column' or 'subspace'"
                )
            check_finite(weight.name, parameter)
            if parameter.requires_grad and id(parameter) not in held:
                raise ConstraintError(
                    f"the constrained parameter {weight.name} is held by no optimizer: pass it to one, or freeze it "
                    "with requires_grad_(False)"
                )
        self._make_unitary()
        for optimizer in optimizers:
            self._warn_of_weight_decay(optimizer)
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
        with torch.no_grad():
            for weight in itertools.chain(*self._stepping.values()):
                assert weight.before is not None
                self._parameter(weight).copy_(weight.before)
        self._stepping.clear()
        for weight in self._weights.values():
            weight.before = None

    def _held_by(self, groups: list[dict[str, Any]]) -> list[Weight]:
        ids = {id(parameter) for group in groups for parameter in group["params"]}
        held = {id(self._parameter(weight)): weight for weight in self._weights.values()}  # tied ones once
        return [weight for key, weight in held.items() if key in ids]

    def _make_unitary(self) -> None:
        for name, error in self.unitarity_errors().items():
            weight, parameter = self._weights[name], self._parameter(self._weights[name])
            off = bool(error > self.update.tolerance)
            if off and weight.declared:
                warnings.warn(
                    f"{name} has unitarity error {error:.1e}, above the tolerance {self.update.tolerance:.0e}; it is "
                    "moved to the nearest unitary matrix",
                    stacklevel=3,
                )
            # A double that is off by more than 1e-10 was a float32 once, and unitary to the rounding of that only.
            if off or (torch.finfo(parameter.dtype).eps < 1e-10 and error > 1e-10):
                initialise_(parameter, weight.constraint, "polar")
            weight.declared = True

    def _warn_of_weight_decay(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            names = [weight.name for weight in self._held_by([group])]
            if names and group.get("weight_decay", 0):
                warnings.warn(
                    f"weight_decay={group['weight_decay']} on {', '.join(names)}: decay pulls along the weight, which "
                    "is normal to the manifold; it does no work there and blurs the rank-k update. Put constrained "
                    "weights in a parameter group with weight_decay=0",
                    stacklevel=3,
                )

    # ---- the update ----

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        # Asked anew at every step: a frozen weight may have joined the optimizer since.
        self._stepping[optimizer] = self._held_by(optimizer.param_groups)
        for weight in self._stepping[optimizer]:
            weight.snapshot(self._parameter(weight))

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        weights = self._stepping.pop(optimizer, [])
        self.update.apply_(weights, [self._parameter(weight) for weight in weights])

    # ---- what can be asked and saved ----

    def unitarity_errors(self) -> dict[str, Tensor]:
        """The unitarity error of each constrained parameter (the largest of its matrices), by name."""
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
