"""What of a module is constrained: what it declares, and what patterns choose."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from projunn_lightning.constraint.declare import Constraint, declared, matching
from projunn_lightning.errors import ConstraintError

_COMPILED = "_orig_mod."  # what torch.compile puts into the names of what it wraps
_RAW = re.compile(r"parametrizations\.(\w+)\.original\d*$|_(?:orig|v|g)$")  # what another weight is computed from


def chosen(module: nn.Module, patterns: Iterable[str]) -> tuple[dict[str, Constraint], set[str]]:
    """The constraints of a module by parameter name, and the names of those among them that modules declare.

    Names are those that the user knows: without what ``torch.compile`` puts into them.

    Raises:
        ConstraintError: if a pattern matches nothing, or a weight is no parameter but computed from one.
    """
    patterns = list(_with_compiled_names(module, patterns))
    own = declared(module)
    _refuse_computed(module, [*own, *patterns])
    found = {**own, **matching(module, patterns)}
    return {_plain(name): constraint for name, constraint in found.items()}, {_plain(name) for name in own}


def _plain(name: str) -> str:
    return name.replace(_COMPILED, "")  # which the compiled module also answers to


def _with_compiled_names(module: nn.Module, patterns: Iterable[str]) -> Iterable[str]:
    """Each pattern, unless all it matches are plain names of compiled parameters; and these by their full names."""
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        compiled = [name for name in names if _COMPILED in name and fnmatchcase(_plain(name), pattern)]
        yield from compiled
        if not compiled or any(fnmatchcase(name, pattern) for name in names):
            yield pattern


def _refuse_computed(module: nn.Module, wanted: list[str]) -> None:
    """Refuse weights that a parametrization, one of the older norms or pruning computes from others."""
    for raw, _ in module.named_parameters(remove_duplicate=False):
        name = _RAW.sub(r"\1", raw)
        prefix, _, leaf = name.rpartition(".")
        if name == raw or not ("parametrizations." in raw or leaf in vars(module.get_submodule(prefix))):
            continue
        if any(fnmatchcase(each, pattern) for each in (name, raw) for pattern in wanted):
            raise ConstraintError(
                f"{name} is computed from {raw} by a parametrization, a weight norm or pruning, and so cannot be "
                "constrained: undo that (projunn_lightning.from_parametrized for an orthogonal parametrization, "
                "torch.nn.utils.parametrize.remove_parametrizations for others, torch.nn.utils.prune.remove), or leave "
                "the weight out of what is constrained"
            )
