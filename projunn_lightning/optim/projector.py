"""projUNN for any torch optimizer, without Lightning."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from projunn_lightning._compat import plain_name, step_pre_hooks, uncompiled
from projunn_lightning.constraint import (
    Constraint,
    Stack,
    check,
    check_finite,
    declared,
    initialise_,
    left_out,
    refuse_flat,
    select,
    unitarity_error_of,
    unitarity_errors,
)
from projunn_lightning.errors import ConstraintError, ProjUNNError
from projunn_lightning.functional import SAMPLERS
from projunn_lightning.linalg import reshard
from projunn_lightning.optim.attachment import Attachment, parameters_of
from projunn_lightning.optim.optimizers import check_optimizer, check_skew, unwrapped
from projunn_lightning.optim.settings import ProjUNNSettings, as_patterns, check_names, chunks_for
from projunn_lightning.optim.step import Group, OnUpdate, Pair
from projunn_lightning.optim.summary import table
from projunn_lightning.optim.weight import ConstrainedWeight


class Projector:
    """Keeps the constrained parameters of a module unitary under any optimizer, without Lightning.

    ``attach`` adds hooks to the optimizers. Before a step each constrained weight is copied. After the step the
    difference is the update, which is approximated at rank k and applied as a rotation of the weight. The hooks run
    only when a step really happens, so they work with gradient accumulation, several optimizers, closures and a
    GradScaler that skips steps. A parameter that joins an optimizer later is constrained from that step on, even if it
    belongs to a new module.

    An update with a NaN or an infinity leaves the weight as it was and is counted in :attr:`skipped_updates`. The
    optimizer's own state (momentum, averages) may keep the NaN, and then its next updates are not finite either.

    It is a context manager, too: ``with Projector(model).attach(optimizer):`` detaches it at the end of the block.

    Args:
        module: the module whose parameters are constrained: the parameters that are declared by
            :func:`~projunn_lightning.orthogonal`, and the parameters that ``parameters`` chooses.
        parameters: glob patterns over ``module.named_parameters()``, such as ``"encoder.*.weight_hh_l*"``. A ``*``
            before a dot may also stand for no module. The matrices that the patterns match are moved to the nearest
            unitary matrices when the projector is attached; a warning names the parameters of fewer dimensions.
        chunks: how the parameters that ``parameters`` chooses are taken apart: the number of matrices that are stacked
            along dim 0, or a list of the number of rows of each, as for :func:`~projunn_lightning.orthogonal`. If it is
            None, only the stacked weights of torch's own modules are taken apart.
        settings: the settings of the method, see :class:`~projunn_lightning.optim.ProjUNNSettings`.

    Attributes:
        settings: the settings.
        on_update: None, or a function that is called with every update, see
            :data:`projunn_lightning.optim.OnUpdate`.

    Raises:
        ConfigError: if a setting is unknown, of the wrong type or out of range.
        ConstraintError: if a pattern matches nothing, or if a parameter cannot be constrained.

    >>> from projunn_lightning import orthogonal
    >>> from projunn_lightning.functional import unitarity_error
    >>> model = orthogonal(nn.Linear(8, 8, bias=False))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> projector = Projector(model, rank=2).attach(optimizer)
    >>> model(torch.ones(4, 8)).square().sum().backward()
    >>> optimizer.step()
    >>> bool(unitarity_error(model.weight) < 1e-5)
    True
    >>> print(repr(projector).partition("settings")[0])
    Projector of Linear
      weight  8 x 8  1 matrix of 8 x 8
    <BLANKLINE>
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: str | Iterable[str] | None = None,
        *,
        chunks: int | Sequence[int] | None = None,
        **settings: Any,
    ) -> None:
        check_names(settings)
        self.settings = ProjUNNSettings(**settings)
        self.module = module
        self.on_update: OnUpdate | None = None
        self._patterns = as_patterns(parameters)
        self._chunks = chunks_for(self._patterns, chunks)
        self._left: set[str] = set()
        self._warned: set[str] = set()
        self._weights: dict[str, ConstrainedWeight] = {}
        self._weights = self._choose()
        self._attachments: list[Attachment] = []

    # ---- the weights ----

    @property
    def constraints(self) -> dict[str, Constraint]:
        """The constraint of each constrained parameter, by name."""
        return {weight.parameter: weight.constraint for weight in self._weights.values()}

    def leave(self, names: Iterable[str]) -> Self:
        """Do not constrain the weights with these names. Another projector constrains them.

        If a module has several projectors, each weight must belong to one of them. Call this method before
        :meth:`attach`.

        Returns:
            The projector itself.
        """
        self._left |= set(names)
        self._weights = {key: weight for key, weight in self._weights.items() if weight.parameter not in self._left}
        return self

    @property
    def groups(self) -> list[Group]:
        """The groups of weights that are updated together, for all attached optimizers."""
        return [group for attachment in self._attachments for group in attachment.groups]

    def _choose(self) -> dict[str, ConstrainedWeight]:
        """The weights to constrain in the module as it is now, including the weights that are known already."""
        weights = list(self._weights.values())
        # The keys are ids of parameters, because a tied weight is constrained once.
        known = {id(self._parameter(weight)): (weight.parameter, weight.constraint) for weight in weights}
        refuse_flat(self.module)
        constraints = select(self.module, self._patterns, self._chunks)
        if not constraints:
            raise ConstraintError(
                f"{type(self.module).__name__} has nothing to constrain: choose parameters by glob pattern, or declare "
                "them with projunn_lightning.orthogonal(module, name)"
            )
        unitary = set(map(plain_name, declared(self.module)))
        for name, constraint in constraints.items():
            if name in self._left:
                continue
            parameter = self.module.get_parameter(name)
            check(name, parameter, constraint)
            for stack in constraint.stacks:
                self._check_settings(stack.label(name), parameter, stack)
            if (other := known.get(id(parameter))) is None:
                known[id(parameter)] = name, constraint
                stacks = constraint.stacks
                weights += [ConstrainedWeight(name, constraint, stack, unitary=name in unitary) for stack in stacks]
            elif other[1].stacks != constraint.stacks:
                raise ConstraintError(
                    f"{other[0]} and {name} are one parameter, and it would be taken apart in two ways: {other[1]} and "
                    f"{constraint}. Choose or declare one of them, or both in the same way"
                )
        return {weight.name: weight for weight in weights}

    def _check_settings(self, name: str, parameter: Tensor, stack: Stack) -> None:
        """Check that the settings fit the matrices of a stack."""
        matrices, settings = stack.matrices(parameter), self.settings
        n, p = matrices.shape[-2:]
        if settings.coordinates == "skew" and n != p:
            raise ConstraintError(
                f"coordinates='skew' are for square matrices, and {name} is {n} x {p}; use coordinates='weight' for it"
            )
        if matrices.whole() is None:
            self._check_sharded(name)

    def _check_sharded(self, name: str) -> None:
        """Check that the settings fit a weight of which this process holds only a part."""
        settings, sharded = self.settings, f"and {name} is sharded"
        if settings.rank == "full":
            raise ConstraintError(f"rank='full' needs the whole weight on one process, {sharded}; choose a number")
        if settings.coordinates == "skew":
            raise ConstraintError(f"coordinates='skew' need the whole weight, {sharded}; use coordinates='weight'")
        if SAMPLERS[settings.sampler].needs_whole:
            others = ", ".join(repr(other) for other, sampler in SAMPLERS.items() if not sampler.needs_whole)
            raise ConstraintError(
                f"sampler {settings.sampler!r} needs the whole update of {name} on one process, {sharded}; choose one "
                f"of {others}"
            )

    def _parameter(self, weight: ConstrainedWeight) -> Tensor:
        # The parameter is looked up each time, because a strategy may have replaced the parameter object.
        try:
            return self.module.get_parameter(weight.parameter)
        except AttributeError:
            raise ConstraintError(
                f"the constrained parameter {weight.parameter} is gone from {type(self.module).__name__}: during "
                "training it may be replaced by another parameter, but not removed, pruned or parametrized"
            ) from None

    # ---- attaching ----

    def attach(self, *optimizers: Optimizer) -> Self:
        """Add hooks to the optimizers that hold the constrained parameters.

        A weight that is not unitary is moved to the nearest unitary matrix. If it was declared orthogonal, there is a
        warning, because it has lost its unitarity (for example, an unconstrained checkpoint was loaded).

        Returns:
            The projector itself.

        Raises:
            ConstraintError: if a constrained parameter that requires a gradient is held by none of the optimizers, is
                no longer in full precision, or is not finite; or if another projector that is attached to the same
                optimizer constrains one of the weights. No weight has been changed then.
            ProjUNNError: if this projector is attached already.
        """
        if self._attachments:
            raise ProjUNNError("the projector is attached already; call detach() first")
        optimizers = tuple(map(unwrapped, optimizers))
        for optimizer in optimizers:
            check_optimizer(optimizer)
        self._refuse_overlap(optimizers)
        if self.settings.coordinates == "skew":
            self._check_skew(optimizers)
        weights = list(self._weights.values())
        self._start(weights, optimizers)
        self._attachments = [Attachment(self, optimizer) for optimizer in optimizers]
        for optimizer in optimizers:
            self._warn_of_weight_decay(optimizer, weights)
        self._warn_of_vectors()
        return self

    def _warn_of_vectors(self) -> None:
        names = [name for name in left_out(self.module, self._patterns) if name not in self._warned]
        self._warned |= set(names)
        if names:
            warnings.warn(
                f"the patterns {self._patterns} also match {', '.join(names)}: only parameters of 2 or more dimensions "
                "are matrices, so these are not constrained",
                stacklevel=3,
            )

    def _refuse_overlap(self, optimizers: Iterable[Optimizer]) -> None:
        """Check that no other projector updates one of the weights."""
        own = {id(self._parameter(weight)): weight.parameter for weight in self._weights.values()}
        hooks = itertools.chain(*map(step_pre_hooks, optimizers))
        others = [other for hook in hooks if isinstance(other := getattr(hook, "__self__", None), Attachment)]
        for _, parameter in itertools.chain(*(other.pairs for other in others)):
            if name := own.get(id(parameter)):
                raise ConstraintError(
                    f"{name} is constrained by another projector that is attached to the same optimizer, and its "
                    "update would be taken twice; detach() the other one, or leave the weight to one of them by "
                    "Projector.leave"
                )

    def _check_skew(self, optimizers: Iterable[Optimizer]) -> None:
        """Check that the optimizers can work in skew coordinates, and that no weight decays."""
        for optimizer in optimizers:
            check_skew(optimizer)
            for names, decay in self._decaying(optimizer, self._weights.values()):
                raise ConstraintError(
                    f"weight_decay={decay} on {names}: with coordinates='skew' the decay would be taken for a "
                    "rotation. Put constrained weights in a parameter group with weight_decay=0"
                )

    def detach(self) -> None:
        """Remove the hooks.

        The weights stay as they are. Only the weights of an optimizer that was stopped in the middle of a step go back
        to their values before that step.
        """
        for attachment in self._attachments:
            attachment.detach()
        self._attachments = []

    def __enter__(self) -> Self:
        """Return the projector. At the end of the ``with`` block :meth:`detach` is called."""
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def is_attached_to(self, *optimizers: Optimizer) -> bool:
        """Whether the projector hooks exactly these optimizers."""
        return {id(each.optimizer) for each in self._attachments} == set(map(id, optimizers))

    def recheck(self) -> None:
        """Check the weights as :meth:`attach` does, after other values have been loaded.

        A weight that is not unitary is moved to the nearest unitary matrix.

        Raises:
            ConstraintError: if a weight cannot be constrained, is not finite, or is held by no optimizer.
        """
        self._start(list(self._weights.values()), [each.optimizer for each in self._attachments])
        for attachment in self._attachments:
            attachment.hold()

    def _start(self, weights: Sequence[ConstrainedWeight], optimizers: Iterable[Optimizer]) -> None:
        reshard(self.module)
        self._check(weights, itertools.chain(*map(parameters_of, optimizers)))
        self._make_unitary(weights)

    def _check(self, weights: Iterable[ConstrainedWeight], held: Iterable[Tensor]) -> None:
        ids = set(map(id, held))
        for weight in weights:
            parameter = self._parameter(weight)
            check(weight.parameter, parameter, weight.constraint)  # a strategy may have changed it
            self._check_settings(weight.name, parameter, weight.stack)
            check_finite(weight.name, parameter, weight.stack)
            if parameter.requires_grad and id(parameter) not in ids:
                raise ConstraintError(
                    f"the constrained parameter {weight.parameter} is held by no optimizer: pass it to one, or freeze "
                    "it with requires_grad_(False)"
                )

    def _make_unitary(self, weights: Iterable[ConstrainedWeight]) -> None:
        for weight in weights:
            parameter = self._parameter(weight)
            error = unitarity_error_of(weight.stack, weight.parameter, parameter)
            off = bool(error > self.settings.tolerance)
            if off and weight.unitary:
                warnings.warn(
                    f"{weight.name} has unitarity error {error:.1e}, above the tolerance "
                    f"{self.settings.tolerance:.0e}; it is moved to the nearest unitary matrix",
                    stacklevel=3,
                )
            # A float64 weight whose error is above 1e-10 was a float32 weight before, and has the rounding of float32.
            if off or (torch.finfo(parameter.dtype).eps < 1e-10 and error > 1e-10):
                initialise_(weight.name, parameter, weight.stack)
                weight.forget()
            weight.unitary = True

    def _warn_of_weight_decay(self, optimizer: Optimizer, weights: Sequence[ConstrainedWeight]) -> None:
        for names, decay in self._decaying(optimizer, weights):
            warnings.warn(
                f"weight_decay={decay} on {names}: decay pulls along the weight, which is normal to the manifold; "
                "it does no work there and blurs the rank-k update. Put constrained weights in a parameter group "
                "with weight_decay=0",
                stacklevel=3,
            )

    def _decaying(
        self, optimizer: Optimizer, weights: Iterable[ConstrainedWeight]
    ) -> Iterator[tuple[str, float | Tensor]]:
        """Yield the names of the weights and the weight decay of each parameter group in which weights decay."""
        for group in optimizer.param_groups:
            names = ", ".join(dict.fromkeys(weight.parameter for weight, _ in self._among(weights, group["params"])))
            if names and (decay := group.get("weight_decay", 0)):
                yield names, decay

    # ---- the methods that attachments call ----

    def held_by(self, optimizer: Optimizer) -> list[Pair]:
        """The constrained weights that an optimizer holds, and their parameters."""
        return self._among(self._weights.values(), parameters_of(optimizer))

    def choose_again(self, attachment: Attachment) -> None:
        """Choose and check the weights of an attachment again, and make new or changed weights unitary."""
        optimizer, before = attachment.optimizer, [weight for weight, _ in attachment.pairs]
        joined = self._among(self._choose().values(), parameters_of(optimizer))
        held = itertools.chain(*(parameters_of(each.optimizer) for each in self._attachments))
        self._check({*before, *(weight for weight, _ in joined)}, held)
        self._weights |= {weight.name: weight for weight, _ in joined}
        # The other weights have not changed, and checking them takes as long as many steps.
        same = attachment.unchanged()
        changed = [weight for weight, parameter in joined if id(parameter) not in same]
        for weight in changed:
            weight.forget()
        self._make_unitary(changed)
        self._warn_of_weight_decay(optimizer, [weight for weight, _ in joined if weight not in before])
        self._warn_of_vectors()

    def _among(self, weights: Iterable[ConstrainedWeight], parameters: Iterable[Tensor]) -> list[Pair]:
        """The weights whose parameters are among the given parameters. A tied parameter is returned once."""
        ids = set(map(id, parameters))
        pairs = [(weight, self._parameter(weight)) for weight in weights]
        found = {(id(parameter), weight.stack): (weight, parameter) for weight, parameter in pairs}
        return [(weight, parameter) for weight, parameter in found.values() if id(parameter) in ids]

    # ---- numbers and state ----

    def __repr__(self) -> str:
        """Say what is constrained: the name, the shape and the matrices of each parameter, and the settings."""
        parameters = {weight.parameter: self._parameter(weight) for weight in self._weights.values()}
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self.settings).items())
        heading = f"{type(self).__name__} of {type(uncompiled(self.module)).__name__}"
        return "\n".join([heading, *table(parameters, self.constraints), f"settings: {settings}"])

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Move averages of the constrained weights to the nearest unitary matrices, in place.

        The mean of unitary matrices is not unitary. Call this method for a copy of an average before it is used, for
        example to validate or to save it, and leave the average itself as it is.

        Args:
            weights: the averages by the names of the parameters, such as the ``state_dict()`` of a copy of the module.
                The other entries stay as they are.

        Raises:
            ConstraintError: if a constrained weight is not among the averages, or is not finite.

        >>> module = nn.ModuleDict({"layer": nn.Linear(3, 3)})
        >>> average = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        >>> projector = Projector(module, "layer.weight")
        >>> projector.project_(average)
        >>> torch.dist(average["layer.weight"] @ average["layer.weight"].mT, torch.eye(3)).item() < 1e-5
        True
        """
        plain = {plain_name(name): weight for name, weight in weights.items()}
        for weight in self._weights.values():
            if weight.parameter not in plain:
                raise ConstraintError(
                    f"{weight.parameter} is constrained and not among the given weights: {', '.join(plain) or 'none'}"
                )
            initialise_(weight.name, plain[weight.parameter], weight.stack)

    def unitarity_errors(self, *, quick: bool = False) -> dict[str, Tensor]:
        """The unitarity error of each constrained parameter (the largest of its matrices), by name.

        The errors of sharded parameters are summed over the processes, so all processes must call this method. While it
        is attached, the projector warns once of each weight whose error is above the tolerance, or that has changed
        since the last step that the hooks saw.

        Args:
            quick: whether to estimate the error of matrices above 512 x 512.
        """
        errors = unitarity_errors(self.module, self.constraints, quick=quick)
        changed = {weight.parameter for each in self._attachments for weight in each.changed_weights()}
        self._warn_of_loss(errors, changed)
        return errors

    def warn_if_not_unitary(self) -> None:
        """While it is attached, warn once of each weight whose unitarity error is above the tolerance.

        Unlike :meth:`unitarity_errors` this does not warn of a unitary weight that has changed, because a model may be
        validated with other weights than those that are trained.
        """
        self._warn_of_loss(unitarity_errors(self.module, self.constraints, quick=True), set())

    def _warn_of_loss(self, errors: dict[str, Tensor], changed: set[str]) -> None:
        if not (self._attachments and errors):
            return
        device = next(iter(errors.values())).device  # the host waits for it once
        values = torch.stack([error.to(device, torch.float64) for error in errors.values()]).tolist()
        for name, error in zip(errors, values, strict=True):
            if name not in self._warned and (name in changed or error > self.settings.tolerance):
                self._warned.add(name)
                what = "has changed outside of the steps that the projector sees" if name in changed else "is off"
                warnings.warn(
                    f"{name} {what}: its unitarity error is {error:.1e}, and the tolerance is "
                    f"{self.settings.tolerance:.0e}. Usual causes are an optimizer that changes weights outside of "
                    "step(), such as the first_step() and second_step() of SAM, a callback that swaps averages in "
                    "(Projector.project_ makes them unitary), and values that were loaded or written by hand",
                    stacklevel=4,
                )

    def effective_rates(self) -> dict[str, float]:
        """The learning rate of each weight that an attached optimizer holds, divided by its divider, by name."""
        rates = {}
        for attachment in self._attachments:
            for group in attachment.optimizer.param_groups:
                for weight, _ in self._among(self._weights.values(), group["params"]):
                    rates[weight.parameter] = float(group["lr"]) / self.settings.divider(weight.step)
        return rates

    @property
    def skipped_updates(self) -> Tensor:
        """The number of updates of all weights that were skipped because they were not finite, a scalar tensor."""
        counts = [weight.skipped for weight in self._weights.values()] or [torch.zeros((), dtype=torch.long)]
        return torch.stack([count.to(counts[0].device) for count in counts]).sum()

    @property
    def reorthonormalisations(self) -> int:
        """The number of times that the drift of a weight was corrected, over all weights."""
        return sum(weight.reorthonormalisations for weight in self._weights.values())

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """The state of each weight by name, which a resumed run needs to repeat an uninterrupted run."""
        return {weight.name: weight.state_dict() for weight in self._weights.values()}

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Load a state that :meth:`state_dict` returned. A weight that is not in the state keeps its own state."""
        for name, values in state.items():
            if (weight := self._weights.get(name)) is not None:
                weight.load_state_dict(values)
        for attachment in self._attachments:
            attachment.hold()  # the groups of an attachment hold the state in tensors of their own
