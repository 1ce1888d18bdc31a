"""The private names of torch, Lightning and jsonargparse that this package uses, each behind a function that names it.

Lightning and jsonargparse are imported inside the functions: the layers below them import torch only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

# ---- torch ----


def foreach_copy_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """``torch._foreach_copy_``: copy each source to its target, in one call; torch has no public name for it."""
    torch._foreach_copy_(list(targets), list(sources))


def step_pre_hooks(optimizer: Optimizer) -> list[object]:
    """``Optimizer._optimizer_step_pre_hooks``: the hooks registered before steps; they can only be added publicly."""
    return list(optimizer._optimizer_step_pre_hooks.values())


def hooked_steps(optimizer: Optimizer) -> int:
    """The number of classes of an optimizer with a ``step`` that torch has wrapped in hooks (``step.hooked``).

    Each of them that is called runs the hooks, so that a ``step`` that calls the ``step`` of its base class runs them
    twice.
    """
    return sum(hasattr(vars(kind).get("step"), "hooked") for kind in type(optimizer).__mro__)
