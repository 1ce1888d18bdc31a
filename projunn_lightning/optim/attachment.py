"""The hooks of one optimizer, which move its constrained weights on the manifold."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from projunn_lightning._compat import hooked_steps, register_first_step_post_hook
from projunn_lightning.constraint import Constraint, Stack
from projunn_lightning.linalg import full_precision, reshard
from projunn_lightning.optim.settings import ProjUNNSettings
from projunn_lightning.optim.step import Group, OnUpdate, Pair, grouped
from projunn_lightning.optim.weight import ConstrainedWeight

_Link = tuple[dict[str, Any], str, object]
"""A dictionary of a module, one of its keys, and the child module or parameter under this key."""


class Owner(Protocol):
    """The part of the :class:`~projunn_lightning.Projector` that an attachment uses."""

    module: nn.Module
    settings: ProjUNNSettings
    on_update: OnUpdate | None

    @property
    def constraints(self) -> dict[str, Constraint]:
        """The constraints of all parameters, by name."""

    def held_by(self, optimizer: Optimizer) -> list[Pair]:
        """The constrained weights that an optimizer holds, with their parameters."""

    def choose_again(self, attachment: Attachment) -> None:
        """Choose the weights of an attachment again, because the parameters or their layouts have changed."""


class Attachment:
    """The hooks of one optimizer.

    Before a step the weights are copied. After the step the difference is the update, which is replaced by a step on
    the manifold. A step that was interrupted by an exception is undone at the next step, or by :meth:`detach`.

    Args:
        owner: the projector.
        optimizer: the optimizer.
    """

    def __init__(self, owner: Owner, optimizer: Optimizer) -> None:
        self.owner = owner
        self.settings = owner.settings
        self.optimizer = optimizer
        self.groups: list[Group] = []
        self._open: list[Group] = []  # the groups of a step that is not finished
        self._depth = 0  # the depth of nested steps
        self._coordinates: list[RemovableHandle] = []
        self.hold()
        self._register()

    def _register(self) -> None:
        """Add the hooks. They run next to the step, so that the hooks of others see the weights on the manifold."""
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before_step),
            register_first_step_post_hook(self.optimizer, self._after_step),
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Attach a copy of the projector to the copy of the optimizer. torch copies an optimizer without its hooks."""
        new = object.__new__(type(self))
        memo[id(self)] = new
        copied = ("owner", "optimizer", "pairs", "_links", "_parameters")
        vars(new).update({name: copy.deepcopy(getattr(self, name), memo) for name in copied})
        new.settings = self.settings
        new.groups = grouped(new.pairs, new.settings)
        new._layouts, new._open, new._depth, new._coordinates = self._layouts, [], 0, []
        new._note_versions()
        new._change_coordinates()
        new._register()
        return new

    def hold(self) -> None:
        """Take the weights that the optimizer holds now, and remember the parameters to notice later changes."""
        self.pairs = self.owner.held_by(self.optimizer)
        self.groups = grouped(self.pairs, self.settings)
        self._links = links_to(self.owner.module, self.owner.constraints)
        self._parameters = list(parameters_of(self.optimizer))
        self._layouts = self._present_layouts()
        self._note_versions()
        self._change_coordinates()

    def _change_coordinates(self) -> None:
        """In skew coordinates, add hooks that give the optimizer the gradients in the Lie algebra."""
        for handle in self._coordinates:
            handle.remove()
        self._coordinates = []
        if self.settings.coordinates == "skew":
            self._coordinates = [
                parameter.register_hook(partial(to_skew, weight.stack, parameter))
                for weight, parameter in self.pairs
                if parameter.requires_grad
            ]

    def unchanged(self) -> set[int]:
        """The ids of the parameters that were held at the last step, and that nobody has changed since."""
        layouts = zip(self.pairs, self._present_layouts(), self._layouts, strict=True)
        return {id(p) for (weight, p), now, before in layouts if now == before and p._version == weight.version}

    def changed_weights(self) -> list[ConstrainedWeight]:
        """The weights that somebody has changed in place since the last step; none while a step is running."""
        return [] if self._open else [weight for weight, p in self.pairs if p._version != weight.version]

    def _note_versions(self) -> None:
        for weight, parameter in self.pairs:
            weight.version = parameter._version

    def _present_layouts(self) -> list[tuple[object, ...]]:
        return [(each.dtype, each.device, each.shape, each.requires_grad) for _, each in self.pairs]

    def detach(self) -> None:
        """Remove the hooks, and undo an interrupted step."""
        for handle in (*self._handles, *self._coordinates):
            handle.remove()
        self._undo()

    @torch.no_grad()
    def _undo(self) -> None:
        if self._open:
            for group in self._open:
                group.restore()
            self._open = []
            self._note_versions()

    @torch.no_grad()
    def _before_step(self, *_: Any) -> None:
        if 0 < self._depth < hooked_steps(self.optimizer):  # a base class's step inside the step
            self._depth += 1
            return
        self._depth = 1
        self._undo()  # an earlier step has raised an exception, which was caught elsewhere
        self._refresh()
        for group in self.groups:
            group.snapshots.take()
        self._open = self.groups  # from now on there are snapshots to restore

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        self._depth = max(self._depth, 1) - 1
        if self._depth:
            return
        groups = self._open  # empty if the optimizer was attached during its step
        try:
            with full_precision():
                for group in groups:
                    group.update(self.owner.on_update)
                for group in groups:
                    group.finish()
        except BaseException:  # including KeyboardInterrupt
            self._undo()
            raise
        self._open = []
        self._note_versions()
        self._refresh()  # a parameter may have joined the optimizer in its closure

    def _refresh(self) -> None:
        if not self._changed():
            return
        reshard(self.owner.module)  # an evaluation may have left gathered parameters in the module
        if self._changed():
            self.owner.choose_again(self)
            self.hold()

    def _changed(self) -> bool:
        """Whether an object, a layout or the values of a weight have changed since the last step.

        Only changes in place that torch counts are seen, which those of ``parameter.data`` are not. This check runs
        twice in each step over all weights, so it does not look up parameters by their names.
        """
        now = list(parameters_of(self.optimizer))
        return (
            len(now) != len(self._parameters)
            or any(map(operator.is_not, now, self._parameters))
            or any(held.get(key) is not value for held, key, value in self._links)
            or self._present_layouts() != self._layouts
            or any(parameter._version != weight.version for weight, parameter in self.pairs)
        )


def to_skew(stack: Stack, parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient G of square matrices W in the coordinates of the Lie algebra, ``(W^H G - G^H W) / 2``.

    The result is linear in G. The terms of an accumulated gradient can therefore be converted one by one, and so can a
    gradient of a scaled loss or one that is averaged over processes later. Weights are updated in place, so W is the
    weight at the time of the backward pass.
    """
    with full_precision():
        w, g = stack.matrices(parameter.detach()).whole(), stack.matrices(gradient).whole()
        assert w is not None
        assert g is not None
        x = w.mH @ g
        return (0.5 * (x - x.mH)).reshape(gradient.shape)


def parameters_of(optimizer: Optimizer) -> Iterator[Tensor]:
    """The parameters of all groups of an optimizer."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def links_to(module: nn.Module, names: Iterable[str]) -> list[_Link]:
    """The links from a module to its parameters. Replacing a child module or a parameter breaks a link."""
    links: dict[tuple[int, str], _Link] = {}
    for name in names:
        *path, leaf = name.split(".")
        owner = module
        for part in path:
            while part not in owner._modules:  # a wrapper of torch.compile accepts these names
                owner = _follow(links, owner, "_orig_mod")
            owner = _follow(links, owner, part)
        while leaf not in owner._parameters:
            owner = _follow(links, owner, "_orig_mod")
        links[id(owner), leaf] = owner._parameters, leaf, owner._parameters[leaf]
    return list(links.values())


def _follow(links: dict[tuple[int, str], _Link], owner: nn.Module, part: str) -> nn.Module:
    child = owner.get_submodule(part)
    links[id(owner), part] = owner._modules, part, child
    return child
