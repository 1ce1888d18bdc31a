"""The choice of constrained parameters: modules declare them, and glob patterns choose them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from torch import nn

from projunn_lightning.constraint.check import check
from projunn_lightning.constraint.record import Constraint, declared
from projunn_lightning.errors import ConstraintError

# The stacked weights of torch's own modules: (module, parameter, number of matrices along dim 0).
_STACKED: tuple[tuple[type[nn.Module], str, int], ...] = (
    (nn.LSTM, "weight_[ih]h_l*", 4),
    (nn.LSTMCell, "weight_[ih]h", 4),
    (nn.GRU, "weight_[ih]h_l*", 3),
    (nn.GRUCell, "weight_[ih]h", 3),
    (nn.MultiheadAttention, "in_proj_weight", 3),
)
_COMPILED = "_orig_mod."  # torch.compile puts this into the names of the parameters of a wrapped module
_RAW = re.compile(r"parametrizations\.(\w+)\.original\d*$|_(?:orig|v|g)$")  # parameters from which a weight is computed


def select(module: nn.Module, patterns: Iterable[str]) -> dict[str, Constraint]:
    """The constraints of a module by parameter name: the declared constraints and those that patterns choose.

    The names do not include the part that ``torch.compile`` puts into them.

    Raises:
        ConstraintError: if a pattern matches nothing, or if a weight is not a parameter but is computed from one.
    """
    own = declared(module)
    _refuse_computed(module, own)
    return {plain_name(name): constraint for name, constraint in own.items()} | matching(module, patterns)


def matching(module: nn.Module, patterns: Iterable[str]) -> dict[str, Constraint]:
    """The constraints that glob patterns choose among ``module.named_parameters()``, by name as in :func:`select`.

    The stacked weights of ``nn.LSTM``, ``nn.GRU`` and ``nn.MultiheadAttention`` are viewed as one matrix for each gate
    or projection, unless :func:`~projunn_lightning.orthogonal` has declared them otherwise.

    Args:
        module: the module that has the parameters.
        patterns: glob patterns over the names of the parameters.

    Raises:
        ConstraintError: if a pattern matches no parameter (the message lists near misses), if it matches a parameter
            that is not a matrix, or if a weight is not a parameter but is computed from one.
    """
    patterns = list(_with_compiled_names(module, patterns))
    _refuse_computed(module, patterns)
    names = dict(module.named_parameters(remove_duplicate=False))
    known = declared(module)
    found: dict[str, Constraint] = {}
    for pattern in patterns:
        for name in _matches(type(module).__name__, names, pattern):
            constraint = known.get(name) or _constraint_of(module, name)
            check(name, names[name], constraint)
            found[plain_name(name)] = constraint
    return found


def _matches(module: str, names: dict[str, nn.Parameter], pattern: str) -> list[str]:
    matches = [name for name in names if fnmatchcase(name, pattern)]
    if not matches:
        matrices = [name for name, parameter in names.items() if parameter.ndim >= 2]
        near = difflib.get_close_matches(pattern, matrices, n=3, cutoff=0.4) or matrices[:10]
        raise ConstraintError(
            f"the pattern {pattern!r} matches no parameter of {module}; "
            f"near misses: {', '.join(near) or 'none, it has no matrices'}"
        )
    return matches


def plain_name(name: str) -> str:
    """A parameter's name without the part that ``torch.compile`` puts in. The compiled module accepts it, too."""
    return name.replace(_COMPILED, "")


def _constraint_of(module: nn.Module, name: str) -> Constraint:
    prefix, _, leaf = name.rpartition(".")
    owner = module.get_submodule(prefix)
    chunks = next((c for kind, glob, c in _STACKED if isinstance(owner, kind) and fnmatchcase(leaf, glob)), 1)
    return Constraint.on(owner, chunks)


def _with_compiled_names(module: nn.Module, patterns: Iterable[str]) -> Iterable[str]:
    """Yield the full names of compiled parameters whose plain names match, and the patterns themselves.

    A pattern that matches only plain names of compiled parameters is left out.
    """
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        compiled = [name for name in names if _COMPILED in name and fnmatchcase(plain_name(name), pattern)]
        yield from compiled
        if not compiled or any(fnmatchcase(name, pattern) for name in names):
            yield pattern


def _refuse_computed(module: nn.Module, wanted: Collection[str]) -> None:
    """Refuse weights that a parametrization, an old-style weight norm or pruning computes from other parameters."""
    for raw, _ in module.named_parameters(remove_duplicate=False):
        name = _RAW.sub(r"\1", raw)
        prefix, _, leaf = name.rpartition(".")
        if name == raw or not ("parametrizations." in raw or leaf in vars(module.get_submodule(prefix))):
            continue
        if any(fnmatchcase(each, pattern) for each in (name, raw) for pattern in wanted):
            raise ConstraintError(
                f"{name} is computed from {raw} by a parametrization, a weight norm or pruning, and so cannot be "
                "constrained: undo this (projunn_lightning.from_parametrized for an orthogonal parametrization, "
                "torch.nn.utils.parametrize.remove_parametrizations for others, torch.nn.utils.prune.remove), or leave "
                "the weight out of what is constrained"
            )
