"""The choice of constrained parameters: modules declare them, and glob patterns choose them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from torch import nn

from projunn_lightning._compat import plain_name
from projunn_lightning.constraint.check import check, is_vector
from projunn_lightning.constraint.known import constraint_on, refuse_renormalised
from projunn_lightning.constraint.patterns import matches
from projunn_lightning.constraint.record import Chunks, Constraint, declared, owner_of
from projunn_lightning.errors import ConstraintError

_RAW = re.compile(r"parametrizations\.(\w+)\.original\d*$|_(?:orig|v|g)$")  # parameters from which a weight is computed


def select(module: nn.Module, patterns: Iterable[str], chunks: Chunks | None = None) -> dict[str, Constraint]:
    """The constraints of a module by parameter name: the declared constraints and those that patterns choose.

    The names do not include the part that ``torch.compile`` puts into them. The arguments are those of
    :func:`matching`.

    Raises:
        ConstraintError: see :func:`matching`.
    """
    own = declared(module)
    _refuse_computed(module, own)
    return {plain_name(name): constraint for name, constraint in own.items()} | matching(module, patterns, chunks)


def matching(module: nn.Module, patterns: Iterable[str], chunks: Chunks | None = None) -> dict[str, Constraint]:
    """The constraints that patterns choose among ``module.named_parameters()``, by name as in :func:`select`.

    Parameters of fewer than two dimensions are left out, see :func:`left_out`.

    Args:
        module: the module that has the parameters.
        patterns: patterns over the names of the parameters, see :func:`~projunn_lightning.constraint.matches`.
        chunks: how the chosen parameters are taken apart. None: as they are declared by
            :func:`~projunn_lightning.orthogonal`, or as :func:`~projunn_lightning.constraint.constraint_on` knows.

    Raises:
        ConstraintError: if a pattern matches no matrix (the message lists near misses), if a matrix cannot be
            constrained or has been declared with other chunks, or if a weight is not a parameter but is computed from
            one.
    """
    patterns = list(patterns)
    _refuse_computed(module, patterns)
    names = dict(module.named_parameters(remove_duplicate=False))
    known = declared(module)
    found: dict[str, Constraint] = {}
    for pattern in patterns:
        for name in _matrices(type(module).__name__, names, pattern):
            plain = plain_name(name)
            owner, leaf = owner_of(module, name)
            refuse_renormalised(plain, owner)
            constraint = known.get(name) if chunks is None else None
            found[plain] = constraint or constraint_on(owner, leaf, chunks)
            _refuse_contradiction(plain, known.get(name), found[plain])
            check(plain, names[name], found[plain])
    return found


def left_out(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The names of the parameters that patterns match and that are not constrained, because they are not matrices."""
    parameters = module.named_parameters(remove_duplicate=False)
    vectors = [name for name, parameter in parameters if is_vector(parameter)]
    return [plain_name(name) for name in vectors if any(matches(name, pattern) for pattern in patterns)]


def _matrices(module: str, names: dict[str, nn.Parameter], pattern: str) -> list[str]:
    """The names of the matrices that a pattern matches, which must be at least one."""
    matched = [name for name in names if matches(name, pattern)]
    matrices = [name for name in matched if not is_vector(names[name])]
    if not matrices:
        others = [plain_name(name) for name, parameter in names.items() if not is_vector(parameter)]
        near = difflib.get_close_matches(pattern, others, n=3, cutoff=0.4) or others[:10]
        misses = ", ".join(near) or "none, it has no matrices"
        if not matched:
            raise ConstraintError(f"the pattern {pattern!r} matches no parameter of {module}; near misses: {misses}")
        vectors = ", ".join(f"{plain_name(name)} has shape {tuple(names[name].shape)}" for name in matched[:3])
        raise ConstraintError(
            f"the pattern {pattern!r} matches only parameters of {module} that are no matrices: {vectors}; "
            f"near misses: {misses}"
        )
    return matrices


def _refuse_contradiction(name: str, declaration: Constraint | None, asked: Constraint) -> None:
    if declaration is not None and declaration.stacks != asked.stacks:
        raise ConstraintError(
            f"{name} is declared orthogonal with chunks={declaration.chunks}, and a pattern with chunks={asked.chunks} "
            "chooses it: give the chunks in one place"
        )


def _refuse_computed(module: nn.Module, wanted: Collection[str]) -> None:
    """Refuse weights that a parametrization, an old-style weight norm or pruning computes from other parameters."""
    for raw, _ in module.named_parameters(remove_duplicate=False):
        name = _RAW.sub(r"\1", raw)
        prefix, _, leaf = name.rpartition(".")
        if name == raw or not ("parametrizations." in raw or leaf in vars(module.get_submodule(prefix))):
            continue
        if any(matches(each, pattern) for each in (name, raw) for pattern in wanted):
            raise ConstraintError(
                f"{name} is computed from {raw} by a parametrization, a weight norm or pruning, and so cannot be "
                "constrained: undo this (projunn_lightning.from_parametrized for an orthogonal parametrization, "
                "torch.nn.utils.parametrize.remove_parametrizations for others, torch.nn.utils.prune.remove), or leave "
                "the weight out of what is constrained"
            )
