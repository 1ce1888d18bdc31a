"""What the projector asks of torch's optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.optim import Optimizer


def parameters_of(optimizer: Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def hooks_of(optimizer: Optimizer) -> Iterable[object]:
    return optimizer._optimizer_step_pre_hooks.values()


def hooked_steps(optimizer: Optimizer) -> int:
    """How many of its classes have a step that torch has wrapped in hooks; each that is called runs them."""
    return sum(hasattr(vars(kind).get("step"), "hooked") for kind in type(optimizer).__mro__)


def unwrapped(optimizer: Optimizer) -> Optimizer:
    """The optimizer that Lightning Fabric's wrapper steps, and that is handed to the hooks."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, Optimizer) else optimizer
